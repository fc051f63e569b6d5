"""What the tests share: real data, a tiny trained model, and a way to run the command line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from groundup.cli import main
from groundup.config import ModelConfig
from groundup.facts import NAME, Facts
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.weights.checkpoint import save_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TEXT = (
    "The quick brown fox jumps over the lazy dog. A model learns what follows what: "
    "after the quick comes the brown, after the brown comes the fox. Näive café, 日本語, 🙂!\n"
)


# Commands that tests run as processes of their own: one thread each, beside the other workers'.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models are faster on one thread, and far faster where other processes run too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def all_cores(_one_thread: None) -> None:
    """For the few tests whose model is big."""
    torch.set_num_threads(os.cpu_count() or 1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real texts."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    if not folder:
        pytest.skip("GROUNDUP_TEST_DATA does not name the folder with the real texts")
    return Path(folder)


@pytest.fixture(scope="session")
def tokenizer() -> BPETokenizer:
    """A small tokenizer."""
    return BPETokenizer.train(TEXT * 3, 300)


def tiny_config(**changes: object) -> ModelConfig:
    """A model of some thousand parameters."""
    base = ModelConfig(
        vocab_size=300,
        context_length=16,
        emb_dim=32,
        n_heads=4,
        n_layers=2,
        drop_rate=0.0,
        qkv_bias=True,
        tie_weights=True,
    )
    return base.replace(**changes)


ARCHITECTURES = {
    "gpt2": tiny_config(),
    "llama": tiny_config(
        norm="rms",
        rope=True,
        feed_forward="swiglu",
        hidden_dim=48,
        n_kv_heads=2,
        qkv_bias=False,
        attn_bias=False,
        mlp_bias=False,
    ),
    "qwen3": tiny_config(
        norm="rms",
        norm_eps=1e-6,
        rope=True,
        feed_forward="swiglu",
        hidden_dim=48,
        n_kv_heads=1,
        head_dim=16,
        qk_norm=True,
        qkv_bias=False,
        attn_bias=False,
        mlp_bias=False,
        tie_weights=False,
    ),
}
"""One tiny shape of each architecture that has one."""


def facts_of(directory: Path) -> Facts:
    """What a directory's ``groundup.json`` says."""
    facts = Facts.read(directory)
    assert facts is not None
    return facts


LAST = "checkpoints/last"


def unvouched(directory: Path) -> Path:
    """Take the SHA-256 out of ``groundup.json``, so that a test may change the files."""
    path = directory / NAME
    values = json.loads(path.read_text("utf-8"))
    del values["sha256"], values["digests"]
    path.write_text(json.dumps(values), "utf-8")
    return directory


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    from tests.browser import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def model_dir(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    """A saved model with random weights."""
    torch.manual_seed(1)
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)).init_gpt2()
    save_model(tmp_path / "model", model, tokenizer)
    return tmp_path / "model"


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A text of some thousand characters."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 30, encoding="utf-8")
    return path


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may become larger than 100 kB, as on a disk that is full then."""
    resource = pytest.importorskip("resource", reason="this system sets no limits to files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@dataclass
class Result:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``groundup`` with these arguments, in this process."""

    def call(*args: object) -> Result:
        capsys.readouterr()
        status = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run ``groundup``, check that it refuses in one sentence, and return that sentence."""

    def call(*args: object) -> str:
        result = run(*args)
        assert result.status == 2, result
        lines = [line for line in result.err.splitlines() if line.startswith("groundup: ")]
        assert len(lines) == 1, result.err
        assert "Traceback" not in result.err
        return lines[0].removeprefix("groundup: ")

    return call


SMALL = (
    "--emb-dim=32 --n-heads=4 --n-layers=2 --context-length=16 --vocab-size=300 --batch-size=4 "
    "--sample-tokens=0 --precision=fp32"
).split()
"""Options of a model that trains in a moment."""


def small(*changes: str) -> list[str]:
    """``SMALL`` with some options replaced or added."""
    changed = {option.split("=")[0] for option in changes}
    return [option for option in SMALL if option.split("=")[0] not in changed] + list(changes)

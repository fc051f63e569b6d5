import socket
from pathlib import Path

import pytest

from groundup.doctor import examine


def find(name: str, *, network: bool = False):
    return next(check for check in examine(network=network) if check.name == name)


def test_everything_is_looked_at() -> None:
    names = [check.name for check in examine(network=False)]
    assert names == [
        "python",
        "packages",
        "device",
        "cpu",
        "gpt2 tokens",
        "disk",
        "temp",
        "network",
    ]


def test_offline_is_a_note_and_says_what_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise OSError(111, "Connection refused")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(socket, "create_connection", refuse)
    check = find("network", network=True)
    assert check.level == "note"
    assert "Connection refused" in check.found and "HTTPS_PROXY" in check.found
    assert "work offline" in check.fix


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name == "tokenizers":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    problems = [c for c in examine(network=False) if c.level == "problem"]
    assert [c.found for c in problems] == ["missing: tokenizers"]
    assert problems[0].fix


def test_a_damaged_vocabulary_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("vocab.bpe", "encoder.json"):
        (tmp_path / name).write_text("junk", "utf-8")
    monkeypatch.setenv("GROUNDUP_GPT2_VOCAB", str(tmp_path))
    check = find("gpt2 tokens")
    assert check.level == "problem" and "SHA-256" in check.found and check.fix


def test_too_many_threads_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 999)
    check = find("cpu")
    assert check.level == "note" and "OMP_NUM_THREADS" in check.fix

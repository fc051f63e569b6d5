"""``groundup download``: paths on stdout, all else on stderr, every mistake in one sentence."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.cli.app import app
from groundup.data import transfer
from groundup.data.sources import DATA, MODELS
from tests.conftest import Run
from tests.data.fault_server import FaultServer, allow_network, closed_port, cut, status

VERDICT = b"I had always thought Jack Gisburn rather a cheap genius. " * 2000
HALF = 2**16


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultServer]:
    """A server that has two small data sets; the cache is an empty folder."""
    import groundup.cli.download  # the command line may not have it yet

    assert groundup.cli.download and app["download"]
    allow_network(monkeypatch)
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "sleep", lambda seconds: None)
    with FaultServer() as running:
        for name in ("the-verdict", "instructions"):
            url = running.serve(f"/{name}", VERDICT)
            digest = hashlib.sha256(VERDICT).hexdigest()
            known = replace(DATA[name], urls=(url,), size=len(VERDICT), sha256=digest)
            monkeypatch.setitem(DATA, name, known)
        yield running


def verdict(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "data" / "the-verdict.txt"


def test_stdout_is_the_path(server: FaultServer, run: Run, tmp_path: Path) -> None:
    result = run("download", "the-verdict")
    assert (result.status, result.out) == (0, f"{verdict(tmp_path)}\n")
    assert result.err == "downloading the-verdict.txt from 127.0.0.1, 0.1 MB\n"
    assert verdict(tmp_path).read_bytes() == VERDICT


def test_a_second_time_nothing_is_asked(server: FaultServer, run: Run, tmp_path: Path) -> None:
    run("download", "the-verdict")
    result = run("download", "the-verdict")
    assert (result.status, result.out) == (0, f"{verdict(tmp_path)}\n")
    assert result.err == "the-verdict is here already\n"
    assert len(server.asked) == 1
    run("download", "the-verdict", "--overwrite")
    assert len(server.asked) == 2


def test_several_names(server: FaultServer, run: Run, tmp_path: Path) -> None:
    result = run("download", "the-verdict", "instructions", "--cache-dir", tmp_path / "here")
    folder = tmp_path / "here" / "data"
    assert result.out == f"{folder / 'the-verdict.txt'}\n{folder / 'instruction-data.json'}\n"


def test_a_broken_transfer_is_mended(server: FaultServer, run: Run, tmp_path: Path) -> None:
    server.files["/the-verdict"].faults.extend([cut(HALF), status(500), cut(0)])
    result = run("download", "the-verdict")
    assert result.status == 0
    assert result.err.count("trying again in") == 3
    assert "going on after 0.1 MB" in result.err
    assert verdict(tmp_path).read_bytes() == VERDICT
    assert [asked.range for asked in server.asked] == [None, *[f"bytes={HALF}-"] * 3]


def test_a_damaged_file_is_mended(server: FaultServer, run: Run, tmp_path: Path) -> None:
    verdict(tmp_path).parent.mkdir(parents=True)
    verdict(tmp_path).write_bytes(VERDICT[:100])
    result = run("download", "the-verdict")
    assert f"has 100 bytes; expected {len(VERDICT):,}; getting it anew" in result.err
    assert verdict(tmp_path).read_bytes() == VERDICT


@pytest.mark.parametrize("body", [b"<html>log in first</html>", VERDICT[:-1] + b"?"])
def test_wrong_bytes_are_refused(
    server: FaultServer, fails: Callable[..., str], tmp_path: Path, body: bytes
) -> None:
    server.files["/the-verdict"].body = body
    assert "cannot download the-verdict.txt (127.0.0.1: " in fails("download", "the-verdict")
    assert not verdict(tmp_path).exists()


def test_by_hand(server: FaultServer, run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "mine.txt").write_bytes(VERDICT)
    result = run("download", "the-verdict", "--from-file", tmp_path / "mine.txt")
    assert (result.status, result.out, result.err) == (0, f"{verdict(tmp_path)}\n", "")
    assert verdict(tmp_path).read_bytes() == VERDICT
    assert not server.asked


@pytest.mark.parametrize("host", ["127.0.0.1", "groundup.invalid"])
def test_offline(server, fails: Callable[..., str], monkeypatch, host: str, tmp_path) -> None:
    url = f"http://{host}:{closed_port()}/the-verdict.txt"
    monkeypatch.setitem(DATA, "the-verdict", replace(DATA["the-verdict"], urls=(url,)))
    message = fails("download", "the-verdict")
    why = "connection refused" if host == "127.0.0.1" else "the name does not resolve"
    assert message == (
        f"cannot reach a server that has the-verdict.txt ({host}: {why}; no proxy variable is "
        f"set); get {url} by hand and run groundup download the-verdict --from-file FILE; demo, "
        "pretrain, generate with a model directory, inspect, tokenizer and plot work offline"
    )
    assert not verdict(tmp_path).exists()


def test_mistakes(server: FaultServer, fails: Callable[..., str], tmp_path: Path) -> None:
    everything = ", ".join([*MODELS, *DATA])
    assert fails("download") == f"name what to download: {everything}"
    assert "did you mean 'sms-spam'?" in fails("download", "the-verdict", "sms_spam")
    assert "--from-file takes one name" in fails(
        "download", "the-verdict", "sms-spam", "--from-file", tmp_path
    )
    assert "is for models" in fails("download", "the-verdict", "--source", "openai")
    assert "hub" in fails("download", "gpt2", "--source", "torrent")
    assert not server.asked
    assert not (tmp_path / "cache").exists()


def test_importing_it_costs_no_http_library() -> None:
    code = (
        "import sys, groundup.data.download, groundup.cli.download; "
        "sys.exit(bool({'requests', 'huggingface_hub', 'torch', 'tqdm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

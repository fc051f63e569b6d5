"""Runs that ``torchrun`` starts: mistakes are told once, and killed workers are replaced."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from groundup.train.state import FOLDER, TENSORS
from groundup.train.tracking import read_metrics
from tests.conftest import LAST, TEXT
from tests.train.together import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
SHAPE = "--emb-dim 32 --n-layers 1 --n-heads 4 --context-length 16 --vocab-size 300".split()
HOW = "--sample-tokens 0 --eval-freq 40 --eval-iter 2 --batch-size 4 --drop-rate 0.1".split()


def torchrun(
    *args: object, nodes: int = 1, module: str = "groundup", restarts: int = 2
) -> list[subprocess.Popen[str]]:
    """Start two processes of ``groundup``, by one agent or as two nodes with one each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    layout = ["--nnodes", str(nodes), "--nproc-per-node", str(2 // nodes)]
    layout += ["--max-restarts", str(restarts)]
    command = [*TORCHRUN, *meet, *layout, "-m", module, *map(str, args)]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        for _ in range(nodes)
    ]


@pytest.fixture(autouse=True)
def torchruns_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves a directory of logs behind."""
    (tmp_path / "torchrun").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "torchrun"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 60, encoding="utf-8")
    return path


def test_a_mistake_of_all_is_told_once(tmp_path: Path) -> None:
    (agent,) = torchrun("pretrain", tmp_path / "none.txt", "--out", tmp_path / "run")
    printed, _ = agent.communicate(timeout=120)
    assert agent.returncode != 0
    told = [line for line in printed.splitlines() if line.startswith("groundup: ")]
    assert told == [f"groundup: there is no file '{tmp_path / 'none.txt'}'"]
    assert not (tmp_path / "run").exists()


def test_who_tells_is_left_to_end(tmp_path: Path) -> None:
    """Torchrun ends the others when one has ended: one of them may be about to speak for all."""
    command = ["slowly", "pretrain", tmp_path / "none.txt", "--out", tmp_path / "run"]
    (agent,) = torchrun(*command, module="tests.train.failing", restarts=0)
    printed, _ = agent.communicate(timeout=120)
    assert f"groundup: there is no file '{tmp_path / 'none.txt'}'" in printed


@pytest.mark.parametrize("shared", ["0", "1"])
def test_a_restarted_run_takes_over_nobodys_model(
    model_dir: Path, text: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """The launcher tries again after the refusal, with its own store or a new one; so do we."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", shared)
    before = {path: path.read_bytes() for path in model_dir.iterdir()}
    (agent,) = torchrun("pretrain", text, *SHAPE, *HOW, "--out", model_dir, restarts=1)
    printed, _ = agent.communicate(timeout=120)
    assert agent.returncode != 0 and f"groundup: {model_dir} exists; use" in printed
    assert {path: path.read_bytes() for path in model_dir.iterdir()} == before


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("loudly", "this process has no more room"),
        ("silently", "another process of the run has died (killed, or out of memory?), and"),
    ],
)
def test_one_failing_process_ends_all(tmp_path: Path, text: Path, how: str, sentence: str) -> None:
    """With its own sentence, or that of another if it died without a word; not by a timeout."""
    command = [how, "pretrain", text, *SHAPE, *HOW, "--max-steps", "200", "--save-freq", "2"]
    command += ["--out", tmp_path / "run"]
    (agent,) = torchrun(*command, module="tests.train.failing", restarts=0)
    printed, _ = agent.communicate(timeout=120)
    assert agent.returncode != 0
    told = [line for line in printed.splitlines() if line.startswith("groundup: ")]
    assert len(told) == 1 and told[0].startswith(f"groundup: {sentence}"), printed
    assert 1 < len(read_metrics(tmp_path / "run")) < 9
    assert printed.count("Traceback (most recent") == 1  # torchrun's own


def test_two_nodes_outlive_a_killed_worker(tmp_path: Path, text: Path) -> None:
    """The launcher begins anew, the run goes on where it was saved, and ends as if undisturbed."""
    command = ["pretrain", text, *SHAPE, *HOW, "--max-steps", "160", "--save-freq", "20"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    agents = torchrun(*command, "--out", killed, nodes=2)
    metrics = killed / "metrics.jsonl"
    until = time.monotonic() + 120
    while not metrics.exists() or metrics.read_text("utf-8").count("\n") < 50:
        assert time.monotonic() < until and all(agent.poll() is None for agent in agents)
        time.sleep(0.02)
    (worker,) = psutil.Process(agents[1].pid).children()
    worker.kill()
    printed = [agent.communicate(timeout=240)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], printed
    assert "done after 160 steps" in "".join(printed)
    (alone,) = torchrun(*command, "--out", whole)
    printed = alone.communicate(timeout=240)[0]
    assert alone.returncode == 0, printed
    for name in ("model.safetensors", f"{FOLDER}/{TENSORS}"):
        ours, theirs = (load_file(run / LAST / name) for run in (killed, whole))
        assert sorted(ours) == sorted(theirs)
        assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    of_time = ("seconds", "tokens_per_second")
    ours, theirs = (
        [{n: v for n, v in r.items() if n not in of_time} for r in read_metrics(run)]
        for run in (killed, whole)
    )
    assert ours == theirs

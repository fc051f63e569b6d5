"""A run as a training leaves it, made in a moment; and a server that a browser can reach."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn

from groundup.facts import Facts, Schedule
from groundup.serve.app import make_app
from groundup.serve.config import ServeConfig
from groundup.serve.models import Models, Served
from groundup.tokenizers import BPETokenizer
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model
from tests.assistants import lively_model

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\u202e\x1b[31m"
STEPS = (1, 3, 10)


def record(step: int, **more: Any) -> dict[str, Any]:
    """A line of measurements."""
    told = {"step": step, "epoch": step / 10, "tokens_seen": 64 * step, "loss": 6.0 / step}
    return told | {"learning_rate": 1e-3, "grad_norm": 1.0, "seconds": 0.1 * step} | more


def append(path: Path, *rows: dict[str, Any]) -> None:
    """Write lines as a run does."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def made_run(out: Path, tokenizer: BPETokenizer, steps: Sequence[int] = STEPS) -> Path:
    """A run of ten steps with a snapshot of each of ``steps``, all of different weights."""
    facts = Facts(task="pretrain", options={"start_context": "The quick"})
    facts.schedule = Schedule(total_steps=10)
    for step in steps:
        torch.manual_seed(step)
        model = lively_model(tokenizer)
        save_model(out / "history" / f"step-{step:06}", model, tokenizer, facts, half=True)
    save_model(out, lively_model(tokenizer), tokenizer, facts)
    for step in range(1, 11):
        append(out / "metrics.jsonl", record(step))
        if step % 5 == 0:
            append(
                out / "metrics.jsonl", record(step, running_loss=7.0 / step, val_loss=8.0 / step)
            )
            sample = {"step": step, "epoch": 0.5, "prompt": "The quick", "text": f" {step} {EVIL}"}
            append(out / "samples.jsonl", sample)
    return out


def served_run(out: Path, name: str = "demo") -> Served:
    """It, served."""
    model, tokenizer = load_model(out)
    return Served.of(name, model, tokenizer, directory=out)


@contextmanager
def listening(*served: Served) -> Iterator[str]:
    """A server in a thread of its own; yields its address."""
    config = uvicorn.Config(make_app(Models(served), ServeConfig()), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()

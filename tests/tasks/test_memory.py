"""A run that won't fit says so before it begins; one that didn't says what would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.errors import UserError
from groundup.tasks import memory
from groundup.tasks.pretrain import pretrain
from groundup.train.trainer import Trainer
from tests.conftest import SMALL, TEXT, Run

OPTIONS = {
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "context_length": 16,
    "vocab_size": 300,
    "batch_size": 12,
    "max_steps": 2,
    "sample_tokens": 0,
    "precision": "fp32",
    "threads": 1,
}


def run(out: Path, **changes: Any) -> str:
    """Pretrain; return what was said."""
    said: list[str] = []
    pretrain([TEXT * 20], out, OPTIONS | changes, say=said.append)
    return "\n".join(said)


def free(monkeypatch: pytest.MonkeyPatch, size: float | None) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: size)


STATE = 16 * 36_000
"""Bytes of OPTIONS' model in training, about."""


def test_a_run_that_will_not_fit_is_told_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 1.6e6)
    said = run(tmp_path / "out")
    note = next(line for line in said.splitlines() if line.startswith("note: by the plan"))
    assert "more, but cpu has 0.00 GiB free; if memory runs out: the same global batch in" in note
    size, count = (int(note.split(f"--{name} ")[1].split()[0].rstrip(";")) for name in FLAGS)
    assert size * count == 12 and size < 12
    assert (tmp_path / "out" / "model.safetensors").exists()  # it is a warning only


FLAGS = ("batch-size", "grad-accum-steps")


@pytest.mark.parametrize("size", [None, 4e9])
def test_a_run_that_fits_or_a_device_that_says_nothing_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: float | None
) -> None:
    def count(*args: object) -> int:
        raise AssertionError("it takes seconds")

    monkeypatch.setattr(memory, "activation_bytes_of", count)
    free(monkeypatch, size)
    assert "by the plan" not in run(tmp_path / "out")


def test_peeking_at_a_batch_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, None)
    run(tmp_path / "a")
    free(monkeypatch, 1.0)
    run(tmp_path / "b")
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


def fail_with(error: Exception) -> Callable[..., None]:
    def fit(self: Trainer) -> None:
        raise error

    return fit


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_names_a_smaller_micro_batch_with_the_same_global_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Trainer, "fit", fail_with(error))
    free(monkeypatch, 1e12)
    with pytest.raises(
        UserError, match="--batch-size 6 --grad-accum-steps 4; or --activation-checkpointing"
    ) as raised:
        run(tmp_path / "out", grad_accum_steps=2)
    assert raised.value.__cause__ is error
    free(monkeypatch, None)
    with pytest.raises(
        UserError, match="--batch-size 6 --grad-accum-steps 2; or --activation-checkpointing"
    ):
        run(tmp_path / "out2")
    free(monkeypatch, 1.0)  # whatever is done
    with pytest.raises(
        UserError, match="--batch-size 1 --grad-accum-steps 12; or --activation-checkpointing"
    ):
        run(tmp_path / "out3")


def test_the_named_batch_is_the_largest_that_the_plan_lets_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "fit", fail_with(MemoryError()))
    monkeypatch.setattr(memory, "activation_bytes_of", lambda m, n, *_, **__: n * 10**6)
    monkeypatch.setattr(memory, "logits_bytes", lambda *rest: 0)
    free(monkeypatch, STATE + 4.2e6)
    with pytest.raises(
        UserError, match="--batch-size 4 --grad-accum-steps 3; or --activation-checkpointing"
    ):
        run(tmp_path / "out")


def test_a_single_text_needs_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "fit", fail_with(MemoryError()))
    with pytest.raises(
        UserError, match="one text only, so try --activation-checkpointing, shorter ones"
    ):
        run(tmp_path / "out", batch_size=1)


def test_a_run_that_goes_on_keeps_its_batches_so_another_one_is_named(
    run: Run, fails: Callable[..., str], tmp_path: Path, text_file: Path, monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    assert run("pretrain", text_file, "--out", out, *SMALL, "--max-steps=1").status == 0
    monkeypatch.setattr(Trainer, "fit", fail_with(OUT_OF_MEMORY[0]))
    message = fails("pretrain", text_file, "--out", out, "--resume", "--max-steps=2")
    assert "--batch-size 2 --grad-accum-steps 2 (a run that goes on keeps" in message
    assert f"use --init-from {out}" in message
    assert (out / "checkpoints" / "last" / "model.safetensors").exists()


def test_other_errors_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "fit", fail_with(RuntimeError("shapes don't match")))
    with pytest.raises(RuntimeError, match="shapes don't match"):
        run(tmp_path / "out")

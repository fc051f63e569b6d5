"""Every option of pretraining reaches what it is for."""

from pathlib import Path
from typing import Any

import pytest
import torch

import groundup.tasks.run as task
from groundup.errors import UserError
from groundup.tasks.config import PretrainConfig
from groundup.tasks.pretrain import pretrain
from groundup.train.interrupt import StopRequest
from groundup.train.tracking import is_evaluation, read_metrics
from groundup.train.trainer import Record, Trainer
from groundup.weights.load import load_model
from tests.conftest import TEXT, facts_of

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "context_length": 16,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.0,
}


BASE: dict[str, Any] = {
    "batch_size": 4,
    "eval_freq": 50,
    "sample_tokens": 0,
    "precision": "fp32",
}


def run(out: Path, documents: list[str] | None = None, **changes: Any) -> list[Record]:
    """Train a few steps; return the steps' records."""
    options: dict[str, Any] = BASE | {"max_steps": 6} | changes
    config = PretrainConfig(**options)
    pretrain(documents or [TEXT * 20], out, config, SHAPE, say=lambda text: None)
    return [r for r in read_metrics(out) if not is_evaluation(r)]


def test_the_schedule(tmp_path: Path) -> None:
    rates = [
        r["learning_rate"]
        for r in run(tmp_path / "a", learning_rate=1.0, min_learning_rate=0.1, warmup_steps=2)
    ]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0]) and rates[-1] == pytest.approx(0.1)
    constant = run(tmp_path / "b", learning_rate=1e-3, warmup_steps=0, lr_schedule="constant")
    assert {r["learning_rate"] for r in constant} == {1e-3}


def test_accumulation_and_batch_size(tmp_path: Path) -> None:
    records = run(tmp_path / "a", grad_accum_steps=3)
    assert [r["tokens_seen"] for r in records] == [3 * 4 * 16 * n for n in range(1, 7)]


def test_clipping(tmp_path: Path) -> None:
    free = run(tmp_path / "a", grad_clip=0.0)
    clipped = run(tmp_path / "b", grad_clip=1e-4)
    assert free[0]["loss"] == clipped[0]["loss"] and free[-1]["loss"] != clipped[-1]["loss"]


def test_weight_decay_and_betas(tmp_path: Path) -> None:
    base = run(tmp_path / "a", learning_rate=1e-2)
    changes: list[dict[str, Any]] = [{"weight_decay": 5.0}, {"beta1": 0.1}, {"beta2": 0.5}]
    for number, change in enumerate(changes):
        other = run(tmp_path / f"b{number}", learning_rate=1e-2, **change)
        assert other[0]["loss"] == base[0]["loss"]
        assert other[-1]["loss"] != base[-1]["loss"], change


def test_the_seed(tmp_path: Path) -> None:
    losses = [[r["loss"] for r in run(tmp_path / str(i), seed=s)] for i, s in enumerate((1, 1, 2))]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("init", "std"), [("gpt2", 0.02), ("pytorch", 1.0)])
def test_the_initialisation(tmp_path: Path, init: Any, std: float) -> None:
    # Untied: a tied model begins at GPT-2's scale whatever the initialisation.
    config = PretrainConfig(
        **BASE, init=init, max_steps=1, learning_rate=1e-9, min_learning_rate=0.0
    )
    shape = SHAPE | {"tie_weights": False}
    pretrain([TEXT * 20], tmp_path / "a", config, shape, say=lambda text: None)
    model, _ = load_model(tmp_path / "a")
    assert model.get_parameter("pos_emb.weight").std().item() == pytest.approx(std, rel=0.15)


def test_the_stride(tmp_path: Path) -> None:
    steps = {s: len(run(tmp_path / str(s), stride=s, max_steps=None, epochs=1)) for s in (8, 16)}
    assert steps[8] == pytest.approx(2 * steps[16], abs=1)


def test_the_tokenizer_sees_only_the_training_text(tmp_path: Path) -> None:
    run(tmp_path / "a", [TEXT * 20, "zqzqzqzq " * 200], train_ratio=0.6)
    _, tokenizer = load_model(tmp_path / "a")
    assert not any(b"zq" in tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size))


def test_a_resumed_run_across_epochs_with_accumulation_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """36 batches per epoch in groups of 7: the last group of an epoch is a smaller one."""
    changes = {"grad_accum_steps": 7, "max_steps": None, "epochs": 3}
    whole = run(tmp_path / "whole", **changes)
    for stop_at in (3, 6, 8):
        out, stop = tmp_path / f"broken{stop_at}", StopRequest()

        class Interrupted(Trainer):
            at, request = stop_at, stop

            def _set_learning_rate(self) -> float:
                if self.progress.step + 1 == self.at:
                    self.request.request()
                return super()._set_learning_rate()

        config = PretrainConfig(
            batch_size=4, sample_tokens=0, precision="fp32", eval_freq=50, **changes
        )
        monkeypatch.setattr(task, "Trainer", Interrupted)
        quiet: dict[str, Any] = {"say": lambda text: None}
        pretrain([TEXT * 20], out, config, SHAPE, stop=stop, **quiet)
        monkeypatch.setattr(task, "Trainer", Trainer)
        pretrain([TEXT * 20], out, config, SHAPE, resume=True, **quiet)
        resumed = [r["loss"] for r in read_metrics(out) if not is_evaluation(r)]
        assert resumed == [r["loss"] for r in whole], stop_at
        ours, theirs = (load_model(d)[0].state_dict() for d in (out, tmp_path / "whole"))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_library_refuses_to_resume_another_run_too(tmp_path: Path) -> None:
    run(tmp_path / "a")
    with pytest.raises(UserError, match="would change batch_size 4 to 2, seed 123 to 7"):
        config = PretrainConfig(batch_size=2, seed=7, max_steps=9, precision="fp32")
        pretrain([TEXT * 20], tmp_path / "a", config, SHAPE, resume=True, say=lambda text: None)


def test_the_notes_hold_the_shape_as_it_became(tmp_path: Path) -> None:
    config = PretrainConfig(max_steps=2, sample_tokens=0)
    wish = SHAPE | {"vocab_size": 5000}
    pretrain([TEXT * 20], tmp_path / "a", config, wish, say=lambda text: None)
    model, _ = load_model(tmp_path / "a")
    assert facts_of(tmp_path / "a").shape["vocab_size"] == model.cfg.vocab_size < 5000

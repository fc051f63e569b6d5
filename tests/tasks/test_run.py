"""A fourth task: what it takes to add one, and that it gets all that the others have."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from groundup.config import IGNORE_INDEX, ModelConfig
from groundup.data.batching import Batch, ShuffledBatches
from groundup.errors import UserError
from groundup.facts import Data, Facts
from groundup.model.door import token_loss
from groundup.model.gpt import GPTModel
from groundup.options import option
from groundup.tasks.config import TaskConfig
from groundup.tasks.run import Finished, run_task
from groundup.tasks.task import Job, Material, loss_on
from groundup.tokenizers import BPETokenizer, Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.tracking import is_evaluation, read_metrics
from groundup.train.trainer import Trainer
from groundup.weights.load import load_model
from tests.conftest import LAST, facts_of, tiny_config


@dataclass(frozen=True)
class RepeatConfig(TaskConfig):
    """Learn to repeat what was read: a task that nobody else has."""

    length: int = option(4, "tokens to repeat")
    TASK: ClassVar[str] = "repeat"


class Repeated:
    """Only the second half counts, and the first of its tokens twice."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        losses = token_loss(model, inputs, targets, reduction="none")
        return losses.sum() + losses[:, inputs.shape[1] // 2].sum()

    def count(self, batch: Batch) -> int:
        return int((batch[1] != IGNORE_INDEX).sum())

    def tokens(self, batch: Batch) -> int:
        return self.count(batch)


class Repeating:
    """The task: everything else is the assembly's."""

    Config: type[Any] = RepeatConfig

    def __init__(self, tokenizer: BPETokenizer) -> None:
        self.tokenizer, self.sha256 = tokenizer, "always the same"

    def open(self, job: Job[RepeatConfig]) -> tuple[GPTModel, Tokenizer]:
        if job.checkpoint:
            return load_model(job.checkpoint)
        shape = ModelConfig(**{**tiny_config(vocab_size=self.tokenizer.vocab_size), **job.shape})
        return GPTModel(shape).init_gpt2(), self.tokenizer

    def prepare(self, job: Job[RepeatConfig], model: GPTModel, tokenizer: Tokenizer) -> Material:
        generator = torch.Generator().manual_seed(5)
        texts = torch.randint(5, 12, (48, job.config.length), generator=generator)

        def collate(rows: Sequence[int]) -> Batch:
            ids = texts[list(rows)].repeat(1, 2)
            targets = ids[:, 1:].clone()
            targets[:, : job.config.length - 1] = IGNORE_INDEX
            return ids[:, :-1], targets

        data = ShuffledBatches(40, job.config.batch_size, job.config.seed, collate)
        measure = loss_on(model, [collate(range(40, 48))], job, Repeated())
        facts = Facts(data=Data("random numbers", sha256=self.sha256))
        return Material(data, facts, Repeated(), measure)


def run(out: Path, tokenizer: BPETokenizer, resume: bool = False, **options: Any) -> Finished:
    how: dict[str, Any] = {"overwrite": False, "resume": resume, "say": lambda text: None}
    how["stop"] = options.pop("stop", None)
    base = {"batch_size": 8, "precision": "fp32", "learning_rate": 3e-3, "eval_freq": 40}
    given = options if resume else base | options
    return run_task(Repeating(tokenizer), out, given, {"drop_rate": 0.1}, **how)


def test_a_fourth_task_learns_and_leaves_what_every_run_leaves(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    out = tmp_path / "run"
    record = run(out, tokenizer, max_steps=200, keep=1, save_freq=150).record
    evaluations = [r["val_loss"] for r in read_metrics(out) if is_evaluation(r)]
    assert record["val_loss"] < 0.5 * evaluations[0]
    facts = facts_of(out)
    assert facts.task == "repeat" and facts.options["length"] == 4 and facts.shape["emb_dim"] == 32
    assert facts.progress["val_loss"] == min(evaluations)
    assert (out / "plots" / "loss.png").exists() and (out / "checkpoints" / "step-200").exists()
    assert "a task of its own" in (out / "report.html").read_text(encoding="utf-8")


def test_a_fourth_task_is_resumed_exactly(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken, stop = tmp_path / "whole", tmp_path / "broken", StopRequest()
    run(whole, tokenizer, max_steps=12)

    class Interrupted(Trainer):
        def _set_learning_rate(self) -> float:
            if self.progress.step == 6:
                stop.request()
            return super()._set_learning_rate()

    with monkeypatch.context() as patch:
        patch.setattr("groundup.tasks.run.Trainer", Interrupted)
        run(broken, tokenizer, max_steps=12, stop=stop)
    assert facts_of(broken / LAST).progress["step"] == 7
    run(broken, tokenizer, resume=True)
    ours, theirs = (load_model(d, checkpoint="last")[0].state_dict() for d in (whole, broken))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(UserError, match="would change batch_size 8 to 4"):
        run(broken, tokenizer, resume=True, batch_size=4)


def test_a_run_that_gets_no_better_says_that_it_stopped_early(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    said: list[str] = []
    how: dict[str, Any] = {"overwrite": False, "resume": False, "say": said.append, "stop": None}
    options = {"batch_size": 8, "learning_rate": 1e-12, "eval_freq": 1, "patience": 2}
    options |= {"weight_decay": 0.0, "max_steps": 50, "precision": "fp32"}
    done = run_task(Repeating(tokenizer), tmp_path, options, {"drop_rate": 0.0}, **how)
    assert done.record["step"] < 50
    assert said[-1].startswith("stopped early: 2 evaluations brought nothing better than that of")


class Killed(BaseException):
    """Nothing catches it."""


def kill(*args: object) -> None:
    raise Killed


def test_what_comes_after_the_last_save_is_made_up_for(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(whole, tokenizer, max_steps=4)
    for place in ("groundup.tasks.run.plot_run", "groundup.train.checkpoints.publish"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(place, kill)
            run(killed, tokenizer, max_steps=4)
        assert not (killed / "plots").exists()
        again = run(killed, tokenizer, resume=True)
        assert again.record["step"] == 4 and again.record["val_loss"] == done.record["val_loss"]
        assert (killed / "plots" / "loss.png").exists()
        ours, theirs = (load_model(d)[0].state_dict() for d in (whole, killed))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        shutil.rmtree(killed)


def test_a_run_that_had_stopped_early_is_made_up_for_too(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"learning_rate": 1e-12, "eval_freq": 1, "patience": 2, "weight_decay": 0.0}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("groundup.tasks.run.plot_run", kill)
        run(tmp_path, tokenizer, max_steps=50, **options)
    step = facts_of(tmp_path / LAST).progress["step"]
    assert run(tmp_path, tokenizer, resume=True).record["step"] == step < 50
    assert (tmp_path / "plots" / "loss.png").exists()
    assert run(tmp_path, tokenizer, resume=True, patience=4).record["step"] > step

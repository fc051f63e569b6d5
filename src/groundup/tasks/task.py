"""What a task brings to its run: a model, its data, what is learned, how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from groundup.data.batching import Batch, Batches, nothing_of
from groundup.facts import Facts
from groundup.model.gpt import GPTModel
from groundup.runtime import Runtime
from groundup.tasks.config import TaskConfig
from groundup.tokenizers import Tokenizer
from groundup.train.objective import NextToken, Objective, mean_loss
from groundup.train.tracking import ProgressBar
from groundup.train.trainer import Listener, Record
from groundup.train.world import World, dealt

C = TypeVar("C", bound=TaskConfig)
Say = Callable[[str], None]


@dataclass
class Job(Generic[C]):
    """A run that is being assembled.

    Attributes:
        out: the run's directory.
        config: its options; a task may put in what became of them.
        shape: the options of the model's shape.
        saved: what the last checkpoint says, if the run goes on.
        runtime: device and precision.
        say: told what is being done.
        verify: whether files that are opened must be as they were saved.
        checkpoint: the one to go on from, if the run goes on.
        world: the processes that share the run.
    """

    out: Path
    config: C
    shape: dict[str, Any]
    saved: Facts | None
    runtime: Runtime
    say: Say
    verify: bool = True
    checkpoint: Path | None = None
    world: World = field(default_factory=World)

    @property
    def eval_batches(self) -> int | None:
        """Batches of an evaluation, of all processes together; None is all that there are."""
        each = self.config.eval_iter
        return None if each is None else each * self.world.size


@dataclass
class Material:
    """What a task brings to its run, once it has a model.

    Attributes:
        data: the training batches.
        facts: what ``groundup.json`` will say of data, labels, prompt style.
        objective: what is learned of them.
        measure: measures the model, which is in eval mode, on the validation split, if there is
            one.
        listeners: makes the task's own listeners; they may print above the bar.
    """

    data: Batches
    facts: Facts
    objective: Objective = field(default_factory=NextToken)
    measure: Callable[[], Record] = dict
    listeners: Callable[[ProgressBar], Sequence[Listener]] = lambda bar: ()


class Task(Protocol[C]):
    """What one does with a GPT: the part of it that no other task has."""

    Config: type[Any]
    sha256: str  # of the data

    def open(self, job: Job[C]) -> tuple[GPTModel, Tokenizer]:
        """The model to train: a new one, one to begin from, or that of the job's checkpoint."""
        ...

    def prepare(self, job: Job[C], model: GPTModel, tokenizer: Tokenizer) -> Material:
        """Data, objective and measure; what they are is told to ``job.say``."""
        ...


def loss_on(
    model: GPTModel, batches: Sequence[Batch], job: Job[Any], objective: Objective | None = None
) -> Callable[[], Record]:
    """A measure: the loss on fixed batches, if there are any; each process computes a part."""
    mine = dealt(batches, job.world, nothing_of(batches[0])) if batches else []

    def measure() -> Record:
        how = job.runtime.device, objective
        return {"val_loss": mean_loss(model, mine, *how, world=job.world)} if batches else {}

    return measure

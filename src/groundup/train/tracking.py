"""What one sees of a run and what stays of it: the progress bar, samples, ``metrics.jsonl``."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import TextStream
from groundup.errors import UserError
from groundup.files import RUN_KEPT, JsonLines
from groundup.model.door import evaluating
from groundup.model.gpt import GPTModel
from groundup.output import PIPE_WIDTH, progress_bar, say
from groundup.tokenizers import Tokenizer
from groundup.train.trainer import Listener, Record

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


class MetricsFile(Listener):
    """Appends every record as one line of JSON (see :func:`is_evaluation`).

    On resume, lines after the step that is resumed from are dropped: they will be written anew.

    Attributes:
        records: those that were there before.
        recorded: the last step of those, with what is dropped.
    """

    def __init__(self, directory: Path, resume_step: int = 0) -> None:
        self.file = JsonLines(directory / METRICS, advice=RUN_KEPT)
        earlier = read_metrics(directory) if resume_step else []
        self.recorded = int(earlier[-1]["step"]) if earlier else 0
        self.records = [r for r in earlier if r["step"] <= resume_step]

    def begin(self) -> None:
        """Leave no other records in the file than those that are gone on from."""
        self.file.rewrite(self.records)

    def on_step(self, record: Record) -> None:
        """Write the step's record."""
        self.file.append(record)

    def on_evaluate(self, record: Record) -> None:
        """Write the evaluation's record, which repeats the step's with the losses added."""
        self.file.append(record)


class Keeper(Protocol):
    """Keeps samples."""

    def add(self, record: Record, prompt: str, text: str) -> None:
        """Keep what the model put after a prompt."""
        ...


class SamplesFile:
    """Keeps what the model wrote in the course of a run: ``samples.jsonl``.

    A row has the step and epoch, the prompt, and the text that the model put after it. On resume,
    rows after the step that is resumed from are dropped, as those of the metrics are.
    """

    def __init__(self, directory: Path, resume_step: int = 0) -> None:
        self.file = JsonLines(directory / SAMPLES, row="sample")
        earlier = read_samples(directory)
        rows = [row for row in earlier if row["step"] <= resume_step]
        if len(rows) < len(earlier):
            self.file.rewrite(rows)
        self.file.mend()

    def add(self, record: Record, prompt: str, text: str) -> None:
        """Write a sample down."""
        when = {"step": record["step"], "epoch": record["epoch"]}
        self.file.append(when | {"prompt": prompt, "text": text})


def read_samples(directory: Path) -> list[dict[str, Any]]:
    """Read a run's samples, in order; none, if it has none.

    Raises:
        UserError: a line is damaged.
    """
    path = directory / SAMPLES
    rows = JsonLines(path, row="sample").read()
    for number, row in enumerate(rows, 1):
        numbers = all(isinstance(row.get(name), int | float) for name in ("step", "epoch"))
        if not numbers or not all(isinstance(row.get(name), str) for name in ("prompt", "text")):
            raise UserError(f"{path} is damaged: line {number} is no sample")
    return rows


def is_evaluation(record: Record) -> bool:
    """Whether a record is an evaluation's; it repeats its step's and adds what was measured."""
    return "running_loss" in record


def read_metrics(directory: Path) -> list[Record]:
    """Read a run's records, in order; an incomplete last line (a crash) is left out.

    Raises:
        UserError: a line is damaged.
    """
    path = directory / METRICS
    records = JsonLines(path).read()
    for number, record in enumerate(records, 1):
        if not all(isinstance(record.get(name), int | float) for name in ("step", "epoch")):
            raise UserError(f"{path} is damaged: line {number} is no record")
        if "train_loss" in record:  # as the first version called the mean of the last steps
            record["running_loss"] = record.pop("train_loss")
    return records


class Latest(Listener):
    """Remembers the newest value of everything that was recorded."""

    def __init__(self, earlier: Sequence[Record] = ()) -> None:
        self.record: Record = {}
        for record in earlier:
            self.record |= record

    def on_step(self, record: Record) -> None:
        """Remember it."""
        self.record |= record

    def on_evaluate(self, record: Record) -> None:
        """Remember it."""
        self.record |= record


class RunningLoss(Listener):
    """The mean training loss of the last steps: free, and close to what an evaluation would say."""

    STEPS = 20

    def __init__(self, earlier: Sequence[Record] = ()) -> None:
        steps = (record["loss"] for record in earlier if not is_evaluation(record))
        self.losses = deque(steps, maxlen=self.STEPS)

    def on_step(self, record: Record) -> None:
        """Count the step's loss in."""
        self.losses.append(record["loss"])

    def mean(self) -> float:
        """The mean over the last ``STEPS`` steps."""
        return sum(self.losses) / max(1, len(self.losses))


class ProgressBar(Listener):
    """One line that lives: steps, tokens per second, losses, time left.

    Above it stands a line per evaluation; where stderr is not a terminal (a log file, CI), there
    are only these.

    Args:
        total_steps: of the whole run.
        done: how many of them were made before.
        samples: where samples are kept, besides being shown.
    """

    FORMAT = "{percentage:3.0f}%|{bar}| {n}/{total} [{elapsed}<{remaining}{postfix}]"
    NARROWEST = 10
    """Columns of the bar itself: what would leave it fewer is not shown."""

    def __init__(self, total_steps: int, done: int = 0, samples: Sequence[Keeper] = ()) -> None:
        self.samples = samples
        self.bar = progress_bar(total=total_steps, initial=done, bar_format=self.FORMAT)
        self._losses: dict[str, str] = {}

    def on_step(self, record: Record) -> None:
        """Move on."""
        if not self.bar.disable:
            parts = [f"{record['tokens_per_second']:,.0f} tok/s", f"train {record['loss']:.3f}"]
            parts += [f"{name} {value}" for name, value in self._losses.items() if name != "train"]
            self.bar.set_postfix_str(self._fitting(parts), refresh=False)
            self.bar.update()

    def on_evaluate(self, record: Record) -> None:
        """Tell the new losses."""
        names = {"train": "running_loss", "val": "val_loss"}
        self._losses = {n: f"{record[key]:.3f}" for n, key in names.items() if key in record}
        if "val_accuracy" in record:
            self._losses["accuracy"] = f"{record['val_accuracy']:.1%}"
        told = [f"{name} {value}" for name, value in self._losses.items()]
        if "tokens_per_second" in record:
            told.append(f"{record['tokens_per_second']:,.0f} tok/s")
        step = f"step {record['step']}/{self.bar.total}, epoch {record['epoch']:.2f}"
        self.say(f"{step}: {', '.join(told)}")

    def _fitting(self, parts: Sequence[str]) -> str:
        """As many of the parts as there is room for beside the bar."""
        told = {**self.bar.format_dict, "postfix": "", "ncols": None}
        told["bar_format"] = self.FORMAT.replace("{bar}", " " * self.NARROWEST)
        room = (self.bar.format_dict["ncols"] or PIPE_WIDTH) - len(self.bar.format_meter(**told))
        while len(parts) > 1 and len(", ".join(parts)) + 2 > room:
            parts = parts[:-1]
        return ", ".join(parts)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        say(text)

    def sample(self, record: Record, prompt: str, text: str) -> None:
        """Show what the model put after a prompt, in one line, and keep it."""
        self.say("  " + " ".join((prompt + text).split()) + "\n")
        for keeper in self.samples:
            keeper.add(record, prompt, text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()


class SamplePrinter(Listener):
    """After each evaluation, shows how the model continues a text.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        start_context: the text.
        config: how to sample.
        bar: shows and keeps the sample.
        prompt_ids: what the model reads, if that is not just the text.
        stop: strings that end the sample.
    """

    def __init__(
        self,
        model: GPTModel,
        tokenizer: Tokenizer,
        start_context: str,
        config: SamplingConfig,
        bar: ProgressBar,
        *,
        prompt_ids: Sequence[int] = (),
        stop: Sequence[str] = (),
    ) -> None:
        self.model, self.tokenizer, self.start = model, tokenizer, start_context
        self.config, self.bar, self.stop = config, bar, stop
        start = prompt_ids or tokenizer.encode_alone(start_context) or [tokenizer.eot_token or 0]
        self.prompt_ids = list(start)

    def on_evaluate(self, record: Record) -> None:
        """Write and print a sample; it has a random generator of its own."""
        try:
            with evaluating(self.model):
                stream = TextStream(
                    self.model, self.tokenizer, self.prompt_ids, self.config, stop=self.stop
                )
                text = "".join(stream)
        except UserError as error:  # the loop itself says when training has diverged
            self.bar.say(f"  (no sample: {error})\n")
            return
        self.bar.sample(record, self.start, text)

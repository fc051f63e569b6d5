"""A run seen elsewhere: TensorBoard (``--tensorboard``) and Weights & Biases (``--wandb PROJECT``).

What they are told is what ``metrics.jsonl`` and ``samples.jsonl`` say, which are the one record of
a run. A run that goes on is told from there: what was lost in a crash is told again, what was
undone by it is gone, and nothing is told twice.
"""

from __future__ import annotations

import html
import importlib.util
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.files import read_json, write_json
from groundup.output import say
from groundup.train.config import TrainConfig
from groundup.train.tracking import MetricsFile, is_evaluation, read_samples
from groundup.train.trainer import Listener, Record

TENSORBOARD, WANDB = "tensorboard", "wandb"
"""Their folders in a run, and the packages and extras that they need."""

UNTOLD = frozenset({"step", "seconds"})
"""What of a record is no series: step is what all are drawn against, and they know the time."""


def check_trackers(config: TrainConfig) -> None:
    """Refuse a tracker whose package is missing, before a run has done anything.

    Raises:
        UserError: it is.
    """
    for name, wanted in ((TENSORBOARD, config.tensorboard), (WANDB, bool(config.wandb))):
        if wanted and importlib.util.find_spec(name) is None:
            raise UserError(
                f"--{name} needs the package {name}, which is not installed: "
                f'pip install "groundup[{name}]" (or pip install {name})'
            )


class Tracker(Listener, ABC):
    """Hears what a run records, with the samples; each record's numbers once."""

    _step: Record = {}

    @abstractmethod
    def tell(self, values: Mapping[str, float], record: Record) -> None:
        """Take the numbers of a record that were not told before."""

    @abstractmethod
    def add(self, record: Record, prompt: str, text: str) -> None:
        """Take what the model wrote."""

    def on_step(self, record: Record) -> None:
        """Tell a step's numbers."""
        self._step = record
        self.tell({n: v for n, v in record.items() if n not in UNTOLD}, record)

    def on_evaluate(self, record: Record) -> None:
        """Tell what an evaluation has added to its step's numbers."""
        self.tell({n: v for n, v in record.items() if n not in self._step}, record)

    def replay(self, records: Sequence[Record], samples: Sequence[dict[str, Any]]) -> None:
        """Tell what was recorded before."""
        told: list[tuple[float, int, dict[str, Any]]]
        told = [(r["step"], number, r) for number, r in enumerate(records)]
        told += [(s["step"], len(records) + number, s) for number, s in enumerate(samples)]
        for _, _, row in sorted(told, key=lambda item: item[:2]):
            if "text" in row:
                self.add(row, row["prompt"], row["text"])
            elif is_evaluation(row):
                self.on_evaluate(row)
            else:
                self.on_step(row)

    def close(self, failed: bool) -> None:
        """The run has ended, or broken off."""


class TensorBoard(Tracker):
    """Writes a run's event file anew, then goes on with it: ``tensorboard --logdir RUN``.

    Args:
        out: the run's directory; the file lies in its folder ``tensorboard``.
        options: of the run and its model.
        seconds: that the run has taken so far.
    """

    def __init__(self, out: Path, options: Mapping[str, Any], seconds: float) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = out / TENSORBOARD
        earlier = list(folder.glob("events.out.tfevents.*"))
        self.begun = time.time() - seconds
        # A TensorBoard that is watching is told to forget what the earlier files said.
        self.writer = SummaryWriter(str(folder), purge_step=0, flush_secs=10)
        for path in earlier:
            path.unlink(missing_ok=True)
        rows = [f"| {name} | {value} |" for name, value in options.items()]
        self.writer.add_text(
            "options", "\n".join(["| option | value |", "| --- | --- |", *rows]), 0
        )

    def tell(self, values: Mapping[str, float], record: Record) -> None:
        """Add a point to each series."""
        when = self.begun + record["seconds"]
        for name, value in values.items():
            self.writer.add_scalar(name, value, int(record["step"]), walltime=when)

    def add(self, record: Record, prompt: str, text: str) -> None:
        """Add a text; four spaces make it one as it stands, not Markdown."""
        shown = "".join(f"    {line}\n" for line in (prompt + text).splitlines())
        self.writer.add_text("sample", shown, int(record["step"]))

    def close(self, failed: bool) -> None:
        """Write what is left."""
        self.writer.close()


class WeightsAndBiases(Tracker):
    """Tells a run to Weights & Biases, or to its folder ``wandb`` (``WANDB_MODE=offline``).

    Steps that were told once cannot be told again there. So the run remembers which those are, in
    ``wandb/run.json`` beside its id, and is silent until it is past them.

    Args:
        out: the run's directory.
        project: whose run it is.
        options: of the run and its model.
        recorded: the last step that was recorded before; after a crash, it may have been told.

    Raises:
        UserError: nobody is logged in, or the server cannot be reached.
    """

    def __init__(self, out: Path, project: str, options: Mapping[str, Any], recorded: int) -> None:
        import wandb

        self.file = out / WANDB / "run.json"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.known = self._known(project, recorded)
        try:
            self.run = wandb.init(
                project=project,
                dir=out,
                id=self.known.get("id"),
                name=out.resolve().name,
                config=dict(options),
                resume="allow" if self.known else None,
                allow_val_change=True,
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            raise UserError(
                f"Weights & Biases does not take this run: {error}; log in (wandb login), or set "
                "WANDB_MODE=offline to keep it here and send it later (wandb sync)"
            ) from error
        self.project, self.told = project, int(self.known.get("told", 0))
        self.newest = self.told
        self._remember(open=True)
        offline = self.run.settings.mode != "online"
        say(f"W&B: {self.file.parent if offline else self.run.url}")

    def _known(self, project: str, recorded: int) -> dict[str, Any]:
        """What the run remembers of its run there; nothing if that is another project's."""
        if not self.file.exists():
            return {}
        known = read_json(self.file)
        if known.get("project") != project:
            return {}
        return known | ({"told": max(known["told"], recorded)} if known["open"] else {})

    def _remember(self, *, open: bool) -> None:
        about = {"project": self.project, "id": self.run.id, "told": self.newest, "open": open}
        write_json(self.file, about)

    def tell(self, values: Mapping[str, float], record: Record) -> None:
        """Add to the step's row."""
        if record["step"] > self.told:
            self.run.log(dict(values), step=int(record["step"]))
            self.newest = int(record["step"])

    def add(self, record: Record, prompt: str, text: str) -> None:
        """Add a text to the step's row."""
        import wandb

        if record["step"] > self.told:
            shown = wandb.Html(f"<pre>{html.escape(prompt + text)}</pre>", inject=False)
            self.run.log({"sample": shown}, step=int(record["step"]))

    def close(self, failed: bool) -> None:
        """Send what is left."""
        self.run.finish(exit_code=int(failed))
        self._remember(open=False)


@contextmanager
def trackers(
    out: Path, config: TrainConfig, options: Mapping[str, Any], metrics: MetricsFile
) -> Iterator[list[Tracker]]:
    """The trackers that a run asks for, told of what it did before; closed at the end.

    Args:
        out: the run's directory.
        config: says which.
        options: of the run and its model, to be told.
        metrics: what was recorded before.
    """
    options = {name: value for name, value in options.items() if value is not None}
    options = {
        n: v if isinstance(v, (int, float, str)) else json.dumps(v) for n, v in options.items()
    }
    records, made, failed = metrics.records, [], True
    seconds = records[-1]["seconds"] if records else 0.0
    try:
        if config.tensorboard:
            made.append(TensorBoard(out, options, seconds))
        if config.wandb:
            made.append(WeightsAndBiases(out, config.wandb, options, metrics.recorded))
        samples = read_samples(out) if made and records else []
        for tracker in made:
            tracker.replay(records, samples)
        yield made
        failed = False
    finally:
        for tracker in made:
            tracker.close(failed)

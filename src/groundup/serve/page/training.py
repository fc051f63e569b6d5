"""The training page: a run's curves, live while it trains, its samples, and its model through time.

Each snapshot of the history is asked by the model that it holds; a few stay open.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.errors import UserError
from groundup.facts import NAME, Facts
from groundup.files import LOCK, is_locked
from groundup.model.gpt import GPTModel
from groundup.serve.asking import BadRequest, Problem, read_body
from groundup.serve.models import Models, Served
from groundup.serve.page.following import Place, measured, newer, written
from groundup.tokenizers import Tokenizer
from groundup.train.checkpoints import LAST, step_of
from groundup.train.history import snapshots
from groundup.train.tracking import METRICS, SAMPLES
from groundup.weights.finding import CHECKPOINTS
from groundup.weights.load import load_model
from groundup.xray.take import Reading

LONGEST, MAX_TOKENS, WATCHED = 2_000, 64, 8
"""Characters of a text, tokens of it, tokens whose ranks are told."""

OPEN, BYTES = 12, 1 << 30
"""Snapshots that stay open, and the memory that they may take (one may, whatever its size)."""

LEFT_OUT = ("changes", "lens", "neighbours", "norms")
"""What an X-ray knows and this page does not show."""


@dataclass
class Run:
    """What is to be known of a run, and up to where its files are known."""

    model: str
    metrics: Place = field(default_factory=Place)
    samples: Place = field(default_factory=Place)


@dataclass
class Moment:
    """A text, and the step of a snapshot that is to read it; ``watch`` are ids of tokens."""

    model: str
    step: int
    text: str
    watch: list[int] = field(default_factory=list)


def routes(models: Models) -> list[BaseRoute]:
    """What the training page asks."""
    opened = Snapshots()

    async def run(request: Request) -> Response:
        asked = await read_body(request, Run)
        directory = run_of(models.get(asked.model))
        return JSONResponse(await asyncio.to_thread(state_of, directory, asked))

    async def at(request: Request) -> Response:
        asked = await read_body(request, Moment)
        served = models.get(asked.model)
        directory = run_of(served)
        if len(asked.text) > LONGEST:
            raise BadRequest(
                f"the text has {len(asked.text):,} characters; expected at most {LONGEST:,}", "text"
            )
        if len(asked.watch) > WATCHED:
            raise BadRequest(f"expected at most {WATCHED} tokens to watch", "watch")
        model, tokenizer = await opened.get(directory, asked.step)
        return JSONResponse(await served.work(lambda: seen_by(model, tokenizer, asked)))

    return [
        Route("/page/run", run, methods=["POST"]),
        Route("/page/run/at", at, methods=["POST"]),
    ]


def run_of(served: Served) -> Path:
    """The directory of the run that a served model is of.

    Raises:
        Problem: it is of none (404).
    """
    directory = served.directory
    if directory is None or not (directory / METRICS).is_file():
        raise Problem(f"{served.name} is no run: there is no {METRICS} beside it", 404, "model")
    return directory


def state_of(directory: Path, asked: Run) -> dict[str, Any]:
    """How far a run is, and what its files have more than is known already."""
    try:
        last = directory / CHECKPOINTS / LAST
        facts = Facts.read(last if last.is_dir() else directory) or Facts()
    except UserError:  # it is being replaced, or damaged; its curves are there all the same
        facts = Facts()
    return {
        "task": facts.task,
        "running": is_locked(directory / LOCK),
        "steps": facts.schedule.total_steps,
        "prompt": facts.options.get("start_context"),
        "history": [step_of(path) for path in snapshots(directory)],
        "metrics": newer(directory / METRICS, asked.metrics, measured),
        "samples": newer(directory / SAMPLES, asked.samples, written),
    }


class Snapshots:
    """The snapshots that were asked last stay open, as many as there is room for."""

    def __init__(self, load: Callable[[Path], tuple[GPTModel, Tokenizer]] = load_model) -> None:
        self._load = load
        self._open: OrderedDict[Any, tuple[GPTModel, Tokenizer]] = OrderedDict()
        self._turn = asyncio.Lock()

    async def get(self, run: Path, step: int) -> tuple[GPTModel, Tokenizer]:
        """The model of a run's snapshot after a step.

        Raises:
            BadRequest: there is none; the message lists them.
            Problem: it was deleted meanwhile (404).
        """
        there = {step_of(path): path for path in snapshots(run)}
        if step not in there:
            steps = ", ".join(map(str, there)) or "none (--keep-history keeps some)"
            raise BadRequest(f"there is no snapshot of step {step}; there are: {steps}", "step")
        try:
            return await self._opened(there[step])
        except FileNotFoundError:
            raise Problem(
                f"the snapshot of step {step} was deleted just now", 404, "step"
            ) from None

    async def _opened(self, path: Path) -> tuple[GPTModel, Tokenizer]:
        stamp = (path / NAME).stat()  # a run that is begun anew has others
        key = path, stamp.st_ino, stamp.st_mtime_ns
        async with self._turn:
            if key not in self._open:
                self._open[key] = await asyncio.to_thread(self._load, path)
            self._open.move_to_end(key)
            while len(self._open) > 1 and (len(self._open) > OPEN or self._bytes() > BYTES):
                self._open.popitem(last=False)
            return self._open[key]

    def _bytes(self) -> int:
        return sum(4 * model.num_parameters() for model, _ in self._open.values())


def seen_by(model: GPTModel, tokenizer: Tokenizer, asked: Moment) -> dict[str, Any]:
    """What a snapshot's model makes of a text.

    Returns:
        Of an X-ray what this page shows; and of each token that is watched its rank and its
        log-probability after each token of the text.

    Raises:
        UserError: the text is empty or too long, a token is none of the model's, ….
    """
    count = len(tokenizer.encode(asked.text))
    most = min(MAX_TOKENS, model.cfg.context_length)
    if count > most:
        raise BadRequest(
            f"the text has {count:,} tokens; through time {most} at most are shown: give a "
            "shorter one",
            "text",
        )
    reading = Reading(model, tokenizer, asked.text, max_tokens=most)
    found = asdict(reading.xray())
    for name in LEFT_OUT:
        del found[name]
    watched = [dict(zip(("ranks", "logs"), reading.standing(i), strict=True)) for i in asked.watch]
    return found | {"step": asked.step, "watched": watched}

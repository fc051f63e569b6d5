"""The page of a run, ``report.html``: how it went, what it made, how to use and repeat it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.errors import UserError
from groundup.facts import Facts
from groundup.files import atomic_file
from groundup.output import shell, visible
from groundup.pages import environment_of, inline_svg
from groundup.plots.runs import records_of, run_figures
from groundup.plots.style import svg
from groundup.runtime import resolve_runtime
from groundup.tasks.reproduce import CONFIGS, changed_options, command_of
from groundup.train.best import Best
from groundup.train.checkpoints import last_checkpoint
from groundup.train.tracking import is_evaluation, read_samples
from groundup.train.trainer import Record

PAGE = "report.html"

FEW = 8
"""How many samples are shown at once."""

Rows = list[tuple[str, str]]
"""What, and how much of it."""

KINDS = {
    "pretrain": "A language model, trained from scratch on raw text.",
    "classify": "A classifier: it sorts texts.",
    "instruct": "An assistant: a language model that was taught to follow instructions.",
}


OWN = "# by the Python code that made it: a task of its own, which no command knows"
"""How to make a run again whose task isn't one of these."""


@dataclass(frozen=True)
class Page:
    """What the page says.

    Attributes:
        title: the run's name.
        summary: what it made.
        tiles: the figures that matter most.
        moments: the best evaluation and the last one, each by column.
        samples: what the model wrote, some of it.
        more_samples: all of it, if that is more.
        use: commands to try.
        again: the command that makes it again.
        notes: what one must know to do so.
        data: what it learned from.
        machine: where.
        model: its shape.
        options: name, value, and whether that isn't the default.
    """

    title: str
    summary: str
    tiles: Rows
    moments: list[dict[str, str]]
    samples: list[dict[str, Any]]
    more_samples: list[dict[str, Any]]
    use: list[str]
    again: str
    notes: list[str]
    data: Rows
    machine: Rows
    model: Rows
    options: list[tuple[str, str, bool]]


def write_page(out: str | Path) -> Path:
    """Write a run's ``report.html``, one file that loads nothing; return its path.

    It describes this machine, so it is written where the run ends.

    Args:
        out: the run's directory.

    Raises:
        UserError: the directory holds no run, or cannot be written to.
    """
    out = Path(out)
    page, records = describe(out), records_of(out)
    pictures = []
    for name, figure in run_figures(records).items():
        figure.set_facecolor("none")
        for axes in figure.axes:
            axes.set_facecolor("none")
        pictures.append(inline_svg(svg(figure, f"{name.replace('_', ' ')} of {page.title}")))
    template = environment_of("groundup.tasks").get_template("run.html")
    with atomic_file(out / PAGE) as temporary:
        temporary.write_text(
            template.render(page=page, pictures=pictures), encoding="utf-8", newline="\n"
        )
    return out / PAGE


def describe(out: Path) -> Page:
    """Gather what the page of a run says.

    Raises:
        UserError: the directory holds no run.
    """
    facts = Facts.read(last_checkpoint(out)) or Facts.read(out)
    if facts is None:
        raise UserError(f"{out} holds no run of groundup")
    records, samples = records_of(out), read_samples(out)
    moments = _moments(records)
    few = _spread(samples, FEW)
    changed = changed_options(facts)
    return Page(
        title=visible(out.resolve().name),
        summary=KINDS.get(facts.task, "A model."),
        tiles=_tiles(records, moments),
        moments=[_moment(name, record) for name, record in moments.items()],
        samples=few,
        more_samples=samples if len(samples) > len(few) else [],
        use=_use(facts, out),
        again=command_of(facts, out) if facts.task in CONFIGS else OWN,
        notes=_notes(facts),
        data=_data(facts),
        machine=machine(facts),
        model=[(name.replace("_", " "), _told(value)) for name, value in facts.shape.items()],
        options=[(n.replace("_", " "), _told(v), n in changed) for n, v in facts.options.items()],
    )


def machine(facts: Facts) -> Rows:
    """What this machine is: processor, its kind, threads, device, versions."""
    options = facts.options
    runtime = resolve_runtime(options.get("device", "auto"), options.get("precision", "auto"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [
        ("processor", f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})"),
        ("threads", f"{options.get('threads') or torch.get_num_threads()} on {cores} cores"),
        ("device", str(runtime)),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts.versions.items())),
    ]
    if runtime.device.type == "cuda":
        rows.insert(3, ("graphics", torch.cuda.get_device_name(runtime.device)))
    return rows


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _moments(records: Sequence[Record]) -> dict[str, Record]:
    """The best evaluation, by the rule that the checkpoints keep to, and the last one."""
    evaluations, best = [r for r in records if is_evaluation(r)], Best()
    improved = [r for r in evaluations if best.update(r)]
    moments = {"best": improved[-1]} if improved else {}
    return moments | {"last": evaluations[-1] if evaluations else records[-1]}


def _moment(name: str, record: Record) -> dict[str, str]:
    loss = record.get("val_loss")
    perplexity = math.exp(min(loss, 700)) if loss is not None else None
    accuracy = record.get("val_accuracy")
    columns = {
        "": name,
        "step": f"{int(record['step']):,}",
        "epoch": f"{record['epoch']:.2f}",
        "tokens seen": f"{int(record.get('tokens_seen', 0)):,}",
        "training loss": _number(record.get("running_loss", record.get("loss"))),
        "validation loss": _number(loss),
    }
    if accuracy is not None:
        return columns | {"validation accuracy": f"{accuracy:.2%}"}
    return columns | {"validation perplexity": f"{perplexity:,.2f}" if perplexity else "–"}


def _tiles(records: Sequence[Record], moments: Mapping[str, Record]) -> Rows:
    last = records[-1]
    best = moments.get("best", moments["last"])
    tiles = []
    if "val_accuracy" in best:
        tiles.append(("best validation accuracy", f"{best['val_accuracy']:.1%}"))
    if "val_loss" in best:
        tiles.append(("best validation loss", _number(best["val_loss"])))
    seconds, tokens = last.get("seconds", 0.0), last.get("tokens_seen", 0)
    tiles.append(("steps", f"{int(last['step']):,}"))
    tiles.append(("tokens seen", f"{int(tokens):,}"))
    tiles.append(("time", f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"))
    if seconds:
        tiles.append(("tokens per second", f"{tokens / seconds:,.0f}"))
    return tiles


def _spread(samples: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many samples at most, evenly spaced, the first and the last among them."""
    if len(samples) <= count:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (count - 1))] for i in range(count)]


def _use(facts: Facts, out: Path) -> list[str]:
    model = shell(str(out))
    if facts.is_classifier:
        lines = [f'groundup classify predict {model} "a text of yours"']
        lines += [f"groundup classify evaluate {model}"]
        name, call = "Classifier", f"Classifier.load({str(out)!r})"
    elif facts.task == "instruct":
        lines = [f"groundup instruct chat {model}"]
        lines += [f"groundup instruct respond {model} --out responses.json"]
        name, call = "Assistant", f"Assistant.load({str(out)!r})"
    else:
        lines = [f'groundup generate {model} "The" --temperature 0.8']
        lines += [f"groundup export {model} --to gguf --out {shell(str(out) + '-gguf')}"]
        name, call = "load_model", f"load_model({str(out)!r})"
    lines += [f"groundup inspect {model}", "", "# in Python", f"from groundup import {name}"]
    made = "model, tokenizer" if name == "load_model" else name.lower()
    return [*lines, f"{made} = {call}"]


def _notes(facts: Facts) -> list[str]:
    notes = []
    if facts.data.sha256:
        notes.append(
            f"The data's fingerprint (SHA-256) was {facts.data.sha256}; with the same data, "
            "options, versions and kind of machine the numbers come out the same."
        )
    if facts.task != "instruct" and not facts.is_classifier and not facts.data.files:
        notes.append("If TEXT stands above, the text was given from Python, not as a file.")
    return notes


def _data(facts: Facts) -> Rows:
    data, base = facts.data, facts.base.source
    rows = {
        "what": data.description,
        "files": "\n".join(data.files),
        "tokens to train on": _count(data.train_tokens),
        "tokens to validate": _count(data.val_tokens),
        "examples to train on": _count(data.train_examples),
        "cut off": _count(data.truncated),
        "classes": ", ".join(facts.labels),
        "prompt style": facts.prompt_style or "",
        "began from": base,
        "SHA-256": data.sha256 or "",
    }
    return [(name, value) for name, value in rows.items() if value]


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None or value == "" else f"{value}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"

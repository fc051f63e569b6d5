"""What may change when a run goes on: decided here, for the command line and for Python alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.tasks.config import TaskConfig

C = TypeVar("C", bound=TaskConfig)

Given = TaskConfig | Mapping[str, Any] | None
"""The options of a run: a config, or just those that were given, by name."""


def settle(
    config: type[C],
    given: Given,
    shape: Mapping[str, Any],
    saved: Facts | None,
    out: Path,
    say: Callable[[str], None],
    processes: int = 1,
) -> tuple[C, dict[str, Any]]:
    """The options and the model's shape of a run.

    A run that goes on has the options that it was begun with, but for those that are given now: of
    a config, those that were named when it was made.

    Args:
        config: the task's options.
        given: the options of now.
        shape: the options of the model's shape of now; ``given`` may hold some as well.
        saved: what the run's last checkpoint says, if it goes on.
        out: the run's directory.
        say: told what changes from here on.
        processes: how many share the run now.

    Raises:
        UserError: an option makes no sense, or would make another run of it.
    """
    names = {field.name for field in dataclasses.fields(config)}
    values = _given_values(given)
    wanted = dict(shape) | {n: v for n, v in values.items() if n in ModelConfig.field_names()}
    values = {name: value for name, value in values.items() if name in names}
    if saved is None:
        return config(**values), wanted
    # What was asked for is not what a short text gave; and the tokenizer is there already.
    wanted.pop("vocab_size", None)
    _refuse_another_run(config, values | wanted, saved, out, processes)
    before = {name: value for name, value in saved.options.items() if name in names}
    # Of the two limits the one that is given now counts, not the other one from before.
    if "epochs" in values or "max_steps" in values:
        before |= {"epochs": None, "max_steps": None}
    changed = [
        f"{name} {before.get(name)} to {value}"
        for name, value in values.items()
        if before.get(name) not in (None, value)
    ]
    if changed:
        say(f"note: from here on the run changes {', '.join(changed)}")
    per_step, now = _per_step(saved.options, saved.processes), _per_step(before | values, processes)
    if now != per_step:
        say(
            f"note: the run had {saved.processes} processes and now has {processes}, so a step "
            f"takes {now} examples, not {per_step}; another --batch-size or --grad-accum-steps "
            "keeps their number"
        )
    return config(**(before | values)), dict(saved.shape)


def check_same_task(config: type[TaskConfig], saved: Facts, out: Path) -> None:
    """Refuse to go on with a run of another task.

    Raises:
        UserError: it is one.
    """
    if saved.task != config.TASK:
        other = saved.task or "none of groundup's"
        raise UserError(f"{out} holds a run of another task ({other}); choose another --out")


def check_same_data(config: type[TaskConfig], saved: Facts, sha256: str, out: Path) -> None:
    """Refuse to go on with other data than before.

    Raises:
        UserError: their fingerprint differs.
    """
    if saved.data.sha256 != sha256:
        raise UserError(
            f"{out} was trained on another text; --resume needs the same files in the same order. "
            f"To go on from its weights on a new text, {config.AFRESH.format(out=out)} "
            "and another --out"
        )


def _given_values(given: Given) -> dict[str, Any]:
    if isinstance(given, TaskConfig):
        return {name: getattr(given, name) for name in given.given}
    return dict(given or {})


def _per_step(options: Mapping[str, Any], processes: int) -> int:
    """Examples of an optimizer step."""
    each = [options.get(name, getattr(TaskConfig, name)) for name in _CUT]
    return processes * each[0] * each[1]


_CUT = ("batch_size", "grad_accum_steps")
"""How a step is cut into batches, which may change if the step stays the same."""


def _refuse_another_run(
    config: type[TaskConfig], wanted: Mapping[str, Any], saved: Facts, out: Path, processes: int
) -> None:
    per_step = _per_step(saved.options, saved.processes)
    same_step = per_step == _per_step(saved.options | dict(wanted), processes)
    # Older runs could not say these.
    usual = {name: ModelConfig()[name] for name in ("feed_forward", "hidden_dim")}
    usual |= {"pack": "windows", "optimizer": "adamw"}
    before = usual | saved.options | saved.shape
    changed = [
        f"{name} {before[name]!r} to {wanted[name]!r}"
        for name in config.FIXED_ON_RESUME
        if name in wanted and name in before and wanted[name] != before[name]
        if not (same_step and name in _CUT)
    ]
    if changed:
        raise UserError(
            f"--resume goes on with the same run, but this would change {', '.join(changed)}; "
            f"leave these options out, or start a new run: {config.AFRESH.format(out=out)}"
        )

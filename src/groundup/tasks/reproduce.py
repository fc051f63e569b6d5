"""The command that makes a run again, worked out from what ``groundup.json`` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.config import ModelConfig, preset
from groundup.data.finding import STDIN
from groundup.data.text import embedded_documents, fingerprint
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.options import option_fields, read_recipe
from groundup.output import shell
from groundup.tasks.config import (
    ClassifyConfig,
    InstructConfig,
    NewModelConfig,
    PretrainConfig,
    TaskConfig,
)

CONFIGS: dict[str, type[TaskConfig]] = {
    config.TASK: config for config in (PretrainConfig, ClassifyConfig, InstructConfig)
}

TEXT = "TEXT"
"""Stands for texts that were given from Python."""


def command_of(facts: Facts, out: Path) -> str:
    """The command line that makes a run again, beside the old one.

    It says what differs from the defaults, and what a recipe that the command takes by itself
    would set otherwise.

    Args:
        facts: the run's.
        out: its directory.

    Raises:
        UserError: it is no task's run.
    """
    if facts.task not in CONFIGS:
        raise UserError(f"{out} was not made by a command of groundup")
    command, given = _command(facts)
    words = [*command, f"--out={out}-again", *_flags(facts, given)]
    piped = " < " + TEXT if "-" in command else ""
    return shell(*words) + piped


def changed_options(facts: Facts) -> set[str]:
    """The names of the options that are not at their defaults."""
    defaults = {name: field.default for name, (field, _) in _fields(facts).items()}
    changed = {n for n, value in facts.options.items() if n in defaults and value != defaults[n]}
    if facts.schedule.warmup_steps == (facts.schedule.total_steps or 0) // 20:
        changed.discard("warmup_steps")  # as it would be by itself
    return changed


def _command(facts: Facts) -> tuple[list[str], set[str]]:
    """The command with its texts; and what its recipe would set, so that it must be said."""
    if facts.task == "instruct":
        return ["groundup", "instruct", "train"], set()
    if facts.task == "classify":
        recipe = {} if facts.options.get("model") else _recipe("classify", "small")
        return ["groundup", "classify", "train"], set(recipe)
    if facts.data.files or facts.options.get("mix"):
        files = ["-" if name == STDIN else name for name in facts.data.files]
        return ["groundup", "pretrain", *files], set()
    if _is_demo(facts):
        return ["groundup", "demo"], set(_recipe("pretrain", "demo"))
    return ["groundup", "pretrain", TEXT], set()


def _flags(facts: Facts, given: set[str]) -> list[str]:
    values = {n: v for n, v in facts.options.items() if n in _fields(facts)}
    wanted = (changed_options(facts) | (given & values.keys())) - {"minutes"}
    if facts.options.get("minutes") is not None:
        # So many steps as fitted into the time then; another machine would make more or fewer.
        values |= {"epochs": None, "max_steps": facts.schedule.total_steps}
        wanted = (wanted | {"max_steps"}) - {"epochs"}
    if facts.options.get("train") != "lora":
        wanted -= {"lora_rank", "lora_alpha", "lora_dropout"}
    if _source(facts):
        wanted -= set(NewModelConfig.FIXED)
    if facts.task != "pretrain" and not values.get("data"):
        values["data"], wanted = TEXT, wanted | {"data"}
    ordered = [name for name in ("data", "model", *values) if name in wanted]
    said = {name: values[name] for name in ordered} | _shape(facts, given)
    flags: list[str] = []
    for name, value in said.items():
        several = value if isinstance(value, list) else [value]  # --mix a=0.7 --mix b=0.3
        flags += [_flag(name, one) for one in several]
    return flags


def _shape(facts: Facts, given: set[str]) -> dict[str, Any]:
    """What of the model's shape the command must say."""
    shape = {n: v for n, v in facts.shape.items() if n in ModelConfig.field_names()}
    if _source(facts):
        said = {"drop_rate"} | ({"context_length"} if facts.task == "pretrain" else set())
        if Path(_source(facts)).suffix == ".pth":
            said.add("n_heads")
        return {name: value for name, value in shape.items() if name in said}
    base = preset(facts.options.get("preset", "tiny"))
    said = {n: v for n, v in shape.items() if v != base[n] or n in given}
    if facts.task == "classify":
        said.pop("tie_weights", None)  # its output layer has taken the place of a tied one
    if facts.options.get("tokenizer", "bpe") != "bpe":
        said.pop("vocab_size", None)  # the tokenizer has it
    return said


def _source(facts: Facts) -> str:
    """The model that it began from."""
    return facts.options.get("model") or facts.options.get("init_from") or ""


def _fields(facts: Facts) -> dict[str, Any]:
    return option_fields(CONFIGS[facts.task]) if facts.task in CONFIGS else {}


def _recipe(task: str, name: str) -> dict[str, Any]:
    return read_recipe(task, name, CONFIGS[task], ModelConfig)


def _is_demo(facts: Facts) -> bool:
    try:
        return facts.data.sha256 == fingerprint(embedded_documents())
    except UserError:  # this Python lacks the text
        return False


def _flag(name: str, value: object) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag}={'none' if value is None else value}"

"""What ``groundup.json`` says of a model directory: what it is, and how it came to be.

The other files of the directory are Hugging Face's; this one has what only we know. It is of a
version: the first one, which did not say so, is read; a newer one is refused by number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from groundup.errors import UserError
from groundup.files import read_json, write_json
from groundup.options import fits

NAME = "groundup.json"
VERSION = 2
OWN_DIGEST = "sha256"

Kind = Literal["language model", "classifier", "adapter"]
"""What a directory holds; an adapter with labels belongs to a classifier."""

T = TypeVar("T")


@dataclass
class Data:
    """What a model was trained on, and how to tell whether it is still the same."""

    description: str = ""
    files: list[str] = field(default_factory=list)
    sha256: str | None = None
    train_tokens: int | None = None
    val_tokens: int | None = None
    train_examples: int | None = None  # labelled texts, or entries of instructions
    truncated: int | None = None  # of these, how many were cut off
    mix: dict[str, float] = field(default_factory=dict)  # corpora and their shares


@dataclass
class Schedule:
    """What a run was planned to be; a resumed run keeps to it."""

    total_steps: int | None = None
    warmup_steps: int | None = None


@dataclass
class Reading:
    """How a classifier reads a text."""

    max_length: int | None = None  # tokens; the rest is cut off
    padded: bool = False  # at the last position after padding to max_length, as in the course


@dataclass
class Base:
    """The model that a fine-tuning began from."""

    source: str = ""  # a path or a name
    n_heads: int | None = None  # a .pth cannot say it
    frozen_sha256: str | None = None  # of its weights that do not train


@dataclass
class Facts:
    """All that ``groundup.json`` says.

    Attributes:
        kind: what the directory holds.
        task: which task trained it (``pretrain``, ``classify``, ``instruct``); empty if none of
            ours did.
        options: the run's options by name; :meth:`options_of` gives them back typed.
        shape: the model's config by name, and the windows' length that it was trained on.
        data: what it was trained on.
        schedule: what the run was planned to be.
        progress: the newest value of everything that was recorded.
        labels: a classifier's classes, in the order of its scores.
        reading: how a classifier reads a text.
        prompt_style: how the model was prompted while it was fine-tuned.
        base: what it began from.
        processes: how many shared the run.
        versions: of the software that wrote it.
        digests: SHA-256 of the directory's other files by name, as far as they decide what the
            model computes and how its run goes on (``snapshot.py``); of its own, the file has one
            too.
    """

    kind: Kind = "language model"
    task: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, Any] = field(default_factory=dict)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    progress: dict[str, float] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    reading: Reading = field(default_factory=Reading)
    prompt_style: str | None = None
    base: Base = field(default_factory=Base)
    processes: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def is_classifier(self) -> bool:
        """Whether texts are sorted, not continued."""
        return bool(self.labels)

    def options_of(self, config: type[T]) -> T:
        """The run's options as the dataclass that declares them."""
        names = [f.name for f in dataclasses.fields(config)]  # pyright: ignore[reportArgumentType]
        return config(**{name: self.options[name] for name in names if name in self.options})

    @classmethod
    def read(cls, directory: Path, *, verify: bool = False) -> Facts | None:
        """Read them from a directory; None if it has none (it is not ours).

        Args:
            directory: where they are.
            verify: whether to check the file's own SHA-256, if it has one.

        Raises:
            UserError: the file is damaged, or of a version that this groundup does not know.
        """
        path = directory / NAME
        if not path.exists():
            return None
        values = read_json(path)
        own, said = values.pop(OWN_DIGEST, None), _own_digest(values)
        version = values.pop("version", 1)
        if fits(version, int) and version > VERSION:
            raise UserError(
                f"{path} is of version {version}; this groundup reads up to version {VERSION}: "
                "update groundup"
            )
        if verify and own not in (None, said):
            raise wrong_digest(path)
        try:
            if not fits(version, int) or version < 1:
                raise ValueError(f"version is {version!r}")
            return _build(cls, _from_first_version(values) if version == 1 else values)
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"{path} is damaged: {error}") from error

    def write(self, directory: Path) -> None:
        """Write them into a directory."""
        values = {"version": VERSION} | asdict(self)
        write_json(directory / NAME, values | {OWN_DIGEST: _own_digest(values)})


def wrong_digest(path: Path) -> UserError:
    """What to tell the user about a file whose SHA-256 is not the one that was saved."""
    return UserError(
        f"{path} is not as it was saved: its SHA-256 is another one, so it is damaged or has been "
        "changed; copy it again, or take it as it is with --no-verify (verify=False)"
    )


def _own_digest(values: Mapping[str, Any]) -> str:
    """The SHA-256 of what the file says, however it is laid out."""
    said = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _build(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from JSON's values; what it does not know is left out."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for part in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]
        if part.name in values:
            value, hint = values[part.name], hints[part.name]
            if dataclasses.is_dataclass(hint) and isinstance(value, dict):
                value = _build(typing.cast(type, hint), value)
            elif not fits(value, hint):
                raise ValueError(f"{part.name} is {value!r:.60}")
            found[part.name] = value
    return cls(**found)


_SHAPE = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
_SWITCHES = ("drop_rate", "qkv_bias", "tie_weights")


def _from_first_version(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the first version's file said, in today's places."""
    config = dict(values.get("config", {}))
    data = dict(values.get("data", {}))
    task, labels = values.get("task", "pretrain"), values.get("labels", [])
    shape = {name: config.pop(name) for name in (*_SHAPE, *_SWITCHES) if name in config}
    total, warmup = config.pop("total_steps", None), config.get("warmup_steps")
    examples = data.pop("train_texts", None) or data.pop("train_entries", None)
    base = {
        "source": config.get("model") or config.get("init_from") or "",
        "n_heads": shape.get("n_heads"),
        "frozen_sha256": data.pop("frozen_sha256", None),
    }
    progress = dict(values.get("progress", {}))
    if "train_loss" in progress:  # which it called the mean of the last steps
        progress["running_loss"] = progress.pop("train_loss")
    return {
        "kind": "classifier" if labels else "language model",
        "task": "" if task == "unknown" else task,
        "options": config,
        "shape": shape,
        "data": data | {"train_examples": examples},
        "schedule": {"total_steps": total, "warmup_steps": warmup},
        "progress": progress,
        "labels": labels,
        "reading": {
            "max_length": config.get("max_length") if labels else None,
            "padded": config.get("position") == "last-padded",
        },
        "prompt_style": values.get("prompt_style"),
        "base": base,
        "versions": values.get("versions", {}),
    }

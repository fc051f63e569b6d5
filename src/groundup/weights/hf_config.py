"""Hugging Face's ``config.json``: a model's shape and a classifier's labels, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.options import describe_type, fits
from groundup.parsing import read_json
from groundup.weights.architectures import ARCHITECTURES, Architecture, architecture_of

CONFIG = "config.json"


def read_model_config(directory: Path) -> ModelConfig:
    """Read a ``config.json`` as a ``ModelConfig``.

    Raises:
        UserError: it is missing or damaged, or describes a model that is not ours.
    """
    path = directory / CONFIG
    values = read_json(path)
    architecture, classes = _architecture(values, path)
    given = {**architecture.defaults, **values}
    problems = [
        f"{name} is {given[name]!r:.60}; expected {describe_type(hint)}"
        if name in given
        else f"it lacks {name}"
        for name, (_, hint) in architecture.fields.items()
        if name not in given or not fits(given[name], hint)
    ]
    problems += [
        f"{name} is {values[name]!r:.60}, groundup's is {' or '.join(map(repr, allowed))}"
        for name, allowed in architecture.fixed.items()
        if name in values and values[name] not in allowed
    ]
    if problems:
        raise UserError(f"{path} cannot be used: {'; '.join(problems)}")
    shape = {ours: given[theirs] for theirs, (ours, _) in architecture.fields.items()}
    try:
        cfg = ModelConfig(**shape, **architecture.more(values))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    # A classifier's output layer is never the token embedding, whatever its config says.
    tied = cfg.tie_weights and not _is_classifier(classes)
    return cfg.plain().replace(tie_weights=tied)


def read_labels(directory: Path) -> list[str]:
    """The names of a classifier's classes, in the order of its scores; none for a language model.

    Raises:
        UserError: the config is missing or damaged.
    """
    path = directory / CONFIG
    values = read_json(path)
    if not _is_classifier(_classes(values, path)):
        return []
    # transformers leaves its default out: two classes without names.
    names = values.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    numbered = fits(names, dict[str, str | int | float]) and set(names) == {
        str(index) for index in range(len(names))
    }
    if numbered and names:
        return [str(names[str(index)]) for index in range(len(names))]
    raise UserError(f"{path} is damaged: id2label does not number its labels from 0")


def hf_config(
    cfg: ModelConfig,
    eot_token: int | None,
    labels: Sequence[str] = (),
    *,
    bos_token: int | None = None,
) -> dict[str, Any]:
    """The ``config.json`` with which ``transformers`` builds the same model.

    With ``labels`` it is a classifier's; ``bos_token`` is ``eot_token`` unless given.

    Raises:
        UserError: no architecture of theirs has this shape.
    """
    architecture = architecture_of(cfg)
    classifier = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
        "pad_token_id": eot_token,
        "problem_type": "single_label_classification",
    }
    return {
        "architectures": [architecture.classifier if labels else architecture.language_model],
        "model_type": architecture.name,
        **{theirs: getattr(cfg, ours) for theirs, (ours, _) in architecture.fields.items()},
        **architecture.spelled(cfg),
        "initializer_range": 0.02,
        "bos_token_id": eot_token if bos_token is None else bos_token,
        "eos_token_id": eot_token,
        "dtype": "float32",
        **(classifier if labels else {}),
    }


def _architecture(values: Mapping[str, Any], path: Path) -> tuple[Architecture, list[str]]:
    """Whose config it is, and the classes that it names."""
    kind, classes = values.get("model_type"), _classes(values, path)
    for architecture in ARCHITECTURES:
        families = {architecture.name: architecture.family, **architecture.aliases}
        if not isinstance(kind, str) or kind not in families:
            continue
        family = families[kind]
        ending = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
        known = [f"{family}{end}" for end in (ending, "Model", "ForSequenceClassification")]
        if not classes or set(known) & set(classes):
            return architecture, classes
    types = [name for known in ARCHITECTURES for name in (known.name, *known.aliases)]
    named = ", ".join(classes) or "without architectures"
    raise UserError(
        f"{path} describes a {kind!r:.60} model ({named:.200}); groundup opens language models "
        f"and classifiers of the types {', '.join(types)}"
    )


def _classes(values: Mapping[str, Any], path: Path) -> list[str]:
    """The classes that a config names."""
    found = values.get("architectures") or []
    if not fits(found, list[str]):
        raise UserError(f"{path} is damaged: architectures is {found!r:.60}; expected names")
    return found


def _is_classifier(classes: Sequence[str]) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in classes)

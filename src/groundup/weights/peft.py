"""PEFT's side of an adapter: which layers it has, and what its config may say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from groundup.config import ModelConfig
from groundup.errors import UserError, did_you_mean
from groundup.files import read_json
from groundup.model.lora import name_ends_with
from groundup.weights.architectures import architecture_of
from groundup.weights.names import huggingface_rows

T = TypeVar("T")

_PREFIX = "base_model.model."

HEAD = f"{_PREFIX}score.weight"
"""A classifier's output layer."""


class PeftLayer(NamedTuple):
    """One of their linear layers, and which of ours it holds."""

    name: str  # transformer.h.0.attn.c_attn, model.layers.0.self_attn.q_proj
    kind: str  # the same without the block: attn.c_attn, self_attn.q_proj
    A: str  # what its A (r, in) is called in the file
    B: str  # and its B (out, r)
    ours: tuple[str, ...]  # trf_blocks.0.att.W_query, …

    def value(self, pattern: Mapping[str, T], default: T) -> T:
        """Its value: that of the first name in ``pattern`` that its own ends with."""
        return next(
            (v for name, v in pattern.items() if name_ends_with(self.name, [name])), default
        )


def peft_layers(cfg: ModelConfig) -> list[PeftLayer]:
    """All linear layers in the blocks of a model of this shape, as Hugging Face has them."""
    layers = []
    for row in huggingface_rows(cfg):
        if row.linear:
            name = row.theirs.removesuffix(".weight")
            A, B = (f"{_PREFIX}{name}.lora_{part}.weight" for part in "AB")
            ours = tuple(part.removesuffix(".weight") for part in row.ours)
            layers.append(PeftLayer(name, name.split(".", 3)[3], A, B, ours))
    return layers


def per_kind(values: Mapping[PeftLayer, T], cfg: ModelConfig) -> dict[str, T]:
    """Say it once per kind of layer where all blocks agree, otherwise once per block."""
    short: dict[str, T] = {}
    for layer, value in values.items():
        same = [v for other, v in values.items() if other.kind == layer.kind]
        short[layer.kind if same == [value] * cfg.n_layers else layer.name] = value
    return short


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _are_by_name(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "r": (_is_count, "a whole number of at least 1"),
    "lora_alpha": (_is_positive, "a number above 0"),
    "lora_dropout": (lambda p: p == 0 or (_is_positive(p) and p < 1), "a number from 0 to below 1"),
    "target_modules": (_are_names, "a list of names"),
    "modules_to_save": (_are_names, "a list of names"),
    "rank_pattern": (lambda p: _are_by_name(p, _is_count), "whole numbers of at least 1 by name"),
    "alpha_pattern": (lambda p: _are_by_name(p, _is_positive), "numbers above 0 by name"),
}
_OPTIONAL = {"lora_dropout": 0.0, "modules_to_save": [], "rank_pattern": {}, "alpha_pattern": {}}

# What PEFT can vary and we do not compute, with the values that we do; null always is one.
_FIXED: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian"),  # the others change the base weights too
    **dict.fromkeys(("use_dora", "use_rslora", "lora_bias", "use_qalora"), (False,)),
    **dict.fromkeys(("exclude_modules", "target_parameters"), (None, [])),
    "use_bdlora": (None, False),
    **dict.fromkeys(("layers_to_transform", "layer_replication"), (None,)),
    **dict.fromkeys(("trainable_token_indices", "alora_invocation_tokens"), (None,)),
    **dict.fromkeys(("kasa_config", "monteclora_config", "arrow_config"), (None,)),
}


def read_config(path: Path, cfg: ModelConfig) -> dict[str, Any]:
    """Read and check ``adapter_config.json``.

    Raises:
        UserError: it is missing or damaged, or no model of this shape can have such an adapter.
    """
    given = {name: value for name, value in read_json(path).items() if value is not None}
    config: dict[str, Any] = {**_OPTIONAL, **given}
    problems = [
        f"{name} is {given[name]!r}, groundup's is {' or '.join(map(repr, allowed))}"
        for name, allowed in _FIXED.items()
        if name in given and given[name] not in allowed
    ]
    problems += [
        f"{name} is {config[name]!r}; expected {expected}" if name in config else f"it lacks {name}"
        for name, (fits, expected) in _EXPECTED.items()
        if name not in config or not fits(config[name])
    ]
    problems = problems or _unknown_names(config, cfg)
    if problems:
        raise UserError(f"{path} cannot be used: {'; '.join(problems)}")
    return config


def _unknown_names(config: Mapping[str, Any], cfg: ModelConfig) -> list[str]:
    """The names in the config that no layer has."""
    layers, title = peft_layers(cfg), architecture_of(cfg).title
    problems = [
        f"{key} names {name!r}, which is no linear layer of a {title} of {cfg.n_layers} blocks"
        f"{did_you_mean(name, [layer.kind for layer in layers])}"
        for key in ("target_modules", "rank_pattern", "alpha_pattern")
        for name in config[key]
        if not any(name_ends_with(layer.name, [name]) for layer in layers)
    ]
    return problems + [
        f"modules_to_save names {name!r}, but groundup takes only a classifier's 'score'"
        for name in config["modules_to_save"]
        if name not in ("score", "classifier")  # PEFT always names both, whatever the model has
    ]

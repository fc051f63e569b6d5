"""PEFT's adapter files for GPT-2: the names in them, and whether they fit a model of ours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from groundup.config import ModelConfig
from groundup.errors import UserError, did_you_mean
from groundup.files import read_json
from groundup.model.classifier import is_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import name_ends_with
from groundup.weights.names import huggingface_rows

T = TypeVar("T")

PREFIX = "base_model.model."

HEAD = f"{PREFIX}score.weight"
"""A classifier's output layer."""

# What PEFT can vary and we do not compute; each with the values that we do.
FIXED: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False,),
    "use_rslora": (False,),
    "lora_bias": (False,),
    "init_lora_weights": (True, False, "gaussian"),  # the others change the base weights too
    "layers_to_transform": (None,),
    "exclude_modules": (None, []),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
    "use_qalora": (False,),
    "use_bdlora": (None, False),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "arrow_config": (None,),
}


def linear_layers(model: GPTModel) -> dict[str, nn.Linear]:
    """Our linear layers by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def peft_modules(cfg: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Their linear layers, and which of ours each of them holds."""
    return {
        row.theirs.removesuffix(".weight"): tuple(n.removesuffix(".weight") for n in row.ours)
        for row in huggingface_rows(cfg)
        if row.transposed
    }


def tensor_names(module: str) -> tuple[str, str]:
    """What the ``A (r, in)`` and the ``B (out, r)`` of one of their layers are called."""
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def _kind(module: str) -> str:
    """``transformer.h.0.attn.c_attn`` without the block: ``attn.c_attn``."""
    return module.split(".", 3)[3]


def per_kind(values: Mapping[str, T], cfg: ModelConfig) -> dict[str, T]:
    """Say it once per kind of layer where all blocks agree, otherwise once per block."""
    short: dict[str, T] = {}
    for module, value in values.items():
        same = [v for other, v in values.items() if _kind(other) == _kind(module)]
        short[_kind(module) if same == [value] * cfg.n_layers else module] = value
    return short


def value_for(module: str, pattern: Mapping[str, T], default: T) -> T:
    """A layer's value: that of the first name in ``pattern`` that its own ends with."""
    return next((v for name, v in pattern.items() if name_ends_with(module, [name])), default)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _is_probability(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _by_name(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


EXPECTED: dict[str, tuple[Callable[[object], bool], str]] = {
    "r": (_is_count, "a whole number of at least 1"),
    "lora_alpha": (_is_positive, "a number above 0"),
    "lora_dropout": (_is_probability, "a number from 0 to below 1"),
    "target_modules": (_are_names, "a list of names"),
    "modules_to_save": (_are_names, "a list of names"),
    "rank_pattern": (_by_name(_is_count), "whole numbers of at least 1 by name"),
    "alpha_pattern": (_by_name(_is_positive), "numbers above 0 by name"),
}


def read_config(path: Path, cfg: ModelConfig) -> dict[str, Any]:
    """Read and check ``adapter_config.json``.

    Raises:
        UserError: it is missing or damaged, or no model of this shape can have such an adapter.
    """
    given = {name: value for name, value in read_json(path).items() if value is not None}
    optional = {"lora_dropout": 0.0, "modules_to_save": [], "rank_pattern": {}, "alpha_pattern": {}}
    config: dict[str, Any] = {**optional, **given}
    problems = [
        f"{name} is {given[name]!r}, groundup's is {' or '.join(map(repr, allowed))}"
        for name, allowed in FIXED.items()
        if name in given and given[name] not in allowed
    ]
    problems += [
        f"{name} is {config[name]!r}; expected {expected}" if name in config else f"it lacks {name}"
        for name, (fits, expected) in EXPECTED.items()
        if name not in config or not fits(config[name])
    ]
    problems = problems or _unknown_names(config, cfg)
    if problems:
        raise UserError(f"{path} cannot be used: {'; '.join(problems)}")
    return config


def _unknown_names(config: Mapping[str, Any], cfg: ModelConfig) -> list[str]:
    """The names in the config that no layer has."""
    modules = list(peft_modules(cfg))
    problems = [
        f"{key} names {name!r}, which is no linear layer of a GPT-2 of {cfg.n_layers} blocks"
        f"{did_you_mean(name, map(_kind, modules))}"
        for key in ("target_modules", "rank_pattern", "alpha_pattern")
        for name in config[key]
        if not any(name_ends_with(module, [name]) for module in modules)
    ]
    return problems + [
        f"modules_to_save names {name!r}, but groundup takes only a classifier's 'score'"
        for name in config["modules_to_save"]
        if name not in ("score", "classifier")  # PEFT always names both, whatever the model has
    ]


def wrong_sizes(tensors: Mapping[str, Tensor], cfg: ModelConfig) -> list[str]:
    """Whether the adapter is for a model of another size, which explains all the rest."""
    blocks = {int(m[1]) for name in tensors if (m := re.search(r"\.h\.(\d+)\.", name))}
    pairs = [[tensors.get(name) for name in tensor_names(module)] for module in peft_modules(cfg)]
    # The smaller side of all these layers is emb_dim.
    widths = {
        min(A.shape[1], B.shape[0])
        for A, B in pairs
        if A is not None and B is not None and A.dim() == B.dim() == 2
    }
    problems = []
    if widths and cfg.emb_dim not in widths:
        problems.append(f"the adapter is for emb_dim {max(widths)}, the model has {cfg.emb_dim}")
    if blocks and max(blocks) >= cfg.n_layers:
        problems.append(
            f"the adapter is for n_layers {max(blocks) + 1}, the model has {cfg.n_layers}"
        )
    return problems


def wrong_tensors(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], model: GPTModel
) -> list[str]:
    """The tensors that are missing, unexpected or misshapen."""
    linears = linear_layers(model)
    shapes: dict[str, tuple[int, int]] = {}
    for module, names in peft_modules(model.cfg).items():
        if name_ends_with(module, config["target_modules"]):
            rank = value_for(module, config["rank_pattern"], config["r"])
            A, B = tensor_names(module)
            shapes[A] = rank, linears[names[0]].in_features
            shapes[B] = sum(linears[name].out_features for name in names), rank
    if "score" in config["modules_to_save"]:
        # A language model is made a classifier of as many classes as the adapter has.
        makes_one = not is_classifier(model) and HEAD in tensors and tensors[HEAD].dim() == 2
        classes = max(2, len(tensors[HEAD])) if makes_one else model.out_head.out_features
        shapes[HEAD] = classes, model.cfg.emb_dim
    problems = [f"{name} is missing" for name in shapes if name not in tensors]
    problems += [
        f"{name} is unexpected{did_you_mean(name, shapes)}"
        for name in tensors
        if name not in shapes
    ]
    return problems + [
        f"{name} has the shape {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]

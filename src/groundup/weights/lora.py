"""LoRA adapters as files, in the layout of Hugging Face's PEFT: it opens ours, we open its.

Hugging Face's GPT-2 keeps query, key and value in one layer ``c_attn``, we keep three. Three
updates ``B_i A_i`` of rank ``r`` are one of rank ``3r``: the three ``A`` stacked, the three ``B``
as the blocks of a block-diagonal matrix. Updates are scaled by ``alpha / rank``, so ``c_attn`` gets
``3 alpha`` as well. A projection without LoRA has zeros there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.files import atomic_update, finish_update, write_json
from groundup.model.classifier import is_classifier, to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import LoRALinear, has_lora, lora_layers
from groundup.weights.peft import (
    HEAD,
    linear_layers,
    peft_modules,
    per_kind,
    read_config,
    tensor_names,
    value_for,
    wrong_sizes,
    wrong_tensors,
)
from groundup.weights.tensors import load_tensors, save_tensors

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class _Update(NamedTuple):
    """What one of our layers is given."""

    A: Tensor  # (r, in)
    B: Tensor  # (out, r)
    alpha: float


def save_adapter(directory: str | Path, model: GPTModel, base: str) -> None:
    """Write a model's LoRA updates, and a classifier's output layer, as a PEFT adapter.

    Args:
        directory: made if it is not there; files of the same names are replaced.
        model: one with LoRA layers.
        base: path or name of the model that they were trained on, for whoever opens the adapter.

    Raises:
        UserError: the model has no LoRA layers or has trained more than an adapter can hold, or
            the directory cannot be written to; what was there is intact.
    """
    layers = lora_layers(model)
    classifies = is_classifier(model)
    _check_it_fits_a_file(model, layers, classifies)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for module, names in peft_modules(model.cfg).items():
        parts = [layers.get(name) for name in names]
        if any(parts):
            joined = _join(parts)
            tensors |= dict(zip(tensor_names(module), joined[:2], strict=True))
            ranks[module], alphas[module] = len(joined.A), joined.alpha
    if classifies:
        tensors[HEAD] = model.out_head.weight.detach().cpu()
    first = next(iter(layers.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if classifies else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": first.rank,
        "lora_alpha": first.alpha,
        "lora_dropout": first.dropout.p,
        "target_modules": list(per_kind(ranks, model.cfg)),
        "rank_pattern": per_kind(ranks, model.cfg),
        "alpha_pattern": per_kind(alphas, model.cfg),
        "modules_to_save": ["score"] if classifies else None,
        "fan_in_fan_out": True,  # of the base: its Conv1D keeps matrices transposed
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    with atomic_update(Path(directory)) as staging:
        write_json(staging / ADAPTER_CONFIG, config)
        save_tensors(tensors, staging / ADAPTER_WEIGHTS)


def load_adapter(directory: str | Path, model: GPTModel) -> GPTModel:
    """Put a PEFT adapter onto the model that it was trained on.

    The model is frozen, but for the updates and for a classifier's output layer: if the adapter
    has one, it takes the place of the model's.

    An adapter that PEFT trained has one ``A`` for query, key and value. Each of the three gets a
    copy and its rows of ``B``: the numbers are the same, but further training moves the copies
    apart.

    Args:
        directory: where the adapter is, be it ours or PEFT's.
        model: a model without LoRA; changed in place, its mode is kept.

    Returns:
        The model.

    Raises:
        UserError: a file is missing or damaged, or the adapter is for another model or does what
            ours cannot; the model is as it was.
    """
    directory = Path(directory)
    if has_lora(model):
        raise UserError("the model has LoRA layers already; merge them first (merge_lora)")
    if not directory.is_dir():
        raise UserError(f"there is no adapter directory {str(directory)!r}")
    finish_update(directory)
    config = read_config(directory / ADAPTER_CONFIG, model.cfg)
    tensors = load_tensors(directory / ADAPTER_WEIGHTS, "cpu")
    problems = wrong_sizes(tensors, model.cfg) or wrong_tensors(tensors, config, model)
    updates = {} if problems else _updates(tensors, config, model.cfg)
    problems += [
        f"the update of {name} has rank {len(update.A)}, more than emb_dim ({model.cfg.emb_dim})"
        for name, update in updates.items()
        if len(update.A) > model.cfg.emb_dim
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))
        raise UserError(f"{directory} does not fit the model: {shown}")
    model.requires_grad_(False)
    linears = linear_layers(model)
    for name, update in updates.items():
        layer = LoRALinear(linears[name], len(update.A), update.alpha, config["lora_dropout"])
        with torch.no_grad():
            layer.A.copy_(update.A)
            layer.B.copy_(update.B)
        model.set_submodule(name, layer)
    if HEAD in tensors:
        weight = tensors[HEAD].to(model.tok_emb.weight)
        to_classifier(model, len(weight)).out_head.weight = nn.Parameter(weight)
    return model


def adapter_classes(directory: Path) -> int:
    """How many classes an adapter's own output layer scores; 0 for a language model's adapter.

    Raises:
        UserError: the adapter's weights are missing or damaged.
    """
    head = load_tensors(directory / ADAPTER_WEIGHTS, "cpu").get(HEAD)
    return 0 if head is None else len(head)


def _join(parts: list[LoRALinear | None]) -> _Update:
    """One update for ``n`` layers: ``A (n * r, in)``, ``B (n * out, n * r)``."""
    layers = [layer for layer in parts if layer is not None]
    if len({(layer.rank, layer.alpha) for layer in layers}) > 1:
        raise UserError(
            "query, key and value have LoRA updates of different rank or alpha, and an adapter "
            "file holds them as one; give them the same"
        )
    A = [torch.zeros_like(layers[0].A) if part is None else part.A for part in parts]
    B = [torch.zeros_like(layers[0].B) if part is None else part.B for part in parts]
    with torch.no_grad():
        joined = torch.cat(A).cpu(), torch.block_diag(*B).cpu()
    return _Update(*joined, alpha=len(parts) * layers[0].alpha)


def _split(whole: _Update, n: int) -> list[_Update] | None:
    """Undo :func:`_join`; None if ``B`` is not block-diagonal."""
    A, B, alpha = whole
    if len(A) % n:
        return None
    blocks = [rows.chunk(n, dim=1)[i] for i, rows in enumerate(B.chunk(n))]
    if not torch.equal(torch.block_diag(*blocks), B):
        return None
    return [_Update(*pair, alpha / n) for pair in zip(A.chunk(n), blocks, strict=True)]


def _updates(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], cfg: ModelConfig
) -> dict[str, _Update]:
    """The updates of our layers by name; where all is zero there is none."""
    updates: dict[str, _Update] = {}
    for module, names in peft_modules(cfg).items():
        A, B = tensor_names(module)
        if A not in tensors:
            continue
        alpha = value_for(module, config["alpha_pattern"], config["lora_alpha"])
        whole = _Update(tensors[A], tensors[B], alpha)
        # Ours always says the rank. PEFT's own, whose B begins at zero, must not be taken for it.
        parts = _split(whole, len(names)) if value_for(module, config["rank_pattern"], 0) else None
        parts = parts or [whole._replace(B=rows) for rows in whole.B.chunk(len(names))]
        found = zip(names, parts, strict=True)
        updates |= {name: part for name, part in found if part.A.any() or part.B.any()}
    return updates


def _check_it_fits_a_file(
    model: GPTModel, layers: Mapping[str, LoRALinear], classifies: bool
) -> None:
    if not layers:
        raise UserError("the model has no LoRA layers to save; call add_lora first")
    if classifies and model.out_head.bias is not None:
        raise UserError(
            "the classifier's output layer has a bias, which that of transformers' GPT-2 lacks; "
            "build it with bias=False"
        )
    kept = {f"{name}.{part}" for name in layers for part in "AB"}
    kept |= {"out_head.weight"} if classifies else set()
    lost = [name for name, p in model.named_parameters() if p.requires_grad and name not in kept]
    if lost:
        raise UserError(
            f"{', '.join(lost[:5])}{' …' * (len(lost) > 5)}: trainable as well, but an adapter "
            "file cannot hold it; freeze it, or merge_lora(model) and save the whole model"
        )

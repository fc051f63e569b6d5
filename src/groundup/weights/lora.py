"""LoRA adapters as files, in the layout of Hugging Face's PEFT: it opens ours, we open its.

Hugging Face's GPT-2 keeps query, key and value in one layer ``c_attn``, we keep three. Three
updates ``B_i A_i`` of rank ``r`` are one of rank ``3r``: the three ``A`` stacked, the three ``B``
as the blocks of a block-diagonal matrix. Updates are scaled by ``alpha / rank``, so ``c_attn`` gets
``3 alpha`` as well. A projection without LoRA has zeros there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.files import atomic_update, write_json
from groundup.model.classifier import is_classifier, to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import LoRALinear, has_lora, lora_layers, name_ends_with
from groundup.snapshot import read_whole
from groundup.weights.architectures import GPT2, architecture_of
from groundup.weights.names import first_of, name_problems
from groundup.weights.peft import HEAD, peft_layers, per_kind, read_config
from groundup.weights.tensors import load_tensors, save_tensors

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class _Update(NamedTuple):
    """What a layer is given."""

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
    ours, classifies = lora_layers(model), is_classifier(model)
    _check_it_fits_a_file(model, ours, classifies)
    updates = {
        layer: _join([ours.get(name) for name in layer.ours])
        for layer in peft_layers(model.cfg)
        if any(name in ours for name in layer.ours)
    }
    tensors: dict[str, Tensor] = {}
    for layer, update in updates.items():
        tensors |= {layer.A: update.A, layer.B: update.B}
    if classifies:
        tensors[HEAD] = model.out_head.weight.detach().cpu()
    ranks = per_kind({layer: len(update.A) for layer, update in updates.items()}, model.cfg)
    alphas = per_kind({layer: update.alpha for layer, update in updates.items()}, model.cfg)
    first = next(iter(ours.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if classifies else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": first.rank,
        "lora_alpha": first.alpha,
        "lora_dropout": first.dropout.p,
        "target_modules": list(ranks),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "modules_to_save": ["score"] if classifies else None,
        # Of the base: GPT-2's Conv1D keeps matrices transposed.
        "fan_in_fan_out": architecture_of(model.cfg) is GPT2,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    with atomic_update(Path(directory)) as staging:
        write_json(staging / ADAPTER_CONFIG, config)
        save_tensors(tensors, staging / ADAPTER_WEIGHTS)


def load_adapter(directory: str | Path, model: GPTModel, *, verify: bool = True) -> GPTModel:
    """Put a PEFT adapter onto the model that it was trained on.

    The model is frozen, but for the updates and for a classifier's output layer: if the adapter
    has one, it takes the place of the model's.

    An adapter that PEFT trained has one ``A`` for query, key and value. Each of the three gets a
    copy and its rows of ``B``: the numbers are the same, but further training moves the copies
    apart.

    Args:
        directory: where the adapter is, be it ours or PEFT's.
        model: a model without LoRA; changed in place, its mode is kept.
        verify: whether to compare the files with the SHA-256 that were saved with them.

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
    found = read_whole(directory, lambda: read_adapter(directory, model.cfg), verify=verify)
    return put_adapter(directory, model, found)


class Adapter(NamedTuple):
    """What an adapter's files say."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


def read_adapter(directory: Path, cfg: ModelConfig) -> Adapter:
    """Read an adapter for a model of this shape.

    Raises:
        UserError: a file is missing or damaged, or no such model can have it.
    """
    config = read_config(directory / ADAPTER_CONFIG, cfg)
    return Adapter(config, load_tensors(directory / ADAPTER_WEIGHTS, "cpu"))


def put_adapter(directory: Path, model: GPTModel, adapter: Adapter) -> GPTModel:
    """Put an adapter that was read onto the model; see :func:`load_adapter`."""
    config, tensors = adapter
    problems = _misfits(tensors, config, model)
    updates = {} if problems else _updates(tensors, config, model.cfg)
    problems += [
        f"the update of {name} has rank {len(update.A)}, more than emb_dim ({model.cfg.emb_dim})"
        for name, update in updates.items()
        if len(update.A) > model.cfg.emb_dim
    ]
    if problems:
        raise UserError(f"{directory} does not fit the model: {first_of(problems)}")
    model.requires_grad_(False)
    for name, update in updates.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        layer = LoRALinear(linear, len(update.A), update.alpha, config["lora_dropout"])
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


def _split(whole: _Update, n: int) -> list[_Update]:
    """Undo :func:`_join`; if ``B`` is not block-diagonal, each part keeps all of ``A``."""
    A, B, alpha = whole
    rows = B.chunk(n)
    if len(A) % n == 0:
        blocks = [part.chunk(n, dim=1)[i] for i, part in enumerate(rows)]
        if torch.equal(torch.block_diag(*blocks), B):
            return [_Update(*pair, alpha / n) for pair in zip(A.chunk(n), blocks, strict=True)]
    return [_Update(A, part, alpha) for part in rows]


def _updates(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], cfg: ModelConfig
) -> dict[str, _Update]:
    """The updates of our layers by name; where all is zero there is none."""
    updates: dict[str, _Update] = {}
    for layer in peft_layers(cfg):
        if layer.A not in tensors:
            continue
        alpha = layer.value(config["alpha_pattern"], config["lora_alpha"])
        whole = _Update(tensors[layer.A], tensors[layer.B], alpha)
        # Ours always says the rank. PEFT's own, whose B begins at zero, must not be taken for it.
        if layer.value(config["rank_pattern"], 0):
            parts = _split(whole, len(layer.ours))
        else:
            parts = [whole._replace(B=rows) for rows in whole.B.chunk(len(layer.ours))]
        found = zip(layer.ours, parts, strict=True)
        updates |= {name: part for name, part in found if part.A.any() or part.B.any()}
    return updates


def _check_it_fits_a_file(
    model: GPTModel, ours: Mapping[str, LoRALinear], classifies: bool
) -> None:
    if not ours:
        raise UserError("the model has no LoRA layers to save; call add_lora first")
    if classifies and model.out_head.bias is not None:
        raise UserError(
            "the classifier's output layer has a bias, which those of transformers lack; "
            "build it with bias=False"
        )
    kept = {f"{name}.{part}" for name in ours for part in "AB"}
    kept |= {"out_head.weight"} if classifies else set()
    lost = [name for name, p in model.named_parameters() if p.requires_grad and name not in kept]
    if lost:
        raise UserError(
            f"{', '.join(lost[:5])}{' …' * (len(lost) > 5)}: trainable as well, but an adapter "
            "file cannot hold it; freeze it, or merge_lora(model) and save the whole model"
        )


def _misfits(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], model: GPTModel
) -> list[str]:
    """Say that the model has another size, or which tensors are missing, unexpected, misshapen."""
    cfg, layers = model.cfg, peft_layers(model.cfg)
    blocks = {int(m[1]) for name in tensors if (m := re.search(r"\.(?:h|layers)\.(\d+)\.", name))}
    pairs = [(tensors.get(layer.A), tensors.get(layer.B)) for layer in layers]
    # The smaller side of most of these layers is emb_dim.
    widths = {min(A.shape[-1], len(B)) for A, B in pairs if _is_matrix(A) and _is_matrix(B)}
    sizes = []
    usual = {
        min(parameter.shape)
        for name, parameter in model.named_parameters()
        if name.startswith("trf_blocks.0.") and parameter.dim() == 2
    }
    if widths and not widths & {cfg.emb_dim, *usual}:
        sizes.append(f"the adapter is for emb_dim {max(widths)}, the model has {cfg.emb_dim}")
    if blocks and max(blocks) >= cfg.n_layers:
        sizes.append(f"the adapter is for n_layers {max(blocks) + 1}, the model has {cfg.n_layers}")
    if sizes:
        return sizes  # which explain all the rest

    shapes: dict[str, tuple[int, int]] = {}
    ours = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for layer in layers:
        if name_ends_with(layer.name, config["target_modules"]):
            rank = layer.value(config["rank_pattern"], config["r"])
            parts = [ours[f"{name}.weight"] for name in layer.ours]  # (out, in) each
            shapes[layer.A] = rank, parts[0][1]
            shapes[layer.B] = sum(part[0] for part in parts), rank
    if "score" in config["modules_to_save"]:
        # A language model is made a classifier of as many classes as the adapter has.
        makes_one = not is_classifier(model) and _is_matrix(tensors.get(HEAD))
        classes = max(2, len(tensors[HEAD])) if makes_one else model.out_head.out_features
        shapes[HEAD] = classes, cfg.emb_dim
    return name_problems(tensors, shapes) + [
        f"{name} has the shape {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]


def _is_matrix(tensor: Tensor | None) -> TypeGuard[Tensor]:
    return tensor is not None and tensor.dim() == 2

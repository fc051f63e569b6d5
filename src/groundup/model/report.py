"""What a GPT of a given shape is made of and costs, without building it: ``groundup inspect``.

Nothing here allocates a model. Shapes come from a run on PyTorch's meta device, the memory of
activations from what autograd keeps (``activations.py``); so both are the real model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groundup.config import ModelConfig
from groundup.model.activations import FP32_BYTES, activation_bytes
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.hollow import hollow


@dataclass(frozen=True)
class LayerRow:
    """One line of the layer table."""

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Costs:
    """Parameters, memory in bytes, and floating-point operations of a shape."""

    unique_parameters: int
    total_parameters: int  # counting a tied matrix at both places
    untied_parameters: int
    tied_parameters: int
    block_parameters: int
    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments
    activations: int  # kept for the backward pass of one batch, the fused loss's included
    cache: int  # keys and values of one full context, batch of 1
    forward_flops: float  # per token, at full context
    training_flops: float

    @property
    def training(self) -> int:
        """Memory of a training step."""
        return self.weights + self.gradients + self.optimizer + self.activations

    @property
    def inference(self) -> int:
        """Memory of generating one text with a full cache."""
        return self.weights + self.cache


def layer_table(cfg: ModelConfig, batch_size: int = 1, num_classes: int = 0) -> list[LayerRow]:
    """One row per module, in the order of execution; blocks after the first are one row each.

    Shapes are those of a full context: ``(batch_size, context_length, …)``. With ``num_classes``
    it is a classifier.
    """
    model = _build(cfg, num_classes).eval()
    rows: list[LayerRow] = []
    begun: dict[str, int] = {}

    def before(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        begun[name] = len(rows)

    def after(name: str, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        own = sum(p.numel() for p in module.parameters())
        shapes = tuple(args[0].shape), tuple(out.shape)
        # A module's line stands above those of its parts, which ran before it was done.
        rows.insert(begun[name], LayerRow(name, type(module).__name__, *shapes, own))

    for name, module in model.named_modules():
        inner_block = name.startswith("trf_blocks.") and not name.startswith("trf_blocks.0")
        if name in ("", "trf_blocks") or (inner_block and name.count(".") > 1):
            continue
        module.register_forward_pre_hook(lambda m, a, name=name: before(name, m, a))
        module.register_forward_hook(lambda m, a, o, name=name: after(name, m, a, o))
    model(torch.zeros(batch_size, cfg.context_length, dtype=torch.long, device="meta"))
    return rows


def _build(cfg: ModelConfig, num_classes: int) -> GPTModel:
    with hollow():
        model = GPTModel(cfg)
        return to_classifier(model, num_classes) if num_classes else model


def costs(cfg: ModelConfig, batch_size: int = 1, num_classes: int = 0) -> Costs:
    """Count parameters, memory (fp32) and operations of a shape, of a classifier's as well."""
    model = _build(cfg, num_classes)
    unique = model.num_parameters()
    head = model.out_head.weight.numel()
    untied = unique + head if cfg.tie_weights else unique
    weights = unique * FP32_BYTES
    flops = flops_per_token(cfg, num_classes)
    return Costs(
        unique_parameters=unique,
        total_parameters=untied,
        untied_parameters=untied,
        tied_parameters=untied - head,
        block_parameters=sum(p.numel() for p in model.trf_blocks[0].parameters()),
        weights=weights,
        gradients=weights,
        optimizer=2 * weights,
        activations=activation_bytes(cfg, batch_size, num_classes),
        cache=2 * cfg.n_layers * cfg.context_length * cfg.kv_heads * cfg.head_size * FP32_BYTES,
        forward_flops=flops,
        training_flops=3 * flops,  # the backward pass costs two forward passes
    )


def flops_per_token(cfg: ModelConfig, num_classes: int = 0) -> float:
    """Floating-point operations of a forward pass per token, at full context.

    Two for each weight of a matrix product (per block ``2 * C * D`` for each head of queries and
    for each of keys and values, ``2 * C`` times the inner width for the feed-forward network, or
    three times with a gate; ``V * C`` in the output layer), and ``4 * T * D`` per block and head
    for scores and mixing, the masked half included (Chowdhery et al. 2022, appendix B).
    """
    C, D, T = cfg.emb_dim, cfg.head_size, cfg.context_length
    gate = cfg.feed_forward == "swiglu"
    block = 2 * C * D * (cfg.n_heads + cfg.kv_heads) + (2 + gate) * C * cfg.feed_forward_dim
    matrices = cfg.n_layers * block + (num_classes or cfg.vocab_size) * C
    return 2 * matrices + 4 * cfg.n_layers * T * cfg.n_heads * D


def human_bytes(count: float) -> str:
    """``652038144`` as ``621.83 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:,.0f} B" if unit == "B" else f"{count:,.2f} {unit}"
        count /= 1024
    return f"{count:,.2f} GiB"


def memory_rows(found: Costs, batch_size: int) -> Iterator[tuple[str, int]]:
    """The memory table: what, and how many bytes of fp32."""
    yield "weights", found.weights
    yield "+ key/value cache of one full context", found.cache
    yield "= inference", found.inference
    yield "gradients", found.gradients
    yield "AdamW's moments", found.optimizer
    yield f"activations, batch of {batch_size}", found.activations
    yield "= training", found.training

"""What a training step keeps in memory besides the model's state, counted without running one.

Autograd keeps tensors of the forward pass until the backward pass. What they are is asked of
autograd itself, in runs of one and two blocks on fake tensors; every further block and every
further text adds the same again, so the count is exact for any depth and any batch.

Shapes: ``B`` texts, ``T`` tokens, ``C`` embedding width, ``V`` vocabulary size.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from groundup.config import ModelConfig
from groundup.model.attention import SHORT
from groundup.model.gpt import GPTModel
from groundup.model.logits import CACHED_LOGITS, pieces, spaced
from groundup.model.recompute import keep_activations
from groundup.runtime import Precision

FP32_BYTES = 4
BYTES = {"fp32": FP32_BYTES, "bf16": 2}

Kind = Literal["cpu", "gpu"]
"""Where it runs: a GPU's attention never writes down the ``(T, T)`` weights, a CPU's does where it
drops some of them; and a GPU notes what it drops in one byte, a CPU in four."""


@dataclass(frozen=True)
class Activations:
    """Bytes that are kept until the backward pass, for a batch of any size.

    Attributes:
        n_layers: blocks.
        fixed: outside the blocks, whatever the batch: the output layer's gradient, mostly.
        text: outside the blocks, per text of a full context.
        block_fixed: in each block, whatever the batch: with bf16 its matrices' copies.
        block_text: in each block, per text.
        block_input: what enters a block, per text; all that activation checkpointing keeps of it.
    """

    n_layers: int
    fixed: int
    text: int
    block_fixed: int
    block_text: int
    block_input: int

    def of(self, batch_size: int, *, checkpointing: bool = False) -> int:
        """Bytes of a batch.

        Args:
            batch_size: texts.
            checkpointing: whether the backward pass computes each block once more (Chen et al.
                2016): then one block at a time keeps more than its input.
        """
        copies = self.copies(checkpointing=checkpointing)
        outside = self.fixed + batch_size * self.text
        if checkpointing:
            inputs = (self.n_layers - 1) * self.block_input
            return outside + copies + batch_size * (inputs + self.block_text)
        return outside + copies + self.n_layers * batch_size * self.block_text

    def copies(self, *, checkpointing: bool = False) -> int:
        """Of these, what the blocks keep whatever the batch: with bf16 their matrices' copies."""
        return self.block_fixed * (1 if checkpointing else self.n_layers)


@lru_cache(maxsize=64)
def activations(
    cfg: ModelConfig,
    precision: Precision = "fp32",
    kind: Kind = "cpu",
    num_classes: int = 0,
) -> Activations:
    """Count what a shape keeps for its backward pass, the training loop's loss included.

    The loss keeps no logits but the gradients of the features and of the output layer's matrix
    (``loss.py``); of a classifier's features, one token's per text.

    A GPU's count is that of its fused attention, which keeps as much per token as a CPU's without
    dropout does, and of masks of one byte where the residual stream drops something. It is not
    checked against a GPU.
    """
    C, T = cfg.emb_dim, cfg.context_length
    probe = cfg
    if kind == "gpu":  # short texts in bf16 have another kernel on a CPU; see attend()
        probe = cfg.replace(drop_rate=0.0, context_length=max(T, SHORT + 1))
    found = {}
    for layers in (1, 2):
        for texts in (1, 2):
            with FakeTensorMode():
                model = GPTModel(probe.replace(n_layers=layers))
                found[layers, texts] = _kept(model, texts, probe.context_length, precision)
    first, second = (found[layers, 2] - found[layers, 1] for layers in (1, 2))
    block_text, text = second - first, 2 * first - second
    block_fixed = found[2, 1] - found[1, 1] - block_text
    fixed = found[1, 1] - text - block_text - block_fixed
    if kind == "gpu":
        text, block_text = (n * T // probe.context_length for n in (text, block_text))
        mask = T * C if cfg.drop_rate else 0
        text, block_text = text + mask, block_text + 2 * mask
    features, matrix = (1, 0) if num_classes else (T, cfg.vocab_size)
    return Activations(
        n_layers=cfg.n_layers,
        fixed=fixed + matrix * C * FP32_BYTES,
        text=text + features * C * FP32_BYTES,
        block_fixed=block_fixed,
        block_text=block_text,
        block_input=T * C * FP32_BYTES,
    )


def activation_bytes(cfg: ModelConfig, batch_size: int, num_classes: int = 0) -> int:
    """Bytes that autograd keeps of a batch in fp32 on a CPU until the backward pass."""
    return activations(cfg, num_classes=num_classes).of(batch_size)


def activation_bytes_of(
    model: GPTModel,
    batch_size: int,
    tokens: int,
    precision: Precision,
    num_classes: int = 0,
    *,
    checkpointing: bool = False,
) -> int:
    """The same for a model as it stands, with LoRA or frozen parts, on its own device.

    Args:
        model: is not run, nor changed.
        batch_size: texts.
        tokens: per text.
        precision: of the matrix products.
        num_classes: of a classifier.
        checkpointing: whether one block at a time keeps more than its input.
    """
    fake = FakeTensorMode()
    with FakeCopyMode(fake):
        double = copy.deepcopy(model)
    keep_activations(double)
    inputs = 0
    if checkpointing:
        inputs = (len(double.trf_blocks) - 1) * batch_size * tokens * model.cfg.emb_dim * FP32_BYTES
        # What trains of a model is its end, if not all.
        double.trf_blocks = nn.Sequential(double.trf_blocks[-1])
    with fake:
        kept = inputs + _kept(double.train(), batch_size, tokens, precision)
    head = model.out_head.weight if isinstance(model.out_head, nn.Linear) else None
    matrix = head.numel() if head is not None and head.requires_grad and not num_classes else 0
    rows = batch_size if num_classes else batch_size * tokens
    return kept + (matrix + rows * model.cfg.emb_dim) * FP32_BYTES


def logits_bytes(
    cfg: ModelConfig, tokens: int, precision: Precision = "fp32", kind: Kind = "cpu"
) -> int:
    """What computing the loss takes for a moment, on top of what it keeps (``loss.py``).

    A piece of the logits; their logarithms in fp32 (on a CPU of a few rows at a time); the
    features; and with bf16 copies of matrix and features, and the piece's share of the matrix's
    gradient.
    """
    size, V, C = BYTES[precision], spaced(cfg.vocab_size), cfg.emb_dim
    rows = min(tokens, next(pieces(tokens, V, kind)).stop)
    # A part of the logarithms is still there while the next is computed.
    at_once = rows if kind == "gpu" else min(rows, 2 * max(1, CACHED_LOGITS // V))
    logarithms = at_once * V * FP32_BYTES * (2 if precision == "bf16" else 1)
    share, copies = (V * C * size, (V + tokens) * C * size) if precision == "bf16" else (0, 0)
    features = tokens * C * FP32_BYTES
    return rows * V * size + max(logarithms, share) + features + copies


def _kept(model: GPTModel, batch_size: int, tokens: int, precision: Precision) -> int:
    """Bytes that autograd keeps of a model on fake tensors, up to what the output layer reads."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # so that no address is used twice
        return tensor

    device = next(model.parameters()).device
    idx = torch.zeros(batch_size, tokens, dtype=torch.long, device=device)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"),
    ):
        model(idx, hidden=True)
    return sum(kept.values())

"""nanoGPT's model and its recipe for a CPU, rebuilt from its published numbers, as a peer.

Shape, initial weights, optimizer, schedule, batches and evaluations are those of its README's "on
a CPU" for `shakespeare_char`: 4 layers, 4 heads, 128 wide, 64 tokens of context, batches of 12,
2,000 iterations, no dropout, no bias, tied weights, AdamW at 1e-3 down to 1e-4 with decay 0.1 on
matrices. Nothing is compiled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Recipe:
    layers: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    batch: int = 12
    steps: int = 2000
    warmup: int = 100
    highest: float = 1e-3
    lowest: float = 1e-4
    beta2: float = 0.99
    eval_interval: int = 250
    eval_iters: int = 20


class Block(nn.Module):
    """Attention and feed-forward, with one product for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.att_proj = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.ff_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C) -> (B, T, C)``."""
        B, T, C = x.shape
        parts = self.qkv(self.norm1(x)).split(C, dim=2)
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.att_proj(y.transpose(1, 2).reshape(B, T, C))
        return x + self.ff_proj(F.gelu(self.widen(self.norm2(x))))


class NanoGPT(nn.Module):
    """Tied weights, GPT-2's initial ones."""

    def __init__(self, vocab_size: int, layers: int, heads: int, width: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.endswith("proj.weight")
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * layers) if last else 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of targets."""
        hidden = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            hidden = block(hidden)
        logits = F.linear(self.norm(hidden), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))


def train(
    train_ids: Tensor, val_ids: Tensor, vocab_size: int, seed: int, recipe: Recipe | None = None
) -> NanoGPT:
    """Train by the recipe, with its evaluations on the way."""
    r = recipe or Recipe()
    torch.manual_seed(seed)
    model = NanoGPT(vocab_size, r.layers, r.heads, r.width, r.context)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=r.highest, betas=(0.9, r.beta2))

    def batch(ids: Tensor) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(ids) - r.context, (r.batch,))
        windows = starts[:, None] + torch.arange(r.context)
        return ids[windows], ids[windows + 1]

    for step in range(r.steps + 1):
        progress = (step - r.warmup) / (r.steps - r.warmup)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        rate = r.lowest + cosine * (r.highest - r.lowest)
        for group in optimizer.param_groups:
            group["lr"] = r.highest * (step + 1) / (r.warmup + 1) if step < r.warmup else rate
        if step % r.eval_interval == 0:
            with torch.no_grad():
                for ids in (train_ids, val_ids):
                    losses = [model(*batch(ids)).item() for _ in range(r.eval_iters)]
                    print(f"step {step}: {sum(losses) / len(losses):.3f}", flush=True)
        model(*batch(train_ids)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model

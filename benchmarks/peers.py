"""GPT-2 124M in the peers' own code, each as its users run it, behind one face.

The course's code is the package ``llms-from-scratch``; ``make`` installs it without the
packages that it asks for but does not need here (TensorFlow, JupyterLab).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.config import preset
from groundup.decoding.engine import generate_text_simple
from groundup.model.door import token_loss
from groundup.model.gpt import GPTModel

Train = Callable[[Tensor, Tensor], None]
Generate = Callable[[Tensor, int], Tensor]

CONFIG = preset("gpt2-small").replace(drop_rate=0.0)


def _training(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], bf16: bool, fused: bool
) -> Train:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss(x, y)
        value.backward()
        optimizer.step()

    return step


def groundup_train(bf16: bool) -> Train:
    """Ours: the model, the loss and the optimizer's setting of the training loop."""
    model = GPTModel(CONFIG).init_gpt2()
    return _training(model, lambda x, y: token_loss(model, x, y) / y.numel(), bf16, fused=True)


def transformers_train(bf16: bool) -> Train:
    """Hugging Face's GPT2LMHeadModel with its own loss."""
    model = _transformers()
    model.train()
    return _training(model, lambda x, y: model(x, labels=x).loss, bf16, fused=False)


def course_train(fast: bool) -> Train:
    """The course's GPTModel (or its "fast" variant) and its loss, in fp32 as in the course."""
    model = _course(fast)
    return _training(
        model, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), False, fused=False
    )


def groundup_generate() -> Generate:
    """Ours, with the key/value cache."""
    model = GPTModel(CONFIG).eval()
    return lambda idx, new: generate_text_simple(model, idx, new, CONFIG.context_length)


def transformers_generate() -> Generate:
    """``model.generate``, greedy, with its cache."""
    model = _transformers().eval()
    mask = torch.ones(1, 64, dtype=torch.long)
    return lambda idx, new: model.generate(
        idx, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False
    )


def course_generate() -> Generate:
    """The course's ``generate_text_simple``, which has no cache."""
    from llms_from_scratch.ch04 import generate_text_simple as simple  # pyright: ignore

    model = _course(fast=False).eval()
    return lambda idx, new: simple(model, idx, new, CONFIG.context_length)


def has_course() -> bool:
    """Whether the course's package is installed."""
    return find_spec("llms_from_scratch") is not None


def _transformers() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(GPT2Config(**off))  # pyright: ignore


def _course(fast: bool) -> nn.Module:
    from llms_from_scratch import ch04  # pyright: ignore

    return (ch04.GPTModelFast if fast else ch04.GPTModel)(dict(CONFIG))

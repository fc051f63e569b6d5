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

import nanogpt
from groundup.config import ModelConfig, preset
from groundup.decoding.engine import generate_text_simple
from groundup.model.door import token_loss
from groundup.model.gpt import GPTModel
from groundup.model.recompute import recompute_blocks

Train = Callable[[Tensor, Tensor], None]
Generate = Callable[[Tensor, int], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]

CONFIG = preset("gpt2-small").replace(drop_rate=0.0)
PADDED_VOCAB = 50304
"""What nanoGPT and litgpt make of GPT-2's 50,257 tokens: the next multiple of 64 (and of 128)."""


def training(
    model: nn.Module,
    loss: Callable[[nn.Module], Loss],
    *,
    bf16: bool = False,
    fused: bool = False,
    compiled: bool = False,
    device: str = "cpu",
) -> Train:
    """A step of training: forward, backward, AdamW.

    Args:
        model: everything that is trained.
        loss: makes the mean loss of ids and targets of what is called, the model or, compiled, what
            ``torch.compile`` makes of it.
        bf16: whether matrix products run in bfloat16 (autocast).
        fused: whether AdamW is one kernel.
        compiled: whether the model's users compile it.
        device: where.
    """
    model.to(device).train()
    called: Any = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    compute = loss(called)

    def step(x: Tensor, y: Tensor) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            value = compute(x, y)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def groundup_train(shape: ModelConfig = CONFIG, checkpointing: bool = False, **how: Any) -> Train:
    """Ours: the model, the loss, and how the training loop has optimizer and memory."""
    model = GPTModel(shape).init_gpt2()
    if checkpointing:
        recompute_blocks(model)
    loss = lambda m: lambda x, y: token_loss(m, x, y) / y.numel()  # noqa: E731
    step = training(model, loss, fused=True, **how)
    if find_spec("groundup.train.freed") is None:  # one of before
        return step
    from groundup.train.freed import freed_memory_is_kept

    kept = freed_memory_is_kept(torch.device(how.get("device", "cpu")))
    after_step = kept.__enter__()

    def step_in_loop(x: Tensor, y: Tensor, kept: object = kept) -> None:  # until the process ends
        step(x, y)
        after_step()

    return step_in_loop


def nanogpt_train(shape: ModelConfig = CONFIG, fused: bool = False, **how: Any) -> Train:
    """NanoGPT's model, its vocabulary padded as its users get it; compiled, if not told otherwise.

    Its AdamW is fused on a GPU only.
    """
    vocab_size = -(-shape.vocab_size // 64) * 64
    model = nanogpt.NanoGPT(
        vocab_size, shape.n_layers, shape.n_heads, shape.emb_dim, shape.context_length
    )
    return training(model, lambda m: m, fused=fused, **how)


def litgpt_train(**how: Any) -> Train:
    """Litgpt's model in GPT-2's shape, with rotary positions (it has no others), weights tied."""
    from litgpt.model import GPT, Config  # pyright: ignore
    from litgpt.utils import chunked_cross_entropy  # pyright: ignore

    shape = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "bias": True}
    rest = {"vocab_size": 50257, "padded_vocab_size": PADDED_VOCAB, "parallel_residual": False}
    model = GPT(Config(name="gpt2", **shape, **rest))
    model.lm_head.weight = model.transformer.wte.weight
    model.max_seq_length = CONFIG.context_length
    return training(model, lambda m: lambda x, y: chunked_cross_entropy(m(x), y), **how)


def transformers_train(shape: ModelConfig = CONFIG, **how: Any) -> Train:
    """Hugging Face's GPT2LMHeadModel with its own loss."""
    return training(_transformers(shape), lambda m: lambda x, y: m(x, labels=x).loss, **how)


def course_train(fast: bool) -> Train:
    """The course's GPTModel (or its "fast" variant) and its loss, in fp32 as in the course."""
    loss = lambda m: lambda x, y: F.cross_entropy(m(x).flatten(0, 1), y.flatten())  # noqa: E731
    return training(_course(fast), loss)


def groundup_generate(dtype: torch.dtype = torch.float32) -> Generate:
    """Ours, with the key/value cache."""
    model = GPTModel(CONFIG).to(dtype).eval()
    return lambda idx, new: generate_text_simple(model, idx, new, CONFIG.context_length)


def transformers_generate(dtype: torch.dtype = torch.float32) -> Generate:
    """``model.generate``, greedy, with its cache."""
    model = _transformers().to(dtype).eval()
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


def has_litgpt() -> bool:
    """Whether litgpt is installed, without which it is left out."""
    return find_spec("litgpt") is not None


def _transformers(shape: ModelConfig = CONFIG) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {
        "vocab_size": shape.vocab_size,
        "n_positions": shape.context_length,
        "n_embd": shape.emb_dim,
        "n_head": shape.n_heads,
        "n_layer": shape.n_layers,
    }
    return GPT2LMHeadModel(GPT2Config(**off, **sizes))  # pyright: ignore


def _course(fast: bool) -> nn.Module:
    from llms_from_scratch import ch04  # pyright: ignore

    return (ch04.GPTModelFast if fast else ch04.GPTModel)(dict(CONFIG))

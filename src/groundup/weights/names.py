"""The names of the weights in other people's checkpoints: one table per format, read both ways.

Hugging Face stores GPT-2's linear layers as ``Conv1D``, whose matrices are ``(in, out)``: the
transpose of ``nn.Linear``'s. And it keeps query, key and value in one matrix, side by side. So do
OpenAI's own files, with one more leading dimension of 1; nanoGPT's stack them instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError, did_you_mean
from groundup.weights.architectures import GPT2, architecture_of


@dataclass(frozen=True)
class Row:
    """One tensor over there and what it is here.

    Attributes:
        theirs: its name in the file.
        ours: our parameters' names; several if theirs holds them all (side by side if it is
            transposed, else stacked).
        transposed: whether theirs is the transpose of ours.
        leading_one: whether theirs has one more dimension of size 1 in front.
        zeros: whether ours does not exist, and theirs must be all zeros.
        paired_heads: of how many heads theirs has the two rows of each rotary pair side by side,
            where ours are half a head apart (``rotary.py``); 0 if it is as ours.
        linear: whether it is the matrix of a linear layer in a block, to which LoRA can be added.
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    leading_one: bool = False
    zeros: bool = False
    paired_heads: int = 0
    linear: bool = False

    @property
    def joined_at(self) -> int:
        """The dimension of theirs along which our parameters lie one after the other."""
        return -1 if self.transposed else 0


WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What DataParallel, ``torch.compile``, FSDP and activation checkpointing put into names."""


def unwrapped(names: Iterable[str], source: str) -> dict[str, str]:
    """Parameters' names without what PyTorch's wrappers put into them: ours to those of the file.

    Raises:
        UserError: two would be the same.
    """
    found: dict[str, str] = {}
    for name in map(str, names):
        plain = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if plain in found:
            raise UserError(f"{source} has {plain} twice, as {found[plain]} and as {name}")
        found[plain] = name
    return found


def huggingface_rows(cfg: ModelConfig, *, classifier: bool = False) -> Iterator[Row]:
    """The table for Hugging Face's language model of this shape, or for its classifier.

    Raises:
        UserError: no architecture has this shape.
    """
    if architecture_of(cfg) is GPT2:
        yield from _gpt2_rows(
            cfg,
            block="transformer.h.{}.",
            outside={"wte": "transformer.wte.weight", "wpe": "transformer.wpe.weight"},
            final="transformer.ln_f.",
            norm=("weight", "bias"),
            linear=("weight", "bias"),
            join=".",
        )
    else:
        yield from _llama_rows(cfg)
    if classifier:
        yield Row("score.weight", ("out_head.weight",))
    elif not cfg.tie_weights:
        yield Row("lm_head.weight", ("out_head.weight",))


def openai_rows(cfg: ModelConfig) -> Iterator[Row]:
    """The table for OpenAI's TensorFlow checkpoints of GPT-2, whose output layer is always tied."""
    yield from _gpt2_rows(
        cfg,
        block="model/h{}/",
        outside={"wte": "model/wte", "wpe": "model/wpe"},
        final="model/ln_f/",
        norm=("g", "b"),
        linear=("w", "b"),
        join="/",
        leading_one=True,
    )


def nanogpt_rows(cfg: ModelConfig) -> Iterator[Row]:
    """The table for nanoGPT's checkpoints: Hugging Face's names, but ``nn.Linear``'s layout."""
    for row in huggingface_rows(cfg):
        yield replace(row, transposed=False)


def _gpt2_rows(
    cfg: ModelConfig,
    *,
    block: str,
    outside: Mapping[str, str],
    final: str,
    norm: tuple[str, str],
    linear: tuple[str, str],
    join: str,
    leading_one: bool = False,
) -> Iterator[Row]:
    """The table that all share; only the spelling differs."""
    (scale, shift), (w, b) = norm, linear
    yield Row(outside["wte"], ("tok_emb.weight",))
    yield Row(outside["wpe"], ("pos_emb.weight",))
    for i in range(cfg.n_layers):
        theirs, ours = block.format(i), f"trf_blocks.{i}."
        qkv = [f"{ours}att.{name}." for name in ("W_query", "W_key", "W_value")]
        for their_norm, our_norm in (("ln_1", "norm1"), ("ln_2", "norm2")):
            yield Row(f"{theirs}{their_norm}{join}{scale}", (f"{ours}{our_norm}.scale",))
            yield Row(f"{theirs}{their_norm}{join}{shift}", (f"{ours}{our_norm}.shift",))
        for layer, parts in (
            (f"attn{join}c_attn", qkv),
            (f"attn{join}c_proj", [f"{ours}att.out_proj."]),
            (f"mlp{join}c_fc", [f"{ours}ff.layers.0."]),
            (f"mlp{join}c_proj", [f"{ours}ff.layers.2."]),
        ):
            weights, biases = (tuple(p + n for p in parts) for n in ("weight", "bias"))
            yield Row(f"{theirs}{layer}{join}{w}", weights, True, leading_one, linear=True)
            # Theirs always has these biases; a model built without them has zeros there.
            zeros = parts is qkv and not cfg.qkv_bias
            yield Row(f"{theirs}{layer}{join}{b}", biases, zeros=zeros)
    yield Row(final + scale, ("final_norm.scale",))
    yield Row(final + shift, ("final_norm.shift",))


def _llama_rows(cfg: ModelConfig) -> Iterator[Row]:
    """The table for Llama and what follows it: the layout is ``nn.Linear``'s, nothing is joined."""
    yield Row("model.embed_tokens.weight", ("tok_emb.weight",))
    linear = [
        ("self_attn.q_proj", "att.W_query", cfg.qkv_bias),
        ("self_attn.k_proj", "att.W_key", cfg.qkv_bias),
        ("self_attn.v_proj", "att.W_value", cfg.qkv_bias),
        ("self_attn.o_proj", "att.out_proj", cfg.attn_bias),
        *((f"mlp.{name}", f"ff.{name}", cfg.mlp_bias) for name in _GATED),
    ]
    norms = [("input_layernorm", "norm1"), ("post_attention_layernorm", "norm2")]
    if cfg.qk_norm:
        norms += [("self_attn.q_norm", "att.q_norm"), ("self_attn.k_norm", "att.k_norm")]
    for i in range(cfg.n_layers):
        theirs, ours = f"model.layers.{i}.", f"trf_blocks.{i}."
        for their_layer, our_layer, has_bias in linear:
            name = f"{theirs}{their_layer}."
            yield Row(f"{name}weight", (f"{ours}{our_layer}.weight",), linear=True)
            if has_bias:
                yield Row(f"{name}bias", (f"{ours}{our_layer}.bias",))
        for their_norm, our_norm in norms:
            yield Row(f"{theirs}{their_norm}.weight", (f"{ours}{our_norm}.scale",))
    yield Row("model.norm.weight", ("final_norm.scale",))


_GATED = ("gate_proj", "up_proj", "down_proj")


def to_theirs(state: Mapping[str, Tensor], row: Row, cfg: ModelConfig) -> Tensor:
    """Build one of their tensors from a ``GPTModel``'s state dict, on the CPU."""
    if row.zeros:
        return torch.zeros(len(row.ours) * cfg.emb_dim)
    parts = [state[name].detach().cpu() for name in row.ours]
    parts = [part.T for part in parts] if row.transposed else parts
    whole = torch.cat(parts, dim=row.joined_at) if len(parts) > 1 else parts[0]
    if row.paired_heads:
        whole = whole.unflatten(0, (row.paired_heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    return whole.unsqueeze(0).contiguous() if row.leading_one else whole.contiguous()


def from_theirs(
    tensors: Mapping[str, Tensor],
    rows: Iterable[Row],
    shapes: Mapping[str, torch.Size],
    source: str,
) -> dict[str, Tensor]:
    """Turn their tensors into an fp32 state dict with the given ``shapes``.

    ``tensors`` may load lazily: each is asked for once, and nothing else is kept of it.

    Raises:
        UserError: a tensor is missing, unexpected or misshapen; every one is listed by name.
    """
    rows = list(rows)
    problems = name_problems(tensors, [row.theirs for row in rows])
    state: dict[str, Tensor] = {}
    for row in rows:
        if row.theirs in tensors:
            problems += _split_row(tensors[row.theirs], row, shapes, state)
    if problems:
        raise UserError(f"{source} does not match its config: {first_of(problems)}")
    return state


def name_problems(given: Iterable[str], known: Collection[str]) -> list[str]:
    """Say which tensors are missing and which are unexpected, one by one."""
    given = list(given)
    problems = [f"{name} is missing" for name in known if name not in given]
    return problems + [
        f"{name} is unexpected{did_you_mean(name, known)}" for name in given if name not in known
    ]


def first_of(problems: list[str]) -> str:
    """The first of many problems as one line, and how many there are beside them."""
    return "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" * (len(problems) > 8))


def _split_row(
    whole: Tensor, row: Row, shapes: Mapping[str, torch.Size], state: dict[str, Tensor]
) -> list[str]:
    """Put the parts of one of their tensors into ``state``; return what is wrong with it."""
    given = tuple(whole.shape)
    if row.leading_one and whole.dim() and whole.shape[0] == 1:
        whole = whole.squeeze(0)
    if not whole.dim() or whole.shape[row.joined_at] % len(row.ours):
        return [f"{row.theirs} has the impossible shape {given}"]
    if row.zeros:
        wrong = bool(whole.any())
        return [f"{row.theirs} is not zero, but the config says qkv_bias false"] if wrong else []
    problems = []
    for name, part in zip(row.ours, whole.chunk(len(row.ours), row.joined_at), strict=True):
        tensor = part.T if row.transposed and part.dim() == 2 else part
        if row.paired_heads and tensor.shape == shapes[name]:
            tensor = tensor.unflatten(0, (row.paired_heads, -1, 2)).transpose(1, 2).flatten(0, 2)
        if tensor.shape == shapes[name]:
            # A copy in any case: a view would keep the whole file in memory.
            state[name] = torch.empty(tensor.shape, device=tensor.device).copy_(tensor)
        else:
            problems.append(
                f"{row.theirs} of shape {given} gives {name} the shape {tuple(tensor.shape)}, "
                f"the config {tuple(shapes[name])}"
            )
    return problems

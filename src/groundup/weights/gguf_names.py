"""What a GGUF file calls a model's config and its weights: tables, read in both directions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.frequencies import frequencies
from groundup.weights.architectures import ARCHITECTURES, architecture_of
from groundup.weights.names import Row, huggingface_rows

GPT2, LLAMA, QWEN3 = "gpt2", "llama", "qwen3"
assert [known.name for known in ARCHITECTURES] == [GPT2, LLAMA, QWEN3]

_LLAMA_CPPS = {
    GPT2: gguf.MODEL_ARCH.GPT2,
    LLAMA: gguf.MODEL_ARCH.LLAMA,
    QWEN3: gguf.MODEL_ARCH.QWEN3,
}

PARTS: dict[str, dict[str, Any]] = {
    GPT2: {"qkv_bias": True},
    LLAMA: {"norm": "rms", "rope": True, "feed_forward": "swiglu"},
    QWEN3: {"norm": "rms", "rope": True, "feed_forward": "swiglu", "qk_norm": True},
}
"""What all models of an architecture have; its name is ``general.architecture``."""


@dataclass(frozen=True)
class Entry:
    """One size that the metadata says.

    Attributes:
        key: its name there, after the architecture's.
        field: ours.
        kind: what the value must be.
        written: what of a ``ModelConfig`` is written, where that is not the field.
        default: what llama.cpp takes where a file does not say it; without one, it must.
    """

    key: str
    field: str
    kind: Any = int
    written: str = ""
    default: Any = ...

    def value_of(self, cfg: ModelConfig) -> Any:
        """What is written for a config."""
        return getattr(cfg, self.written or self.field)


_SIZES = (
    Entry("block_count", "n_layers"),
    Entry("context_length", "context_length"),
    Entry("embedding_length", "emb_dim"),
    Entry("feed_forward_length", "hidden_dim", written="feed_forward_dim"),
    Entry("attention.head_count", "n_heads"),
)

ENTRIES: dict[str, tuple[Entry, ...]] = {
    GPT2: (*_SIZES, Entry("attention.layer_norm_epsilon", "norm_eps", float)),
    LLAMA: (
        *_SIZES,
        Entry("attention.head_count_kv", "n_kv_heads", written="kv_heads", default=None),
        Entry("attention.key_length", "head_dim", written="head_size", default=None),
        Entry("attention.layer_norm_rms_epsilon", "norm_eps", float),
        Entry("rope.freq_base", "rope_theta", float, default=10_000.0),
    ),
}
ENTRIES[QWEN3] = ENTRIES[LLAMA]
"""The sizes that the metadata of each architecture says."""

# What would change what a model computes, and the value at which it does not.
NEUTRAL: dict[str, Any] = {
    **dict.fromkeys(("expert_count", "expert_used_count", "pooling_type"), 0),
    **dict.fromkeys(("attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale"), 0.0),
    **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale"), 0.0),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), 0.0),
    **dict.fromkeys(("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"), 1.0),
    **dict.fromkeys(("rope.scaling.yarn_ext_factor", "rope.scale_linear"), 1.0),
    "rope.scaling.yarn_log_multiplier": 0.0,
    "attention.causal": True,
    "use_parallel_residual": False,
}

# What says nothing that is not said elsewhere; the last is read where it is needed.
_OTHERS = ("vocab_size", "tensor_data_layout", "rope.scaling.finetuned")

ROPE_FREQUENCIES = "rope_freqs.weight"
"""By what Llama 3 divides each pair's speed; how it comes to that is in no llama.cpp's metadata."""

OUR_SCALING = "groundup.rope_scaling"
"""So we say it ourselves; others pass over a name that they do not know."""

# Llama 3.1 to 3.3 differ in the factor only.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# YaRN's settings, there and here.
_YARN = {
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}

KNOWN = frozenset(
    {*NEUTRAL, *_OTHERS, *_YARN, "attention.value_length", "attention.sliding_window"}
    | {"rope.dimension_count", "rope.scaling.type", "rope.scaling.factor"}
    | {entry.key for entries in ENTRIES.values() for entry in entries}
)
"""All that is understood of an architecture's own metadata."""


def gguf_rows(cfg: ModelConfig) -> Iterator[Row]:
    """The table of weights: llama.cpp's names, in the layout of ``nn.Linear``.

    GPT-2's query, key and value always have biases. Llama's queries and keys lie as Meta's own
    files have them, each head's rotary pairs side by side; Qwen3's as Hugging Face has them.

    Raises:
        UserError: no architecture has this shape.
    """
    architecture = architecture_of(cfg).name
    names = gguf.get_tensor_name_map(_LLAMA_CPPS[architecture], cfg.n_layers)
    heads = {"attn_q": cfg.n_heads, "attn_k": cfg.kv_heads} if architecture == LLAMA else {}
    for row in huggingface_rows(cfg):
        name = names.get_name(row.theirs, try_suffixes=(".weight", ".bias"))
        assert name is not None, row.theirs
        paired = heads.get(name.split(".")[-2], 0)
        yield replace(row, theirs=name, transposed=False, paired_heads=paired)


def metadata_of(cfg: ModelConfig) -> dict[str, Any]:
    """What the metadata says of a shape, by its whole name; whole numbers, numbers and texts.

    Raises:
        UserError: llama.cpp cannot compute this model.
    """
    architecture = architecture_of(cfg).name
    found = {entry.key: entry.kind(entry.value_of(cfg)) for entry in ENTRIES[architecture]}
    if architecture != GPT2:
        found |= {"attention.value_length": cfg.head_size, "rope.dimension_count": cfg.head_size}
        found["vocab_size"] = cfg.vocab_size
    if cfg.rope_scaling is None:
        return {f"{architecture}.{key}": value for key, value in found.items()}
    given = json.loads(cfg.rope_scaling)
    kind = given["rope_type"]
    strange = [n for n in ("attention_factor", "mscale", "mscale_all_dim") if given.get(n)]
    if strange or (kind == "llama3" and architecture != LLAMA):
        what = f"rope_scaling's {strange[0]}" if strange else "Llama 3's rope_scaling in Qwen3"
        raise UserError(f"llama.cpp has no {what}; use --to hf")
    if kind != "llama3":
        found |= {"rope.scaling.type": kind, "rope.scaling.factor": float(given["factor"])}
    if kind == "yarn":
        for key, name in _YARN.items():
            if (value := given.get(name)) is not None:
                found[key] = float(value) if "beta" in name else int(value)
    named = {f"{architecture}.{key}": value for key, value in found.items()}
    return named | ({OUR_SCALING: cfg.rope_scaling} if kind == "llama3" else {})


def extra_tensors(cfg: ModelConfig) -> dict[str, Tensor]:
    """The tensors of a file that are no weights: Llama 3's divisors, if its rope is scaled so."""
    if cfg.rope_scaling is None or json.loads(cfg.rope_scaling)["rope_type"] != "llama3":
        return {}
    return {ROPE_FREQUENCIES: _divisors(cfg.head_size, cfg.rope_theta, cfg.rope_scaling)}


def rope_scaling(
    said: Mapping[str, Any], ours: object, divisors: Tensor | None, head_dim: int, theta: float
) -> str | None:
    """The ``rope_scaling`` that a file means; None if it scales nothing.

    Args:
        said: the architecture's metadata, without the architecture's name.
        ours: what a file of ours says beside it.
        divisors: the tensor ``rope_freqs.weight``, if there is one.
        head_dim: columns per head.
        theta: how slow the slowest pair is.

    Raises:
        UserError: it is scaled in a way that is not known here.
    """
    kind = said.get("rope.scaling.type", "none")
    if divisors is not None and kind == "none":
        candidates = [ours] if isinstance(ours, str) else []
        factor = round(float(divisors.max()), 4)
        candidates.append(json.dumps({"rope_type": "llama3", "factor": factor, **_LLAMA3}))
        for candidate in candidates:
            if _is_llama3(candidate, divisors, head_dim, theta):
                return candidate
        raise UserError(
            f"its {ROPE_FREQUENCIES} is not as Llama 3.1 to 3.3 scale their positions, and how "
            "else is not known here; use the model's Hugging Face directory"
        )
    if kind == "none":
        return None
    if kind not in ("linear", "yarn") or divisors is not None:
        raise UserError(f"its rope.scaling.type is {kind!r:.40}; there are: none, linear, yarn")
    found = {"rope_type": kind, "factor": shortest(said.get("rope.scaling.factor"))}
    if kind == "yarn":
        context = said.get("context_length")
        found |= {n: shortest(said[key]) for key, n in _YARN.items() if key in said}
        found.setdefault("original_max_position_embeddings", context)
    return json.dumps(found)


def shortest(value: Any) -> Any:
    """A number as it was before it was stored in fp32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _is_llama3(text: str, divisors: Tensor, head_dim: int, theta: float) -> bool:
    """Whether a ``rope_scaling`` is Llama 3's and makes these divisors."""
    ModelConfig(rope=True, rope_scaling=text)  # complains if it makes no sense
    if json.loads(text)["rope_type"] != "llama3" or divisors.shape != (head_dim // 2,):
        return False
    return torch.allclose(_divisors(head_dim, theta, text), divisors, rtol=1e-4)


def _divisors(head_dim: int, theta: float, scaling: str) -> Tensor:
    """By what each pair's speed is divided, ``(D / 2,)``."""
    plain, _ = frequencies(head_dim, theta)
    slowed, _ = frequencies(head_dim, theta, scaling)
    return torch.tensor([a / b for a, b in zip(plain, slowed, strict=True)])

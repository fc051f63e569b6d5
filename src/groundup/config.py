"""The shape of a GPT: one dataclass, its presets, and the course's dict as an accepted spelling."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from groundup.config_problems import problems_of
from groundup.errors import UserError, did_you_mean
from groundup.options import option

IGNORE_INDEX = -100
"""A target that does not count, PyTorch's default."""

FeedForwardKind = Literal["gelu", "gelu_exact", "swiglu"]
NormKind = Literal["layer", "rms"]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shapes of a :class:`~groundup.model.gpt.GPTModel`.

    The fields are the course's dict keys, and the object reads like that dict too:
    ``cfg["emb_dim"]`` and ``GPTModel({**cfg, "drop_rate": 0.0})`` both work. What the course's dict
    does not say means GPT-2; the presets show what Llama and Qwen3 choose instead.
    """

    vocab_size: int = option(50257, "number of tokens the tokenizer knows")
    context_length: int = option(1024, "most tokens the model can look at")
    emb_dim: int = option(768, "width of the embeddings and of every block")
    n_heads: int = option(12, "attention heads per block; must divide emb_dim")
    n_layers: int = option(12, "number of Transformer blocks")
    drop_rate: float = option(0.1, "dropout probability while training")
    qkv_bias: bool = option(False, "bias in the query, key and value projections (GPT-2 has it)")
    tie_weights: bool = option(False, "share the output layer's matrix with the token embedding")
    feed_forward: FeedForwardKind = option(
        "gelu",
        "gelu (GPT-2's, by tanh), gelu_exact (by the error function) or swiglu (Llama's, gated)",
    )
    hidden_dim: int | None = option(
        None, "width inside the feed-forward networks (four times emb_dim)"
    )
    norm: NormKind = option("layer", "layer (GPT-2's LayerNorm) or rms (Llama's RMSNorm)")
    norm_eps: float = option(1e-5, "what keeps the norms from dividing by zero")
    rope: bool = option(
        False, "positions by rotating queries and keys (Llama), not by an embedding of their own"
    )
    rope_theta: float = option(10000.0, "rope: the slowest pair turns once in 2 pi times this")
    rope_scaling: str | None = option(
        None, "rope: for longer contexts, as Hugging Face has it: a JSON object with rope_type"
    )
    n_kv_heads: int | None = option(
        None, "heads of keys and values, each shared by n_heads / n_kv_heads queries (n_heads)"
    )
    head_dim: int | None = option(None, "columns per attention head (emb_dim / n_heads)")
    qk_norm: bool = option(False, "RMSNorm on every head's queries and keys (Qwen3)")
    attn_bias: bool = option(True, "bias in attention's output projection")
    mlp_bias: bool = option(True, "bias in the feed-forward networks")

    def __post_init__(self) -> None:
        kinds = {"feed_forward": FeedForwardKind, "norm": NormKind}
        if problems := problems_of(self, {name: get_args(kind) for name, kind in kinds.items()}):
            raise UserError("; ".join(problems))
        if self.rope_scaling is not None:  # one spelling, so that equal shapes compare equal
            told = json.dumps(json.loads(self.rope_scaling), sort_keys=True)
            object.__setattr__(self, "rope_scaling", told)

    @classmethod
    def of(cls, cfg: ModelConfig | Mapping[str, Any]) -> ModelConfig:
        """Accept a ``ModelConfig`` or the course's dict; an unknown key raises ``UserError``."""
        if isinstance(cfg, cls):
            return cfg
        known = cls.field_names()
        for key in cfg.keys():
            if key not in known:
                hint = did_you_mean(str(key), known)
                raise UserError(f"unknown model config key {key!r}{hint or f'; known: {known}'}")
        return cls(**dict(cfg))

    @classmethod
    def field_names(cls) -> list[str]:
        """The names of all fields, in order."""
        return [field.name for field in dataclasses.fields(cls)]

    @property
    def head_size(self) -> int:
        """Columns per attention head: ``head_dim``, or GPT-2's ``emb_dim / n_heads``."""
        return self.head_dim or self.emb_dim // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: ``n_kv_heads``, or one per head of queries."""
        return self.n_kv_heads or self.n_heads

    @property
    def feed_forward_dim(self) -> int:
        """Columns inside a feed-forward network: ``hidden_dim``, or GPT-2's four times as wide."""
        return self.hidden_dim or 4 * self.emb_dim

    def plain(self) -> ModelConfig:
        """The same shape without the sizes that need not be said; so equal shapes compare equal."""
        usual = {"hidden_dim": 4 * self.emb_dim, "n_kv_heads": self.n_heads}
        if self.emb_dim % self.n_heads == 0:
            usual["head_dim"] = self.emb_dim // self.n_heads
        return self.replace(**{name: None for name, size in usual.items() if self[name] == size})

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def keys(self) -> list[str]:
        """The field names: with ``[]`` this makes ``dict(cfg)`` and ``{**cfg}`` work."""
        return self.field_names()

    def __getitem__(self, key: str) -> Any:
        if key not in self.field_names():
            raise KeyError(f"{key!r} is not a model config key{did_you_mean(key, self.keys())}")
        return getattr(self, key)


PrecisionChoice = Literal["auto", "fp32", "bf16"]
"""What matrices are multiplied in; ``auto`` is bf16 where the hardware is fast at it."""

Quantization = Literal["fp16", "int8", "int4"]
"""Fewer bytes per weight than fp32's four, for writing texts."""

Train = Literal["head", "last-block", "last-two-blocks", "all", "lora"]
"""What of a model is fine-tuned; the course's classifier trains ``last-block``."""

TrainOn = Literal["all", "response"]
"""What an assistant learns to write: prompt and response as in the course, or the response only."""


_GPT2 = ModelConfig(qkv_bias=True, tie_weights=True)

# Llama's choices (Touvron et al. 2023), and those of the models that follow it.
_LLAMA = ModelConfig(
    norm="rms",
    rope=True,
    feed_forward="swiglu",
    attn_bias=False,
    mlp_bias=False,
    tie_weights=True,
    drop_rate=0.0,
)
_SMOLLM2 = _LLAMA.replace(vocab_size=49152, context_length=8192, rope_theta=100_000.0)
_QWEN3 = _LLAMA.replace(qk_norm=True, norm_eps=1e-6, rope_theta=1_000_000.0)
_MODERN = _QWEN3.replace(rope_theta=10_000.0)  # for contexts of hundreds of tokens, not thousands

PRESETS: dict[str, ModelConfig] = {
    # OpenAI's GPT-2 (Radford et al. 2019, table 2).
    "gpt2-small": _GPT2,
    "gpt2-medium": _GPT2.replace(emb_dim=1024, n_heads=16, n_layers=24),
    "gpt2-large": _GPT2.replace(emb_dim=1280, n_heads=20, n_layers=36),
    "gpt2-xl": _GPT2.replace(emb_dim=1600, n_heads=25, n_layers=48),
    # The course's GPT_CONFIG_124M: no qkv bias, a separate output layer.
    "course-124m": ModelConfig(),
    # Small ones, for a laptop. Tied: at this size the vocabulary is most of the parameters.
    "nano": _GPT2.replace(vocab_size=512, context_length=64, emb_dim=64, n_heads=4, n_layers=2),
    "tiny": _GPT2.replace(vocab_size=2048, context_length=128, emb_dim=192, n_heads=3, n_layers=4),
    "mini": _GPT2.replace(vocab_size=4096, context_length=256, emb_dim=384, n_heads=6, n_layers=6),
    "base": _GPT2.replace(vocab_size=8192, context_length=512, emb_dim=512, n_heads=8, n_layers=8),
    # The same sizes with today's parts; gated, there are three matrices, each two thirds as wide.
    "modern-nano": _MODERN.replace(
        vocab_size=512, context_length=64, emb_dim=64, n_heads=4, n_layers=2, hidden_dim=160
    ),
    "modern-tiny": _MODERN.replace(
        vocab_size=2048, context_length=128, emb_dim=192, n_heads=3, n_layers=4, hidden_dim=512
    ),
    "modern-mini": _MODERN.replace(
        vocab_size=4096, context_length=256, emb_dim=384, n_heads=6, n_layers=6, hidden_dim=1024
    ),
    "modern-base": _MODERN.replace(
        vocab_size=8192, context_length=512, emb_dim=512, n_heads=8, n_layers=8, hidden_dim=1376
    ),
    "llama-tiny": _LLAMA.replace(
        vocab_size=2048,
        context_length=128,
        emb_dim=192,
        n_heads=6,
        n_kv_heads=2,
        n_layers=4,
        hidden_dim=512,
    ),
    # Hugging Face's SmolLM2 (Ben Allal et al. 2025).
    "smollm2-135m": _SMOLLM2.replace(
        emb_dim=576, n_heads=9, n_kv_heads=3, n_layers=30, hidden_dim=1536
    ),
    "smollm2-360m": _SMOLLM2.replace(
        emb_dim=960, n_heads=15, n_kv_heads=5, n_layers=32, hidden_dim=2560
    ),
    # TinyLlama (Zhang et al. 2024), Llama 3.2 (Meta 2024), Qwen3 (Yang et al. 2025).
    "tinyllama-1.1b": _LLAMA.replace(
        vocab_size=32000,
        context_length=2048,
        emb_dim=2048,
        n_heads=32,
        n_kv_heads=4,
        n_layers=22,
        hidden_dim=5632,
        tie_weights=False,
    ),
    "llama3.2-1b": _LLAMA.replace(
        vocab_size=128_256,
        context_length=131_072,
        emb_dim=2048,
        n_heads=32,
        n_kv_heads=8,
        n_layers=16,
        rope_theta=500_000.0,
        rope_scaling='{"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, '
        '"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}',
    ),
    "qwen3-0.6b": _QWEN3.replace(
        vocab_size=151_936,
        context_length=40_960,
        emb_dim=1024,
        n_heads=16,
        n_kv_heads=8,
        head_dim=128,
        n_layers=28,
        hidden_dim=3072,
    ),
}

ALIASES = {
    "gpt2": "gpt2-small",
    "124M": "gpt2-small",
    "355M": "gpt2-medium",
    "774M": "gpt2-large",
    "1558M": "gpt2-xl",
}


def preset(name: str) -> ModelConfig:
    """Return the preset called ``name`` (or an alias such as ``124M``).

    Raises:
        UserError: there is no such preset; the message lists them.
    """
    name = ALIASES.get(name, name)
    if name not in PRESETS:
        hint = did_you_mean(name, [*PRESETS, *ALIASES]) or ";"
        raise UserError(f"unknown preset {name!r}{hint} there are: {', '.join(PRESETS)}")
    return PRESETS[name]

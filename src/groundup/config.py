"""The shape of a GPT: one dataclass, its presets, and the course's dict as an accepted spelling."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from groundup.errors import UserError, did_you_mean
from groundup.options import option

IGNORE_INDEX = -100
"""A target that does not count, PyTorch's default."""

FeedForwardKind = Literal["gelu", "gelu_exact"]
"""What stands between the two linear layers of a feed-forward network."""

# A shape beyond these is a mistake or a trap: laying it out would take hours, or overflow.
_MOST = {
    **dict.fromkeys(("vocab_size", "context_length"), 1 << 24),
    **dict.fromkeys(("emb_dim", "n_heads", "hidden_dim"), 1 << 20),
    "n_layers": 1 << 10,
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shapes of a :class:`~groundup.model.gpt.GPTModel`.

    The fields are the course's dict keys, and the object reads like that dict too:
    ``cfg["emb_dim"]`` and ``GPTModel({**cfg, "drop_rate": 0.0})`` both work.
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
        "gelu", "the activation: gelu (GPT-2's, by tanh) or gelu_exact (by the error function)"
    )
    hidden_dim: int | None = option(
        None, "width inside the feed-forward networks (four times emb_dim)"
    )

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in _MOST}
        if self.hidden_dim is None:
            del counts["hidden_dim"]
        problems = [
            f"{name} is {value!r:.40}; expected a whole number of at least 1, at most {_MOST[name]}"
            for name, value in counts.items()
            if not _is_count(value) or value > _MOST[name]
        ]
        if not isinstance(self.drop_rate, int | float) or not 0.0 <= self.drop_rate < 1.0:
            problems.append(f"drop_rate is {self.drop_rate!r:.40}; expected 0 <= drop_rate < 1")
        problems += [
            f"{name} is {value!r:.40}; expected true or false"
            for name in ("qkv_bias", "tie_weights")
            if (value := getattr(self, name)) not in (True, False)
        ]
        if self.feed_forward not in (kinds := get_args(FeedForwardKind)):
            given = f"feed_forward is {self.feed_forward!r:.40}"
            problems.append(f"{given}; expected one of {', '.join(kinds)}")
        if not problems and self.emb_dim % self.n_heads:
            divisors = [n for n in range(1, self.emb_dim + 1) if self.emb_dim % n == 0]
            near = min(divisors, key=lambda n: (abs(n - self.n_heads), n))
            problems.append(
                f"emb_dim ({self.emb_dim}) is not divisible by n_heads ({self.n_heads}); "
                f"every head gets emb_dim / n_heads columns, so try n_heads {near} "
                f"or emb_dim {_next_multiple(self.emb_dim, self.n_heads)}"
            )
        if problems:
            raise UserError("; ".join(problems))

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
    def head_dim(self) -> int:
        """Columns per attention head."""
        return self.emb_dim // self.n_heads

    @property
    def feed_forward_dim(self) -> int:
        """Columns inside a feed-forward network: ``hidden_dim``, or GPT-2's four times as wide."""
        return self.hidden_dim or 4 * self.emb_dim

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


Train = Literal["head", "last-block", "last-two-blocks", "all", "lora"]
"""What of a model is fine-tuned; the course's classifier trains ``last-block``."""

TrainOn = Literal["all", "response"]
"""What an assistant learns to write: prompt and response as in the course, or the response only."""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _next_multiple(value: int, step: int) -> int:
    return -(-value // step) * step


_GPT2 = ModelConfig(qkv_bias=True, tie_weights=True)

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

"""What makes no sense about a model's config: a value, or two that do not fit together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundup.config import ModelConfig

# A shape beyond these is a mistake or a trap: laying it out would take hours, or overflow.
_MOST = {
    **dict.fromkeys(("vocab_size", "context_length"), 1 << 24),
    **dict.fromkeys(("emb_dim", "n_heads", "n_kv_heads", "head_dim", "hidden_dim"), 1 << 20),
    "n_layers": 1 << 10,
}
_SWITCHES = ("qkv_bias", "attn_bias", "mlp_bias", "qk_norm", "rope", "tie_weights")

# What a rope_scaling of each type must say, and what it may.
_SCALINGS = {
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": ("factor", "original_max_position_embeddings"),
}
_SCALINGS_MORE = {
    "yarn": ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim")
}


def problems_of(cfg: ModelConfig, kinds: Mapping[str, Sequence[str]]) -> list[str]:
    """What makes no sense about a config; nothing, if a model can be built of it.

    Args:
        cfg: the config.
        kinds: the values that a field may have, where it chooses a part.
    """
    counts = {name: getattr(cfg, name) for name in _MOST}
    for name in ("hidden_dim", "n_kv_heads", "head_dim"):
        if counts[name] is None:
            del counts[name]
    problems = [
        f"{name} is {value!r:.40}; expected a whole number of at least 1, at most {_MOST[name]}"
        for name, value in counts.items()
        if not _is_count(value) or value > _MOST[name]
    ]
    if not isinstance(cfg.drop_rate, int | float) or not 0.0 <= cfg.drop_rate < 1.0:
        problems.append(f"drop_rate is {cfg.drop_rate!r:.40}; expected 0 <= drop_rate < 1")
    problems += [
        f"{name} is {value!r:.40}; expected a number above {least:g}, below {most:g}"
        for name, least, most in (("norm_eps", 0, 1), ("rope_theta", 1, 1e15))
        if not isinstance(value := getattr(cfg, name), int | float) or not least < value < most
    ]
    problems += [
        f"{name} is {value!r:.40}; expected true or false"
        for name in _SWITCHES
        if (value := getattr(cfg, name)) not in (True, False)
    ]
    problems += [
        f"{name} is {value!r:.40}; expected one of {', '.join(known)}"
        for name, known in kinds.items()
        if (value := getattr(cfg, name)) not in known
    ]
    return problems or _misfits(cfg)


def _misfits(cfg: ModelConfig) -> list[str]:
    """What does not fit together."""
    problems = []
    if cfg.head_dim is None and cfg.emb_dim % cfg.n_heads:
        near = _nearest_divisor(cfg.emb_dim, cfg.n_heads)
        problems.append(
            f"emb_dim ({cfg.emb_dim}) is not divisible by n_heads ({cfg.n_heads}); "
            f"every head gets emb_dim / n_heads columns, so try n_heads {near} "
            f"or emb_dim {_next_multiple(cfg.emb_dim, cfg.n_heads)}, or say head_dim"
        )
    elif cfg.rope and cfg.head_size % 2:
        problems.append(
            f"a head has {cfg.head_size} columns, and rope turns them in pairs; "
            f"try head_dim {cfg.head_size + 1}"
        )
    if cfg.n_heads % cfg.kv_heads:
        near = _nearest_divisor(cfg.n_heads, cfg.kv_heads)
        problems.append(
            f"n_heads ({cfg.n_heads}) is not divisible by n_kv_heads ({cfg.kv_heads}); "
            f"each of those serves equally many, so try n_kv_heads {near}"
        )
    if cfg.rope_scaling is not None:
        if not cfg.rope:
            problems.append(
                "rope_scaling is for rotated positions; set rope to true, or leave it out"
            )
        problems += _scaling_problems(cfg.rope_scaling)
    return problems


def _scaling_problems(text: str) -> list[str]:
    """What is wrong with a ``rope_scaling``; nothing, if it can be used."""
    try:
        given = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return [f"rope_scaling is {text!r:.60}; expected a JSON object with rope_type and factor"]
    kind = given.get("rope_type")
    if not isinstance(kind, str) or kind not in _SCALINGS:
        known = ", ".join(_SCALINGS)
        return [f"rope_scaling is of the type {kind!r:.40}, which is not there; there are: {known}"]
    known = (*_SCALINGS[kind], *_SCALINGS_MORE.get(kind, ()))
    problems = [f"rope_scaling has no {name}" for name in _SCALINGS[kind] if name not in given]
    problems += [
        f"rope_scaling has {name!r:.40}, which {kind} does not know"
        for name in given
        if name not in known and name not in ("rope_type", "type")
    ]
    problems += [
        f"rope_scaling says {name} {given[name]!r:.40}; expected a number above 0"
        for name in known
        if name in given and not _positive(given[name], or_none=name not in _SCALINGS[kind])
    ]
    if not problems and kind == "llama3" and given["high_freq_factor"] <= given["low_freq_factor"]:
        problems.append("rope_scaling's high_freq_factor must be above its low_freq_factor")
    return problems


def _positive(value: object, *, or_none: bool) -> bool:
    if value is None or isinstance(value, bool):
        return or_none and value is None
    return isinstance(value, int | float) and 0 < value < 1e12


def _nearest_divisor(value: int, wished: int) -> int:
    divisors = [n for n in range(1, value + 1) if value % n == 0]
    return min(divisors, key=lambda n: (abs(n - wished), n))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _next_multiple(value: int, step: int) -> int:
    return -(-value // step) * step

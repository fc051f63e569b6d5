"""How fast rotary positions turn each pair of a head's columns, and how longer contexts slow them.

Pair ``i`` of ``D / 2`` turns by ``theta ** (-2 i / D)`` radians per token (Su et al. 2021, section
3.2.2): the first pair tells neighbours apart, the last is still on its first turn after thousands
of tokens. A model that was trained on short contexts reads longer ones if the slow pairs turn
slower still, so that they stay within the angles that it knows:

- ``linear`` slows all pairs down (Chen et al. 2023);
- ``llama3`` those that turn less than once within the old context, with a ramp (Meta 2024);
- ``yarn`` likewise, and sharpens attention a little (Peng et al. 2023).
"""

from __future__ import annotations

import json
import math

DEFAULT_THETA = 10000.0
"""Su et al.'s."""


def frequencies(
    head_dim: int, theta: float, scaling: str | None = None
) -> tuple[list[float], float]:
    """Radians per token of each pair, and what queries and keys are multiplied by.

    Args:
        head_dim: columns of a head, ``D``.
        theta: how slow the slowest are.
        scaling: JSON as Hugging Face's ``rope_scaling``; the formulas are those of its
            ``modeling_rope_utils.py``.

    Returns:
        ``D / 2`` frequencies, and the factor.
    """
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if scaling is None:
        return plain, 1.0
    given = json.loads(scaling)
    kind, factor = given["rope_type"], given["factor"]
    if kind == "linear":
        return [f / factor for f in plain], 1.0
    context = given["original_max_position_embeddings"]
    if kind == "llama3":
        low, high = given["low_freq_factor"], given["high_freq_factor"]
        kept = [(context * f / (2 * math.pi) - low) / (high - low) for f in plain]
        return [_between(f / factor, f, share) for f, share in zip(plain, kept, strict=True)], 1.0
    # yarn: the pairs that turn more than beta_fast times within the old context keep their speed,
    # those that turn less than beta_slow times get the new one.
    fast, slow = (
        head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (given.get("beta_fast") or 32, given.get("beta_slow") or 1)
    )
    first, last = max(math.floor(fast), 0), min(math.ceil(slow), head_dim - 1)
    width = (last - first) or 0.001
    kept = [1 - (i - first) / width for i in range(len(plain))]
    scaled = [_between(f / factor, f, share) for f, share in zip(plain, kept, strict=True)]
    return scaled, _sharpening(given, factor)


def _between(slowed: float, plain: float, share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return (1 - share) * slowed + share * plain


def _sharpening(given: dict[str, float], factor: float) -> float:
    """YaRN's ``sqrt(1 / t)`` (equation 22), unless the model says it itself."""
    if given.get("attention_factor") is not None:
        return given["attention_factor"]
    scale = 0.1 * math.log(factor) if factor > 1 else 0.0
    if given.get("mscale") and given.get("mscale_all_dim"):
        return (scale * given["mscale"] + 1) / (scale * given["mscale_all_dim"] + 1)
    return scale + 1

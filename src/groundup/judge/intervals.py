"""How sure one can be of a mean or of a win rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000

_AT_ONCE = 100
"""Resamples that are in memory together."""


def bootstrap_interval(values: Sequence[float], seed: int) -> tuple[float, float] | None:
    """A 95% confidence interval of the mean, by the percentile bootstrap.

    The values are drawn anew, with replacement, ``RESAMPLES`` times; the interval holds the middle
    95% of the means.

    Returns:
        The interval, or None for fewer than two values, which say nothing about their spread.
    """
    count = len(values)
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    numbers = np.asarray(values, dtype=np.float64)
    means = [
        numbers[rng.integers(count, size=(_AT_ONCE, count))].mean(axis=1)
        for _ in range(RESAMPLES // _AT_ONCE)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(wins: float, count: int) -> tuple[float, float] | None:
    """A 95% confidence interval of a rate, by Wilson's score.

    Unlike the bootstrap it does not collapse when everything was won. A tie may count as half a
    win: the interval is then a little too wide, never too narrow.

    Returns:
        The interval, or None if nothing was counted.
    """
    if not count:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    rate = wins / count
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2)) * z / (1 + z**2 / count)
    return max(0.0, middle - spread), min(1.0, middle + spread)

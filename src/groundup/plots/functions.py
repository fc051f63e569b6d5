"""Functions that a GPT computes with, drawn: activations, and softmax at several temperatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from groundup.errors import UserError
from groundup.plots.style import (
    GRAY,
    HATCHES,
    INK,
    SERIES,
    Numbers,
    check_lengths,
    legend_below,
    line_of,
    new_axes,
    new_figure,
    numbers,
    shorten,
    shown,
    token_text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    Function = Callable[[Tensor], Tensor]

MOST_BARS = 40
"""Tokens whose probabilities one picture can show."""


def plot_activations(
    functions: Mapping[str, Function] | None = None, *, low: float = -4.0, high: float = 4.0
) -> Figure:
    """Draw activation functions and, beside them, their derivatives (by autograd).

    Args:
        functions: elementwise ones by name; GELU, ReLU and SiLU unless given.
        low: where the x axis begins.
        high: where it ends.

    Raises:
        UserError: there are none or too many, ``low`` is not below ``high``, or a function gives
            another shape than it is given.
    """
    import torch
    from torch.nn import functional

    if functions is None:
        functions = {"GELU": functional.gelu, "ReLU": functional.relu, "SiLU": functional.silu}
    if not 1 <= len(functions) <= len(SERIES):
        raise UserError(f"there are {len(functions)} functions; expected 1 to {len(SERIES)}")
    if not low < high:
        raise UserError(f"low is {low} and high is {high}; expected low < high")
    figure = new_figure(9, 3.8)
    value, slope = (new_axes(figure, position=position) for position in (121, 122))
    value.set_title("the function", loc="left", fontsize=10)
    slope.set_title("its derivative", loc="left", fontsize=10)
    entries = []
    for number, (name, function) in enumerate(functions.items()):
        x = torch.linspace(low, high, 400, requires_grad=True)
        with torch.enable_grad():
            y = function(x)
            if y.shape != x.shape:
                raise UserError(
                    f"{name} made {tuple(y.shape)} of {tuple(x.shape)}; expected an elementwise one"
                )
            (derivative,) = torch.autograd.grad(y.sum(), x)
        for axes, drawn in ((value, y), (slope, derivative)):
            (line,) = axes.plot(
                x.detach().numpy(),
                drawn.detach().numpy(),
                **line_of(number),
                linewidth=2,
                label=f"{name}",
            )
        entries.append((line, name))
    for axes in (value, slope):
        axes.axhline(0, color=GRAY, linewidth=0.8, zorder=0)
        axes.axvline(0, color=GRAY, linewidth=0.8, zorder=0)
        axes.set_xlabel("x")
    legend_below(figure, entries, columns=len(entries))
    return shown(figure)


def plot_temperatures(
    logits: Numbers,
    tokens: Sequence[str | bytes],
    temperatures: Sequence[float] = (1.0, 0.1, 5.0),
) -> Figure:
    """Draw what softmax makes of scores at several temperatures, as in the course.

    Args:
        logits: a score per token, ``(V,)``; -inf takes a token out, as top-k does.
        tokens: what they are, ``(V,)``.
        temperatures: a bar per token for each; 0 is greedy, all on the highest score.

    Raises:
        UserError: the lengths differ, there are too many, a temperature is negative.
    """
    scores = numbers("logits", logits)
    check_lengths(logits=scores, tokens=tokens)
    if not 1 <= len(tokens) <= MOST_BARS:
        raise UserError(
            f"there are {len(tokens)} tokens; expected 1 to {MOST_BARS}: choose the top"
        )
    if not 1 <= len(temperatures) <= len(SERIES):
        raise UserError(f"there are {len(temperatures)} temperatures; expected 1 to {len(SERIES)}")
    if min(temperatures) < 0 or not np.isfinite(temperatures).all():
        raise UserError(f"a temperature is {min(temperatures)}; expected 0 or more, finite")
    if np.isnan(scores).any() or not np.isfinite(scores.max()):
        raise UserError("the logits hold no finite maximum; expected numbers, -inf for what is out")
    figure = new_figure(max(6.4, 0.75 * len(tokens)), 4)
    axes = new_axes(figure, "probability")
    places, width = np.arange(len(tokens)), 0.84 / len(temperatures)
    entries = []
    for number, temperature in enumerate(temperatures):
        bars = axes.bar(
            places + (number - (len(temperatures) - 1) / 2) * width,
            _softmax(scores, temperature),
            width,
            color=SERIES[number],
            hatch=HATCHES[number],
            edgecolor="white",
            linewidth=0.6,
            label=f"temperature {temperature:g}",
        )
        entries.append((bars, f"temperature {temperature:g}"))
    labels = [shorten(token_text(token), 14) for token in tokens]
    crowded = max(map(len, labels)) * len(labels) > 70
    axes.set_xticks(places, labels, rotation=90 if crowded else 0)
    axes.set_ylim(0, 1.02)
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    legend_below(figure, entries, columns=len(entries))
    return shown(figure)


def _softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    if temperature == 0:
        return (np.arange(len(scores)) == scores.argmax()).astype(float)
    powers = np.exp((scores - scores.max()) / temperature)
    return powers / powers.sum()

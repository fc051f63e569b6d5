"""The one look of all pictures: colours, fonts, axes; how they are shown and saved.

Colours are Okabe and Ito's ("Color Universal Design", 2008) and neighbours of theirs, in an order
in which those that come first differ most in lightness too; and no series is told by its colour
alone: lines have styles, bars have hatches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from groundup.errors import UserError
from groundup.files import atomic_file
from groundup.output import notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase
    from torch import Tensor

Numbers: TypeAlias = "Sequence[float] | np.ndarray | Tensor"
"""A list, an array or a tensor, one-dimensional."""

SERIES = ("#0072B2", "#E69F00", "#882255", "#009E73", "#56B4E9", "#D55E00")
TRAIN, VAL = SERIES[:2]
INK, GRAY = "#333333", "#888888"
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "X")
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++")
SHADES = "Blues"
"""Of heat maps: the more, the darker."""

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 150

SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"  # they come with matplotlib
_FALLBACKS = (  # fonts that have what DejaVu lacks, where they are installed
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei"),
    *("PingFang SC", "Hiragino Sans", "Malgun Gothic", "Arial Unicode MS", "Noto Emoji"),
    *("Segoe UI Emoji", "Segoe UI Symbol"),
)
_MISSING = "▯"
"""Stands for a character that no font here has."""


WIDTH, HEIGHT = 6.4, 3.8
"""Inches."""


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """A figure of that many inches, whose parts keep clear of each other and of its edges."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))


def new_axes(figure: FigureBase, ylabel: str = "", position: Any = 111) -> Axes:
    """Axes of the one look in a figure."""
    axes = figure.add_subplot(position)
    axes.set_ylabel(plain(ylabel))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)
    axes.tick_params(color=GRAY)
    axes.grid(axis="y", alpha=0.25)
    axes.margins(x=0.02)
    return axes


def line_of(number: int) -> dict[str, Any]:
    """Colour and style of the series of this number."""
    n = len(SERIES)
    return {"color": SERIES[number % n], "linestyle": STYLES[(number + number // n) % n]}


def legend_below(figure: FigureBase, entries: Sequence[tuple[Any, str]], columns: int = 3) -> None:
    """A legend below the axes, where it hides nothing.

    Args:
        figure: what it belongs to.
        entries: what is drawn, and what it is.
        columns: at most so many; fewer if the texts are long.
    """
    if not entries:
        return
    texts = [shorten(plain(text), 70) for _, text in entries]
    columns = max(1, min(columns, len(texts), 84 // (8 + max(map(len, texts)))))
    legend = figure.legend(
        [handle for handle, _ in entries],
        ["x"] * len(entries),  # a name that begins with _ would be left out
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=2.8,
    )
    for drawn, text in zip(legend.get_texts(), texts, strict=True):
        drawn.set_text(text)


def shown(figure: Figure) -> Figure:
    """Give a figure its fonts; show it where it is made in a notebook; return it.

    As the value of the cell's last line it would be shown once more (or, in a kernel that has
    not imported pyplot, as ``<Figure …>``): only if it has been changed since.
    """
    finish(figure)
    shell = notebook()
    if shell is None:
        return figure

    def display() -> None:
        from IPython.display import display

        display(notebook_image(figure, "a plot"))
        drawn.update(cell=shell.execution_count)
        figure.stale = False  # saving had changed its resolution and back

    def display_again() -> None:
        if figure.stale or drawn["cell"] != shell.execution_count:
            display()

    drawn: dict[str, int] = {}
    display()
    figure._ipython_display_ = display_again  # pyright: ignore[reportAttributeAccessIssue]
    return figure


def notebook_image(figure: Figure, alt: str) -> Any:
    """A figure as what IPython displays; ``alt`` says it to those who hear the page read."""
    from IPython.display import Image

    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return Image(picture.getvalue(), alt=alt)


def finish(figure: Figure) -> Figure:
    """Let no text in a figure be a formula, and give all the fonts that have their characters."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        mono = {"monospace", MONO} & set(text.get_fontfamily())
        text.set_fontfamily(list(families(MONO if mono else SANS)))
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a picture as PNG, SVG or PDF, as its name says; return the path.

    Raises:
        UserError: the name ends otherwise, or it cannot be written.
    """
    from matplotlib import rc_context

    path = Path(path)
    form = path.suffix.lower()
    if form not in SUFFIXES:
        raise UserError(f"a picture's name ends in {', '.join(SUFFIXES)}, but this is {path}")
    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "groundup", "pdf.fonttype": 42}
    with atomic_file(path) as temporary, rc_context(settings):
        figure.savefig(temporary, format=form[1:], dpi=DPI, metadata=dates[form])
    return path


def svg(figure: Figure, title: str) -> str:
    """A picture as SVG, the same for the same figure.

    Args:
        figure: what to draw.
        title: says it to those who hear the picture read.
    """
    from matplotlib import rc_context

    text = StringIO()
    # Letters stay letters; names within the file are no random numbers.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "groundup"}):
        figure.savefig(text, format="svg", metadata={"Title": title, "Date": None})
    drawn = text.getvalue().replace("<svg ", '<svg role="img" ', 1)
    return re.sub("<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)


def plain(text: object) -> str:
    """A text with each character that no font here has, or that is invisible, replaced."""
    known = _characters()
    return "".join(
        letter if ord(letter) in known and letter.isprintable() else _replacement(letter)
        for letter in str(text)
    )


def token_text(token: object) -> str:
    """A token as it is shown: its spaces and line ends visible, bytes of no character in hex."""
    if isinstance(token, bytes):
        try:
            token = token.decode()
        except UnicodeDecodeError:
            return " ".join(f"{byte:02X}" for byte in token)
    text = str(token).replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    return plain(text) or "∅"


def width_of(text: str) -> int:
    """How many columns a text takes in a font whose letters are of one width."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide


def shorten(text: str, longest: int) -> str:
    """A text, or its beginning and an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def numbers(name: str, values: object, dimensions: int = 1) -> np.ndarray:
    """Numbers as a float array, from a list, an array or a tensor (on any device).

    Raises:
        UserError: they are no numbers, or of another number of dimensions.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise UserError(f"{name} holds what is no number, or rows of unequal length") from None
    if array.size == 0 and array.ndim < dimensions:
        array = array.reshape((0,) * dimensions)
    if array.ndim != dimensions:
        raise UserError(
            f"{name} is of shape {tuple(array.shape)}; expected {dimensions} "
            f"dimension{'s' * (dimensions > 1)}"
        )
    return array


def check_lengths(**columns: Sequence[Any] | np.ndarray) -> None:
    """Refuse columns of unequal length.

    Raises:
        UserError: they are; all lengths are told.
    """
    if len({len(column) for column in columns.values()}) > 1:
        told = ", ".join(f"{name} has {len(column)}" for name, column in columns.items())
        raise UserError(f"{told}; expected as many of each")


@cache
def families(first: str) -> tuple[str, ...]:
    """A font and those that help out where it lacks a character."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    others = (SANS, MONO, *(name for name in _FALLBACKS if name in installed))
    return (first, *(name for name in others if name != first))


@cache
def _characters() -> frozenset[int]:
    """The code points for which some font here has a letter."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset().union(*(get_font(findfont(name)).get_charmap() for name in families(SANS)))


def _replacement(letter: str) -> str:
    if letter.isprintable() or unicodedata.category(letter) in ("Cs", "Co", "Cn"):
        return _MISSING
    return letter.encode("unicode_escape").decode()

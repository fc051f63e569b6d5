r"""All that is printed: results, remarks and tables; and anybody's text made safe to look at.

What a model, a file or a server says may hold characters that steer a terminal (colours, titles,
the cursor) or turn the order of letters around. They are shown by their codes, as ``\x1b``,
wherever people look: in a terminal, in remarks, in reports. What goes to a file or a pipe is
exact.
"""

from __future__ import annotations

import codecs
import html
import io
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

from groundup.launch import is_main

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from tqdm import tqdm

PIPE_WIDTH = 120
"""A pipe has no width: tables get what they need instead of rich's 80 columns."""

_STEERING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line separators, directions of writing
    r"\ud800-\udfff]"  # halves of characters, which no stream takes
)
_MARKUP = re.compile(r"([\\`*_\[\]|~$#])")


def visible(text: str) -> str:
    """Text in which the characters that steer a terminal are shown by their codes."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def inline(text: str) -> str:
    """Text for a line, a heading or a table of Markdown: nothing in it is markup, or HTML."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(visible(text).split()), quote=False))


def shell(*words: str, windows: bool = sys.platform == "win32") -> str:
    """Words as a line to be typed into this system's shell."""
    return subprocess.list2cmdline(words) if windows else shlex.join(words)


def show(result: object = "", end: str = "\n", *, flush: bool = False) -> None:
    """Print a result on stdout: exactly, unless it is a terminal; of several processes, once."""
    if not is_main():
        return
    text = str(result)
    _write(sys.stdout, (visible(text) if is_terminal(sys.stdout) else text) + end, flush)


def say(text: str, *, everywhere: bool = False) -> None:
    """Tell the user what is going on: on stderr, so that stdout holds only results.

    Where progress bars are shown, it stands above them. Of several processes that share the work
    only the main one prints, unless it is to be said ``everywhere``.
    """
    if not (everywhere or is_main()):
        return
    with _above_bars(sys.stderr):
        _write(sys.stderr, visible(text) + "\n", flush=True)


def data_stream() -> TextIO:
    """Stdout for rows of data: UTF-8 as every file of ours is, whatever the terminal speaks."""
    if is_terminal(sys.stdout):
        return _Shown()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    return sys.stdout


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches a stream."""
    return stream is not None and not stream.closed and stream.isatty()


def notebook() -> Any:
    """The notebook in which this runs (its IPython shell); None in a script or a terminal."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell if hasattr(shell, "kernel") else None


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """A bar of tqdm where somebody watches, in a terminal or a notebook; elsewhere it is silent.

    In a notebook it is the notebook's own, if ipywidgets is there, else of letters.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets is not there
        from tqdm.auto import tqdm
    watched = is_main() and (is_terminal(sys.stderr) or notebook() is not None)
    return tqdm(iterable, dynamic_ncols=True, disable=not watched, **options)


def prepare_streams() -> None:
    r"""Let stdout and stderr write what their encoding lacks by its code (``\u65e5``).

    A file's name that is no text is written byte by byte, as it is.
    """
    codecs.register_error("groundup", _by_code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="groundup")


@contextmanager
def console() -> Iterator[Console]:
    """A console of rich for tables, whose output is printed at the end.

    Strings are shown as they are: nothing in them is markup, or steers the terminal.
    """
    import rich.console
    from rich.text import Text

    class Safe(rich.console.Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(visible(text), **how)

    width = None if is_terminal(sys.stdout) else PIPE_WIDTH
    made = Safe(width=width, highlight=False, markup=False, emoji=False)
    with made.capture() as captured:
        yield made
    if is_main():
        _write(sys.stdout, captured.get())  # not by rich, which makes a status of 1 of `| head`


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A plain table; what is too wide for the terminal goes on in the next line.

    Args:
        titles: the heads of the columns.
        rows: the cells.
        right: the columns of numbers.
    """
    import rich.table

    made = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


class _Shown(io.StringIO):
    """A file whose text is shown."""

    def write(self, text: str) -> int:
        show(text, end="")
        return len(text)


def _write(stream: TextIO | None, text: str, flush: bool = False) -> None:
    if stream is None:  # a program without a console
        return
    try:
        stream.write(text)
    except UnicodeEncodeError as error:  # a stream that prepare_streams() has not seen
        stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
    if flush:
        stream.flush()


def _by_code(error: UnicodeError) -> tuple[str | bytes, int]:
    """Name what cannot be encoded; bytes that Python could not decode become bytes again."""
    if isinstance(error, UnicodeEncodeError):
        with_bytes = error.object[error.start : error.end]
        try:
            return with_bytes.encode("ascii", "surrogateescape"), error.end
        except UnicodeEncodeError:
            pass
    return codecs.backslashreplace_errors(error)


def _above_bars(stream: TextIO | None) -> Any:
    """While something is written, take tqdm's bars away; without tqdm there are none."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return tqdm.external_write_mode(file=stream) if tqdm and stream else nullcontext()

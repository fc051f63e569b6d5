"""``groundup explain``: a part's source, and what it makes of a small example."""

from __future__ import annotations

from groundup.cli.app import app
from groundup.lessons.topics import TOPICS, find_topic
from groundup.output import console, show


@app.command
def explain(topic: str | None = None, /) -> None:
    """Show how a part works: its source, then a small example with its shapes and numbers.

    Args:
        topic: attention, bpe, loss, …; without one, all topics are listed.
    """
    if topic is None:
        for name, known in TOPICS.items():
            show(f"{name:10} {known.about}")
        return
    found, example = find_topic(topic)

    from groundup.lessons.source import source_of

    _title(f"{topic} – {found.about}")
    for file, part in found.sources():
        _title(f"# {file}")
        _python(source_of(part))
    _title("# an example")
    _python(source_of(example))
    _title("# which prints")
    example()


def _title(text: str) -> None:
    _print(f"{text}\n", "bold")


def _python(source: str) -> None:
    """Print source code, in colour on a terminal."""
    _print(source, None)


def _print(text: str, style: str | None) -> None:
    from rich.syntax import Syntax
    from rich.text import Text

    from groundup.lessons.source import WIDTH

    code = Syntax(text.rstrip(), "python", theme="ansi_dark", background_color="default")
    with console() as out:
        out.width = WIDTH
        if out.is_terminal:
            out.print(Text(text.rstrip(), style) if style else code)
            out.print()
            return
    show(text)

"""An X-ray as one page that needs nothing else: no network, no server, nothing to build."""

from __future__ import annotations

from pathlib import Path

from groundup.files import atomic_file
from groundup.pages import bundled, environment_of, fingerprint, web_file
from groundup.xray.data import XRay

START = """
mount(document.getElementById("xray"), JSON.parse(document.getElementById("data").textContent));
document.getElementById("numbers").open = false;
"""


def write_xray(path: str | Path, xray: XRay) -> Path:
    """Write an X-ray's page; return its path.

    Args:
        path: the file; its folder is made if it is missing, and a page that is there is replaced.
        xray: what it shows.

    Raises:
        UserError: the disk is full or cannot be written to.
    """
    path = Path(path)
    with atomic_file(path) as temporary:
        temporary.write_text(render(xray), encoding="utf-8", newline="\n")
    return path


def render(xray: XRay) -> str:
    """The page."""
    script = f"\n{bundled('xray.js')}\n{START}"
    template = environment_of("groundup.xray").get_template("xray.html")
    return template.render(
        xray=xray,
        rows=_rows(xray),
        data=xray.json(),
        script=script,
        policy=f"; script-src '{fingerprint(script)}'",
        style=web_file("xray.css"),
    )


def _rows(xray: XRay) -> list[tuple[str, ...]]:
    """The table: number, token, id, how likely it was, its rank, surprise, the best guess then."""
    rows = []
    for number, token in enumerate(xray.tokens):
        probability = xray.probability(number)
        guess = "" if number == 0 else quoted(xray.words[xray.next[number - 1].ids[0]])
        rows.append(
            (
                str(number + 1),
                quoted(xray.words[token.id]),
                str(token.id),
                "–" if probability is None else f"{probability:.2%}",
                "–" if token.rank is None else f"{token.rank:,}",
                "–" if token.surprise is None else f"{token.surprise:.3f}",
                guess,
            )
        )
    return rows


def quoted(word: str) -> str:
    """A token whose spaces and line ends are seen."""
    return word.replace(" ", "·").replace("\n", "↵").replace("\t", "→") or "∅"

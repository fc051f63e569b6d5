"""What all pages have in common: one file that loads nothing, runs nothing, and escapes all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line separators, directions of writing
    r"\ud800-\udfff]"  # halves of characters, which no file takes
)


def visible(text: str) -> str:
    """Text in which what no page can show, or what turns letters around, is shown by its code."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def environment_of(package: str) -> Environment:
    """The templates of a package, and those that they extend (``templates/page.html`` here)."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("groundup")]),
        autoescape=select_autoescape(["html"]),  # what anybody wrote is text, never markup
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def inline_svg(picture: str) -> str:
    """A picture as it stands within a page, without what only a file of its own needs.

    Its colours become those of the page: light or dark.
    """
    from groundup.plots.style import INK, SERIES

    picture = picture[picture.index("<svg") :]
    picture = re.sub(r' (?:xmlns(?::\w+)?)="[^"]*"', "", picture)
    picture = re.sub(r'<g id="[^"]*"', "<g", picture)  # which other pictures have, too
    for number, color in enumerate((INK, *SERIES)):
        picture = re.sub(f"(?i){color}", f"var(--c{number}, {color.lower()})", picture)
    return picture

"""What all pages have in common: one file that loads nothing, runs nothing, and escapes all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from groundup.output import visible

if TYPE_CHECKING:
    from jinja2 import Environment


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

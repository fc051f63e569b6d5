"""What all pages have in common: one file that loads nothing from anywhere, and escapes all."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
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


def web_file(name: str) -> str:
    """A file of ``groundup/web``, where the pages' JavaScript modules and styles are."""
    return (files("groundup") / "web" / name).read_text(encoding="utf-8")


def bundled(name: str) -> str:
    """A JavaScript module and those that it imports as one, for a page that loads nothing.

    They are put one after the other, each before those that import it, so no two of them may
    declare the same name (browsers refuse that), and what is imported keeps its name.
    """
    parts: dict[str, str] = {}

    def add(module: str) -> None:
        if module in parts:
            return
        source = web_file(module)
        for imported in _IMPORT.findall(source):
            add(imported)
        parts[module] = re.sub(r"(?m)^export ", "", _IMPORT.sub("", source)).strip()

    add(name)
    return "\n\n".join(parts.values())


def embedded(value: object) -> str:
    """A value as JSON in ASCII, in which nothing is HTML either."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def fingerprint(script: str) -> str:
    """What a page's policy says about the one script that may run in it."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


_IMPORT = re.compile(r'(?m)^import \{[^}]*\} from "\./([\w.-]+)";\n')

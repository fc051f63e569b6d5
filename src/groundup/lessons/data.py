"""What the notebooks learn from: the course's data, or a small stand-in where there is no network.

The folder that GROUNDUP_TEST_DATA names is looked into first, then the downloads; what is in
neither is downloaded. The stand-ins come with the package, and say that they are such.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Literal

from groundup.data.download import download
from groundup.data.sources import DATA
from groundup.data.text import embedded_documents, read_documents
from groundup.errors import UserError

Name = Literal["the-verdict", "sms-spam", "instructions"]

STAND_INS = {"sms-spam": "messages.tsv", "instructions": "instructions.json"}
"""Messages and instructions that were made up for this package."""

VARIABLE = "GROUNDUP_TEST_DATA"
SHORT_STORY = 20_000
"""Characters of a text as long as the course's."""


def lesson_text() -> str:
    """The course's text, "The Verdict" by Edith Wharton; else one that comes with Python."""
    path = _find("the-verdict")
    if path is not None:
        return read_documents([str(path)])[0]
    print("(the-verdict is not here, so this is a part of Python's language reference)")
    return "\n".join(embedded_documents())[:SHORT_STORY]


def lesson_file(name: Literal["sms-spam", "instructions"]) -> Path:
    """The file of one of the course's data sets, or of a small one like it."""
    path = _find(name)
    if path is not None:
        return path
    print(f"({name} is not here, so this is a small stand-in that comes with groundup)")
    return stand_in(name)


def stand_in(name: Literal["sms-spam", "instructions"]) -> Path:
    """The file of the small data set that comes with the package."""
    return Path(str(resources.files("groundup") / "lessons" / "data" / STAND_INS[name]))


def _find(name: Name) -> Path | None:
    folder = os.environ.get(VARIABLE)
    if folder and (Path(folder) / DATA[name].name).is_file():
        return Path(folder) / DATA[name].name
    try:
        return download(name, say=lambda text: None)
    except UserError:  # no network, or nobody may ask it
        return None

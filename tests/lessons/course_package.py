"""The course's own package, ``llms-from-scratch``, as an oracle: what each chapter exports.

``make test`` installs it (``--no-deps``: it would bring TensorFlow and Jupyter).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import pytest

pytest.importorskip("llms_from_scratch", reason="`make test` installs the course's package")

CHAPTERS = ("ch02", "ch03", "ch04", "ch05", "ch06", "ch07", "appendix_d", "appendix_e")

COMPARED: dict[str, Callable[..., None]] = {}
"""The test that compares a name (``ch05.generate``) with ours."""

Test = TypeVar("Test", bound=Callable[..., None])


def chapter(name: str) -> Any:
    """A module of the course's package."""
    return importlib.import_module(f"llms_from_scratch.{name}")


def exported(module: ModuleType) -> dict[str, Any]:
    """The public classes and functions that a module defines (and does not just import)."""
    return {
        name: thing
        for name, thing in vars(module).items()
        if inspect.isclass(thing) or inspect.isfunction(thing)
        if thing.__module__ == module.__name__ and not name.startswith("_")
    }


COURSE = {
    f"{name}.{public}": thing
    for name in CHAPTERS
    for public, thing in exported(chapter(name)).items()
}
"""All that the course exports: ``ch05.generate`` and so on."""


def compares(*names: str) -> Callable[[Test], Test]:
    """Say of a test that it compares what these names stand for, there and here."""

    def note(test: Test) -> Test:
        for name in names:
            assert name in COURSE and name not in COMPARED, name
            COMPARED[name] = test
        return test

    return note

"""What all public names have in common."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import groundup


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, and every function of a public class of ours."""
    for name in groundup.__all__:
        found = getattr(groundup, name)
        if inspect.isclass(found):
            members = inspect.getmembers(found, inspect.isroutine)
            for member, function in members:
                if str(getattr(function, "__module__", "")).startswith("groundup"):
                    yield f"{name}.{member}", function
        elif inspect.isfunction(found):
            yield name, found


def test_whatever_takes_a_path_takes_a_string() -> None:
    takes = {
        f"{name}({parameter.name})": str(parameter.annotation)
        for name, function in public_callables()
        for parameter in inspect.signature(function).parameters.values()
        if "Path" in str(parameter.annotation) and "Callable" not in str(parameter.annotation)
    }
    assert len(takes) > 20
    assert {where for where, hint in takes.items() if "str | Path" not in hint} == set()

"""Every public name of the course's package is offered, or docs/course.md says why not."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import groundup
from tests.lessons import test_course_classes, test_course_functions
from tests.lessons.course_package import COMPARED, COURSE

DOCS = Path(__file__).parents[2] / "docs" / "course.md"
ROW = r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$"
"""A row of the table: name, chapter, where it is here, what differs."""

TABLE = {
    f"{chapter}.{name}": (where, differs)
    for name, chapter, where, differs in re.findall(ROW, DOCS.read_text("utf-8"), re.MULTILINE)
}
OFFERED = [name for name, (where, _) in TABLE.items() if where != "not offered"]


def ours(name: str) -> Any:
    return getattr(groundup, name.partition(".")[2])


def parameters(thing: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Names, defaults and kinds of what it takes; a class that defines nothing takes nothing."""
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return []
    return [(p.name, p.default, p.kind) for p in inspect.signature(thing).parameters.values()]


def test_the_table_has_every_name_of_the_course() -> None:
    assert len(COURSE) > 50
    assert sorted(TABLE) == sorted(COURSE)


def test_every_name_that_is_offered_is_compared() -> None:
    modules = {test.__module__ for test in COMPARED.values()}
    assert modules == {test_course_classes.__name__, test_course_functions.__name__}
    assert sorted(COMPARED) == sorted(OFFERED)


@pytest.mark.parametrize("name", OFFERED)
def test_where_it_is(name: str) -> None:
    where = inspect.getsourcefile(ours(name))
    assert where is not None
    folder = Path(groundup.__file__).parent
    assert f"src/groundup/{Path(where).relative_to(folder).as_posix()}" in TABLE[name][0]


@pytest.mark.parametrize("name", OFFERED)
def test_the_signature_is_the_courses(name: str) -> None:
    theirs, here = parameters(COURSE[name]), parameters(ours(name))
    assert here[: len(theirs)] == theirs
    more = here[len(theirs) :]
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, _, kind in more), more
    assert all(default is not inspect.Parameter.empty for _, default, _ in more), more


def test_what_is_not_offered_has_a_reason() -> None:
    without = [name for name in TABLE if name not in OFFERED]
    assert without == ["ch05.assign", "ch07.check_if_running"]
    for name in without:
        assert not hasattr(groundup, name.partition(".")[2])
        assert len(TABLE[name][1]) > 20

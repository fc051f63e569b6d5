"""The notebooks run from top to bottom, and what is written in them is what they show."""

import importlib.util
import re
from pathlib import Path

import pytest

from groundup.course import lessons
from tests.conftest import Run

SPEC = importlib.util.spec_from_file_location(
    "execute", Path(__file__).parents[2] / "notebooks" / "execute.py"
)
assert SPEC is not None and SPEC.loader is not None
execute = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(execute)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", execute.paths(), ids=lambda path: path.stem)
def test_it_runs_and_shows_what_is_written_in_it(path: Path, tmp_path: Path) -> None:
    found, written = execute.execute(path, tmp_path), execute.read(path)
    assert execute.kinds(found) == execute.kinds(written)
    assert execute.sources(found) == execute.sources(written), "run `make notebooks`"


@pytest.mark.parametrize("path", execute.paths(), ids=lambda path: path.stem)
def test_nothing_of_a_machine_is_written_in_it(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"/(home|root|Users|tmp|work)/", text)
    assert len(text) < 2_000_000


def test_the_table_of_contents_is_what_the_notebooks_say(run: Run) -> None:
    readme = (execute.FOLDER / "README.md").read_text("utf-8")
    listed = run("course").out
    assert [lesson.number for lesson in lessons()] == list(range(1, len(execute.paths()) + 1))
    for lesson in lessons():
        row = f"| [{lesson.title}]({lesson.path.name}) | {lesson.shows} | {lesson.takes} |"
        assert row in readme
        assert lesson.title in listed and lesson.shows in listed


def test_a_lesson_is_copied_once_to_work_in(run: Run, tmp_path: Path) -> None:
    first = run("course", "1", "--out", tmp_path, "--no-open")
    copy = Path(first.out.strip())
    assert first.status == 0 and copy.read_bytes() == lessons()[0].path.read_bytes()
    copy.write_text("my notes", "utf-8")
    assert run("course", "1", "--out", tmp_path, "--no-open").status == 0
    assert copy.read_text("utf-8") == "my notes"
    wrong = run("course", "99", "--out", tmp_path)
    assert wrong.status == 2 and "there are 1 to" in wrong.err


def test_a_folder_that_cannot_be_written_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("course", "1", "--out", tmp_path / "file", "--no-open")
    assert result.status == 2 and "--out" in result.err

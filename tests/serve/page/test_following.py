"""Following a file that a run writes: only what is new, whatever happens to the file."""

import json
from pathlib import Path

import pytest

from groundup.files import JsonLines
from groundup.serve.page import following
from groundup.serve.page.following import Place, measured, newer, written
from tests.serve.page.runs import append, record


def told(path: Path, place: Place | None = None) -> tuple[list[float | None], bool, Place]:
    """The steps that are new, whether to forget the others, and up to where it is known now."""
    found = newer(path, place or Place(), measured)
    return found["rows"].get("step", []), found["anew"], Place(found["id"], found["offset"])


def test_only_whole_new_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert told(path) == ([], True, Place())
    path.write_text('{"step": 1', "utf-8")
    assert told(path) == ([], True, Place())
    path.unlink()
    append(path, record(1), record(2))
    steps, anew, place = told(path)
    assert (steps, anew) == ([1, 2], True)
    assert told(path, place) == ([], False, place)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')
    assert told(path, place) == ([], False, place)
    with path.open("a", encoding="utf-8") as file:
        file.write('ss": 2.0}\n')
    steps, anew, place = told(path, place)
    assert (steps, anew) == ([3], False)


def test_a_resumed_or_overwritten_run_is_told_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, *map(record, range(1, 9)))
    _, _, place = told(path)
    JsonLines(path).rewrite([record(step) for step in range(1, 5)])  # as on resume
    append(path, *map(record, range(5, 20)))
    steps, anew, place = told(path, place)
    assert anew and steps == list(range(1, 20))
    path.write_text("", "utf-8")
    append(path, record(1, seconds=7.5), *map(record, range(2, 30)))  # in the same place on disk
    steps, anew, _ = told(path, place)
    assert anew and steps == list(range(1, 30))


@pytest.mark.parametrize("offset", [-5, 10**15])
def test_a_place_that_cannot_be_is_begun_anew(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, record(1))
    place = told(path)[2]
    assert told(path, Place(place.id, offset)) == ([1], True, place)


def test_long_files_come_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHUNK", 1000)
    path, place, steps, more = tmp_path / "metrics.jsonl", Place(), [], True
    append(path, *map(record, range(1, 60)))
    while more:
        found = newer(path, place, measured)
        place, more = Place(found["id"], found["offset"]), found["more"]
        steps += found["rows"]["step"]
    assert steps == list(range(1, 60)) and place.offset == path.stat().st_size


def test_what_is_no_measurement_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1, "loss": NaN, "x\\u202e": 2, "big": 1' + "0" * 400 + "}", "no JSON", "[1]"]
    lines += ['{"step": 2, "loss": 3.5, "note": "text", "yes": true}', '{"a": 1, "a": 2}']
    path.write_text("\n".join(lines) + "\n", "utf-8")
    found = newer(path, Place(), measured)
    assert found["damaged"] == 3
    assert found["rows"] == {"step": [1, 2], "x\\u202e": [2, None], "loss": [None, 3.5]}
    json.dumps(found, allow_nan=False)
    rows = newer(path, Place(), written)["rows"]
    assert rows == []


def test_samples_are_safe_to_show_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    append(path, {"step": 5, "epoch": 1, "prompt": "a\x1b[31m", "text": "b" * 9000}, {"step": 1})
    (row,) = newer(path, Place(), written)["rows"]
    assert row == {"step": 5, "prompt": "a\\x1b[31m", "text": "b" * 4000}

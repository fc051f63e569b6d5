"""The small data sets that come with the package are what the notebooks take them for."""

import pandas as pd
import pytest

from groundup.data.classification import read_labelled
from groundup.data.instruction_files import read_instructions
from groundup.data.sources import DATA
from groundup.lessons import data
from groundup.lessons.data import lesson_file, stand_in


def test_messages_have_the_collections_format_and_no_text_twice() -> None:
    read = read_labelled(stand_in("sms-spam"))
    assert len(set(read.texts)) == len(read) == 300
    assert read.labels.count("spam") == 120 and read.labels.count("ham") == 180
    frame = pd.read_csv(stand_in("sms-spam"), sep="\t", header=None, names=["Label", "Text"])
    assert frame["Text"].tolist() == read.texts  # no quote that joins lines


def test_instructions_are_alpacas_and_no_task_comes_twice() -> None:
    entries = read_instructions(stand_in("instructions"))
    assert len({(entry["instruction"], entry["input"]) for entry in entries}) == len(entries) == 120
    assert all(entry.keys() == {"instruction", "input", "output"} for entry in entries)
    assert all(entry["output"] for entry in entries)
    for entry in entries:
        if entry["instruction"] == "Work this out.":
            assert eval(entry["input"]) == int(entry["output"].split()[-1].rstrip("."))


def test_they_serve_where_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "_find", lambda name: None)
    for name in ("sms-spam", "instructions"):
        assert lesson_file(name) == stand_in(name)
        assert "stand-in" in capsys.readouterr().out
        assert name in DATA

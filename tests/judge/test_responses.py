import json
import re
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.judge.responses import Entry, check_same_tasks, numbered, read_entries
from tests.judge.conftest import Write, rows

KEY = "model_response"


def test_entries_are_read_as_they_are(write: Write) -> None:
    entries = rows(3)
    del entries[1]["input"]
    assert read_entries(write(entries), KEY)[1] == Entry(
        2, "Name the number 2.", "", "It is 2.", "The number is 2."
    )


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows(3)), "utf-8")
    assert [entry.number for entry in read_entries(path, KEY)] == [1, 2, 3]


def test_a_conversation_is_a_task(write: Write) -> None:
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "So long")]
    messages = [{"role": role, "content": text} for role, text in turns]
    (entry,) = read_entries(write([{"messages": messages, KEY: "Ciao"}]), KEY)
    assert entry.instruction == "user: Hi\n\nassistant: Hello\n\nuser: Bye"
    assert (entry.reference, entry.response) == ("So long", "Ciao")


def test_an_empty_response_is_one() -> None:
    assert [Entry(1, "", "", "", text).empty for text in ("", " \n", "a")] == [True, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: None}, "no field 'model_response' (there are instruction, input, output) in entry 2"),
        ({1: 5}, "'model_response' is 5 and no text in entry 2"),
        ({0: [], 2: []}, "'model_response' is [] and no text in entries 1, 3"),
        ({0: 1, 1: None}, "and no text in entry 1; no field"),
        ({2: "a\ud800"}, "half of a surrogate pair, which is no character in entry 3"),
    ],
)
def test_every_bad_response_is_told(write: Write, change: dict[int, Any], message: str) -> None:
    entries: list[dict[str, Any]] = list(rows(3))
    for index, value in change.items():
        del entries[index][KEY]
        entries[index] |= {} if value is None else {KEY: value}
    with pytest.raises(UserError, match=re.escape(message)):
        read_entries(write(entries), KEY)


def test_another_field_is_suggested(write: Write) -> None:
    with pytest.raises(UserError, match="did you mean 'model_response'") as caught:
        read_entries(write(rows(30)), "model_respons")
    assert "in entries 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 20 more" in str(caught.value)


def test_fewer_responses_than_entries(write: Write) -> None:
    path, reference = write(rows(97)), write(rows(110), "test.json")
    with pytest.raises(
        UserError,
        match="has responses to 97 of the 110 entries of .*test.json; answer the whole .* another",
    ):
        read_entries(path, KEY, reference)


def test_the_reference_s_outputs_count(write: Write) -> None:
    path, reference = write(rows(3)), write(rows(3, output="the truth"), "test.json")
    assert {entry.reference for entry in read_entries(path, KEY, reference)} == {"the truth"}


def test_outputs_may_lack_where_the_reference_has_them(write: Write) -> None:
    turns = [("user", "Hi"), ("assistant", "Hello")]
    messages = [{"role": role, "content": text} for role, text in turns]
    full: list[dict[str, Any]] = [*rows(2), {"messages": messages, KEY: "Ciao"}]
    bare: list[dict[str, Any]] = [*rows(2), {"messages": messages[:1], KEY: "Ciao"}]
    del bare[0]["output"]
    bare[1]["output"] = ""
    path, reference = write(bare), write(full, "full.json")
    assert read_entries(path, KEY, reference) == read_entries(reference, KEY)
    with pytest.raises(UserError, match="entry 1: the output is missing"):
        read_entries(path, KEY)
    assert read_entries(path, KEY, needs_output=False)[0].reference == ""
    with pytest.raises(UserError, match=r"responses\.json: entry 1: the output is missing"):
        read_entries(reference, KEY, path)


def test_other_tasks_are_told(write: Write) -> None:
    ours, theirs = rows(4), rows(4)
    theirs[1]["instruction"] = theirs[3]["input"] = "else"
    first, second = write(ours), write(theirs, "other.json")
    with pytest.raises(UserError, match="differs in entries 2, 4"):
        check_same_tasks(first, read_entries(first, KEY), second, read_entries(second, KEY))
    third = write(rows(5), "third.json")
    with pytest.raises(UserError, match="has 4 entries and .*third.json has 5"):
        check_same_tasks(first, read_entries(first, KEY), third, read_entries(third, KEY))


def test_what_is_no_list_of_entries(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no entries"):
        read_entries(write([]), KEY)
    with pytest.raises(UserError, match="neither a JSON list nor JSONL"):
        (tmp_path / "a.json").write_text("[{]", "utf-8")
        read_entries(tmp_path / "a.json", KEY)
    with pytest.raises(UserError, match="there is no file"):
        read_entries(tmp_path / "none.json", KEY)


def test_numbers_are_listed() -> None:
    assert numbered([3]) == "entry 3"
    assert numbered([3, 5]) == "entries 3, 5"
    assert numbered(range(12)) == "entries 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"

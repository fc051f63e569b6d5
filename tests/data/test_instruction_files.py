import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.instruction_files import read_instructions, split_instructions
from groundup.errors import UserError

ENTRY = {"instruction": "Add.", "input": "1 2", "output": "3"}
CHAT = {
    "messages": [
        {"role": "system", "content": ""},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
    ]
}


def write(path: Path, content: object) -> Path:
    """Write bytes as they are, a text, or anything else as JSON."""
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, content: object, **how: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_instructions(write(path, content), **how)
    return str(caught.value)


def test_the_courses_data(data_dir: Path) -> None:
    path = data_dir / "instruction-data.json"
    entries = read_instructions(path)
    assert entries == json.loads(path.read_text(encoding="utf-8"))
    train, test, validation = split_instructions(entries)
    assert (len(train), len(test), len(validation)) == (935, 110, 55)
    assert test[0]["instruction"] == "Rewrite the sentence using a simile."
    assert train + test + validation == entries


def test_json_jsonl_and_gzip(tmp_path: Path) -> None:
    extra = ENTRY | {"id": 7, "tags": ["maths"]}
    entries = [ENTRY, extra, CHAT]
    lines = "\r\n\n".join(map(json.dumps, entries)) + "\n"
    assert read_instructions(write(tmp_path / "a.json", entries)) == entries
    assert read_instructions(write(tmp_path / "a.jsonl", lines)) == entries
    assert read_instructions(write(tmp_path / "bom", b"\xef\xbb\xbf" + lines.encode())) == entries
    assert read_instructions(write(tmp_path / "a.gz", gzip.compress(lines.encode()))) == entries
    assert read_instructions(write(tmp_path / "one.json", json.dumps(ENTRY, indent=2))) == [ENTRY]


def test_an_absent_input_is_an_empty_one(tmp_path: Path) -> None:
    plain = {"instruction": "Add.", "output": "3"}
    path = write(tmp_path / "a.json", [plain, plain | {"input": None}, plain | {"input": ""}])
    assert read_instructions(path) == [plain | {"input": ""}] * 3


def test_only_line_feeds_separate_lines(tmp_path: Path) -> None:
    """Within its quotes, JSON may hold U+2028 and the like as they are."""
    entry = ENTRY | {"output": "one\u2028two\u0085three\x7f"}
    lines = json.dumps(entry, ensure_ascii=False) + "\n"
    assert read_instructions(write(tmp_path / "a.jsonl", lines * 2)) == [entry, entry]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction": None}, "the instruction is None; expected a text"),
        ({"instruction": " \n"}, "the instruction is empty"),
        ({"instruction": 3}, "the instruction is 3; expected a text"),
        ({"input": ["x"]}, r"the input is \['x'\]; expected a text"),
        ({"output": ""}, "the output is empty"),
        ({"output": None}, "the output is None; expected a text"),
        ({"output": "\ud83d"}, "the output has half of a surrogate pair"),
        ({"messages": "Hi"}, "messages is not a list of messages"),
        ({"messages": []}, "messages is not a list of messages"),
        ({"messages": CHAT["messages"][:1]}, "the last message is the system's; expected the as"),
        ({"messages": CHAT["messages"][:2]}, "the last message is the user's; expected the as"),
        ({"messages": CHAT["messages"][2:]}, "message 1 is the assistant's, but it is the user's"),
        ({"messages": [CHAT["messages"][1]] * 2}, "message 2 is the user's, but it is the assist"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "message 1 has the role 'bot'; expected"),
        (
            {"messages": [*CHAT["messages"][:2], {"role": "assistant", "content": " "}]},
            "the content of message 3 is empty",
        ),
    ],
)
def test_one_bad_entry(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.json", [ENTRY, CHAT, ENTRY | changes])
    with pytest.raises(UserError, match=f"a.json: entry 3: {message}"):
        read_instructions(path)


def test_entries_that_lack_something(tmp_path: Path) -> None:
    message = refused(
        tmp_path / "a.json",
        [{"instruction": "Add."}, {"question": "x", "id": 1}, {}, "Add.", None, [ENTRY]],
    )
    assert "entry 1: the output is missing" in message
    assert "entry 2: has no instruction and no messages (but: question, id)" in message
    assert "entry 3: has no instruction and no messages (but: nothing)" in message
    assert "entry 4: is 'Add.'; expected an object" in message
    assert "entry 5: is None; expected an object" in message
    assert "entry 6: is [{'instruction'" in message


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    bad = {"instruction": "", "input": 3, "output": ""}
    message = refused(tmp_path / "a.json", [ENTRY, bad])
    expected = ("the instruction is empty", "the input is 3; expected a text")
    assert all(f"entry 2: {problem}" in message for problem in (*expected, "the output is empty"))
    message = refused(tmp_path / "b.json", [ENTRY | {"output": ""}] * 25)
    assert "entry 10: " in message and "entry 11: " not in message and "and 15 more" in message
    assert "more" not in refused(tmp_path / "c.json", [ENTRY | {"output": ""}] * 10)


def test_lines_that_are_not_json_are_named(tmp_path: Path) -> None:
    good = json.dumps(ENTRY)
    bad = json.dumps(ENTRY | {"output": ""})
    lines = "\n".join([good, "", good[:-1], bad, "nonsense", good])
    message = refused(tmp_path / "a.jsonl", lines)
    assert f"line 3: is not JSON: Expecting ',' delimiter (column {len(good)})" in message
    assert "line 4: the output is empty" in message
    assert "line 5: is not JSON: Expecting value (column 1)" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "only white space"),
        (b"[]", "has no entries"),
        (b"Below is an instruction", "neither a JSON list nor JSONL.*line 1 column 1"),
        (b'[\n  {"instruction": "Add."\n  "output": "3"}\n]', "JSON list.*line 3 column 3"),
        (b'{\n  "instruction": "Add.",\n}', "neither.*line 2 column 25|neither.*line 3 column 1"),
        (b"[" * 100_000, "neither a JSON list nor JSONL"),
        ('[{"instruction": "Käse"}]'.encode("latin-1"), "not UTF-8: byte 0xe4 at offset 19"),
        (b"3", "entry 1: is 3; expected an object"),
    ],
)
def test_files_that_hold_no_entries(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_instructions(write(tmp_path / "a.json", content))


def test_missing_and_several_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_instructions(tmp_path / "none.json")
    write(tmp_path / "a.json", [ENTRY])
    write(tmp_path / "b.json", [ENTRY])
    with pytest.raises(UserError, match="stands for 2 files; give one"):
        read_instructions(tmp_path / "*.json")


def test_questions_alone(tmp_path: Path) -> None:
    chat = {"messages": CHAT["messages"][:2]}
    entries = [{"instruction": "Add.", "input": ""}, ENTRY | {"output": ""}, chat, CHAT]
    path = write(tmp_path / "a.json", entries)
    assert read_instructions(path, with_responses=False) == entries
    nobody = {"messages": CHAT["messages"][:1]}
    message = refused(tmp_path / "b.json", [nobody, {"output": "3"}], with_responses=False)
    assert "entry 1: there is no message from the user" in message
    assert "entry 2: has no instruction" in message


@given(st.lists(st.integers(), min_size=2), st.none() | st.integers(0, 2**40))
def test_a_split_loses_nothing(data: list[int], seed: int | None) -> None:
    before = list(data)
    train, test, validation = split_instructions(data, 0.5, 0.25, seed=seed)
    assert data == before
    assert (len(train), len(test)) == (len(data) // 2, len(data) // 4)
    assert sorted(train + test + validation) == sorted(data)
    assert (train, test, validation) == split_instructions(data, 0.5, 0.25, seed=seed)


def test_a_seed_shuffles() -> None:
    data = list(range(100))
    assert split_instructions(data).train == data[:85]
    assert split_instructions(data, seed=1) != split_instructions(data)
    assert split_instructions(data, seed=1) != split_instructions(data, seed=2)


@pytest.mark.parametrize(
    ("train", "test"), [(0.0, 0.1), (-0.5, 0.1), (0.9, 0.2), (0.5, -0.1), (float("nan"), 0.1)]
)
def test_senseless_shares(train: float, test: float) -> None:
    with pytest.raises(UserError, match="the shares are train"):
        split_instructions([1, 2, 3], train, test)


def test_too_few_to_train_on() -> None:
    assert split_instructions([1, 2], 0.9, 0.1) == ([1], [], [2])
    with pytest.raises(UserError, match="of 1 entries leaves none to train on"):
        split_instructions([1])

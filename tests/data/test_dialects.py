import json
from pathlib import Path
from typing import Any

import pytest

from groundup.data.instruction_files import read_instructions
from groundup.errors import UserError
from groundup.judge.responses import read_entries
from groundup.prompts import PROMPT_STYLES, format_input, get_style

SYSTEM = {"role": "system", "content": "Be kind."}
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}
EARLIER = [["One?", "1"], ["Two?", "2"]]


def read(path: Path, *entries: Any, said: list[str] | None = None, **how: bool) -> list[Any]:
    path.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    return read_instructions(path, say=None if said is None else said.append, **how)


def test_dolly(tmp_path: Path) -> None:
    dolly = {"instruction": "Fix it.", "context": "freind", "response": "friend", "category": "x"}
    said: list[str] = []
    entries = read(tmp_path / "a.jsonl", dolly, dolly | {"context": ""}, said=said)
    assert [entry["input"] for entry in entries] == ["freind", ""]
    assert entries[0] == {
        "instruction": "Fix it.",
        "category": "x",
        "input": "freind",
        "output": "friend",
    }
    assert "### Input:\nfreind" in get_style("alpaca").format(entries[0])
    assert said == [
        "entries: 2 in the format of dolly (instruction, context, response)",
        "note: what most entries hold as 'category' is not read",
    ]
    # Without responses the same entries, so that a split can be made again.
    assert read(tmp_path / "a.jsonl", dolly, with_responses=False) == entries[:1]
    del dolly["response"]
    with pytest.raises(UserError, match="entry 1: the output is missing|line 1: the output"):
        read(tmp_path / "a.jsonl", dolly, dolly)


@pytest.mark.parametrize("style", PROMPT_STYLES.values(), ids=lambda style: style.name)
def test_the_system_message_and_the_history_of_alpaca_are_read(tmp_path: Path, style: Any) -> None:
    alpaca = {"instruction": "Add.", "input": "1 2", "output": "3"}
    (entry,) = read(tmp_path / "a.json", alpaca | {"system": "Be kind.", "history": EARLIER})
    conversation = style.conversation(entry)
    assert conversation == [
        SYSTEM,
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": f"Add.{style.before_input}1 2"},
        {"role": "assistant", "content": "3"},
    ]
    assert style.format(entry) == style.format_turns(conversation[:-1])
    for nothing in ({"system": "", "history": []}, {"system": None, "history": None}):
        (plain,) = read(tmp_path / "a.json", alpaca | nothing)
        assert style.format(plain) == style.format(alpaca)
        assert format_input(plain) == format_input(alpaca)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": 3}, "the system is 3; expected a text"),
        ({"history": "Hi"}, "the history is 'Hi'; expected a list of pairs"),
        ({"history": [["Hi"]]}, r"the history is \[\['Hi'\]\]; expected a list of pairs"),
        ({"history": [["Hi", None]]}, "a text of the history is None; expected a text"),
    ],
)
def test_what_is_wrong_with_them_is_told(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.json", {"instruction": "Add.", "output": "3"} | changes)


@pytest.mark.parametrize("top", [False, True])
def test_sharegpt(tmp_path: Path, top: bool) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]
    system = {"from": "system", "value": "Be kind."}
    entry = {"id": 1, "conversations": turns if top else [system, *turns]}
    said: list[str] = []
    entries = read(tmp_path / "a", entry | ({"system": "Be kind."} if top else {}), said=said)
    assert entries == [{"id": 1, "messages": [SYSTEM, USER, ASSISTANT]}]
    assert said == ["entries: 1 in the format of ShareGPT (conversations: from, value)"]


def test_openais_messages(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    chat = [{"role": "developer", "content": "Be kind."}, USER | {"content": parts}, ASSISTANT]
    assert read(tmp_path / "a", {"messages": chat}) == [{"messages": [SYSTEM, USER, ASSISTANT]}]
    plain = {"messages": [USER, ASSISTANT], "id": 3}
    assert read(tmp_path / "a", plain) == [plain]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (USER | {"content": [{"type": "image_url"}]}, "message 1 has a part of the type 'image_u"),
        (ASSISTANT | {"tool_calls": [{}]}, "message 1 has tool_calls, which no prompt style"),
        ({"role": "tool", "content": "3"}, "message 1 has the role 'tool'; expected one of"),
        ({"from": "observation", "value": "3"}, "message 1 has the role 'observation'; expected"),
    ],
)
def test_turns_that_no_style_renders_are_refused_by_name(
    tmp_path: Path, changed: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a", {"messages": [changed, USER, ASSISTANT]})


def test_prompts_and_completions(tmp_path: Path) -> None:
    said: list[str] = []
    texts = {"prompt": "Hi", "completion": "Hello!"}
    lists = {"prompt": [SYSTEM, USER], "completion": [ASSISTANT]}
    entries = read(tmp_path / "a", texts, lists, {"instruction": "A", "output": "B"}, said=said)
    assert [entry.get("messages") for entry in entries[:2]] == [
        [USER, ASSISTANT],
        [SYSTEM, USER, ASSISTANT],
    ]
    assert said == [
        "entries: 2 in the format of prompts and completions (prompt, completion)",
        "entries: 1 in the format of Alpaca (instruction, input, output)",
    ]
    with pytest.raises(UserError, match="the last message is the user's; expected the assistant's"):
        read(tmp_path / "a", {"prompt": "Hi"}, texts)
    assert read(tmp_path / "a", {"prompt": "Hi"}, with_responses=False) == [{"messages": [USER]}]


def test_the_judge_sees_the_whole_prompt(tmp_path: Path) -> None:
    alpaca = {"instruction": "Add.", "input": "", "output": "3", "model_response": "4"}
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([alpaca | {"system": "Be kind.", "history": EARLIER}, alpaca]), "utf-8"
    )
    first, second = read_entries(path, "model_response")
    assert first.instruction.startswith("system: Be kind.\n\nuser: One?\n\nassistant: 1")
    assert first.instruction.endswith("user: Add.") and first.reference == "3"
    assert (second.instruction, second.reference) == ("Add.", "3")

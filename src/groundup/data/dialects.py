"""The formats that instructions come in, each read as an entry of ours: Alpaca's, or messages.

An entry of ours is ``{"instruction", "input", "output"}``, with ``system`` and ``history`` where
there are any, or ``{"messages": [{"role", "content"}, ...]}``. Of either, a prompt style makes one
list of roles and contents (``PromptStyle.conversation``), and of that its text. Nothing that
belongs to a prompt is lost on the way: what cannot be rendered is refused by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Raw = Mapping[str, Any]


class Reading(NamedTuple):
    """What an entry of a file was read as: ``entry`` is ours, with the keys that nobody reads."""

    dialect: str
    entry: dict[str, Any]
    problems: list[str]


class Dialect(NamedTuple):
    """A format.

    Attributes:
        name: what it is called, with the keys that it has.
        has: the keys by which it is known.
        lacks: keys that it has not.
        moved: keys that become others.
        convert: makes these others, and notes what is wrong.
    """

    name: str
    has: frozenset[str]
    lacks: frozenset[str]
    moved: tuple[str, ...]
    convert: Callable[[Raw, list[str]], dict[str, Any]]


def read_entry(value: object) -> Reading:
    """Read an entry in whatever dialect it is; its problems are those of the dialect alone."""
    if not isinstance(value, dict):
        return Reading("", {}, [f"is {value!r:.40}; expected an object with an instruction"])
    problems: list[str] = []
    for name, has, lacks, moved, convert in DIALECTS:
        if has <= value.keys() and lacks.isdisjoint(value):
            left = {key: kept for key, kept in value.items() if key not in moved}
            return Reading(name, left | convert(value, problems), problems)
    keys = ", ".join(value) or "nothing"
    return Reading("", {}, [f"has no instruction and no messages (but: {keys})"])


def describe(readings: Sequence[Reading]) -> list[str]:
    """What was read, for people: in which dialects, and which keys hold text that nobody reads."""
    names = Counter(reading.dialect for reading in readings)
    told = [f"entries: {count:,} in the format of {name}" for name, count in names.most_common()]
    unread: Counter[str] = Counter()
    for _, entry, _ in readings:
        read = ("messages",) if "messages" in entry else ALPACA
        unread.update(
            key
            for key, value in entry.items()
            if key not in read and isinstance(value, str) and value.strip()
        )
    most = [repr(key) for key, count in unread.items() if count > 0.5 * len(readings)]
    if most:
        told.append(f"note: what most entries hold as {', '.join(most)} is not read")
    return told


def _alpaca(value: Raw, problems: list[str]) -> dict[str, Any]:
    return {"input": value.get("input") or ""}


def _dolly(value: Raw, problems: list[str]) -> dict[str, Any]:
    output = {"output": value["response"]} if "response" in value else {}
    return {"input": value["context"] or "", **output}


def _openai(value: Raw, problems: list[str]) -> dict[str, Any]:
    return {"messages": _with_system(value, _messages(value, "messages", problems))}


def _sharegpt(value: Raw, problems: list[str]) -> dict[str, Any]:
    return {"messages": _with_system(value, _messages(value, "conversations", problems))}


def _completion(value: Raw, problems: list[str]) -> dict[str, Any]:
    messages: list[Any] = []
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        if isinstance(value.get(key), list):
            messages += _messages(value, key, problems)
        elif key in value:
            messages.append({"role": role, "content": value[key]})
    return {"messages": _with_system(value, messages)}


def _with_system(value: Raw, messages: Any) -> Any:
    if not value.get("system") or not isinstance(messages, list):
        return messages
    return [{"role": "system", "content": value["system"]}, *messages]


def _messages(value: Raw, key: str, problems: list[str]) -> Any:
    """Messages of any dialect as ours."""
    messages = value[key]
    if not isinstance(messages, list) or not messages:
        problems.append(f"{key} is not a list of messages; expected [{{role, content}}, ...]")
        return messages
    return [_message(number, message, problems) for number, message in enumerate(messages, 1)]


_ROLES = {
    "developer": "system",
    "human": "user",
    **dict.fromkeys(("gpt", "model", "chatgpt", "bard", "bing"), "assistant"),
}
"""Roles that others call otherwise."""


def _message(number: int, message: Any, problems: list[str]) -> Any:
    if not isinstance(message, dict):
        return message
    if "role" not in message and "from" in message:
        message = {"role": message["from"], "content": message.get("value")}
    calls = [key for key in ("tool_calls", "function_call") if message.get(key)]
    if calls:
        problems.append(f"message {number} has {calls[0]}, which no prompt style can render")
    role, content = message.get("role"), message.get("content")
    if isinstance(role, str):
        role = _ROLES.get(role, role)
    if isinstance(content, list):
        content = "".join(_part(number, part, problems) for part in content)
    return message | {"role": role, "content": content}


def _part(number: int, part: Any, problems: list[str]) -> str:
    """The text of a part of a message, as OpenAI's interface has them."""
    text = part.get("text") if isinstance(part, dict) else part
    if isinstance(text, str):
        return text
    kind = part.get("type") if isinstance(part, dict) else part
    problems.append(f"message {number} has a part of the type {kind!r:.40}; only texts are read")
    return ""


ALPACA = ("instruction", "input", "output", "system", "history")
"""The keys of an entry of ours that is not messages."""

_NONE: frozenset[str] = frozenset()

DIALECTS = (
    Dialect("chat messages (role, content)", frozenset(["messages"]), _NONE, ("system",), _openai),
    Dialect(
        "ShareGPT (conversations: from, value)",
        frozenset(["conversations"]),
        _NONE,
        ("conversations", "system"),
        _sharegpt,
    ),
    Dialect(
        "dolly (instruction, context, response)",
        frozenset(["instruction", "context"]),
        frozenset(["input", "output"]),
        ("context", "response"),
        _dolly,
    ),
    Dialect("Alpaca (instruction, input, output)", frozenset(["instruction"]), _NONE, (), _alpaca),
    Dialect(
        "prompts and completions (prompt, completion)",
        frozenset(["prompt"]),
        _NONE,
        ("prompt", "completion", "system"),
        _completion,
    ),
)
"""Every dialect; the first that an entry fits reads it."""

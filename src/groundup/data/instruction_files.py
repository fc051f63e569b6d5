"""Instructions from files (JSON or JSONL, in any known dialect), and the split of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from groundup.data.dialects import Reading, describe, read_entry
from groundup.data.lines import Problems, json_lines
from groundup.data.text import fingerprint, read_documents
from groundup.errors import UserError
from groundup.parsing import from_json
from groundup.prompts import earlier_turns, message_problems


def read_instructions(
    path: str | Path,
    *,
    with_responses: bool = True,
    say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Read entries from a JSON list, or from JSONL (one entry per line).

    An entry is ``{"instruction", "input", "output"}``, of which ``input`` may be absent, with
    ``system`` and ``history`` (pairs of an instruction and its response) if there are any; or
    ``{"messages": [{"role", "content"}, ...]}``; other keys are kept. What other formats have
    (see :mod:`groundup.data.dialects`) becomes one of these.

    Args:
        path: a file (``.gz`` too), a downloaded one by name (``instructions``), or ``-`` for stdin.
        with_responses: whether each entry must have a response to learn from.
        say: told which format was recognised, and what of it is not read.

    Returns:
        The entries as they are in the file, but for other formats' keys; an absent ``input`` is an
        empty one.

    Raises:
        UserError: the file cannot be read, or entries are not as they should be; the message
            names them.
    """
    documents = read_documents([str(path)])
    if len(documents) > 1:
        raise UserError(f"{path} stands for {len(documents)} files; give one")
    readings: list[Reading] = []
    problems = Problems(str(path), by_row=True)
    for number, value in _parse(documents[0], problems):
        reading = read_entry(value)
        for problem in reading.problems or _problems(reading.entry, with_responses):
            problems.add(number, problem)
        readings.append(reading)
    problems.raise_if_any()
    if not readings:
        raise UserError(f"{path} has no entries; give at least one instruction with its output")
    if say is not None:
        for line in describe(readings):
            say(line)
    return [reading.entry for reading in readings]


def _parse(text: str, problems: Problems) -> Iterator[tuple[int, Any]]:
    """A JSON list's entries or JSONL's lines, numbered; a line that is not JSON is noted."""
    try:
        whole = from_json(text)
    except ValueError as error:
        # Only line feeds separate: within its quotes, JSON may hold Unicode's other line ends.
        parsed = list(json_lines(text.split("\n")))
        if parsed[0][2]:
            raise UserError(
                f"{problems.source} is neither a JSON list nor JSONL, one object per line: {error}"
            ) from error
        for number, value, problem, place in parsed:
            if problem:
                problems.add(number, f"is not JSON: {problem}", place)
            else:
                yield number, value
        return
    problems.unit = ("entry", "entries")
    for number, value in enumerate(whole if isinstance(whole, list) else [whole], 1):
        yield number, value


def _problems(entry: Mapping[str, Any], with_responses: bool) -> list[str]:
    """What is wrong with one entry of ours."""
    if "messages" in entry:
        return _message_problems(entry["messages"], with_responses)
    problems = _text_problems("the instruction", entry["instruction"])
    for name in ("input", "system"):
        if entry.get(name) is not None:
            problems += _text_problems(f"the {name}", entry[name], may_be_empty=True)
    try:
        for text in chain.from_iterable(earlier_turns(entry)):
            problems += _text_problems("a text of the history", text)
    except UserError as error:
        problems.append(str(error))
    if "output" in entry:
        problems += _text_problems("the output", entry["output"], may_be_empty=not with_responses)
    elif with_responses:
        problems.append("the output is missing")
    return problems


def _message_problems(messages: Any, with_responses: bool) -> list[str]:
    if problems := message_problems(messages):
        return problems
    for number, message in enumerate(messages, start=1):
        problems += _text_problems(
            f"the content of message {number}",
            message["content"],
            may_be_empty=message["role"] == "system",
        )
    last = messages[-1]["role"]
    if with_responses and last != "assistant":
        problems.append(f"the last message is the {last}'s; expected the assistant's response")
    elif last == "system":
        problems.append("there is no message from the user")
    return problems


def _text_problems(what: str, value: object, may_be_empty: bool = False) -> list[str]:
    if not isinstance(value, str):
        return [f"{what} is {value!r:.40}; expected a text"]
    if not may_be_empty and not value.strip():
        return [f"{what} is empty"]
    try:
        value.encode()
    except UnicodeEncodeError:
        return [f"{what} has half of a surrogate pair (\\ud800 to \\udfff), which is no character"]
    return []


def entries_fingerprint(entries: Iterable[Mapping[str, Any]]) -> str:
    """A SHA-256 of the entries, to tell whether they are those that a model was trained on."""
    return fingerprint(json.dumps(dict(entry), sort_keys=True) for entry in entries)


class InstructionSplit(NamedTuple):
    """Three parts of the entries, in the order in which the course cuts them off."""

    train: list[Any]
    test: list[Any]
    validation: list[Any]


def split_instructions(
    data: Sequence[Any], train: float = 0.85, test: float = 0.10, *, seed: int | None = None
) -> InstructionSplit:
    """Split as the course does: the first 85% to train on, the next 10% to test, the rest.

    Args:
        data: the entries.
        train: share to train on, rounded down.
        test: share to test on, rounded down; what remains is for validation.
        seed: shuffles the entries first; without one they stay in the order of the file.

    Raises:
        UserError: the shares make no sense, or leave nothing to train on.
    """
    if not (0 < train <= 1 and 0 <= test <= 1 and train + test <= 1 + 1e-9):
        raise UserError(
            f"the shares are train {train} and test {test}; expected more than 0 to train on, and "
            "at most 1 together"
        )
    data = list(data)
    if seed is not None:
        random.Random(seed).shuffle(data)
    train_portion, test_portion = int(len(data) * train), int(len(data) * test)
    if train_portion == 0:
        raise UserError(
            f"a share of {train} of {len(data)} entries leaves none to train on; give more entries"
        )
    rest = train_portion + test_portion
    return InstructionSplit(data[:train_portion], data[train_portion:rest], data[rest:])

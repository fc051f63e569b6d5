"""The responses that are to be judged, checked as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.data.instruction_files import read_instructions
from groundup.errors import UserError, did_you_mean
from groundup.prompts import format_input, get_style

SHOWN = 10
"""So many entry numbers are listed; of the rest, only how many."""


@dataclass(frozen=True)
class Entry:
    """A task, its reference answer, and a model's response to it; ``number`` counts from 1."""

    number: int
    instruction: str
    input: str
    reference: str
    response: str

    @property
    def empty(self) -> bool:
        """Whether the model said nothing."""
        return not self.response.strip()

    @property
    def prompt(self) -> str:
        """Instruction and input in the course's words, as its ``format_input`` has them."""
        return format_input({"instruction": self.instruction, "input": self.input})

    def same_task(self, other: Entry) -> bool:
        """Whether both are responses to the same instruction and input."""
        return (self.instruction, self.input) == (other.instruction, other.input)


def read_entries(
    path: Path, key: str, reference: Path | None = None, *, needs_output: bool = True
) -> list[Entry]:
    """Read the entries of a file: ``instruction``, ``input`` (may lack), ``output``, ``key``.

    Args:
        path: a JSON list or JSON lines, as ``groundup instruct respond`` writes them.
        key: the field that holds the response.
        reference: the data set that was answered, whose ``output`` counts (that of ``path`` may
            lack then); every entry of it must have its response.
        needs_output: whether entries without an ``output`` are refused where there is no reference.

    Raises:
        UserError: the file is not such a list, fields lack or are no texts, or entries lack.
    """
    rows = read_instructions(path, with_responses=needs_output and reference is None)
    _check_responses(path, rows, key)
    entries = [_entry(number, row, row[key]) for number, row in enumerate(rows, 1)]
    if reference is None:
        return entries
    wanted = [_entry(number, row, "") for number, row in enumerate(read_instructions(reference), 1)]
    if len(entries) < len(wanted):
        raise UserError(
            f"{path} has responses to {len(entries)} of the {len(wanted)} entries of {reference}; "
            "answer the whole data set, to another --out of `groundup instruct respond`"
        )
    check_same_tasks(path, entries, reference, wanted)
    pairs = zip(entries, wanted, strict=True)
    return [replace(entry, reference=task.reference) for entry, task in pairs]


def read_tasks(
    path: Path, reference: Path | None = None, *, needs_output: bool = True
) -> list[Entry]:
    """Read a file's tasks and their references; responses need not be there and are left out.

    Args:
        path: a JSON list or JSON lines.
        reference: the data set with the same tasks, whose ``output`` counts.
        needs_output: whether entries without an ``output`` are refused where there is no reference.

    Raises:
        UserError: a file is not such a list, or the two do not hold the same tasks.
    """
    rows = read_instructions(path, with_responses=needs_output and reference is None)
    tasks = [_entry(number, row, "") for number, row in enumerate(rows, 1)]
    if reference is None:
        return tasks
    theirs = read_tasks(reference)
    check_same_tasks(path, tasks, reference, theirs)
    return theirs


def check_same_tasks(
    first: Path, ours: Sequence[Entry], second: Path, others: Sequence[Entry]
) -> None:
    """Check that two files hold the same tasks in the same order.

    Raises:
        UserError: they do not; the message says which entries differ.
    """
    if len(ours) != len(others):
        raise UserError(
            f"{first} has {len(ours)} entries and {second} has {len(others)}; "
            "both must hold the same tasks in the same order"
        )
    pairs = zip(ours, others, strict=True)
    differ = [entry.number for entry, other in pairs if not entry.same_task(other)]
    if differ:
        raise UserError(
            f"{first} and {second} must hold the same tasks in the same order; the instruction "
            f"or the input differs in {numbered(differ)}"
        )


def numbered(numbers: Iterable[int]) -> str:
    """``entry 3``, ``entries 3, 5, 8``, or the first ten and how many more."""
    listed = list(numbers)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    word = "entry" if len(listed) == 1 else "entries"
    return f"{word} {', '.join(map(str, listed[:SHOWN]))}{more}"


def _check_responses(path: Path, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Raise UserError with every entry whose response is not a text."""
    problems: dict[str, list[int]] = {}
    for number, row in enumerate(rows, 1):
        if key not in row:
            problem = f"no field {key!r} (there are {', '.join(row)}{did_you_mean(key, row)})"
        elif not isinstance(row[key], str):
            problem = f"{key!r} is {row[key]!r:.40} and no text"
        elif any("\ud800" <= character <= "\udfff" for character in row[key]):
            problem = f"{key!r} has half of a surrogate pair, which is no character"
        else:
            continue
        problems.setdefault(problem, []).append(number)
    if problems:
        told = "; ".join(f"{what} in {numbered(where)}" for what, where in problems.items())
        raise UserError(f"{path}: {told}; --key names the field that holds the response")


def _entry(number: int, row: Mapping[str, Any], response: str) -> Entry:
    """An entry of a file; a conversation is a task too, and its last answer the reference."""
    if not any(row.get(name) for name in ("messages", "system", "history")):
        return Entry(number, row["instruction"], row["input"], row.get("output", ""), response)
    asked, reference = get_style("alpaca").conversation(row), ""
    if asked[-1]["role"] == "assistant":
        asked, reference = asked[:-1], asked[-1]["content"]
    task = "\n\n".join(f"{message['role']}: {message['content']}" for message in asked)
    return Entry(number, task, "", reference, response)

"""What the judge is asked, and what its answer means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import UserError, did_you_mean
from groundup.judge.responses import Entry
from groundup.parsing import from_json, from_toml, read_text

COMMON = ("instruction", "input", "prompt", "reference")
"""Placeholders of every template; ``{prompt}`` is instruction and input as the course puts them."""

VERDICTS = ("A", "B", "tie")


@dataclass(frozen=True)
class Template:
    """A question to the judge, with ``{placeholders}``, and the scale that it answers on.

    Args:
        text: the question.
        scale: the lowest and the highest score; None asks which of two responses is better.
    """

    text: str
    scale: tuple[int, int] | None = (0, 100)

    def fill(self, entry: Entry, other: str | None = None) -> str:
        """Put an entry into the question.

        Everything is replaced at once, so braces in a response are never taken for placeholders.

        Args:
            entry: the task, its reference and the response (response A of two).
            other: response B, where two are compared.
        """
        values = {
            "instruction": entry.instruction,
            "input": entry.input,
            "prompt": entry.prompt,
            "reference": entry.reference,
        }
        if other is None:
            values["response"] = entry.response
        else:
            values |= {"response_a": entry.response, "response_b": other}
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.text)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that the server holds the answer to."""
        if self.scale is None:
            name, kind = "winner", {"type": "string", "enum": list(VERDICTS)}
        else:
            low, high = self.scale
            name, kind = "score", {"type": "integer", "minimum": low, "maximum": high}
        return {
            "type": "object",
            "properties": {name: kind},
            "required": [name],
            "additionalProperties": False,
        }

    def parse(self, answer: str) -> int | str | None:
        """The score (or the winner) that an answer states; None if it states none."""
        return parse_winner(answer) if self.scale is None else parse_score(answer, self.scale)


COURSE = Template(
    "Given the input `{prompt}` and correct output `{reference}`, "
    "score the model response `{response}` on a scale from 0 to 100, "
    "where 100 is the best score. Respond with the integer number only."
)
"""The course's question, word for word."""

PAIRWISE = Template(
    "Given the input `{prompt}` and correct output `{reference}`, "
    "compare the model response A `{response_a}` and the model response B `{response_b}`. "
    "Which one is better? Respond with A, B or tie only.",
    scale=None,
)

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")


def read_template(path: Path, *, pairwise: bool = False) -> Template:
    """Read a question from a file.

    A ``.toml`` file has the text as ``prompt`` and may have ``scale = [1, 5]``; any other file is
    the text itself, on the scale from 0 to 100.

    Raises:
        UserError: the file cannot be read, or a placeholder is unknown or lacks.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the template {path}: {error}") from error
    values: dict[str, Any] = {"prompt": text}
    if path.suffix == ".toml":
        try:
            values = from_toml(text)
        except ValueError as error:
            raise UserError(f"template {path} is not valid TOML: {error}") from error
    keys = ("prompt",) if pairwise else ("prompt", "scale")
    problems = [
        f"unknown key {name!r}{did_you_mean(name, keys)}" for name in values if name not in keys
    ]
    text, scale = values.get("prompt"), values.get("scale", [0, 100])
    if not isinstance(text, str):
        problems.append("it needs a text called prompt")
    whole = isinstance(scale, list) and [type(x) for x in scale] == [int, int]
    if not whole or scale[0] >= scale[1]:
        problems.append(f"scale is {scale!r}; expected the lowest and the highest score, [1, 5]")
    if isinstance(text, str) and not problems:
        problems = _placeholder_problems(text, pairwise)
    if problems:
        raise UserError(f"template {path}: {'; '.join(problems)}")
    return Template(str(text), None if pairwise else (scale[0], scale[1]))


def _placeholder_problems(text: str, pairwise: bool) -> list[str]:
    responses = ("response_a", "response_b") if pairwise else ("response",)
    known = (*COMMON, *responses)
    used = dict.fromkeys(_PLACEHOLDER.findall(text))
    problems = [
        f"unknown placeholder {{{name}}}{did_you_mean(name, known)}"
        for name in used
        if name not in known
    ]
    problems += [f"{{{name}}} is missing" for name in responses if name not in used]
    return problems and [*problems, f"there are {', '.join(f'{{{name}}}' for name in known)}"]


def after_thought(answer: str) -> str:
    """What a model says after it has thought (``<think>…</think>85``); nothing while it thinks.

    The thought may begin before the answer: then only its end is there.
    """
    said = _THOUGHT_END.split(answer)[-1]
    return "" if _THOUGHT.search(said) else said


def parse_score(answer: str, scale: tuple[int, int]) -> int | None:
    """Read a score: ``{"score": 85}``; else a bare ``85``, ``Score: 85``, ``85/100``.

    Returns:
        The score, or None for anything else: prose, several numbers, a number off the scale.
    """
    low, high = scale
    answer = after_thought(answer)
    found = _field(answer, "score")
    if found is None:
        bare = _BARE_SCORE.fullmatch(answer)
        if bare is None or (bare["of"] is not None and int(bare["of"]) != high):
            return None
        found = int(bare["score"])
    is_whole = isinstance(found, int) and not isinstance(found, bool)
    return found if is_whole and low <= found <= high else None


def parse_winner(answer: str) -> str | None:
    """Read a verdict: ``{"winner": "A"}``; else a bare ``A``, ``B`` or ``tie``."""
    answer = after_thought(answer)
    found = _field(answer, "winner")
    if found is None:
        bare = _BARE_WINNER.fullmatch(answer)
        found = bare["winner"] if bare else None
    verdicts = {verdict.lower(): verdict for verdict in VERDICTS}
    return verdicts.get(found.lower()) if isinstance(found, str) else None


_THOUGHT = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_BARE_SCORE = re.compile(
    r"""[\s"'`*]*(?:score\s*[:=]?[\s"'`*]*)?(?P<score>-?[0-9]{1,9})"""
    r"""(?:\s*(?:/|out\s+of)\s*(?P<of>[0-9]{1,9}))?[\s"'`*.]*""",
    re.IGNORECASE,
)
_BARE_WINNER = re.compile(
    r"""[\s"'`*]*(?:winner\s*[:=]?[\s"'`*]*)?(?P<winner>a|b|tie)[\s"'`*.]*""", re.IGNORECASE
)


def _field(answer: str, name: str) -> Any:
    """The value of an answer that is a JSON object with just this field; else None."""
    try:
        value = from_json(answer)
    except ValueError:
        return None
    return value[name] if isinstance(value, dict) and list(value) == [name] else None

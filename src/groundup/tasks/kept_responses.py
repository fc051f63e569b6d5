"""The file that keeps every response as it is written, until all of them are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from groundup.errors import UserError
from groundup.files import JsonLines

RESPONSE, REASON = "model_response", "finish_reason"
"""The keys that are added to an entry: the course's, and why the response ends."""

PARTIAL = ".partial.jsonl"
"""What is added to the output's name while responses are missing."""

ADVICE = "the responses so far are kept: free some space, then the same command goes on"

_SAME = {
    "model": "other weights",
    "prompts": "other prompts (the entries, their number, the tokenizer or the style)",
}
"""What, besides the settings, must be the same to go on with a run, and what to call it if not."""


class Response(NamedTuple):
    """What the model answered, without white space around it."""

    text: str
    finish_reason: str


class KeptResponses:
    """The file of an unfinished run: its first line says of which, then a line per response.

    Args:
        path: the file; an incomplete last line (a crash) is cut off.
        run: what decides on the responses; only a run that is the same is gone on with.

    Raises:
        UserError: the file is another run's or damaged, or the disk is full.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        self.responses: dict[int, Response] = {}
        self._file = JsonLines(path, durable=True, advice=ADVICE)
        self._file.mend()
        try:
            rows = self._file.read()
            differs = _differences(rows[0], run) if rows else []
            for row in rows[1:]:
                self.responses[row["entry"] - 1] = Response(row[RESPONSE], row[REASON])
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{path} is damaged; delete it to begin anew, or choose another --out"
            ) from None
        if not rows:
            self._file.append(run)
        if differs:
            raise UserError(
                f"{path} was begun with {' and '.join(differs)}; give the same command as then to "
                "go on with it, delete it to begin anew, or choose another --out"
            )

    def add(self, index: int, response: Response) -> None:
        """Append a response and see to it that it is on the disk."""
        row = {"entry": index + 1, RESPONSE: response.text, REASON: response.finish_reason}
        self._file.append(row)
        self.responses[index] = response


def _differences(begun: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """What keeps two runs from being the same."""
    then, now = begun["settings"], run["settings"]
    return [told for name, told in _SAME.items() if begun[name] != run[name]] + [
        f"{name} {then.get(name)} (now {now.get(name)})"
        for name in then | now
        if then.get(name) != now.get(name)
    ]

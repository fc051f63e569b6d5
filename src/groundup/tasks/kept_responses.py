"""The file that keeps every response as it is written, until all of them are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from groundup.errors import UserError, write_error

RESPONSE, REASON = "model_response", "finish_reason"
"""The keys that are added to an entry: the course's, and why the response ends."""

PARTIAL = ".partial.jsonl"
"""What is added to the output's name while responses are missing."""

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
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            os.truncate(path, len(whole))
        if not whole:
            self._append(run)
            return
        first, *rest = whole.splitlines()
        try:
            begun = json.loads(first)
            differs = _differences(begun, run)
            for line in rest:
                row = json.loads(line)
                self.responses[row["entry"] - 1] = Response(row[RESPONSE], row[REASON])
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{path} is damaged; delete it to begin anew, or choose another --out"
            ) from None
        if differs:
            raise UserError(
                f"{path} was begun with {' and '.join(differs)}; give the same command as then to "
                "go on with it, delete it to begin anew, or choose another --out"
            )

    def add(self, index: int, response: Response) -> None:
        """Append a response and see to it that it is on the disk."""
        row = {"entry": index + 1, RESPONSE: response.text, REASON: response.finish_reason}
        self._append(row)
        self.responses[index] = response

    def _append(self, row: Mapping[str, Any]) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            advice = "the responses so far are kept: free some space, then the same command goes on"
            raise write_error(self.path, error, advice) from error


def _differences(begun: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """What keeps two runs from being the same."""
    then, now = begun["settings"], run["settings"]
    return [told for name, told in _SAME.items() if begun[name] != run[name]] + [
        f"{name} {then.get(name)} (now {now.get(name)})"
        for name in then | now
        if then.get(name) != now.get(name)
    ]


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs away from ``out`` and from what is kept of it."""
    path = out.with_name(f".{out.name}.lock")
    lock = FileLock(path, blocking=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"another run is writing {out} just now; choose another --out") from None
    except OSError as error:
        raise write_error(out, error, "free some space, or choose another --out") from error
    try:
        yield
    finally:
        lock.release()
        path.unlink(missing_ok=True)

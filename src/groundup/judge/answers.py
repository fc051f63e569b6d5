"""The file that keeps every answer as it arrives, so that a killed run asks nothing twice."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from groundup.errors import UserError, write_error
from groundup.judge.asking import Answer

ADVICE = "the answers so far are kept: free some space and give the same command again"


class AnswersFile:
    """``answers.jsonl``: one line per answer, on disk before the next question is asked.

    Args:
        path: the file; made with the first answer.

    Raises:
        UserError: the file is damaged; an incomplete last line (a crash) is cut off instead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.answers: dict[str, Answer] = {}
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                answer = _answer(json.loads(line))
            except (ValueError, TypeError, KeyError):
                raise UserError(
                    f"{path} is damaged: line {number} is no answer; --overwrite begins anew"
                ) from None
            self.answers[answer.key] = answer
        if whole != data:
            os.truncate(path, len(whole))

    def add(self, answer: Answer) -> None:
        """Append an answer and see to it that it is on the disk; threads may do so at once.

        Raises:
            UserError: the disk is full.
        """
        line = json.dumps(asdict(answer), ensure_ascii=False) + "\n"
        try:
            with self._lock, self.path.open("ab") as file:
                file.write(line.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self.path, error, ADVICE) from error
        self.answers[answer.key] = answer


def _answer(record: Mapping[str, object]) -> Answer:
    known = {field.name: record[field.name] for field in fields(Answer)}
    return Answer(**known)  # pyright: ignore[reportArgumentType]

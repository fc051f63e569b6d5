"""The file that keeps every answer as it arrives, so that a killed run asks nothing twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from groundup.errors import UserError
from groundup.files import JsonLines
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
        self._file = JsonLines(path, row="answer", durable=True, advice=ADVICE)
        self._file.mend()
        self.answers: dict[str, Answer] = {}
        try:
            rows = self._file.read()
        except UserError as error:
            raise UserError(f"{error}; --overwrite begins anew") from None
        for number, row in enumerate(rows, 1):
            try:
                answer = _answer(row)
            except (TypeError, KeyError):
                raise UserError(
                    f"{path} is damaged: line {number} is no answer; --overwrite begins anew"
                ) from None
            self.answers[answer.key] = answer

    def add(self, answer: Answer) -> None:
        """Append an answer and see to it that it is on the disk; threads may do so at once.

        Raises:
            UserError: the disk is full.
        """
        self._file.append(asdict(answer))
        self.answers[answer.key] = answer


def _answer(record: Mapping[str, object]) -> Answer:
    known = {field.name: record[field.name] for field in fields(Answer)}
    return Answer(**known)  # pyright: ignore[reportArgumentType]

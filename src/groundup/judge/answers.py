"""Questions, and the file that keeps every answer, so that a killed run asks nothing twice."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from groundup.errors import UserError
from groundup.files import JsonLines

ANSWERS = "answers.jsonl"

ADVICE = "the answers so far are kept: free some space and give the same command again"


@dataclass(frozen=True)
class Question:
    """A prompt for the judge; ``order`` is AB or BA where two responses are compared."""

    key: str
    entry: int
    order: str
    prompt: str


@dataclass(frozen=True)
class Answer:
    """What a question led to.

    Attributes:
        verdict: the score or the winner; None if no answer stated one.
        texts: everything the judge answered, one per try, word for word.
        note: why the server would not take the question, if so.
        prompt_tokens: the question's length as the server counts it.
    """

    key: str
    entry: int
    order: str
    verdict: int | str | None
    texts: list[str]
    seconds: float
    structured: bool
    prompt_tokens: int | None = None
    note: str = ""


_FIELDS = {field.name for field in fields(Answer)}


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
            for number, row in enumerate(self._file.read(), 1):
                if not _FIELDS <= row.keys():
                    raise UserError(f"{path} is damaged: line {number} is no answer")
                answer = Answer(**{name: row[name] for name in _FIELDS})
                self.answers[answer.key] = answer
        except UserError as error:
            raise UserError(f"{error}; --overwrite begins anew") from None

    def add(self, answer: Answer) -> None:
        """Append an answer and see to it that it is on the disk; threads may do so at once.

        Raises:
            UserError: the disk is full.
        """
        self._file.append(asdict(answer))
        self.answers[answer.key] = answer

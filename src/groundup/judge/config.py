"""The options of a judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from groundup.errors import UserError, did_you_mean
from groundup.options import check_choices, option

KINDS = ("ollama", "openai")
"""What may stand before the colon of a judge's name."""


@dataclass(frozen=True)
class JudgeConfig:
    """Who judges, where, and how patiently it is asked. The temperature is always 0."""

    judge: str = option(
        "ollama:llama3", "ollama:MODEL, or openai:MODEL of any OpenAI-compatible server"
    )
    base_url: str | None = option(  # which may hold a password
        None,
        "the server's address; without it OLLAMA_HOST or OPENAI_BASE_URL says it",
        shown=False,
    )
    key: str = option("model_response", "the field of an entry that holds its response")
    num_ctx: int = option(2048, "tokens of context that Ollama gives the judge")
    seed: int = option(123, "seed of the judge and of the bootstrap")
    tries: int = option(3, "times a question is asked until its answer holds a score")
    retries: int = option(4, "times a request is repeated that failed on its way")
    timeout: float = option(120.0, "seconds of silence after which a request has failed")
    warmup_timeout: float = option(
        900.0, "the same for the first question, for which the server loads the model"
    )
    answer_timeout: float = option(
        600.0, "seconds after which an answer that goes on and on is broken off"
    )
    calibration_tasks: int = option(
        40, "so many of the tasks, evenly spaced, are those that --calibrate asks about"
    )
    concurrency: int = option(2, "questions under way at once: one is answered, one waits")

    def __post_init__(self) -> None:
        problems = check_choices(self) or [
            f"{name} is {getattr(self, name)}; expected {expected}"
            for name, (sensible, expected) in self.ranges().items()
            if not sensible(getattr(self, name))
        ]
        if not problems and (self.kind not in KINDS or not self.model):
            hint = did_you_mean(self.kind, KINDS) if self.kind not in KINDS else ""
            problems.append(
                f"judge is {self.judge!r}; expected ollama:MODEL or openai:MODEL, such as "
                f"ollama:llama3{hint}"
            )
        if problems:
            raise UserError("; ".join(problems))

    def ranges(self) -> dict[str, tuple[Callable[[float], bool], str]]:
        """For each numeric knob, whether a value is sensible, and what is expected."""
        count = (lambda x: x >= 1, "at least 1")
        seconds = (lambda x: 0 < x < float("inf"), "more than 0 seconds")
        return {
            **dict.fromkeys(("num_ctx", "tries"), count),
            **dict.fromkeys(("timeout", "warmup_timeout", "answer_timeout"), seconds),
            "calibration_tasks": (lambda x: x >= 2, "at least 2"),
            "retries": (lambda x: x >= 0, "0 or more"),
            "seed": (lambda x: 0 <= x < 2**31, "0 to 2**31 - 1"),
            "concurrency": (lambda x: 1 <= x <= 64, "1 to 64"),
        }

    @property
    def kind(self) -> str:
        """``ollama`` or ``openai``."""
        return self.judge.partition(":")[0]

    @property
    def model(self) -> str:
        """The model's name as its server knows it."""
        return self.judge.partition(":")[2]

    def deciding(self) -> dict[str, int]:
        """The settings that decide on the answers; the others only on how they are fetched."""
        told = {"temperature": 0, "seed": self.seed, "num_ctx": self.num_ctx, "tries": self.tries}
        if self.kind != "ollama":
            del told["num_ctx"]  # there is no way to tell others
        return told

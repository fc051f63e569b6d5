import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

from groundup.judge.answers import Question
from groundup.judge.asking import Asker, in_parallel
from groundup.judge.client import JudgeClient, Piece
from groundup.judge.config import JudgeConfig
from groundup.judge.failures import Failed, Unanswerable
from groundup.judge.scoring import COURSE

QUESTION = Question("key", 7, "", "How good is it?")


class Scripted(JudgeClient):
    """Answers, or fails, as it is told."""

    form = "a scripted one"

    def __init__(self, *script: str | Exception) -> None:
        super().__init__(JudgeConfig(), "http://nowhere")
        self.script = list(script)
        self.seeds: list[int] = []

    def models(self) -> dict[str, dict[str, str | None]]:
        return {}

    def stream(
        self, prompt: str, schema: Mapping[str, Any] | None, seed: int, silence: float
    ) -> Generator[Piece]:
        self.seeds.append(seed)
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield Piece(answer, done=True)


def asker(*script: str | Exception) -> tuple[Asker, Scripted]:
    client = Scripted(*script)
    config = JudgeConfig(seed=123, tries=3, retries=3)
    return Asker(client, COURSE, config, threading.Event()), client


def test_what_states_no_score_is_asked_again_with_another_seed() -> None:
    one, client = asker("eighty-five", "850", '{"score": 85}')
    answer = one.ask(QUESTION)
    assert (answer.verdict, answer.entry) == (85, 7)
    assert answer.texts == ["eighty-five", "850", '{"score": 85}']
    assert client.seeds == [123, 124, 125]


def test_after_three_useless_answers_it_is_unscored() -> None:
    one, _ = asker("-1", "", "eighty-five", "85")
    answer = one.ask(QUESTION)
    assert answer.verdict is None and answer.texts == ["-1", "", "eighty-five"]


def test_a_question_that_cannot_be_taken_is_unscored_with_a_note() -> None:
    one, _ = asker("what?", Unanswerable("400 too long"))
    answer = one.ask(QUESTION)
    assert (answer.verdict, answer.note, answer.texts) == (None, "400 too long", ["what?"])


def test_failures_are_repeated_with_growing_waits(waits: list[float]) -> None:
    failures = [Failed("500")] * 3
    one, client = asker(*failures, "85")
    assert one.ask(QUESTION).verdict == 85
    assert waits == [1, 2, 4]
    assert client.seeds == [123] * 4  # the same question, not another try


def test_a_server_says_how_long_to_wait(waits: list[float]) -> None:
    one, _ = asker(Failed("429", wait=17), Failed("429", wait=0.1), "85")
    assert one.ask(QUESTION).verdict == 85
    assert waits == [17, 2]


def test_too_long_a_wait_ends_it(waits: list[float]) -> None:
    one, _ = asker(Failed("429", wait=3600))
    with pytest.raises(Failed, match="429; it wants to be left alone for 3600 s"):
        one.ask(QUESTION)
    assert waits == []


def test_a_server_that_keeps_failing_ends_it(waits: list[float]) -> None:
    one, _ = asker(*[Failed("503 busy")] * 4)
    with pytest.raises(Failed, match="503 busy; tried 4 times"):
        one.ask(QUESTION)
    assert waits == [1, 2, 4]


def test_a_run_that_ends_waits_no_longer() -> None:
    one, client = asker(Failed("503"), "85")
    one.stop.set()
    with pytest.raises(Failed, match="503"):
        one.ask(QUESTION)
    assert client.script == ["85"]


def test_a_wait_ends_with_the_run() -> None:
    one, client = asker(Failed("429", wait=50), "85")
    threading.Timer(0.1, one.stop.set).start()
    began = time.monotonic()
    with pytest.raises(Failed, match="the run has ended"):
        one.ask(QUESTION)
    assert client.script == ["85"] and time.monotonic() - began < 25


def together(number: int) -> Callable[[int], int]:
    """Work that only ends when so many do it at the same time."""
    barrier = threading.Barrier(number)

    def work(item: int) -> int:
        barrier.wait(10)
        return item * 10

    return work


def test_several_at_once_but_no_more() -> None:
    stop = threading.Event()
    assert sorted(in_parallel(range(6), together(3), 3, stop)) == [0, 10, 20, 30, 40, 50]
    assert stop.is_set()


def test_what_is_under_way_is_finished_after_a_failure() -> None:
    both = threading.Barrier(2)
    failed = threading.Event()

    def work(item: int) -> int:
        both.wait(10)
        if item == 0:
            failed.set()
            raise Failed("dead")
        failed.wait(10)
        return item

    results = in_parallel([0, 1, 2, 3], work, 2, threading.Event())
    assert next(results) == 1
    with pytest.raises(Failed, match="dead"):
        list(results)


def test_nothing_to_do_and_nothing_to_return() -> None:
    assert list(in_parallel([1, 2], lambda item: None, 2, threading.Event())) == [None, None]
    assert list(in_parallel([], together(1), 3, threading.Event())) == []

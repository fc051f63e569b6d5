"""Asking questions, several at a time, as often as it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from groundup.judge.answers import Answer, Question
from groundup.judge.client import JudgeClient, Reply
from groundup.judge.config import JudgeConfig
from groundup.judge.failures import Endless, Failed, Unanswerable
from groundup.judge.scoring import Template

LONGEST_WAIT = 60.0
"""Seconds that a server may want to be left alone."""

BACKOFF = 1.0
"""Seconds before a failed request is repeated; they double every time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Asker:
    """Asks one question after another of a judge.

    Args:
        client: the judge.
        template: tells what the answers mean.
        config: how often to ask for a usable answer, and how to bear a server that fails. Its seed
            is that of the first try; every further try has the next one, because at temperature 0
            the same seed would bring the same answer.
        stop: when it is set, no more waiting.
    """

    client: JudgeClient
    template: Template
    config: JudgeConfig
    stop: threading.Event

    def ask(self, question: Question, silence: float | None = None) -> Answer:
        """Ask until an answer states a verdict, at most ``config.tries`` times.

        Args:
            question: what to ask.
            silence: seconds without a sign of life to bear; by default ``config.timeout``.

        Raises:
            Failed: the server keeps failing.
            UserError: asking anything is useless.
        """
        began = time.monotonic()
        texts: list[str] = []
        verdict, reply, note = None, None, ""
        while verdict is None and len(texts) < self.config.tries:
            try:
                seed = self.config.seed + len(texts)
                reply = self._reply(question.prompt, seed, silence or self.config.timeout)
            except Unanswerable as error:
                note = str(error)
                break
            texts.append(reply.text)
            verdict = self.template.parse(reply.text)
        return Answer(
            question.key,
            question.entry,
            question.order,
            verdict,
            texts,
            round(time.monotonic() - began, 3),
            reply is not None and reply.structured,
            reply.prompt_tokens if reply else None,
            note,
        )

    def _reply(self, prompt: str, seed: int, silence: float) -> Reply:
        """One answer, whatever it says; requests that fail are repeated after ever longer waits."""
        tried = 0
        while True:
            try:
                return self.client.ask(prompt, self.template.schema, seed, silence)
            except Endless:
                raise
            except Failed as failure:
                wait = max(BACKOFF * 2**tried, failure.wait or 0)
                tried += 1
                if tried > self.config.retries:
                    raise Failed(f"{failure}; tried {tried} times") from None
                if wait > LONGEST_WAIT:
                    raise Failed(f"{failure}; it wants to be left alone for {wait:.0f} s") from None
                if self.stop.is_set():
                    raise
            pause(self.stop, wait)


def pause(stop: threading.Event, seconds: float) -> None:
    """Wait.

    Raises:
        Failed: ``stop`` was set meanwhile.
    """
    if stop.wait(seconds):
        raise Failed("the run has ended")


def in_parallel(
    items: Sequence[Item], work: Callable[[Item], Result], workers: int, stop: threading.Event
) -> Iterator[Result]:
    """Yield the results of ``work`` in the order in which they arrive.

    When one of them raises, no further item is begun; what is under way is finished and yielded,
    and then the error is raised. The threads are daemons: Ctrl-C does not wait for them.

    Args:
        items: what to work on.
        work: called from several threads at once.
        workers: how many threads.
        stop: set at the end, or when something failed.
    """
    failures: list[BaseException] = []

    def one(item: Item) -> list[Result]:
        if stop.is_set():
            return []
        try:
            return [work(item)]
        except BaseException as error:
            failures.append(error)
            stop.set()
            return []

    try:
        with ThreadPool(workers) as pool:  # not an executor, whose threads Python waits for
            for results in pool.imap_unordered(one, items):
                yield from results
    finally:
        stop.set()
    if failures:
        raise failures[0]

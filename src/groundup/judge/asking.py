"""Asking questions, several at a time, as often as it takes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from groundup.data.transfer import Failed, Patience
from groundup.judge.clients import JudgeClient, Reply, Unanswerable
from groundup.judge.scoring import Template

Item = TypeVar("Item")
Result = TypeVar("Result")


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


@dataclass(frozen=True)
class Asker:
    """Asks one question after another of a judge.

    Args:
        client: the judge.
        template: tells what the answers mean.
        seed: of the first try; every further try has the next one, because at temperature 0 the
            same seed would bring the same answer.
        tries: how often to ask for a usable answer.
        patience: how to bear a server that fails.
        stop: when it is set, no more waiting.
    """

    client: JudgeClient
    template: Template
    seed: int
    tries: int
    patience: Patience
    stop: threading.Event

    def ask(self, question: Question, silence: float | None = None) -> Answer:
        """Ask until an answer states a verdict, at most ``tries`` times.

        Raises:
            Failed: the server keeps failing.
            UserError: asking anything is useless.
        """
        began = time.monotonic()
        texts: list[str] = []
        verdict, reply, note = None, None, ""
        while verdict is None and len(texts) < self.tries:
            try:
                reply = self._reply(question.prompt, self.seed + len(texts), silence)
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

    def _reply(self, prompt: str, seed: int, silence: float | None) -> Reply:
        """One answer, whatever it says; requests that fail are repeated."""
        patience = self.patience
        for attempt in range(patience.attempts):
            try:
                return self.client.ask(prompt, self.template.schema, seed, silence or patience.read)
            except Failed as error:
                failure = error
            wait = max(patience.backoff * 2**attempt, failure.wait or 0)
            if attempt + 1 == patience.attempts:
                raise Failed(f"{failure}; tried {patience.attempts} times")
            if wait > patience.longest_wait:
                raise Failed(f"{failure}; it wants to be left alone for {wait:.0f} s")
            if pause(self.stop, wait):
                raise failure
        raise AssertionError("there is always a last attempt")


def pause(stop: threading.Event, seconds: float) -> bool:
    """Wait, and return whether ``stop`` was set meanwhile."""
    return stop.wait(seconds)


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
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[Result] | BaseException | None] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def run() -> None:
        try:
            while not stop.is_set():
                results.put((work(waiting.get_nowait()),))
        except queue.Empty:
            pass
        except BaseException as error:
            stop.set()
            results.put(error)
        finally:
            results.put(None)

    running = min(workers, len(items))
    for _ in range(running):
        threading.Thread(target=run, daemon=True).start()
    failure: BaseException | None = None
    try:
        while running:
            result = results.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                failure = failure or result
            else:
                yield result[0]
    finally:
        stop.set()
    if failure is not None:
        raise failure

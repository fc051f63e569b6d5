"""The thread that computes with a model: it steps the engine, and does other work in between.

Requests live in an event loop; the model is called in one thread only. They talk by messages: what
the thread should do comes through a queue, and what it has written goes back once per step.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from groundup.decoding.engine import Engine
from groundup.decoding.sequence import Sequence as Text
from groundup.errors import UserError, is_out_of_memory
from groundup.output import say
from groundup.serve.writing import Broken, Busy, Piece, Writing
from groundup.tokenizers import Tokenizer

T = TypeVar("T")

Use = Callable[[str | None], None]
"""Switches a LoRA adapter on by its name (or all off: None)."""


class Runner:
    """The one thread that computes with a model; texts are written together, as they come.

    Args:
        model: it is called in this thread only, without gradients.
        tokenizer: its tokenizer.
        writes: whether it writes texts; a classifier does not.
        max_batch: most texts that are written at a time.
        queue: most that wait for that.
        use_adapter: switches one of the model's LoRA adapters on.

    Attributes:
        wrote: told of each request's texts once no more of them is written, in the thread.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        writes: bool = True,
        max_batch: int = 16,
        queue: int = 64,
        use_adapter: Use | None = None,
    ) -> None:
        self.wrote: Callable[[Writing], None] = lambda writing: None
        self.model, self.tokenizer = model, tokenizer
        self.max_batch, self.room = max_batch, max_batch + queue
        self._use: Use = use_adapter or (lambda name: None)
        self._use_adapter, self._adapter = use_adapter, None
        self._engine = self._new_engine() if writes else None
        self._owners: dict[Text, Writing] = {}  # of what is not written to its end
        self._taken = 0
        self._closing = False
        self._lock = threading.Lock()
        self._inbox = _Inbox()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    # From any thread

    @property
    def alive(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """How many texts are written just now."""
        return len(self._engine.scheduler.running) if self._engine else 0

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return max(0, self._taken - self.running)

    def write(self, texts: Sequence[Text], name: str = "") -> Writing:
        """Begin the texts of a request. Called in the event loop that awaits them.

        Raises:
            Busy: too many wait already, or the server is shutting down.
            UserError: there would never be room for so many.
        """
        self.check_room(len(texts))
        with self._lock:
            if self._closing:
                raise Busy("the server is shutting down")
            if self._taken + len(texts) > self.room:
                raise Busy(
                    f"{self._taken} texts are being written or wait for it, and this server takes "
                    f"{self.room}; ask again in a moment"
                )
            self._taken += len(texts)
            writing = Writing(texts, name, self.abort, asyncio.get_running_loop())
            self._inbox.put(partial(self._begin, writing))
        return writing

    def check_room(self, texts: int) -> None:
        """Raise ``UserError`` if there can never be room for so many texts of one request."""
        if texts > self.room:
            raise UserError(f"{texts} texts at a time; this server takes {self.room} at most")

    def abort(self, writing: Writing) -> None:
        """Write no more of a request's texts, from the next step on."""
        self._inbox.put(partial(self._drop, writing))

    async def call(self, function: Callable[[], T], adapter: str | None = None) -> T:
        """What ``function()`` gives in this thread, between two steps, with an adapter on.

        Raises:
            Busy: the server is shutting down.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if future.done():  # nobody waits any more
                return
            future.set_result(value) if error is None else future.set_exception(error)

        def do() -> None:
            value, trouble = None, None
            if not future.cancelled():
                before = self._adapter
                try:
                    self._switch(adapter)
                    value = function()
                except BaseException as error:
                    trouble = error
                finally:
                    self._switch(before)
            _tell(loop, settle, value, trouble)

        with self._lock:
            if self._closing:
                raise Busy("the server is shutting down")
            self._inbox.put(do)
        return await future

    def stop(self) -> None:
        """Take no more, and tell whoever is still written for; the thread ends soon."""
        with self._lock:
            self._closing = True
            self._inbox.put(None)

    def close(self) -> None:
        """The same, and wait for the thread."""
        self.stop()
        self._thread.join(timeout=60)

    # In the thread

    def _run(self) -> None:
        with torch.no_grad():
            while True:
                for command in self._inbox.take(wait=not self._owners):
                    if command is None:
                        for writing in set(self._owners.values()):
                            self._fail(writing, Busy("the server is shutting down"))
                        return
                    command()
                if self._owners:
                    try:
                        self._step()
                    except Exception as error:
                        self._recover(error)

    def _new_engine(self) -> Engine:
        self._switch(None)
        use = self._switch if self._use_adapter else None
        return Engine(self.model, self.tokenizer, max_batch=self.max_batch, use_adapter=use)

    def _switch(self, adapter: str | None) -> None:
        if adapter != self._adapter:
            self._use(adapter)
            self._adapter = adapter

    def _begin(self, writing: Writing) -> None:
        assert self._engine is not None, "a classifier is asked for no texts"
        self._owners.update(dict.fromkeys(writing.texts, writing))
        try:
            for text in writing.texts:
                self._engine.add(text)
        except Exception as error:
            self._fail(writing, error)

    def _step(self) -> None:
        assert self._engine is not None
        written = self._engine.step()
        now = time.perf_counter()
        mail: dict[Writing, list[Piece]] = {}
        for text, token, piece in written:
            writing = self._owners[text]
            if text.error is not None:
                self._fail(writing, text.error)
                mail.pop(writing, None)
                continue
            writing.tokens += 1
            writing.first, writing.last = writing.first or now, now
            logprob = text.logprobs[-1] if text.top_logprobs is not None else None
            index = writing.texts.index(text)
            mail.setdefault(writing, []).append(
                Piece(index, token, piece, logprob, text.finish_reason)
            )
            if text.finish_reason is not None:
                self._let_go(text)
        for loop in {writing.loop for writing in mail}:
            letters = [(w, pieces) for w, pieces in mail.items() if w.loop is loop]
            _tell(loop, _deliver, letters)

    def _recover(self, error: Exception) -> None:
        """A step has failed: tell whoever took part, and go on with the others, from nothing."""
        assert self._engine is not None
        say("".join(traceback.format_exception(error)).rstrip())
        if isinstance(error, UserError):
            told = str(error)
        elif is_out_of_memory(error):
            told = "there is not enough memory to write this together with what else is written"
        else:
            told = f"the model failed ({type(error).__name__}); the server's own output says more"
        plan = self._engine.scheduler
        for writing in {self._owners[text] for text in plan.running if text in self._owners}:
            self._fail(writing, Broken(told))
        waiting = list(plan.waiting)
        self._engine = self._new_engine()  # what is in the old one's cache may be anything
        for text in waiting:
            self._engine.add(text)

    def _fail(self, writing: Writing, error: Exception) -> None:
        self._drop(writing)
        _tell(writing.loop, writing.came.put_nowait, error)

    def _drop(self, writing: Writing) -> None:
        assert self._engine is not None
        for text in writing.texts:
            if text in self._owners:
                self._engine.abort(text)
                self._let_go(text)

    def _let_go(self, text: Text) -> None:
        writing = self._owners.pop(text)
        with self._lock:
            self._taken -= 1
        if not any(other in self._owners for other in writing.texts):
            self.wrote(writing)


class _Inbox:
    """What the thread should do next; None ends it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.put = self._queue.put

    def take(self, *, wait: bool) -> Iterator[Callable[[], None] | None]:
        """All that has come; if ``wait``, at least one."""
        while True:
            try:
                yield self._queue.get(block=wait)
            except queue.Empty:
                return
            wait = False


def _deliver(letters: list[tuple[Writing, list[Piece]]]) -> None:
    for writing, pieces in letters:
        writing.came.put_nowait(pieces)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop has ended, and with it whoever asked
        pass

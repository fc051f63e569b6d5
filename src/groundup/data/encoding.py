"""Texts to token ids on all cores: processes that encode, fed and emptied in order.

They are processes of ours rather than ``multiprocessing``'s: those import the program that runs
once more (which a script without ``if __name__ == "__main__"`` does not survive), and outlive a
parent that is killed. These see the end of their input then, and leave.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from groundup.data.stream import Piece
from groundup.errors import UserError
from groundup.tokenizers import Tokenizer
from groundup.tokenizers.parts import encode_array

T = TypeVar("T")
Ids = tuple[np.ndarray, np.ndarray]
"""The ids of several texts in a row ``(N,)``, and how many each of them has."""

_PROGRAM = (
    "import sys; sys.path[:0] = [sys.argv[1]]; from groundup.data.encoding import work; work()"
)


def encode_pieces(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> Ids:
    """The ids of pieces of text, none of which is a special token's.

    Raises:
        UserError: one cannot be encoded; the message says where it is.
    """
    rows = [np.empty(0, np.uint16)]
    for piece in pieces:
        if not (tokenizer.cuttable or piece.ends):
            raise UserError(
                f"{piece.place}: the document is too long for this tokenizer, whose way of cutting "
                "texts is not known here, so that it must be encoded whole; name what separates "
                "documents with --document-separator, or use another tokenizer"
            )
        try:
            rows.append(encode_array(tokenizer, piece.text))
        except UserError as error:
            raise UserError(f"{piece.place}: {error}") from None
    return np.concatenate(rows), np.array([len(row) for row in rows[1:]], dtype=np.int64)


def encode_in_order(
    jobs: Iterable[T],
    pieces_of: Callable[[T], Sequence[Piece]],
    tokenizer: Tokenizer,
    workers: int,
) -> Generator[tuple[T, Ids], None, None]:
    """Encode the pieces of each job; jobs come out in the order in which they went in.

    Few of them are in the air at any time. One worker is this process itself.

    Args:
        jobs: anything that has pieces.
        pieces_of: gives them.
        tokenizer: encodes them.
        workers: how many processes.

    Raises:
        UserError: a text cannot be encoded, or the system has ended a process.
    """
    if workers == 1:
        for job in jobs:
            yield job, encode_pieces(tokenizer, pieces_of(job))
        return
    free: SimpleQueue[_Worker] = SimpleQueue()
    started = [_Worker(tokenizer) for _ in range(workers)]
    for worker in started:
        free.put(worker)

    def encode(job: T) -> Ids:
        worker = free.get()
        try:
            return worker.encode(pieces_of(job))
        finally:
            free.put(worker)

    waiting: deque[tuple[T, Future[Ids]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for job in jobs:
            waiting.append((job, pool.submit(encode, job)))
            if len(waiting) > 2 * workers:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()
    finally:
        for worker in started:
            worker.end()
        pool.shutdown(cancel_futures=True)


class _Worker:
    """A process that encodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        package = str(Path(__file__).parents[2])
        alone: Any = {"process_group": 0} if os.name == "posix" else {}  # Ctrl-C is not for it
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            **alone,
        )
        self._tokenizer: Tokenizer | None = tokenizer

    def encode(self, pieces: Sequence[Piece]) -> Ids:
        """Let it encode pieces."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            if self._tokenizer is not None:
                pickle.dump(self._tokenizer, self.process.stdin)
                self._tokenizer = None
            pickle.dump(pieces, self.process.stdin)
            self.process.stdin.flush()
            result = pickle.load(self.process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise UserError(
                "a process that encodes was ended by the system, perhaps for want of memory; the "
                "same command goes on where it was, with --workers 1 in the least memory"
            ) from error
        if isinstance(result, Exception):
            raise result
        return result

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def work() -> None:
    """What such a process does: read a tokenizer, then pieces until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no result
    with suppress(EOFError, BrokenPipeError):
        tokenizer = pickle.load(source)
        while True:
            pieces = pickle.load(source)
            try:
                result: object = encode_pieces(tokenizer, pieces)
            except Exception as error:
                result = error
            pickle.dump(result, target, protocol=pickle.HIGHEST_PROTOCOL)
            target.flush()

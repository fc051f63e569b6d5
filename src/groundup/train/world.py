"""The processes of a run and what they tell each other; most runs are one process, alone.

What a run decides (how many targets a step has, whether to stop) goes over the CPU's network and
not over the GPUs', so that it is seen at once if one of the processes has died.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from torch import Tensor

from groundup import launch
from groundup.errors import EndedElsewhere, TrainingFailed, UserError
from groundup.train.interrupt import say_last_words

T = TypeVar("T")


class World:
    """One process, alone."""

    rank, size = 0, 1
    was_restarted = False  # whether the launcher has begun anew with a run that wrote already

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def sum(self, *values: int) -> list[int]:
        """Numbers, each added up over all processes."""
        return list(values)

    def total(self, tensor: Tensor) -> Tensor:
        """A tensor added up over all processes; in place."""
        return tensor

    def has_begun(self) -> None:
        """Note that the run writes now; if the launcher begins anew, it goes on with this."""

    def any(self, value: bool) -> bool:
        """Whether it is so in any of the processes."""
        return self.sum(value)[0] > 0

    def agreed(self, value: T) -> T:
        """The main process's value."""
        return value

    def gathered(self, value: T) -> list[T]:
        """Every process's value, in their order."""
        return [value]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that the others enter when the main process has left it.

        Raises:
            EndedElsewhere: the main process has failed in it.
        """
        yield


class Processes(World):
    """Several processes, which a launcher has started and :func:`connect` has connected."""

    def __init__(self) -> None:
        self.rank, self.size = launch.rank(), launch.world_size()

    def sum(self, *values: int) -> list[int]:
        """Numbers, each added up over all processes."""
        import torch

        return self.total(torch.tensor(values, dtype=torch.int64)).tolist()

    def has_begun(self) -> None:
        """Note that the run writes now; if the launcher begins anew, it goes on with this."""
        if self.is_main and _is_of_the_launcher():
            _launchers_store().set(_BEGUN, "yes")

    def total(self, tensor: Tensor) -> Tensor:
        """A tensor added up over all processes; in place."""
        import torch.distributed as dist

        dist.all_reduce(tensor)
        return tensor

    def agreed(self, value: T) -> T:
        """The main process's value."""
        import torch.distributed as dist

        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0, device=_cpu())
        return values[0]

    def gathered(self, value: T) -> list[T]:
        """Every process's value, in their order."""
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that the others enter when the main process has left it."""
        if not self.is_main and not self.agreed(True):
            raise EndedElsewhere("the main process has ended")
        done = False
        try:
            yield
            done = True
        finally:
            if self.is_main:
                self.agreed(done)


@contextmanager
def connect() -> Iterator[World]:
    """The processes that a launcher has started, connected; the world of one without a launcher.

    At the end all wait for each other, so that what the main process has written is there.

    Raises:
        UserError: what the launcher says cannot be, or they do not reach each other.
        EndedElsewhere: another process has ended meanwhile.
    """
    launch.check()
    if launch.world_size() == 1:
        yield World()
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():  # by the caller, who also ends it
        with _lost_is_told():
            yield Processes()
            Processes().sum(0)
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        # Without the launcher's store nobody knows whether an earlier attempt has written what is
        # there, or another run: it is not taken over unasked.
        store, again = _meet() if _is_of_the_launcher() else (None, False)
        where = {} if store is None else {"store": store, "rank": launch.rank()}
        dist.init_process_group(backend, world_size=launch.world_size(), **where)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).splitlines()[0]
        raise UserError(
            f"process {launch.rank()} of {launch.world_size()} does not reach the others at "
            f"{address} ({reason}); start them together, with one torchrun per machine"
        ) from error
    try:
        with _lost_is_told():
            world = Processes()
            world.was_restarted = world.any(again)
            yield world
            world.sum(0)
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


def tell_once(sentence: str) -> bool:
    """Whether this process is the one to say a sentence that all of them may want to say."""
    if launch.world_size() == 1:
        return True
    say_last_words()
    if not _is_of_the_launcher():  # the main process's store goes with it
        return launch.is_main() if _claimed is None else _claimed
    mark = hashlib.sha256(sentence.encode()).hexdigest()
    try:
        _store().add(_FAILED, 1)
        return _launchers_store().add(mark, 1) == 1
    except Exception:  # without torchrun there may be nobody to ask any more
        return launch.is_main()


JOIN_SECONDS = 60.0
"""How long the main process waits for the others to come to the launcher's store."""

_claimed: bool | None = None
"""Whether this process was the first to fail, once it has failed among others."""

_FAILED, _BEGUN = "somebody has told", "the run writes"

_LOST = ("gloo", "nccl", "connection", "process group", "peer", "broken pipe", "unhandled system")
"""What the errors speak of that a process gets when another one has died."""


@contextmanager
def _lost_is_told() -> Iterator[None]:
    """Make a sentence of what PyTorch says when another process has gone.

    Raises:
        EndedElsewhere: it has told the reason itself.
        TrainingFailed: it has died without a word.
    """
    try:
        yield
    except Exception as error:
        if not _is_of_the_network(error):
            global _claimed
            _claimed = False
            say_last_words()
            with suppress(Exception):  # before the others see that this process goes
                _claimed = _store().add(_FAILED, 1) == 1
            raise
        told = False
        with suppress(Exception):
            told = _store().add(_FAILED, 0) > 0
        if told:
            raise EndedElsewhere("another process has ended") from error
        raise TrainingFailed(
            "another process of the run has died (killed, or out of memory?), and the run with "
            "it; what was saved last is whole, and --resume goes on from there"
        ) from error


def _is_of_the_network(error: Exception) -> bool:
    if not isinstance(error, RuntimeError) or isinstance(error, TrainingFailed):
        return False
    text = f"{type(error).__name__} {error}".lower()
    return any(word in text for word in _LOST)


def _store() -> Any:
    """Where the processes of this attempt leave notes for each other."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store() if dist.is_initialized() else _launchers_store()


def _launchers_store() -> Any:
    """Torchrun's own store, which outlives the processes; or the main process's."""
    from datetime import timedelta

    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=60))
    return PrefixStore("groundup", store)


def _is_of_the_launcher() -> bool:
    """Whether the store that processes meet at is torchrun's."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _meet() -> tuple[Any, bool]:
    """Meet at the launcher's store: a part of it for this attempt, and whether another one wrote.

    What an earlier attempt has left in the store, such as the addresses of dead processes, would
    make PyTorch wait for them forever, and ``TORCHELASTIC_RESTART_COUNT`` differs from node to node
    (pytorch/pytorch issues 108158 and 135712). So the main process gives each attempt a name, and
    tells it to those only who have asked in this attempt.
    """
    from torch.distributed import PrefixStore  # pyright: ignore

    store, size, me = _launchers_store(), launch.world_size(), uuid.uuid4().hex
    if launch.rank() > 0:
        store.set(f"ask {launch.rank()}", me)
        attempt = store.get(f"answer {me}").decode()  # waits
    else:
        attempt, asked = f"attempt {store.add('attempts', 1)}", set[str]()
        until = time.monotonic() + JOIN_SECONDS
        while store.add(f"{attempt}: here", 0) < size - 1 and time.monotonic() < until:
            for rank in range(1, size):
                ask = f"ask {rank}"
                if store.check([ask]) and (other := store.get(ask).decode()) not in asked:
                    store.set(f"answer {other}", attempt)
                    asked.add(other)
            time.sleep(0.01)
    store.add(f"{attempt}: here", int(launch.rank() > 0))
    return PrefixStore(attempt, store), attempt != "attempt 1" and store.check([_BEGUN])


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


def dealt(items: Sequence[T], world: World, nothing: T) -> Sequence[T]:
    """This process's share of ``items``; all processes get as many, some of them ``nothing``.

    One process gets what a slice of them is: nothing is made before it is asked for.
    """
    mine = items[world.rank :: world.size]
    missing = -(-len(items) // world.size) - len(mine)
    return [*mine, *[nothing] * missing] if missing else mine

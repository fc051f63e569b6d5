"""What a step frees is there for the next one, and given back when training is over."""

import ctypes
import multiprocessing
import platform
import resource
from pathlib import Path

import pytest
import torch

from groundup.train import freed
from groundup.train.freed import AFTER, freed_memory_is_kept

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
SIZE = 50 << 20
PAGES = SIZE // resource.getpagesize()
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def faults(tensor: torch.Tensor) -> int:
    """How many pages are handed out when a copy is made and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor.clone()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1])


class Library:
    """What C's library is asked for."""

    def __init__(self) -> None:
        self.kept: list[bool] = []
        self.trimmed = 0

    def mallopt(self, what: int, value: int) -> int:
        self.kept.append(value in (-1, 2**31 - 1))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.trimmed += 1
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    found = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    return found


def keep_and_give_back() -> None:
    tensor = torch.ones(SIZE // 4)
    with freed_memory_is_kept(CPU):
        # A freed block is a little too small for its like, until its neighbour is free, too.
        assert min(faults(tensor) for _ in range(50)) < 0.02 * PAGES
        held = resident()
    assert resident() < held - 0.5 * PAGES


def test_a_page_is_not_handed_out_again_within_and_given_back_after() -> None:
    """In a process of its own: what other tests have left of the heap would be counted, too."""
    process = multiprocessing.get_context("spawn").Process(target=keep_and_give_back)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_who_grows_is_as_usual_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = iter([100, 120, 140, 140, 153, 155, 155])
    monkeypatch.setattr(freed, "_resident_pages", lambda: next(pages))
    with freed_memory_is_kept(CPU) as after_step:
        for _ in range(AFTER + 2):
            after_step()
            assert all(library.kept) and not library.trimmed
        after_step()
        assert not any(library.kept[-2:]) and library.trimmed == 1
        after_step()
        assert next(pages) == 155, "nobody looks any more"


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", None])
def test_what_is_asked_for_otherwise_stays(
    name: str | None, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is not None:
        monkeypatch.setenv(name, "1")
    with freed_memory_is_kept(torch.device("cuda") if name is None else CPU) as after_step:
        after_step()
    assert not library.kept


def test_it_ends_with_an_error_too(library: Library) -> None:
    with pytest.raises(ValueError, match="so"), freed_memory_is_kept(CPU):
        raise ValueError("so")
    assert library.kept == [True, True, False, False] and library.trimmed == 1

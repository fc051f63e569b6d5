"""What a step frees is there for the next one, and given back when training is over."""

import platform
import resource
from pathlib import Path

import pytest
import torch

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
    del_me = tensor.clone()
    del del_me
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1])


def test_a_page_is_not_handed_out_again_within() -> None:
    tensor = torch.ones(SIZE // 4)
    with freed_memory_is_kept(CPU):
        tries = [faults(tensor) for _ in range(8)]
        assert min(tries[1:]) < 0.02 * PAGES
        held = resident()
    assert resident() < held - 0.9 * PAGES
    assert min(faults(tensor) for _ in range(8)) > 0.9 * PAGES


def test_who_grows_is_as_usual_again() -> None:
    tensor = torch.ones(SIZE // 4)
    with freed_memory_is_kept(CPU) as after_step:
        for _ in range(AFTER):
            after_step()
        grown = [tensor.clone() for _ in range(1 + resident() // 5 // PAGES)]
        held = resident()
        after_step()
        assert min(faults(tensor) for _ in range(8)) > 0.9 * PAGES
        grown.clear()
        assert resident() < held - 0.9 * PAGES


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", None])
def test_what_is_asked_for_otherwise_stays(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is not None:
        monkeypatch.setenv(name, "1")
    tensor = torch.ones(SIZE // 4)
    with freed_memory_is_kept(torch.device("cuda") if name is None else CPU) as after_step:
        after_step()
        assert min(faults(tensor) for _ in range(8)) > 0.9 * PAGES


def test_it_ends_with_an_error_too() -> None:
    tensor = torch.ones(SIZE // 4)
    with pytest.raises(ValueError, match="so"), freed_memory_is_kept(CPU):
        raise ValueError("so")
    assert min(faults(tensor) for _ in range(8)) > 0.9 * PAGES

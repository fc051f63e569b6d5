import os
import subprocess
import sys

import pytest

from groundup import spinning

CHOOSE = """
import os, sys
from groundup.spinning import choose_spins
sys.modules["torch"] = {loaded}
if not sys.modules["torch"]:
    del sys.modules["torch"]
choose_spins()
print(os.environ.get("GOMP_SPINCOUNT"))
"""


def chosen(loaded: bool = False, **environment: str) -> str:
    """What a fresh process chooses."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", CHOOSE.format(loaded=loaded)]
    return subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_it_is_chosen_by_what_waking_takes() -> None:
    assert spinning.FEWEST <= int(chosen()) <= spinning.MOST


@pytest.mark.parametrize(
    ("microseconds", "spins"), [(0.0, 1_000), (4.0, 1_000), (70.0, 7_000), (900.0, 30_000)]
)
def test_the_slower_the_waking_the_longer_it_spins(
    monkeypatch: pytest.MonkeyPatch, microseconds: float, spins: int
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(spinning, "waking_microseconds", lambda: microseconds)
    spinning.choose_spins()
    assert os.environ["GOMP_SPINCOUNT"] == str(spins)
    monkeypatch.delenv("GOMP_SPINCOUNT")


def test_what_the_user_has_set_stays() -> None:
    assert chosen(GOMP_SPINCOUNT="77") == "77"
    assert chosen(OMP_WAIT_POLICY="passive") == "None"


def test_nothing_is_set_where_it_comes_too_late() -> None:
    assert chosen(loaded=True) == "None"


def test_measuring_leaves_the_cores_as_they_were() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system cannot bind a process to a core")
    before = os.sched_getaffinity(0)
    microseconds = spinning.waking_microseconds(rounds=10)
    assert os.sched_getaffinity(0) == before
    assert (0 < microseconds < 1e5) == (len(before) > 1)

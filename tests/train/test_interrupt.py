"""What stops a run, and the status that it then ends with."""

import os
import signal

import pytest

from groundup.train.interrupt import StopRequest

CLUSTERS = [signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", CLUSTERS)
def test_a_clusters_signals_ask_for_another_turn(number: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(number)
    with StopRequest(said.append) as stop:
        assert not stop.requested
        for again in (number, *CLUSTERS):  # the later ones must not disturb the save
            os.kill(os.getpid(), again)
        assert stop.requested and stop.status == 75
    assert signal.getsignal(number) is before
    assert len(said) == 1 and number.name in said[0] and "75" in said[0]


def test_ctrl_c_is_a_persons_and_a_second_one_insists() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested and stop.status == 130
        signal.raise_signal(signal.SIGTERM)
        assert stop.status == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_torchrun_passes_on_is_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        monkeypatch.setattr("groundup.train.interrupt.AT_ONCE", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_where_there_is_no_sigusr1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows."""
    import importlib

    from groundup.train import interrupt

    with monkeypatch.context() as patch:
        patch.delattr(signal, "SIGUSR1")
        try:
            assert set(importlib.reload(interrupt).SIGNALS) == {signal.SIGINT, signal.SIGTERM}
        finally:
            patch.undo()
            importlib.reload(interrupt)


@pytest.mark.parametrize("launched", [False, True])
def test_a_launched_process_that_fails_may_still_say_why(
    launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one has died, the launcher sends SIGTERM to those that are left."""
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(RuntimeError), StopRequest():
            raise RuntimeError("connection reset by peer")
        after = signal.getsignal(signal.SIGTERM)
        assert after == (signal.SIG_IGN if launched else before)
    finally:
        signal.signal(signal.SIGTERM, before)

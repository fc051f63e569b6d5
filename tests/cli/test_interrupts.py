"""Ctrl-C while a command starts: whatever is being imported, it ends with 130 and no traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.cli.interrupts import Interrupts
from tests.systems import needs_signals
from tests.terminal import GROUNDUP, environment

LOADING = 'import os, time\nos.write(1, b"loading\\n")\n'
WAYS = {
    "as it is": "time.sleep(60)",
    "as an import that failed": (
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt as error:\n"
        "    raise ImportError('initialization failed') from error"
    ),
    "swallowed": "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass\nimport wave",
    "lost in a callback": (
        "class Lost:\n    def __del__(self):\n        time.sleep(60)\n"
        "lost = Lost()\ndel lost\nimport wave"
    ),
}


@needs_signals
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("library", ["cyclopts", "torch"])
def test_ctrl_c_while_a_library_is_loaded(tmp_path: Path, library: str, way: str) -> None:
    (tmp_path / f"{library}.py").write_text(LOADING + WAYS[way], encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [*GROUNDUP, "generate", str(tmp_path)]
    with subprocess.Popen(
        command,
        env=environment(PYTHONPATH=path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"loading\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, b"groundup: interrupted\n")


def test_an_interrupt_that_was_dealt_with_is_over() -> None:
    """As in the chat, where Ctrl-C ends an answer and no more."""
    with Interrupts():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        import colorsys

        assert colorsys
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not any(isinstance(finder, Interrupts) for finder in sys.meta_path)


def test_other_errors_and_other_handlers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = lambda *args: None  # noqa: E731
    before = signal.signal(signal.SIGINT, mine)
    try:
        with pytest.raises(ImportError, match="no such"), Interrupts():
            assert signal.getsignal(signal.SIGINT) is mine
            raise ImportError("no such")
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)

"""What not every system has: a test that needs it is skipped where it lacks, and says why."""

import os
import tempfile
from pathlib import Path

import pytest


def _may_link() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            (Path(folder) / "link").symlink_to("nowhere")
        except OSError:
            return False
    return True


def needs(path: str) -> pytest.MarkDecorator:
    """For tests that read or write a file of the system's own."""
    return pytest.mark.skipif(not Path(path).exists(), reason=f"this system has no {path}")


needs_links = pytest.mark.skipif(
    not _may_link(), reason="no symbolic links here (Windows allows them in developer mode)"
)

needs_signals = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no way to send a process the SIGINT of a Ctrl-C"
)

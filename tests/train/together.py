"""Several processes that run a part of a test together, as a launcher would start them."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def together(size: int, function: str, *args: object, timeout: float = 240) -> list[str]:
    """Run ``module:function`` with these arguments in so many processes; what each printed.

    Raises:
        AssertionError: one has failed; with what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", __name__, function, *map(str, args)]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | several | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        for rank in range(size)
    ]
    printed = [process.communicate(timeout=timeout)[0] for process in processes]
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == 0, text
    return printed


def _main(function: str, *args: str) -> None:
    module, name = function.split(":")
    import torch.distributed as dist

    dist.init_process_group("gloo")
    getattr(importlib.import_module(module), name)(*args)
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(*sys.argv[1:])

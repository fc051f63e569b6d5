"""A real server in a thread, for the tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from groundup.serve.app import make_app
from groundup.serve.config import ServeConfig
from groundup.serve.listening import address_of, listen, server_of
from groundup.serve.models import Models, Served


@dataclass
class Live:
    """A server that answers at ``url``."""

    url: str
    server: uvicorn.Server
    thread: threading.Thread

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def stop(self) -> None:
        self.server.should_exit = True


@contextmanager
def live(*served: Served, **options: Any) -> Iterator[Live]:
    """Serve these models, at any free port, until the end of the block."""
    config = ServeConfig(**options)
    with listen("127.0.0.1", 0) as listener:
        server = server_of(make_app(Models(served), config), config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            until = time.monotonic() + 30
            while not server.started:
                assert time.monotonic() < until and thread.is_alive()
                time.sleep(0.01)
            yield Live(address_of(listener), server, thread)
        finally:
            server.should_exit = True
            thread.join(timeout=60)
            assert not thread.is_alive()


def wait_until(true: Any, seconds: float = 30) -> None:
    """Wait for something that another thread brings about."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it has not come"
        time.sleep(0.01)

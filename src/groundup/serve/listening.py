"""The socket, and the server that listens on it until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundup.errors import UserError
from groundup.serve.asking import PATIENCE
from groundup.serve.config import ServeConfig

TRIED = 100
"""Ports after one that is in use among which a free one is looked for."""

LAST_WORDS = 5
"""Seconds after ``--grace`` in which clients are told that the server ends."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        UserError: the port is in use (the message names who has it, and a free one), or there is
            no such address here.
    """
    try:
        return _bound(host, port)
    except socket.gaierror:
        raise UserError(f"host is {host!r}; expected an address of this machine") from None
    except OverflowError:
        raise UserError(f"port is {port}; expected 0 to 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use{_by(port)}; {_another(host, port)}") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UserError(
                f"port {port} may not be listened on: {error.strerror}; try --port 8000"
            ) from None
        raise UserError(f"cannot listen on {host}: {error.strerror or error}") from None


def run(
    app: ASGIApp, options: ServeConfig, listener: socket.socket, stop: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM comes; what runs then has ``--grace`` seconds to end.

    ``stop`` then tells whoever is not done.
    """
    # The model's thread gives Python away at each of a token's hundreds of calls, and would wait up
    # to 5 ms to have it back from the one that answers: with 0.1 ms four clients' texts come 1.1
    # times as fast.
    sys.setswitchinterval(1e-4)
    with suppress(KeyboardInterrupt):  # which uvicorn raises again once it has ended
        asyncio.run(server_of(app, options, stop).serve([listener]))


class Server(uvicorn.Server):
    """A server that tells its clients before it cuts them off; ``stop`` does so."""

    def __init__(self, config: uvicorn.Config, grace: float, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._grace, self._stop = grace, stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end when all is answered."""
        timer = asyncio.get_running_loop().call_later(self._grace, self._stop)
        await super().shutdown(sockets)
        timer.cancel()


def server_of(
    app: ASGIApp, options: ServeConfig, stop: Callable[[], None] = lambda: None
) -> Server:
    """The server, not yet listening."""
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancelling)
    return Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,  # longer than clients keep theirs, so that none is cut off
            limit_concurrency=options.max_connections + 1,
            timeout_graceful_shutdown=math.ceil(options.grace) + LAST_WORDS,
            backlog=2048,
        ),
        options.grace,
        stop,
    )


class Protocol(H11Protocol):
    """HTTP on one connection, whose request's head has to arrive in time, as its body has."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore
        """Give it time for its first request."""
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Once a request's head is there, its time no longer runs."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()
        elif self.cycle is None or self.cycle.response_complete:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(PATIENCE, self._too_late)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_late(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def address_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_no_cancelling(record: logging.LogRecord) -> bool:
    """Who is cut off at last is no bug, and nobody wants to see its traceback."""
    error = record.exc_info[1] if record.exc_info else None
    told = record.getMessage()  # of the lifespan's end the traceback is the message
    return not (isinstance(error, asyncio.CancelledError) or "exceptions.CancelledError" in told)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        # Windows lets two have one port otherwise; others keep a port that was just given up.
        alone = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, alone, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


def _by(port: int) -> str:
    """Who has the port, as far as the system tells."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            address: Any = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""


def _another(host: str, port: int) -> str:
    for free in range(port + 1, min(port + TRIED, 65536)):
        with suppress(OSError):
            _bound(host, free).close()
            return f"try --port {free}"
    return "--port 0 takes any that is free"

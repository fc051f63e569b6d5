"""What stands before all routes: who may ask, from where, how much at a time.

A page of another site can make a browser send requests to this machine. It cannot read the answers
unless its origin is allowed (CORS), nor name this server by a name of its own (the Host header, so
DNS rebinding fails), nor set off anything: a request from a page that isn't allowed is refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.serve.asking import LARGEST_BODY, Problem, discard, too_large
from groundup.serve.config import LOOPBACK, ServeConfig
from groundup.serve.errors import answer

OPEN = ("/", "/health", "/favicon.ico")
"""What needs no key: the page's shell, which asks for it, and whether the server is well."""

OPEN_FOLDER = "/web/"
"""The page's modules; a browser sends no key for them."""


class Guard:
    """The outermost middleware.

    Args:
        app: what it guards.
        options: whom it lets through.
    """

    def __init__(self, app: ASGIApp, options: ServeConfig) -> None:
        self.app, self.options = app, options
        self.key = None if options.key is None else options.key.encode()
        self.hosts = _hosts(options)
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin if origin in (self.options.allow_origin or ()) else None

        async def with_cors(message: Message) -> None:
            if allowed is not None and message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                answered["Access-Control-Allow-Origin"] = allowed
                answered["Access-Control-Expose-Headers"] = "Retry-After"
                answered.add_vary_header("Origin")
            await send(message)

        try:
            self._check(scope, headers, allowed)
        except Problem as problem:
            response = answer(scope["path"], problem)
            if problem.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            if scope["method"] == "POST":
                await discard(receive)
            await response(scope, receive, with_cors)
            return
        if scope["method"] == "OPTIONS" and allowed is not None:
            await _preflight(headers)(scope, receive, with_cors)
            return
        self.active += 1
        try:
            await self.app(scope, receive, with_cors)
        finally:
            self.active -= 1

    def _check(self, scope: Scope, headers: Headers, allowed: str | None) -> None:
        """Raise ``Problem`` if this request is not let through."""
        host = _host_of(headers.get("host", ""))
        if not self._is_ours(host):
            raise Problem(
                f"this server is not called {host!r:.100}; it answers to "
                f"{', '.join(sorted(self.hosts))}",
                403,
            )
        origin = headers.get("origin")
        own = f"{scope['scheme']}://{headers.get('host', '')}"
        if origin is not None and allowed is None and origin != own:
            raise Problem(
                f"pages of {origin!r:.100} may not use this server; it allows them with "
                "--allow-origin",
                403,
            )
        asks_first = scope["method"] == "OPTIONS" and allowed is not None
        if not (asks_first or self._knows_key(scope["path"], headers)):
            raise Problem(
                "this server wants a key, and this is not it; send Authorization: Bearer KEY",
                401,
                code="invalid_api_key",
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > LARGEST_BODY:
            raise too_large()
        if self.active >= self.options.max_connections:
            raise Problem(
                f"{self.active} requests are being answered, which is the most that this server "
                "takes; ask again in a moment",
                503,
                wait=1,
            )

    def _is_ours(self, host: str) -> bool:
        if host in self.hosts:
            return True
        if self.options.host not in ("0.0.0.0", "::"):
            return False
        # Listening everywhere, it has names that it does not know. A page that has rebound its own
        # name has no key; without one, only what no page can be called is trusted.
        return self.key is not None or _is_address(host)

    def _knows_key(self, path: str, headers: Headers) -> bool:
        if self.key is None or path in OPEN or path.startswith(OPEN_FOLDER):
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Compared in a time that tells nothing of how much of it is right.
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.key)
        return same and scheme.lower() == "bearer"


def _hosts(options: ServeConfig) -> set[str]:
    own = {*LOOPBACK, options.host.lower()} - {"0.0.0.0", "::"}
    if options.host not in LOOPBACK:
        own.add(socket.gethostname().lower())
    return own


def _host_of(header: str) -> str:
    """A Host header's name, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return header


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _preflight(headers: Headers) -> Response:
    """What a browser is told that asks whether a page may ask."""
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": headers.get(
                "access-control-request-headers", "authorization, content-type"
            ),
            "Access-Control-Max-Age": "600",
        },
    )

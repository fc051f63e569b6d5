"""The options of the server."""

from __future__ import annotations

import os
from dataclasses import dataclass

from groundup.errors import UserError
from groundup.options import check_choices, option

KEY = "GROUNDUP_API_KEY"
"""The environment variable with the key, which other users of the machine cannot read."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""What only this machine can reach."""


@dataclass(frozen=True)
class ServeConfig:
    """How models are served.

    Attributes:
        no_auth: let anybody who reaches the server use it.
        allow_origin: the origins of web pages that may call (CORS).
    """

    host: str = option("127.0.0.1", "the address to listen on; 0.0.0.0 is all of the machine's")
    port: int = option(8000, "the port to listen on; 0 takes any that is free")
    api_key: str | None = option(
        None, f"what clients have to send as their key (or {KEY} says it)", shown=False
    )
    no_auth: bool = False
    allow_origin: list[str] | None = None
    max_batch: int = option(16, "most texts that are written at a time")
    queue: int = option(64, "most texts that wait for that; further ones are refused (503)")
    max_connections: int = option(512, "most connections at a time; further ones are refused")
    grace: float = option(30.0, "seconds that running requests have when the server is stopped")

    def check(self) -> None:
        """Raise ``UserError`` with everything that is wrong."""
        problems = check_choices(self)
        if problems:
            raise UserError("; ".join(problems))
        if not 0 <= self.port <= 65535:
            problems.append(f"port is {self.port}; expected 0 to 65535")
        if self.api_key is not None and not self.api_key.strip():
            problems.append("api_key is empty; give what clients have to send, or leave it out")
        for name in ("max_batch", "max_connections"):
            if getattr(self, name) < 1:
                problems.append(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.queue < 0:
            problems.append(f"queue is {self.queue}; expected 0 or more")
        if not 0 <= self.grace < float("inf"):
            problems.append(f"grace is {self.grace}; expected seconds, 0 or more")
        for origin in self.allow_origin or ():
            if origin == "*" or not origin.startswith(("http://", "https://")):
                problems.append(
                    f"allow_origin is {origin!r}; expected the origin of one web site, such as "
                    "https://example.org"
                )
        if not self.key and self.host not in LOOPBACK and not self.no_auth:
            problems.append(
                f"--host {self.host} lets others reach the server: give a key with --api-key or "
                f"{KEY}, or say --no-auth"
            )
        if problems:
            raise UserError("; ".join(problems))

    @property
    def key(self) -> str | None:
        """The key that clients have to send; None if they need none."""
        given = self.api_key or os.environ.get(KEY) or ""  # of a file it may end with a line's end
        return None if self.no_auth else given.strip() or None

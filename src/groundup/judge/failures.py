"""What can go wrong between us and a judge's server, in words, whichever client is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from groundup.judge.address import proxy_hint

CONNECT = 10.0
"""Seconds within which a server must take a connection."""


class Failed(Exception):
    """An answer did not arrive; asking again may help.

    Args:
        reason: why.
        offline: whether there was not even a connection.
        wait: the server's Retry-After in seconds.
    """

    def __init__(self, reason: str, *, offline: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.offline, self.wait = offline, wait


class Refusal(Exception):
    """An answer with an error status; ``wait`` is the server's Retry-After in seconds."""

    def __init__(self, status: int, text: str, wait: float | None = None) -> None:
        self.status, self.text, self.wait = status, tidy(text), wait
        super().__init__(f"{status} {self.text}".strip())


class Unanswerable(Exception):
    """The server will not take this question, such as one longer than its context."""


@contextmanager
def explained(url: str, silence: float, form: str) -> Iterator[None]:
    """Turn everything that can go wrong on the way into ``Refusal`` or ``Failed``, with the reason.

    Both official clients wrap the errors of their HTTP libraries (httpx, and its successor); these
    have the same names, by which they are found.

    Args:
        url: the server's address.
        silence: seconds without a sign of life after which it was given up.
        form: the protocol that it should speak.
    """
    try:
        yield
    except (Refusal, Failed):
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if reason := _reason(cause, url, silence):
                raise reason from None
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, ValueError | KeyError | TypeError | AttributeError):
            raise Failed(f"the answer is not of {form}'s form") from None
        raise


def _reason(error: BaseException, url: str, silence: float) -> Exception | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ConnectTimeout" in kinds:
        return Failed(f"no connection within {CONNECT:g} s", offline=True)
    if "TimeoutException" in kinds:
        return Failed(f"nothing came for {silence:g} s")
    if "ConnectError" in kinds:
        return Failed(no_connection(str(error)), offline=True)
    if "ProxyError" in kinds:
        return Failed(f"the proxy does not let it through{proxy_hint(url)}")
    if kinds & {"RequestError", "SSLError", "EndOfStream"}:
        return Failed("the connection was cut")
    if type(error).__name__ in ("ResponseError", "APIError"):  # in the middle of an answer
        return Refusal(500, getattr(error, "error", None) or str(error))
    return None


def no_connection(cause: str) -> str:
    """Why there is no connection, from the system's words for it."""
    if "getaddrinfo" in cause or "ame or service" in cause or "nodename" in cause:
        return "the name does not resolve"
    return "its TLS certificate is not accepted" if "SSL" in cause else "the connection is refused"


def refuse(response: Any) -> None:
    """Look at a response before an official client does, whose errors leave Retry-After out.

    Raises:
        Refusal: it has an error status.
    """
    if response.status_code < 400:
        return
    response.read()
    try:
        words = response.json()
    except ValueError:
        words = None
    while isinstance(words, dict):  # servers put the message in several places
        words = words.get("message") or words.get("error")
    wait = retry_after(response.headers.get("retry-after", ""))
    raise Refusal(response.status_code, str(words or response.text), wait)


def retry_after(value: str) -> float | None:
    """Seconds to wait according to a Retry-After header: a number, or a date."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return None


def tidy(text: str) -> str:
    """A server's words on one line, without HTML tags, and not too many of them."""
    plain = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    return plain if len(plain) <= 200 else plain[:199] + "…"

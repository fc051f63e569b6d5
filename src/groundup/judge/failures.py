"""What can go wrong between us and a judge's server, in words, whichever client is used."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from groundup.judge.address import proxy_hint
from groundup.output import visible

CONNECT = 10.0
"""Seconds within which a server must take a connection."""


LARGEST = 8 * 2**20
"""Bytes of an answer: that of a model which thinks for 30,000 tokens has fewer."""

BEGINNING = 2**16
"""Bytes of an error's page that are looked at."""


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


class Endless(Failed):
    """An answer was broken off because it was too long, or took too long; so would be the next."""


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
    if isinstance(error, Refusal | Failed):  # which a client has wrapped
        return error
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


def look_at(response: Any, seconds: float) -> None:
    """Look at a response before an official client does.

    Their errors leave Retry-After out, and they read whatever comes for as long as it comes.

    Args:
        response: the answer, of which only the head is here.
        seconds: how long the rest of it may take.

    Raises:
        Refusal: it has an error status.
        Failed: it is compressed: nobody asked for that, and a few bytes could become any number.
    """
    response.stream = _bounded(response.stream, seconds)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Failed("the answer came compressed, which was not asked for")
    if response.status_code < 400:
        return
    body = b""
    for part in response.iter_raw():
        body += part
        if len(body) > BEGINNING:
            break
    text = body.decode("utf-8", "replace")
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        words = None
    while isinstance(words, dict):  # servers put the message in several places
        words = words.get("message") or words.get("error")
    wait = retry_after(response.headers.get("retry-after", ""))
    raise Refusal(response.status_code, str(words or text), wait)


def _bounded(stream: Any, seconds: float) -> Any:
    """The same stream of bytes, which raises ``Endless`` where it should have ended."""
    kind = next(kind for kind in type(stream).__mro__ if kind.__name__ == "SyncByteStream")
    over = time.monotonic() + seconds

    class Bounded(kind):
        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in stream:
                size += len(part)
                if size > LARGEST:
                    raise Endless(f"the answer has more than {LARGEST // 2**20} MiB")
                if time.monotonic() > over:
                    raise Endless(f"the answer had not ended after {seconds:g} s")
                yield part

        def close(self) -> None:
            stream.close()

    return Bounded()


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
    plain = " ".join(visible(re.sub(r"<[^>]*>", " ", text)).split())
    return plain if len(plain) <= 200 else plain[:199] + "…"

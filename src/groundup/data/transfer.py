"""One attempt after another to get one file from one HTTP server.

What a broken transfer left in ``NAME.part`` is gone on with if the server can, and if it can be
told that the file is still the same: by its ETag or date, or by a SHA-256 that is known.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from groundup.data.sources import KnownFile

if TYPE_CHECKING:
    import requests

Say = Callable[[str], None]
Check = Callable[[Path], str | None]
"""Tells what is wrong with a file."""

_CHUNK = 2**16
_PROGRESS = 2**20
"""A server that brought so many new bytes before it broke off is asked again without limit."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, and how often to ask again."""

    connect: float = 10.0
    read: float = 30.0
    attempts: int = 4
    backoff: float = 1.0
    longest_wait: float = 60.0


class Failed(Exception):
    """Why a server did not deliver."""

    def __init__(
        self, reason: str, *, again: bool = False, offline: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(reason)
        self.again, self.offline, self.wait = again, offline, wait


def host_of(url: str) -> str:
    """The host of a URL, without the user name and password that it may contain."""
    return urlsplit(url).hostname or url


class Part:
    """``NAME.part`` of a file to be; a note beside it says of which version at which URL."""

    def __init__(self, target: Path, file: KnownFile, check: Check | None = None) -> None:
        self.target, self.file, self.check = target, file, check
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """How many bytes are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def range_headers(self, url: str) -> dict[str, str]:
        """Ask for the rest, if it can be told that it belongs to what is here; else for all."""
        if not self.size:
            return {}
        wanted = {"Range": f"bytes={self.size}-"}
        if validator := self.validator(url):
            return wanted | {"If-Range": validator}
        return wanted if self.file.sha256 is not None else {}  # the SHA-256 will tell

    def validator(self, url: str) -> str | None:
        """The strong ETag or the date of the version that this is a part of."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return note["validator"] if note["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, url: str, headers: Mapping[str, str]) -> None:
        """Note which version the bytes to come belong to."""
        etag = headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
        self.remove()
        self.note.write_text(json.dumps({"url": url, "validator": strong}), encoding="utf-8")

    def problem(self, path: Path | None = None) -> str | None:
        """What is wrong with the file, here or at ``path``; None if it is whole and right."""
        path = path or self.path
        return self.file.problem(path) or (self.check(path) if self.check else None)

    def finish(self) -> None:
        """Give the file its name."""
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def from_mirror(url: str, part: Part, patience: Patience, say: Say) -> Failed | None:
    """Download from one mirror, trying again where that may help; return why it failed, if so."""
    most, tries = part.size, 0
    while True:
        try:
            _attempt(url, part, patience, say)
            return None
        except Failed as error:
            failure = error
        tries += 1
        if part.size >= most + _PROGRESS:
            most, tries = part.size, 1
        wait = patience.backoff * 2 ** (tries - 1)
        if failure.wait is not None:
            wait = max(wait, failure.wait)
        if not failure.again or tries >= patience.attempts or wait > patience.longest_wait:
            return failure
        say(f"{host_of(url)}: {failure}; trying again in {wait:.0f} s")
        sleep(wait)


def _attempt(url: str, part: Part, patience: Patience, say: Say) -> None:
    import requests

    headers = part.range_headers(url)
    resumed = False
    try:
        # `identity`: the lengths and ranges must be those of the file, not of its compressed form.
        with requests.get(
            url,
            stream=True,
            headers={"Accept-Encoding": "identity", **headers},
            timeout=(patience.connect, patience.read),
        ) as response:
            _check_status(response, part)
            resumed = response.status_code == 206
            total = _total(response, part, headers)
            if not resumed:
                part.begin(url, response.headers)
            _check_room(part, total)
            say(_headline(url, part, total))
            _copy(response, part, total)
    except requests.RequestException as error:
        raise _explained(error, patience) from None
    if total is not None and part.size < total:
        raise Failed(f"the connection was cut after {part.size:,} of {total:,} bytes", again=True)
    problem = part.problem()
    if problem is not None:
        part.remove()
        raise Failed(f"what came {problem}", again=resumed)


def _check_status(response: requests.Response, part: Part) -> None:
    status = response.status_code
    if status == 416:  # what is here is not the beginning of what is there
        part.remove()
        raise Failed("the file has changed", again=True)
    if status in (408, 429) or status >= 500:
        raise Failed(f"{status} {response.reason}", again=True, wait=_retry_after(response))
    if status not in (200, 206):
        raise Failed(f"{status} {response.reason}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Failed("the server compresses the file, which was not asked for")


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return (until.astimezone(UTC) - datetime.now(UTC)).total_seconds()


def _total(response: requests.Response, part: Part, asked: dict[str, str]) -> int | None:
    """The length of the whole file, checked against what is known; None if nobody says."""
    headers, known = response.headers, part.file.size
    length = headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if response.status_code == 206:
        unit, _, rest = headers.get("Content-Range", "").partition(" ")
        span, _, whole = rest.partition("/")
        ours, theirs = asked.get("If-Range", ""), headers.get("ETag", "")
        changed = ours.startswith('"') and theirs not in ("", ours)
        if unit != "bytes" or not span.startswith(f"{part.size}-") or not asked or changed:
            part.remove()
            raise Failed("the server sent another part than was asked for", again=bool(asked))
        total = int(whole) if whole.isdecimal() else total and total + part.size
    if known is not None and total is not None and total != known:
        raise Failed(f"the server has {total:,} bytes; expected {known:,}")
    chunked = "chunked" in headers.get("Transfer-Encoding", "")
    if total is None and known is None and not (part.file.sha256 or part.check or chunked):
        raise Failed("the server does not say how long the file is, so a cut would go unnoticed")
    return total if total is not None else known


def _check_room(part: Part, total: int | None) -> None:
    """Raise OSError before a download that the disk has no room for."""
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - part.size > free:
        raise OSError(errno.ENOSPC, f"{total:,} bytes to come, {free:,} free")


def _headline(url: str, part: Part, total: int | None) -> str:
    size = "of unknown size" if total is None else f"{total / 1e6:,.1f} MB"
    begun = f", going on after {part.size / 1e6:,.1f} MB" if part.size else ""
    return f"downloading {part.target.name} from {host_of(url)}, {size}{begun}"


def _copy(response: requests.Response, part: Part, total: int | None) -> None:
    from tqdm import tqdm

    bar = tqdm(
        desc=part.target.name,
        total=total,
        initial=part.size,
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        disable=None,  # only where somebody watches
    )
    with bar, part.path.open("ab") as file:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def _explained(error: requests.RequestException, patience: Patience) -> Failed:
    """Why there was no answer; and whether to ask again, which is useless without a network."""
    import requests
    from urllib3.exceptions import NameResolutionError, NewConnectionError, ReadTimeoutError

    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", None) or cause
    if isinstance(error, requests.exceptions.ProxyError):
        return Failed("the proxy does not let it through", offline=True)
    if isinstance(error, requests.exceptions.SSLError):
        return Failed("its TLS certificate is not accepted, or something between tampers with it")
    if isinstance(cause, NameResolutionError):
        return Failed("the name does not resolve", offline=True)
    if isinstance(cause, NewConnectionError):
        why = getattr(cause.__cause__, "strerror", None) or "no connection"
        return Failed(why[0].lower() + why[1:], offline=True)
    if isinstance(error, requests.ConnectTimeout):
        return Failed(f"no connection within {patience.connect:.0f} s", offline=True)
    if isinstance(error, requests.ReadTimeout) or isinstance(cause, ReadTimeoutError):
        return Failed(f"nothing came for {patience.read:g} s", again=True)
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return Failed("it redirects in a circle")
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return Failed("the connection was cut", again=True)
    return Failed(f"no usable answer ({type(error).__name__})")

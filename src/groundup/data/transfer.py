"""One attempt after another to get one file from one HTTP server.

What a broken transfer left in ``NAME.part`` is gone on with if the server can, and if it can be
told that the file is still the same: by its ETag or date, or by a SHA-256 that is known.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from groundup.data.sources import KnownFile
from groundup.errors import UserError
from groundup.files import read_json, write_json
from groundup.output import progress_bar
from groundup.staging import replace

if TYPE_CHECKING:
    import requests

Say = Callable[[str], None]

WORKS_OFFLINE = (
    "demo, pretrain, generate with a model directory, inspect, tokenizer and plot work offline"
)
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


PATIENCE = Patience()


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


def cannot_download(
    name: str, failures: Sequence[tuple[str, Failed]], by_hand: str, kept: int = 0
) -> UserError:
    """The sentence for a download that no mirror delivered; ``kept`` bytes of it are here."""
    reasons = ", ".join(f"{host}: {failure}" for host, failure in failures)
    goes_on = f"; {kept:,} bytes are kept, and the same command goes on with them" if kept else ""
    if not all(failure.offline for _, failure in failures):
        return UserError(f"cannot download {name} ({reasons}){goes_on}; {by_hand}")
    # Names only: a proxy's URL may hold a password.
    proxies = sorted(n for n in os.environ if n.lower().endswith("_proxy") and os.environ[n])
    seen = f"proxy variables: {', '.join(proxies)}" if proxies else "no proxy variable is set"
    return UserError(
        f"cannot reach a server that has {name} ({reasons}; {seen}){goes_on}; {by_hand}; "
        f"{WORKS_OFFLINE}"
    )


class Part:
    """``NAME.part`` of a file to be; a note beside it says of which version at which URL."""

    def __init__(self, target: Path, file: KnownFile) -> None:
        self.target, self.file = target, file
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """How many bytes are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def headers(self, url: str) -> dict[str, str]:
        """Ask for the rest, if it can be told that it belongs to what is here; else for all."""
        version = None
        with suppress(UserError):  # there is no note, or it says nothing
            note = read_json(self.note)
            version = note.get("validator") if note.get("url") == url else None
        if not self.size or not (version or self.file.sha256):
            return {}
        return {"Range": f"bytes={self.size}-"} | ({"If-Range": version} if version else {})

    def begin(self, url: str, headers: Mapping[str, str]) -> None:
        """Note which version the bytes to come belong to."""
        self.remove()
        write_json(self.note, {"url": url, "validator": _version(headers)})

    def finish(self) -> None:
        """Give the file its name."""
        replace(self.path, self.target)
        self.remove()

    def remove(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _version(headers: Mapping[str, str]) -> str | None:
    """What tells this version of a file from others: a strong ETag, else the date."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def from_mirror(url: str, part: Part, say: Say) -> None:
    """Download from one mirror, trying again where that may help.

    Raises:
        Failed: it did not deliver.
    """
    most, tries = part.size, 0
    while True:
        try:
            _attempt(url, part, say)
            return
        except Failed as error:
            failure = error
        tries += 1
        if part.size >= most + _PROGRESS:
            most, tries = part.size, 1
        wait = max(PATIENCE.backoff * 2 ** (tries - 1), failure.wait or 0)
        if not failure.again or tries >= PATIENCE.attempts or wait > PATIENCE.longest_wait:
            raise failure
        say(f"{host_of(url)}: {failure}; trying again in {wait:.0f} s")
        sleep(wait)


def _attempt(url: str, part: Part, say: Say) -> None:
    import requests

    asked = part.headers(url)
    try:
        # `identity`: the lengths and ranges must be those of the file, not of its compressed form.
        with requests.get(
            url,
            stream=True,
            headers={"Accept-Encoding": "identity"} | asked,
            timeout=(PATIENCE.connect, PATIENCE.read),
        ) as response:
            total = _length(response, part, asked)
            if response.status_code == 200:
                part.begin(url, response.headers)
            _announce(url, part, total, say)
            size = {"total": total, "initial": part.size, "unit": "B", "unit_scale": True}
            bar = progress_bar(desc=part.target.name, **size)
            with bar, part.path.open("ab") as out:
                for chunk in response.iter_content(_CHUNK):
                    bar.update(out.write(chunk))
                out.flush()
                os.fsync(out.fileno())
    except requests.RequestException as error:
        raise explained(error) from None
    if total is not None and part.size < total:
        raise Failed(f"the connection was cut after {part.size:,} of {total:,} bytes", again=True)
    file = part.file
    problem = file.unpack(part.path) if file.member else file.problem(part.path)
    if problem is not None:
        part.remove()
        raise Failed(f"what came {problem}", again=response.status_code == 206)


def _length(response: requests.Response, part: Part, asked: dict[str, str]) -> int | None:
    """The length of the file that this answer brings all or the rest of; None if nobody says.

    Raises:
        Failed: the answer is of no use.
    """
    status, headers, file = response.status_code, response.headers, part.file
    if status == 416:  # what is here is not the beginning of what is there
        part.remove()
        raise Failed("the file has changed", again=True)
    if status in (408, 429) or status >= 500:
        raise Failed(f"{status} {response.reason}", again=True, wait=_retry_after(response))
    if status not in (200, 206):
        raise Failed(f"{status} {response.reason}")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise Failed("the server compresses the file, which was not asked for")
    length = headers.get("Content-Length", "")
    if status == 206:
        rest = re.fullmatch(rf"bytes {part.size}-\d+/(\d+)", headers.get("Content-Range", ""))
        ours, theirs = asked.get("If-Range", ""), headers.get("ETag", "")
        changed = ours.startswith('"') and theirs not in ("", ours)
        if not asked or rest is None or changed:
            part.remove()
            raise Failed("the server sent another part than was asked for", again=bool(asked))
        length = rest[1]
    known = None if file.member else file.size
    total = int(length) if length.isdecimal() else known
    if known is not None and total != known:
        raise Failed(f"the server has {total:,} bytes; expected {known:,}")
    if total is None and not (file.sha256 or "chunked" in headers.get("Transfer-Encoding", "")):
        raise Failed("the server does not say how long the file is, so a cut would go unnoticed")
    return total


def _retry_after(response: requests.Response) -> float | None:
    """For how many seconds the server wants to be left alone, if it says so."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    with suppress(InvalidHeader):
        return Retry().parse_retry_after(response.headers.get("Retry-After", ""))


def _announce(url: str, part: Part, total: int | None, say: Say) -> None:
    """Say what is going to come; raise OSError if the disk has no room for it."""
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - part.size > free:
        raise OSError(errno.ENOSPC, f"{total:,} bytes to come, {free:,} free")
    size = "of unknown size" if total is None else f"{total / 1e6:,.1f} MB"
    begun = f", going on after {part.size / 1e6:,.1f} MB" if part.size else ""
    say(f"downloading {part.target.name} from {host_of(url)}, {size}{begun}")


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, what caused it, what caused that, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def explained(error: Exception) -> Failed:
    """Why there was no answer; and whether to ask again, which is useless without a network."""
    from requests import exceptions as http
    from urllib3.exceptions import ReadTimeoutError

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes(error))

    if has(http.ProxyError):
        return Failed("the proxy does not let it through", offline=True)
    if has(ssl.SSLError, http.SSLError):
        return Failed("its TLS certificate is not accepted, or something between tampers with it")
    if has(socket.gaierror):
        return Failed("the name does not resolve", offline=True)
    if has(http.ConnectTimeout):
        return Failed(f"no connection within {PATIENCE.connect:.0f} s", offline=True)
    if has(http.ReadTimeout, ReadTimeoutError):
        return Failed(f"nothing came for {PATIENCE.read:g} s", again=True)
    if has(http.TooManyRedirects):
        return Failed("it redirects in a circle")
    broken = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, broken):
            reason = cause.strerror[0].lower() + cause.strerror[1:]
            return Failed(reason, offline=not cause.filename)
    if has(http.ConnectionError, http.ChunkedEncodingError):
        return Failed("the connection was cut", again=True)
    return Failed(f"no usable answer ({type(error.__cause__ or error).__name__})")

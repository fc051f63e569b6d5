"""A file's bytes, unpacked if it is gzip or Zstandard, counted and hashed on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from groundup.data.finding import STDIN
from groundup.errors import UserError

BUFFER = 2**20
"""Bytes that are read at once."""

_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_FEED = 2**13
"""Packed bytes that are unpacked at once: they may become a thousand times as many."""


def shown(source: str) -> str:
    """A source's name, for messages."""
    return "stdin" if source in ("-", STDIN) else source


class Opened(io.BufferedReader):
    """A file's unpacked bytes.

    Attributes:
        name: for messages.
        raw_file: what is read of the file itself: its ``count`` of bytes, and its ``digest``.
    """

    def __init__(self, unpacked: Any, name: str, raw_file: Counted) -> None:
        super().__init__(unpacked, BUFFER)
        self.source, self.raw_file = name, raw_file


class Counted(io.RawIOBase):
    """A file whose bytes are counted, and hashed if somebody wants to know."""

    def __init__(self, file: BinaryIO, hashed: bool) -> None:
        self.file, self.count = file, 0
        self.digest = hashlib.sha256() if hashed else None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read as :class:`io.RawIOBase` does."""
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        if self.digest is not None:
            self.digest.update(data)
        return len(data)


@contextmanager
def opened(source: str, *, hashed: bool = False) -> Iterator[Opened]:
    """A file, or stdin, to read its unpacked bytes from.

    Args:
        source: a path, or ``-``.
        hashed: whether to work out the SHA-256 of the file as it is.

    Raises:
        UserError: it cannot be read or unpacked, also while it is being read.
    """
    name, packing = shown(source), "gzip"
    try:
        file = sys.stdin.buffer if name == "stdin" else Path(source).open("rb", buffering=0)
        try:
            raw = Counted(file, hashed)  # pyright: ignore[reportArgumentType]
            buffered: Any = io.BufferedReader(raw, BUFFER)
            start = buffered.peek(4)
            if start.startswith(_GZIP):
                buffered = gzip.GzipFile(fileobj=buffered)
            elif start.startswith(_ZSTANDARD):
                packing = "Zstandard"
                buffered = _Zstandard(buffered, name)
            yield Opened(buffered, name, raw)
        finally:
            if name != "stdin":
                file.close()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{name} is not valid {packing}: {error}") from error
    except FileNotFoundError:
        raise UserError(f"there is no file {source!r}") from None
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from error


class _Zstandard(io.RawIOBase):
    """Unpacked Zstandard, frame after frame; unlike the library's reader it tells a cut file."""

    def __init__(self, packed: BinaryIO, name: str) -> None:
        try:
            import zstandard
        except ImportError:
            raise UserError(
                f"{name} is packed with Zstandard, which needs another package: "
                "pip install 'groundup[corpora]', or unpack it with `unzstd`"
            ) from None
        self._packed, self._error = packed, zstandard.ZstdError
        self._frame = zstandard.ZstdDecompressor().decompressobj
        self._now: Any = None  # the frame that has begun
        self._rest, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read as :class:`io.RawIOBase` does.

        Raises:
            EOFError: it is damaged, or ends in the middle of a frame.
        """
        while not self._ready:
            data = self._rest or self._packed.read(_FEED)
            self._rest = b""
            if not data:
                if self._now is not None:
                    raise EOFError("it ends too early")
                return 0
            self._now = self._now or self._frame()
            try:
                self._ready = memoryview(self._now.decompress(data))
            except self._error as error:
                raise EOFError(str(error)) from None
            if self._now.eof:
                self._rest, self._now = self._now.unused_data, None
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

"""Bytes as text, for every reader of texts and tables: a byte order mark decides, else UTF-8.

What is neither is refused with what it probably is and how it would read then, so that nobody has
to guess: ``iconv -f latin1`` takes anything, and makes nonsense of most of it without a word.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from groundup.errors import UserError

_MARKS = (  # UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_LATIN = {
    "cp1252": "WINDOWS-1252",
    "cp1250": "WINDOWS-1250",
    "cp850": "CP850",
    "mac_roman": "MACINTOSH",
}
_OTHERS = {
    "cp1251": "WINDOWS-1251",
    "koi8_r": "KOI8-R",
    "cp1253": "WINDOWS-1253",
    "cp932": "CP932",
    "euc_jp": "EUC-JP",
    "gb18030": "GB18030",
    "big5": "BIG5",
    "cp949": "CP949",
}
_ICONV = {**_LATIN, **_OTHERS, "utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"}
"""The encodings that are told apart, by Python's names, and iconv's names for them."""

OR = ", or save it as UTF-8 in an editor"
"""For those who have no iconv, as on Windows."""

SAMPLE = 2**16
"""Bytes by which an encoding is guessed."""


def marked_encoding(start: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning says, if there is one."""
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)


def decode(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """The text of a file's bytes, which may be cut anywhere, without its byte order mark.

    Raises:
        UserError: it is not UTF-8 (or not what its mark says); the message has the probable
            encoding and what to do.
    """
    chunks = iter(chunks)
    first = next(chunks, b"")
    encoding = marked_encoding(first) or "utf-8"
    decoder = codecs.getincrementaldecoder(encoding)()
    count = 0
    for number, chunk in enumerate(chain([first], chunks, [b""])):
        try:
            text = decoder.decode(chunk, final=number > 0 and not chunk)
        except UnicodeDecodeError as error:
            told = encoding.removesuffix("-sig").upper()
            data = error.object  # what was left of the chunk before, and this one
            offset = count + len(chunk) - len(data) + error.start
            raise UserError(
                f"{name} is not {told}: byte 0x{data[error.start]:02x} at offset {offset}; "
                f"{conversion(data, name)}"
            ) from error
        if number == 0:
            refuse_unmarked(first, name)
        count += len(chunk)
        yield text


def refuse_unmarked(data: bytes, name: str) -> None:
    """Refuse UTF-16 without a byte order mark: as UTF-8 it is text with a NUL behind each letter.

    Raises:
        UserError: it is that.
    """
    if marked_encoding(data) in (None, "utf-8-sig") and _halves(data):
        raise UserError(f"{name} is not UTF-8: it has NUL bytes; {conversion(data, name)}")


def conversion(data: bytes, name: str) -> str:
    """What a text that is not UTF-8 probably is, how it reads then, and how to convert it.

    Args:
        data: its bytes, or those of its lines that are not UTF-8.
        name: the file's.
    """
    encoding = None if marked_encoding(data) else guess_encoding(data)
    unpack = f"gunzip -c {name} | " if name.endswith(".gz") else ""
    source = "" if unpack or name == "stdin" else f" {name}"
    command = f"`{unpack}iconv -f {_ICONV.get(encoding or '', 'ENCODING')} -t UTF-8{source}"
    if encoding is None:
        return f"if it is text, find out its encoding and convert it: {command} > text.txt`{OR}"
    place = re.search(rb"[^\x00-\x7f]", data)
    begin = max(0, place.start() - 12) if place and not encoding.startswith("utf") else 0
    shown = data[begin : begin + 40].decode(encoding, "ignore").strip()
    return (
        f"it looks like {encoding} and would read {shown!r}; convert it: {command} > text.txt`{OR}"
    )


def guess_encoding(data: bytes) -> str | None:
    """What bytes that are not UTF-8 most probably are; None if nothing fits.

    Few characters beyond ASCII speak for a language of Latin letters, and those mostly for
    Windows' cp1252 (of which Latin-1 is a part); many for another script.
    """
    if half := _halves(data):
        return half
    if re.search(rb"[\x00-\x08\x0e-\x1f]", data[:SAMPLE]):
        return None  # no text
    from charset_normalizer import from_bytes

    # Lines of plain ASCII say nothing.
    lines = [line for line in data[: 16 * SAMPLE].splitlines(keepends=True) if not line.isascii()]
    sample = b"".join(lines)[:SAMPLE]
    latin = sum(byte > 127 for byte in sample) < 0.4 * len(sample)
    for kinds in (_LATIN, _OTHERS) if latin else (_OTHERS, _LATIN):
        found = list(from_bytes(sample, cp_isolation=list(kinds)))
        for other in found:
            as_good = other.chaos <= found[0].chaos and other.coherence >= found[0].coherence
            if "cp1252" in other.could_be_from_charset and as_good:
                return "cp1252"
        if found:
            return found[0].encoding
    return None


def _halves(data: bytes) -> str | None:
    """The kind of UTF-16 that this is, if it has no mark: every other byte of ASCII is NUL."""
    even, odd = data[:SAMPLE:2], data[1:SAMPLE:2]
    for encoding, nuls, letters in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if len(nuls) > 1 and nuls.count(0) > 0.5 * len(nuls) and letters.count(0) < len(nuls) / 20:
            return encoding
    return None

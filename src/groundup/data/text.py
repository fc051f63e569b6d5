"""Raw text in: files, directories, globs, stdin and gzip, as documents; and the split of them."""

from __future__ import annotations

import gzip
import hashlib
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from groundup.data.encodings import decode
from groundup.data.finding import STDIN, find_files, same_files
from groundup.errors import UserError, first_ten


def read_documents(
    sources: Sequence[str],
    separator: str | None = None,
    *,
    say: Callable[[str], None] | None = None,
    apart_from: Sequence[str] = (),
) -> list[str]:
    """Read every source and return its documents.

    Args:
        sources: files (``.gz`` too), directories (read recursively), globs, downloaded texts by
            name (``the-verdict``), or ``-`` for stdin. A file is read once, whatever leads to it.
        separator: a text that separates documents within a file (``<|endoftext|>``, say); without
            one, each file is a document.
        say: told what is left out.
        apart_from: sources that must have no file in common with these.

    Raises:
        UserError: something is missing, empty, not UTF-8 or not valid gzip, or a file is also one
            of ``apart_from``.
    """
    if not sources:
        raise UserError("no text given; name files, directories or globs, or - for stdin")
    files = find_files(sources, say)
    if both := same_files(find_files(apart_from), files) if apart_from else []:
        raise UserError(
            f"the text to validate on is also one to train on: {first_ten(both)}; name another, or "
            "leave --validation out, which sets a part of the text aside"
        )
    documents: list[str] = []
    for file in files:
        text = _read(file)
        parts = text.split(separator) if separator else [text]
        documents += [part for part in parts if part.strip()]
    if not documents:
        raise UserError(f"there is no text in {', '.join(sources)} (only white space)")
    return documents


def embedded_documents() -> list[str]:
    """The Python language reference that comes with every CPython: about 465 KB of English.

    Raises:
        UserError: this Python was installed without its ``pydoc_data``.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError(
            "this Python lacks pydoc_data, the text of the demo; "
            "run `groundup pretrain FILE` on a text of your own"
        ) from None
    return [topics[name] for name in sorted(topics)]


def split_documents(documents: Sequence[str], ratio: float) -> tuple[list[str], list[str]]:
    """Split into the first ``ratio`` of all characters and the rest, as the course does.

    Documents stay apart: the one in which the cut falls is cut, the others are whole.

    Raises:
        UserError: the ratio is not in (0, 1].
    """
    if not 0.0 < ratio <= 1.0:
        raise UserError(f"train_ratio is {ratio}; expected more than 0 and at most 1")
    room = int(ratio * sum(map(len, documents)))
    train: list[str] = []
    val: list[str] = []
    for document in documents:
        head, tail = document[:room], document[room:]
        room -= len(head)
        train += [head] if head else []
        val += [tail] if tail else []
    return train, val


def fingerprint(documents: Iterable[str]) -> str:
    """A SHA-256 of the documents, to tell whether a run is resumed on the same text."""
    digest = hashlib.sha256()
    for document in documents:
        data = document.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()


def read_stdin() -> str:
    """Read all of stdin as text.

    Raises:
        UserError: it is empty or not UTF-8.
    """
    return _read(STDIN)


def _read(source: str) -> str:
    """Read one file as text; line ends become line feeds and a byte order mark is dropped."""
    name = "stdin" if source in ("-", STDIN) else source
    try:
        data = sys.stdin.buffer.read() if name == "stdin" else Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{name} is not valid gzip: {error}") from error
    if not data:
        raise UserError(f"{name} is empty; give a text to learn from")
    text = decode(data, name)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

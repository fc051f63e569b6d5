"""Raw text in: files, directories, globs, stdin, packed or not, as documents; their split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from groundup.data.finding import STDIN, find_files, same_files
from groundup.data.stream import file_pieces, whole_documents
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
        sources: files (``.gz`` and ``.zst`` too), directories (read recursively), globs, downloaded
            texts by name (``the-verdict``), or ``-`` for stdin. A file is read once,
            whatever leads to it.
        separator: a text that separates documents within a file (``<|endoftext|>``, say); without
            one, each file is a document.
        say: told what is left out.
        apart_from: sources that must have no file in common with these.

    Raises:
        UserError: something is missing, empty, not UTF-8 or cannot be unpacked, or a file is also
            one of ``apart_from``.
    """
    documents: list[str] = []
    for file in find_texts(sources, say=say, apart_from=apart_from):
        documents += whole_documents(file_pieces(file, separator))
    if not documents:
        raise no_text(sources)
    return documents


def find_texts(
    sources: Sequence[str],
    *,
    say: Callable[[str], None] | None = None,
    apart_from: Sequence[str] = (),
) -> list[str]:
    """The files of :func:`read_documents`.

    Raises:
        UserError: there is none, or one is also one of ``apart_from``.
    """
    if not sources:
        raise UserError("no text given; name files, directories or globs, or - for stdin")
    files = find_files(sources, say)
    if both := same_files(find_files(apart_from), files) if apart_from else []:
        raise UserError(
            f"the text to validate on is also one to train on: {first_ten(both)}; name another, or "
            "leave --validation out, which sets a part of the text aside"
        )
    return files


def no_text(sources: Sequence[str]) -> UserError:
    """What to tell the user where all is blank."""
    return UserError(f"there is no text in {first_ten(sources)} (only white space)")


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
    digest = Fingerprint()
    for document in documents:
        data = document.encode("utf-8", "surrogatepass")
        digest.begin(len(data))
        digest.add(data)
    return digest.hexdigest()


class Fingerprint:
    """:func:`fingerprint` of documents that come in pieces."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def begin(self, size: int) -> None:
        """A document of so many bytes begins."""
        self._digest.update(f"{size}:".encode())

    def add(self, data: bytes) -> None:
        """A part of it, or all."""
        self._digest.update(data)

    def hexdigest(self) -> str:
        """What has come out."""
        return self._digest.hexdigest()


def read_stdin() -> str:
    """Read all of stdin as text.

    Raises:
        UserError: it is empty or not UTF-8.
    """
    return "".join(piece.text for piece in file_pieces(STDIN))

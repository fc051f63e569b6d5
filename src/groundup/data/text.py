"""Raw text in: files, directories, globs, stdin and gzip, as documents; and the split of them."""

from __future__ import annotations

import glob
import gzip
import hashlib
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from groundup.data.sources import data_file
from groundup.errors import UserError

STDIN = "<stdin>"
"""What the command line makes of a bare ``-``, which would look like an option to its parser."""

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
"""What is read from a directory, each also with ``.gz``; a file named outright may be called
anything."""


def read_documents(sources: Sequence[str], separator: str | None = None) -> list[str]:
    """Read every source and return its documents.

    Args:
        sources: files (``.gz`` too), directories (read recursively), globs, downloaded texts by
            name (``the-verdict``), or ``-`` for stdin.
        separator: a text that separates documents within a file (``<|endoftext|>``, say); without
            one, each file is a document.

    Raises:
        UserError: something is missing, empty, not UTF-8 or not valid gzip.
    """
    if not sources:
        raise UserError("no text given; name files, directories or globs, or - for stdin")
    files = [file for source in sources for file in _expand(source)]
    texts = [_read(file) for file in dict.fromkeys(files)]
    parts = [part for text in texts for part in (text.split(separator) if separator else [text])]
    documents = [part for part in parts if part.strip()]
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


def _expand(source: str) -> list[str]:
    """The files that a source stands for, in a stable order."""
    path = Path(source)
    if source in ("-", STDIN) or path.is_file():
        return [source]
    if path.is_dir():
        found = [str(p) for p in _texts_below(path)]
        if not found:
            raise UserError(
                f"there is no text in the directory {source}: looked for {', '.join(TEXT_SUFFIXES)}"
                " (also with .gz); name other files outright, or as a glob"
            )
        return found
    if glob.has_magic(source):
        found = sorted(f for f in glob.glob(source, recursive=True) if Path(f).is_file())
        if not found:
            raise UserError(f"no file matches {source!r}")
        return found
    return [str(data_file(source))]


def read_stdin() -> str:
    """Read all of stdin as text.

    Raises:
        UserError: it is empty or not UTF-8.
    """
    return _read(STDIN)


def _texts_below(folder: Path) -> list[Path]:
    """The texts of a directory; hidden folders and model directories are none."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not (path / "groundup.json").exists():
            found += _texts_below(path)
        elif path.is_file() and path.name.removesuffix(".gz").endswith(TEXT_SUFFIXES):
            found.append(path)
    return found


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
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; "
            f"convert it first, for example `iconv -f latin1 -t utf-8 {name} > text.txt`"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")

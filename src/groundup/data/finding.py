"""Which files a source stands for: each of them once, however many names and links lead to it."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from groundup.data.sources import data_file
from groundup.errors import UserError, first_ten

STDIN = "<stdin>"
"""What the command line makes of a bare ``-``, which would look like an option to its parser."""

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
"""What is read from a directory, each also with one of ``PACKED`` behind it, in small letters or
capitals; a file named outright may be called anything."""

RECORD_SUFFIXES = (".jsonl", ".ndjson", ".parquet")
"""Besides these, what a corpus can be prepared from."""

PACKED = (".gz", ".zst")

NO_TEXTS = ("groundup.json", "corpus.json")
"""What a folder has that is a model or a prepared corpus; the ``.txt`` in there are no texts."""


def find_files(
    sources: Sequence[str],
    say: Callable[[str], None] | None = None,
    suffixes: Sequence[str] = TEXT_SUFFIXES,
) -> list[str]:
    """The files that sources stand for, in a stable order.

    Args:
        sources: files, directories (read recursively), globs, downloaded texts by name, or ``-``
            for stdin.
        say: told what is left out.
        suffixes: what is read from directories.

    Raises:
        UserError: something is missing or cannot be read, or a directory has no text.
    """
    search = _Search(suffixes)
    files = [file for source in sources for file in search.expand(source)]
    if say is not None:
        for note in search.notes():
            say(f"note: {note}")
    return files


def same_files(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The files of the second list that are in the first one too, whatever their names."""
    known = {_identity(file) for file in first}
    return [file for file in second if _identity(file) in known]


def unpacked_name(path: str | Path) -> str:
    """A file's name in small letters, as it was before it was packed."""
    name = Path(path).name.lower()
    return name.removesuffix(Path(name).suffix) if name.endswith(PACKED) else name


class _Search:
    """Finds files, and remembers what it has seen by what it is, not by its name."""

    def __init__(self, suffixes: Sequence[str] = TEXT_SUFFIXES) -> None:
        self.suffixes = tuple(suffixes)
        self._files: dict[object, str] = {}  # identity -> the name it was found by
        self._folders: set[object] = set()
        self._again: list[str] = []
        self._links: list[str] = []
        self._models: list[str] = []
        self._others: Counter[str] = Counter()  # endings of files that are no texts

    def expand(self, source: str) -> list[str]:
        """The new files that a source stands for."""
        path = Path(source)
        if source in ("-", STDIN) or path.is_file():
            return self._new([source])
        if path.is_dir():
            if _identity(source) in self._folders:
                self._again.append(source)
                return []
            before = len(self._files) + len(self._again) + len(self._links)
            found = self._new([str(file) for file in self._below(path) if self._is_text(file)])
            if len(self._files) + len(self._again) + len(self._links) == before:
                raise UserError(
                    f"there is no text in the directory {source}: looked for "
                    f"{', '.join(self.suffixes)} (also with {' or '.join(PACKED)}); name other "
                    "files outright, or as a glob"
                )
            return found
        if glob.has_magic(source):
            found = sorted(file for file in self._matching(source) if Path(file).is_file())
            if not found:
                raise UserError(f"no file matches {source!r}")
            return self._new(found)
        return self._new([str(data_file(source))])

    def notes(self) -> Iterator[str]:
        """What was left out, in sentences."""
        if self._again:
            yield f"named more than once and read once: {first_ten(self._again)}"
        if self._links:
            yield f"links to folders that are read already: {first_ten(self._links)}"
        if self._models:
            yield f"models and corpora are no texts and are left out: {first_ten(self._models)}"
        if self._others:
            kinds = [f"{count:,} {ending}" for ending, count in self._others.most_common()]
            yield (
                f"files with other endings are left out ({first_ten(kinds)}); name them outright, "
                "or as a glob, to read them"
            )

    def _new(self, files: Sequence[str]) -> list[str]:
        """Those of the files that were not found before."""
        found = []
        for file in files:
            identity = _identity(file)
            first = self._files.get(identity)
            if first is None:
                self._files[identity] = file
                found.append(file)
            else:
                self._again.append(file if file == first else f"{file} (is {first})")
        return found

    def _below(self, folder: Path) -> Iterator[Path]:
        """All files of a folder and its folders but hidden ones and models, no folder twice."""
        identity = _identity(str(folder))
        if identity in self._folders:
            self._links.append(str(folder))
            return
        self._folders.add(identity)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise UserError(f"cannot read the directory {folder}: {error.strerror}") from error
        for path in entries:
            if path.name.startswith("."):
                continue
            if path.is_dir():
                if any((path / name).exists() for name in NO_TEXTS):
                    self._models.append(str(path))
                else:
                    yield from self._below(path)
            elif path.is_file():
                yield path

    def _is_text(self, path: Path) -> bool:
        if unpacked_name(path).endswith(self.suffixes):
            return True
        self._others[path.suffix or "without an ending"] += 1
        return False

    def _matching(self, pattern: str) -> list[str]:
        """The files that a glob means; ``glob`` itself follows links round and round in ``**``."""
        parts = Path(pattern).parts
        if "**" not in parts:
            return glob.glob(pattern)
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root, wanted = Path(*parts[:fixed]), parts[fixed:]
        return [
            str(path)
            for path in _Search()._below(root)
            if _fits(path.relative_to(root).parts, wanted)
        ]


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path's parts are what a glob's parts ask for; ``**`` is any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        rest = pattern[1:] or ["*"]
        return any(_fits(names[i:], rest) for i in range(len(names)))
    return bool(names) and fnmatch(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _identity(path: str) -> object:
    """What a file or folder is, whatever its name: the same for links to it, hard ones too."""
    try:
        found = os.stat(path)
    except OSError:  # stdin
        return path
    return found.st_dev, found.st_ino

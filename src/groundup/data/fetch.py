"""One file from the first mirror that delivers it: whole and right, or not at all.

A file is written to ``NAME.part`` and gets its name only when its length, and its SHA-256 where one
is known, are right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from groundup.data.sources import KnownFile
from groundup.data.transfer import Check, Failed, Part, Patience, Say, from_mirror, host_of
from groundup.errors import UserError, write_error
from groundup.files import locked

WORKS_OFFLINE = (
    "demo, pretrain, generate with a model directory, inspect, tokenizer and plot work offline"
)


RUN_AGAIN = (
    "free some space and run the same command again, which goes on where this one stopped, or "
    "choose another --cache-dir"
)
"""What to do about a full disk."""


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    check: Check | None = None,
    overwrite: bool = False,
    by_hand: str = "",
    patience: Patience | None = None,
    say: Say = print,
) -> Path:
    """Download a file from the first of its mirrors that delivers it; return ``target``.

    Stalls, cut connections, 429 and 5xx are tried again; a server that cannot be reached at all is
    not. A file that is there already and is right is left alone.

    Args:
        urls: the mirrors, in the order in which they are asked.
        target: the file to write.
        sha256: its SHA-256, if known.
        size: its number of bytes, if known.
        check: tells what is wrong with the bytes that came, or returns None.
        overwrite: download it anew even if it is there and right.
        by_hand: what to do without this download, for the error message.
        patience: how long to wait, how often to try.
        say: told what is being done.

    Raises:
        UserError: no mirror delivered it, or it cannot be written. ``target`` is as it was.
    """
    part = Part(target, KnownFile(target.name, tuple(urls), size, sha256), check)
    with alone(target, say):
        if not overwrite and target.exists():
            problem = part.problem(target)
            if problem is None:
                say(f"{target} is here already")
                return target
            say(f"{target} {problem}; getting it anew")
        obtain(part, afresh=overwrite, by_hand=by_hand, patience=patience, say=say)
    return target


def obtain(
    part: Part,
    *,
    afresh: bool = False,
    by_hand: str = "",
    patience: Patience | None = None,
    say: Say = print,
) -> None:
    """Download a file, going on with its ``.part`` unless ``afresh``; the caller is `alone`.

    Raises:
        UserError: no mirror delivered it.
        OSError: it cannot be written.
    """
    file = part.file
    by_hand = by_hand or f"get {file.urls[0]} by hand and save it as {part.target}"
    refuse_if_offline(host_of(file.urls[0]), by_hand)
    if afresh or (file.size is not None and part.size > file.size):
        part.remove()
    if part.size and part.size == file.size and file.sha256 and part.problem() is None:
        part.finish()  # all was there but the name
        return
    failures: list[tuple[str, Failed]] = []
    for url in file.urls:
        failure = from_mirror(url, part, patience or Patience(), say)
        if failure is None:
            part.finish()
            return
        failures.append((host_of(url), failure))
        if url != file.urls[-1]:
            say(f"{host_of(url)}: {failure}; trying the next mirror")
    raise cannot_download(file.name, failures, by_hand, part.size)


@contextmanager
def alone(target: Path, say: Say) -> Iterator[None]:
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


def refuse_if_offline(where: str, by_hand: str) -> None:
    """Raise if the user has said that nothing may be downloaded.

    Raises:
        UserError: HF_HUB_OFFLINE is set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise UserError(
            f"HF_HUB_OFFLINE is set, so {where} is not asked; unset it, or {by_hand}; "
            f"{WORKS_OFFLINE}"
        )


def cannot_download(
    name: str, failures: Sequence[tuple[str, Failed]], by_hand: str, kept: int = 0
) -> UserError:
    """The sentence for a download that no mirror delivered; ``kept`` bytes of it are here."""
    reasons = ", ".join(f"{host}: {failure}" for host, failure in failures)
    goes_on = f"; {kept:,} bytes are kept, and the same command goes on with them" if kept else ""
    if not all(failure.offline for _, failure in failures):
        return UserError(f"cannot download {name} ({reasons}){goes_on}; {by_hand}")
    # Names only: a proxy's URL may hold a password.
    proxies = sorted(n for n in os.environ if n.lower().endswith("_proxy") and os.environ[n])
    seen = f"proxy variables: {', '.join(proxies)}" if proxies else "no proxy variable is set"
    return UserError(
        f"cannot reach a server that has {name} ({reasons}; {seen}){goes_on}; {by_hand}; "
        f"{WORKS_OFFLINE}"
    )

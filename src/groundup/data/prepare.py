"""Makes a corpus of files: read as a stream, encoded on all cores, written in order.

prepare(["texts/", "more.jsonl.zst"], "corpus", "gpt2")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from groundup.data.corpus import DOCUMENTS, INDEX, SHARD, SOURCES, Corpus, Index
from groundup.data.encoding import encode_in_order
from groundup.data.finding import RECORD_SUFFIXES, STDIN, TEXT_SUFFIXES, find_files
from groundup.data.reading import Reading, jobs_of
from groundup.data.shards import JOURNAL, ShardWriter
from groundup.data.stream import FIELD
from groundup.errors import UserError
from groundup.files import IN_USE, LOCK, JsonLines, atomic_update, locked
from groundup.output import progress_bar, say
from groundup.staging import STAGING, sweep
from groundup.tokenizers import Tokenizer, load_tokenizer

SHARD_TOKENS = 2**26
"""Ids of a shard: 128 MiB of 2 bytes each."""

_SMALL = 4_000_000
"""Bytes of sources for which no process is started."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")

MakeTokenizer = Callable[[Iterator[str]], Tokenizer]
"""Makes a tokenizer, perhaps of the texts that will train."""


def prepare(
    sources: Sequence[str],
    out: str | Path,
    tokenizer: Tokenizer | MakeTokenizer,
    *,
    separator: str | None = None,
    field: str = FIELD,
    train_ratio: float | None = None,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    overwrite: bool = False,
    say: Callable[[str], None] = say,
) -> Corpus:
    """Make a corpus of files; go on with it where an earlier process was ended.

    Args:
        sources: files of text, JSONL or Parquet (packed by gzip or Zstandard, too), directories,
            globs, downloaded texts by name, or ``-`` for stdin.
        out: the directory to write.
        tokenizer: encodes them; or what makes one of the texts that train.
        separator: a text that separates documents within a file of text.
        field: of JSONL and Parquet, what of a row is the document.
        train_ratio: the first so many of all characters train, the rest validates, exactly as if
            the same files were trained on directly. Without it, each run decides, by tokens.
        workers: processes that encode; as many as there are cores.
        shard_tokens: ids of a shard.
        overwrite: replace what ``out`` holds.
        say: told what is being done.

    Raises:
        UserError: a source is missing or damaged, ``out`` exists, ….
    """
    if not sources:
        raise UserError("no text given; name files, directories or globs, or - for stdin")
    if workers is not None and workers < 1 or shard_tokens < 1:
        raise UserError("workers and shard_tokens must be at least 1")
    files = find_files(sources, say, (*TEXT_SUFFIXES, *RECORD_SUFFIXES))
    reading = Reading(files, separator, field, train_ratio)
    return make_corpus(
        reading,
        Path(out),
        tokenizer,
        workers=workers,
        shard_tokens=shard_tokens,
        overwrite=overwrite,
        say=say,
    )


def make_corpus(
    reading: Reading,
    out: Path,
    tokenizer: Tokenizer | MakeTokenizer,
    *,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    overwrite: bool = False,
    text_sha256: str | None = None,
    say: Callable[[str], None] = say,
) -> Corpus:
    """:func:`prepare`, of files that are found already."""
    check_out(out, overwrite=overwrite)
    with locked(out / LOCK, IN_USE.format(out)):
        check_out(out, overwrite=overwrite)
        sweep(out)
        if overwrite:
            _remove_ours(out)
        rows = JsonLines(out / JOURNAL, row="entry").read()
        header = _header(reading, shard_tokens, rows[:1], out)
        room = header["room"] if rows else reading.room()
        used = _tokenizer(tokenizer, reading, room, header, out)
        if not rows:
            header |= {"room": room, "tokenizer_sha256": used.fingerprint}
            JsonLines(out / JOURNAL, row="entry", durable=True).append(header)
        with atomic_update(out) as folder:
            used.save(folder)
        width = 2 if used.vocab_size <= 2**16 else 4
        writer = ShardWriter(out, width, shard_tokens, used.eot_token, rows[1:])
        if writer.tokens:
            say(f"going on with {out} after {writer.tokens:,} tokens")
        try:
            _write(reading, room, used, workers, writer)
            if not writer.documents:
                raise UserError(f"there is no text in {', '.join(reading.files)}")
            if room is not None and writer.split is None:
                writer.split = writer.tokens
            writer.finish(
                lambda **found: Index(
                    **found,
                    tokenizer=used.name,
                    tokenizer_sha256=used.fingerprint,
                    made_of={k: v for k, v in reading.identity().items() if k != "files"},
                    text_sha256=text_sha256,
                )
            )
        finally:
            writer.close()
    return Corpus(out)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse to write to a directory that holds something else than an unfinished corpus.

    Raises:
        UserError: it does.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out takes a directory")
    if not out.is_dir() or overwrite and (out / INDEX).exists() or (out / JOURNAL).exists():
        return
    if (out / INDEX).exists():
        raise UserError(f"{out} holds a corpus; use --overwrite to replace it, or another --out")
    others = [p for p in out.iterdir() if p.name != LOCK and not p.name.startswith(STAGING)]
    if others:
        raise UserError(f"{out} is not empty and holds no corpus; choose another --out")


def _header(
    reading: Reading, shard_tokens: int, rows: list[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """The journal's first entry.

    Raises:
        UserError: the one that is there is of other work.
    """
    wanted = {"made_of": reading.identity(), "shard_tokens": shard_tokens}
    if not rows:
        return wanted
    flat = [row["made_of"] | {"shard_tokens": row["shard_tokens"]} for row in (rows[0], wanted)]
    other = [name for name, value in flat[0].items() if flat[1][name] != value]
    stdin = any(name in ("-", STDIN) for name in reading.files)
    if other or stdin:
        why = "it read stdin" if stdin else f"of others than these: {', '.join(other)}"
        raise UserError(
            f"{out} holds a corpus that is not finished, and cannot be gone on with ({why}); use "
            "--overwrite to begin anew, or another --out"
        )
    return rows[0]


def _tokenizer(
    given: Tokenizer | MakeTokenizer,
    reading: Reading,
    room: int | None,
    header: dict[str, Any],
    out: Path,
) -> Tokenizer:
    """The tokenizer: of work that goes on, the one that it began with.

    Raises:
        UserError: it is another one than that.
    """
    began_with = header.get("tokenizer_sha256")
    if callable(given):
        if began_with is not None and (out / "tokenizer.json").exists():
            given = load_tokenizer(out)
        else:
            given = given(reading.training_texts(room))
    found = given.fingerprint
    if began_with not in (None, found):
        raise UserError(
            f"{out} holds a corpus that is not finished, of another tokenizer: its fingerprint is "
            f"{began_with[:16]}, that of the one given is {found[:16]}; use --overwrite to begin "
            "anew, or another --out"
        )
    return given


def _write(
    reading: Reading,
    room: int | None,
    tokenizer: Tokenizer,
    workers: int | None,
    writer: ShardWriter,
) -> None:
    sizes = [0 if f in ("-", STDIN) else os.path.getsize(f) for f in reading.files]
    left = sum(sizes[writer.place.file :])
    workers = workers or (1 if 0 < left < _SMALL else cores())
    done = sum(sizes) - left
    bar = progress_bar(
        desc="preparing", total=sum(sizes) or None, initial=done, unit="B", unit_scale=True, delay=1
    )
    jobs = jobs_of(reading, room, tokenizer.eot_token is not None, writer.place)
    encoded = encode_in_order(jobs, lambda job: job.pieces, tokenizer, workers)
    with bar, closing(encoded):
        for job, ids in encoded:
            writer.put(job, ids)
            bar.update(job.read)


def _remove_ours(out: Path) -> None:
    """Delete what is ours, and nothing else that may lie there."""
    names = [INDEX, JOURNAL, DOCUMENTS, SOURCES, *_TOKENIZER_FILES]
    for path in [out / name for name in names] + list(out.glob(SHARD.replace("{:05}", "*"))):
        path.unlink(missing_ok=True)


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

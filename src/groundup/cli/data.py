"""``groundup data``: prepare big corpora for pretraining, and look at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from groundup.cli.app import Flag, WholeNumber, app
from groundup.errors import UserError
from groundup.output import say, show

if TYPE_CHECKING:
    from groundup.data.corpus import Corpus

data = App(name="data", help="Prepare a big corpus for pretraining; look at one.")
app.command(data)


@data.command
def prepare(
    *files: str,
    out: Path,
    tokenizer: str = "gpt2",
    vocab_size: WholeNumber | None = None,
    document_separator: str | None = None,
    field: str = "text",
    train_ratio: float | None = None,
    workers: WholeNumber | None = None,
    overwrite: Flag = False,
) -> None:
    """Tokenize files of any size into a corpus that `groundup pretrain` reads from the disk.

    After an end at any moment the same command goes on where it was.

    Args:
        files: text (UTF-8), .jsonl or .parquet, packed as .gz or .zst too; directories, globs, or
            - for stdin.
        out: the directory to write.
        tokenizer: gpt2, a directory that holds a tokenizer (a model's, say), or bpe (trained on
            the text).
        vocab_size: number of tokens, for --tokenizer bpe (4,096).
        document_separator: a text that separates documents within a file of text.
        field: of .jsonl and .parquet, the field or column that holds the documents.
        train_ratio: share of the text, by characters, to train on; the rest validates. Without
            it, each run decides, by tokens.
        workers: processes that encode (as many as there are cores).
        overwrite: replace the corpus that --out holds.
    """
    from groundup.data import prepare as work
    from groundup.tasks.tokenizer import train_on_stream
    from groundup.tokenizers import get_tokenizer

    if tokenizer != "bpe" and vocab_size is not None:
        raise UserError("--vocab-size is for --tokenizer bpe; leave it out")
    work.check_out(out, overwrite=overwrite)
    size = vocab_size or 4096
    corpus = work.prepare(
        files,
        out,
        (lambda texts: train_on_stream(texts, size, say))
        if tokenizer == "bpe"
        else get_tokenizer(tokenizer),
        separator=document_separator,
        field=field,
        train_ratio=train_ratio,
        workers=workers,
        overwrite=overwrite,
        say=say,
    )
    say(f"{_summary(corpus)}: {out}\n\nTry next:\n  groundup pretrain {out} --out runs/mine")


@data.command
def info(
    corpus: Path,
    /,
    *,
    verify: Flag = False,
    as_json: Annotated[bool, Parameter("--json", negative=(), show_default=False)] = False,
) -> None:
    """Say what a corpus holds and what it was made of.

    Args:
        corpus: its directory.
        verify: read all of it and compare it with its SHA-256.
        as_json: print one JSON object.
    """
    from groundup.data.corpus import SOURCES, Corpus
    from groundup.files import JsonLines

    found = Corpus(corpus)
    if verify:
        found.verify()
    sources = JsonLines(corpus / SOURCES, row="source").read()
    index = found.index
    if as_json:
        said = {name: value for name, value in vars(index).items() if name != "shards"}
        said |= {"sha256": index.sha256, "shards": len(index.shards), "sources": sources}
        show(json.dumps(said, indent=2))
        return
    validates = "each run decides" if index.split is None else f"the last {_val(found):,} tokens"
    rows = {
        "corpus": _summary(found),
        "validation": validates,
        "tokenizer": f"{index.tokenizer}, fingerprint {index.tokenizer_sha256[:16]}",
        "ids": f"{found.bytes:,} bytes ({index.dtype}) in {len(index.shards):,} shards",
        "fingerprint": index.sha256[:16],
        "sources": f"{len(sources):,}, {sum(source['bytes'] for source in sources):,} bytes",
        "verified": "everything is as it was made" if verify else "lengths only (see --verify)",
    }
    show("\n".join(f"{name:<13}{value}" for name, value in rows.items()))


def _val(corpus: Corpus) -> int:
    return corpus.index.tokens - (corpus.index.split or 0)


def _summary(corpus: Corpus) -> str:
    index = corpus.index
    documents = f"{index.documents:,} document{'s' * (index.documents != 1)}"
    return f"{documents}, {index.characters:,} characters, {index.tokens:,} tokens"

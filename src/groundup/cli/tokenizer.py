"""``groundup tokenizer``: train a tokenizer, and use one by hand."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from groundup.cli.app import Flag, WholeNumber, app
from groundup.data.finding import STDIN
from groundup.data.text import read_stdin
from groundup.errors import UserError
from groundup.output import say, show

tokenizer = App(name="tokenizer", help="Train a byte-level BPE tokenizer; encode; decode.")
app.command(tokenizer)


@tokenizer.command
def train(
    *files: str,
    out: Path,
    vocab_size: WholeNumber = 4096,
    document_separator: str | None = None,
    overwrite: Flag = False,
) -> None:
    """Train a byte-level BPE tokenizer on a text and save it as a directory.

    Args:
        files: text to learn from: files (UTF-8, .gz too), directories, globs, or - for stdin.
        out: the directory to write.
        vocab_size: number of tokens: 256 bytes, the merges, and <|endoftext|>.
        document_separator: a text that separates documents within a file.
        overwrite: replace the tokenizer that --out holds.
    """
    from groundup.data.text import read_documents
    from groundup.files import atomic_update
    from groundup.tasks.tokenizer import train_tokenizer

    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out takes a directory")
    if (out / "config.json").exists():
        raise UserError(f"{out} is a model, whose tokenizer belongs to it; choose another --out")
    if (out / "tokenizer.json").exists() and not overwrite:
        raise UserError(f"{out} holds a tokenizer; use --overwrite or another --out")
    documents = read_documents(files, document_separator, say=say)
    trained = train_tokenizer(documents, vocab_size, say)
    with atomic_update(out) as folder:
        trained.save(folder)
    fewer = (
        ""
        if trained.vocab_size == vocab_size
        else f" (the text has no more than these; {vocab_size:,} were asked for)"
    )
    say(f"{trained.vocab_size:,} tokens{fewer}: {out}")


@tokenizer.command
def encode(
    name: str,
    text: str = STDIN,
    /,
    *,
    pieces: Flag = False,
    allow_special: Flag = False,
) -> None:
    """Print the token ids of a text.

    Args:
        name: gpt2, or a directory with a tokenizer (a model directory, say).
        text: the text; - reads stdin.
        pieces: print each token's text beside its id, one per line.
        allow_special: let <|endoftext|> in the text be that one token.
    """
    from groundup.tokenizers import get_tokenizer

    chosen = get_tokenizer(name)
    if text == STDIN:
        text = read_stdin()
    ids = chosen.encode(text, allowed_special="all" if allow_special else frozenset())
    if pieces:
        for token in ids:
            show(f"{token}\t{chosen.token_bytes(token).decode('utf-8', 'backslashreplace')!r}")
    else:
        show(" ".join(map(str, ids)))


@tokenizer.command
def decode(name: str, /, *ids: str) -> None:
    """Print the text of token ids.

    Args:
        name: gpt2, or a directory with a tokenizer.
        ids: the ids; none reads them from stdin.
    """
    from groundup.tokenizers import get_tokenizer

    chosen = get_tokenizer(name)
    words = [word for arg in ids or [read_stdin()] for word in arg.replace(",", " ").split()]
    wrong = next((word for word in words if not word.isdecimal()), None)
    if wrong is not None:
        raise UserError(f"{wrong!r} is not a token id; expected whole numbers such as 15496 11")
    show(chosen.decode([int(word) for word in words]))

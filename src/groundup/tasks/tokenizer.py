"""Training a tokenizer: our own trainer for a learner's text, the library's for a big corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from groundup.tokenizers import BPETokenizer, train_with_library

LIBRARY_CHARACTERS = 20_000_000
"""Above this, the ``tokenizers`` library trains; both give the same merges (a test proves it)."""


def train_tokenizer(
    documents: Sequence[str], vocab_size: int, say: Callable[[str], None]
) -> BPETokenizer:
    """Train a byte-level BPE and say how.

    Raises:
        UserError: ``vocab_size`` leaves no room for the 256 bytes.
    """
    characters = sum(map(len, documents))
    if characters > LIBRARY_CHARACTERS:
        say(
            f"training a BPE of {vocab_size:,} tokens on {characters:,} characters with the "
            "`tokenizers` library (much text; the merges are the same as our own trainer's)"
        )
        return train_with_library(documents, vocab_size)
    say(f"training a BPE of {vocab_size:,} tokens on {characters:,} characters")
    return BPETokenizer.train(documents, vocab_size)


def train_on_stream(
    texts: Iterable[str], vocab_size: int, say: Callable[[str], None]
) -> BPETokenizer:
    """The same of texts that pass by, however many there are.

    Raises:
        UserError: ``vocab_size`` leaves no room for the 256 bytes.
    """
    say(f"training a BPE of {vocab_size:,} tokens with the `tokenizers` library")
    return train_with_library(texts, vocab_size)

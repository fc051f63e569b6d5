"""Documents as arrays of token ids, with a bar and an estimate if it takes long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from groundup.output import progress_bar
from groundup.tokenizers import Tokenizer
from groundup.tokenizers.parts import encode_array, parts

MUCH = 2_000_000
"""Characters; above this it is estimated how long they take."""

WORTH_TELLING = 3.0
"""Seconds; who waits for longer is told beforehand."""

SAMPLES = 8
"""So many documents' beginnings are encoded to see how long that takes."""


def encode_each(
    documents: Sequence[str], tokenizer: Tokenizer, say: Callable[[str], None] | None = None
) -> Iterator[np.ndarray]:
    """The ids of each document, ``(N,)`` of 2 or 4 bytes each.

    Args:
        documents: the texts.
        tokenizer: encodes them.
        say: told how long it will take, if that is long.
    """
    characters = sum(map(len, documents))
    if say is not None and characters > MUCH:
        seconds = _seconds(documents, tokenizer)
        if seconds > WORTH_TELLING:
            say(f"tokenizing {characters:,} characters takes some {seconds:,.0f} s")
    bar = progress_bar(
        desc="tokenizing",
        total=characters,
        unit="character",
        unit_scale=True,
        delay=1,  # a short text needs no bar
    )
    with bar:
        for document in documents:
            yield encode_array(tokenizer, document, progress=bar.update)


def encode_documents(
    documents: Sequence[str], tokenizer: Tokenizer, say: Callable[[str], None] | None = None
) -> np.ndarray:
    """The ids of all documents as one row ``(N,)``, with the end-of-text token between them."""
    return encode_in_a_row(documents, tokenizer, say)[0]


def encode_in_a_row(
    documents: Sequence[str], tokenizer: Tokenizer, say: Callable[[str], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The same, and where each document begins ``(D,)``: with the end-of-text before it."""
    rows: list[np.ndarray] = []
    starts, count = [], 0
    for ids in encode_each(documents, tokenizer, say):
        starts.append(count)
        if rows and tokenizer.eot_token is not None:
            rows.append(np.array([tokenizer.eot_token], dtype=ids.dtype))
            count += 1
        rows += [ids] if len(ids) else []
        count += len(ids)
    ids = np.concatenate(rows) if rows else np.empty(0, np.uint16)
    return ids, np.array(starts, dtype=np.int64)


def _seconds(documents: Sequence[str], tokenizer: Tokenizer) -> float:
    """How long it takes to encode them, by some parts of them from here and there."""
    some = documents[:: max(1, len(documents) // SAMPLES)][:SAMPLES]
    sample = [part for text in some for part in islice(parts(text), 2)]
    half = len(sample) // 2
    for part in sample[:half]:  # fills the tokenizer's cache of common words
        tokenizer.encode(part)
    begun = time.perf_counter()
    for part in sample[half:]:
        tokenizer.encode(part)
    seconds = time.perf_counter() - begun
    return seconds * sum(map(len, documents)) / sum(map(len, sample[half:]))

"""Long texts, a part at a time: encoded or counted whole, a text of 50 MB would take gigabytes.

A list of ids costs 8 bytes per token and its pieces of text 60; an array of ids costs 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

PART = 2**16
"""Characters of a part: few enough to be cheap, many enough that cutting costs nothing."""

CUT = re.compile(r"(?<=\S) |(?<=[^\W_])\n")
"""Where a text may be cut: in front of it; see :func:`parts`."""


def parts(text: str, size: int = PART) -> Iterator[str]:
    """Cut a text where no token can be, so that its parts' ids joined are its own.

    No split pattern (see `splits.py`) has a piece that holds a space behind something else, or a
    line feed behind a letter or a digit: those always begin a piece, whatever comes before or
    after. A text without any is not cut.

    Args:
        text: any text.
        size: characters per part, about; at least 1.
    """
    begin, end = 0, len(text)
    while end - begin > size:
        cut = CUT.search(text, begin + size)
        if cut is None:
            break
        yield text[begin : cut.start()]
        begin = cut.start()
    yield text[begin:]


def encode_array(
    tokenizer: Any,
    text: str,
    *,
    allowed_special: Set[str] = frozenset(),
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """A text's ids `(N,)`, as `tokenizer.encode` gives them, of 2 or 4 bytes each.

    Args:
        tokenizer: any that has `encode`; tiktoken's too.
        text: any text.
        allowed_special: special tokens that shall become their id instead of plain text.
        progress: called with the characters of each part that is done.
    """
    import numpy as np  # here: the command line's help needs none

    kind = np.uint16 if getattr(tokenizer, "n_vocab", 2**32) <= 2**16 else np.uint32
    whole = any(len(token.split()) > 1 for token in allowed_special)  # no cut within one of them
    whole = whole or not getattr(tokenizer, "cuttable", True)
    encode = getattr(tokenizer, "encode_array", None)  # has the array at once
    if encode is None or allowed_special:
        encode = partial(tokenizer.encode, allowed_special=allowed_special)
    found = [np.empty(0, kind)]
    for part in [text] if whole else parts(text):
        found.append(np.asarray(encode(part), dtype=kind))
        if progress is not None:
            progress(len(part))
    return np.concatenate(found)

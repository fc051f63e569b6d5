"""How a served model's tokenizer takes a text apart, and which merges put each piece together."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.serve.asking import read_body
from groundup.serve.models import Models
from groundup.serve.page.xray import check_length
from groundup.tokenizers import LibraryTokenizer, Tokenizer
from groundup.tokenizers.steps import merge_steps, ranks_of
from groundup.tokenizers.vocabulary import Merge
from groundup.xray.take import words_of

LONGEST = 5_000
"""Characters: each of their tokens is drawn."""

STEPPED = 100
"""Bytes of a piece whose merges are shown; the work grows with their square."""


@dataclass
class Text:
    """What is to be taken apart."""

    model: str
    text: str


def routes(models: Models) -> list[BaseRoute]:
    """The tokenizer."""

    async def tokenize(request: Request) -> Response:
        asked = await read_body(request, Text)
        tokenizer = models.get(asked.model).tokenizer
        check_length(asked.text, LONGEST)
        return JSONResponse(taken_apart(tokenizer, asked.text))

    return [Route("/page/tokenize", tokenize, methods=["POST"])]


def taken_apart(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """A text's tokens, the pieces that it was cut into first, and each piece's merges.

    Returns:
        ``tokens``: id, text and bytes (in hexadecimal) of each; ``pieces``: how many tokens each
        has, and its merges as pairs of a rank and a place (or in ``note`` why there are none).

    Raises:
        UserError: the tokenizer has no tokens for the text.
    """
    merges = len(tokenizer.merges)
    pieces = [*tokenizer.pieces(text)] if text else []
    ids = [index for piece in pieces for index in piece]
    told = texts_of(tokenizer, ids)
    return {
        "vocab_size": tokenizer.vocab_size,
        "merges": merges,
        "characters": len(text),
        "bytes": len(text.encode()),
        "tokens": [
            {"id": index, "text": text, "bytes": tokenizer.token_bytes(index).hex()}
            for index, text in zip(ids, told, strict=True)
        ],
        "pieces": [_piece(tokenizer, piece, merges > 0) for piece in pieces],
    }


def texts_of(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """The text of each token, safe to show."""
    ids = list(ids)
    words = words_of(tokenizer, [ids])
    return [words[index] for index in ids]


def _piece(tokenizer: Tokenizer, ids: list[int], merges: bool) -> dict[str, Any]:
    data = tokenizer.decode_bytes(ids)
    told: dict[str, Any] = {"tokens": len(ids), "steps": [], "note": None}
    added = tokenizer.vocabulary.added_tokens.values()
    if not merges:
        told["note"] = "This tokenizer has no merges: each of its tokens is a single character."
    elif len(ids) == 1 and ids[0] in added:
        told["note"] = "A word that was added to the vocabulary as a whole: no merges make it."
    elif len(data) > STEPPED:
        told["note"] = f"The piece has {len(data)} bytes; steps are shown of {STEPPED} at most."
    else:
        steps = [[step.rank, step.place] for step in merge_steps(data, _ranks(tokenizer))]
        if len(data) - len(steps) == len(ids):
            told["steps"] = steps
        elif isinstance(tokenizer, LibraryTokenizer) and tokenizer.ignore_merges:
            told["note"] = "The piece is in the vocabulary as a whole, and so it is not merged."
        else:
            told["note"] = "The tokenizer has its own way with this piece: merges don't make it."
    return told


@functools.lru_cache(maxsize=16)
def _ranks(tokenizer: Tokenizer) -> dict[Merge, int]:
    return ranks_of(tokenizer.merges)

"""Text of a form that is asked for: a JSON schema or a regular expression decides what may follow.

Before each choice, the tokens after which the text could no more become what was asked for get a
score of minus infinity. The library llguidance says which these are.
"""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.errors import UserError
from groundup.parsing import read_text
from groundup.tokenizers import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_SCHEMA = 1 << 20
"""Bytes of a schema that people write."""


LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As Python's ``json`` writes it. Where any white space will do, small models write only that."""


class Constraint:
    """What the tokens of one text may be; it has ended when nothing may follow.

    Args:
        tokenizer: says which bytes each token stands for.
        schema: a JSON schema, as text or as the object that it describes.
        regex: a regular expression that the whole text matches (without look-around).

    Raises:
        UserError: it cannot be parsed, or no text can satisfy it.
    """

    def __init__(
        self, tokenizer: Tokenizer, schema: str | dict[str, Any] | None, regex: str | None = None
    ) -> None:
        if schema is not None and regex is not None:
            raise UserError("give a JSON schema or a regular expression, not both")
        matcher = _library().LLMatcher
        self.what = "regular expression" if schema is None else "JSON schema"
        if schema is None:
            grammar = matcher.grammar_from_regex(regex)
        else:
            text = schema if isinstance(schema, str) else json.dumps(schema)
            try:
                is_object = isinstance(json.loads(text), dict)
            except ValueError as error:
                raise UserError(f"the JSON schema is not JSON: {error}") from None
            grammar = matcher.grammar_from_json_schema(text, LAYOUT if is_object else None)
        self._matcher = matcher(_known_tokens(tokenizer), grammar, log_level=0)
        self._size = tokenizer.vocab_size
        self._check()
        if not self.ended and not self._allowed().any():
            raise UserError(f"no text of this tokenizer's tokens satisfies the {self.what}")

    @property
    def ended(self) -> bool:
        """Whether the text is whole, so that nothing may follow."""
        return self._matcher.is_stopped()

    def copy(self) -> Constraint:
        """The same for another text; making it anew would take a large schema long."""
        other = copy.copy(self)
        other._matcher = self._matcher.deep_copy()
        return other

    def mask(self, logits: Tensor) -> Tensor:
        """Set the scores ``(V,)`` of what may not follow to minus infinity."""
        allowed = self._allowed()
        self._check()
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def take(self, token_id: int) -> None:
        """Go on by a token.

        Raises:
            UserError: the grammar becomes too complex for the library.
        """
        self._matcher.consume_token(token_id)
        self._check()

    def _allowed(self) -> Tensor:
        """Which tokens may follow: ``(V,)``."""
        import torch

        bits = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        each = (bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1  # lowest bit first
        return each.flatten()[: self._size].bool()

    def _check(self) -> None:
        if self._matcher.is_error():
            lines = self._matcher.get_error().splitlines()
            raise UserError(f"this {self.what} cannot be followed: {lines[0]}")


def read_schema(path: Path) -> str:
    """Read a file with a JSON schema.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_text(path, LARGEST_SCHEMA)
    except OSError as error:
        raise UserError(f"cannot read the JSON schema {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"cannot read the JSON schema {path}: {error}") from error


class _Tokens:
    """A tokenizer as llguidance wants to see it."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens = [_bytes_of(i, tokenizer) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = list(tokenizer.special_tokens.values())
        self.eos_token_id = tokenizer.eot_token
        if self.eos_token_id is None:  # the library needs one: an id that is never chosen
            self.eos_token_id = len(self.tokens)
            self.tokens.append(b"<end>")
            self.special_token_ids.append(self.eos_token_id)
        self._encode = tokenizer.encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _bytes_of(token_id: int, tokenizer: Tokenizer) -> bytes:
    try:
        return tokenizer.token_bytes(token_id)
    except UserError:  # a vocabulary may have gaps; nobody writes a token of no bytes
        return b""


@lru_cache(maxsize=4)
def _known_tokens(tokenizer: Tokenizer) -> Any:
    library = _library()
    wrapped = library.TokenizerWrapper(_Tokens(tokenizer))
    return library.LLTokenizer(wrapped)


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise UserError(
            "text of a given form needs the library llguidance; "
            "pip install 'groundup[constrained]' brings it"
        ) from None
    return llguidance

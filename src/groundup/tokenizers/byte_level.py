r"""The two ideas a GPT-2 style tokenizer starts from: bytes as letters, and a split pattern.

**Bytes as letters.** Any text is a row of UTF-8 bytes, so 256 byte tokens can spell everything and
no word is ever unknown. GPT-2's files write each byte as one visible character: `!` to `~` and most
of Latin-1 stand for themselves, the other 68 bytes (space, newline, control codes ...) take the
characters from U+0100 on. A space is `Ġ`, a newline `Ċ`. Sorted by these characters, the bytes have
the ids 0 to 255.

**The split pattern.** Text is cut into pieces (a word with the space before it, a number, a run of
punctuation) and no token ever spans two pieces: `"Hello, I'm"` gives `Hello` `,` `ĠI` `'m`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator
from typing import Literal

from groundup.errors import UserError, did_you_mean

END_OF_TEXT = "<|endoftext|>"

# Verbatim from OpenAI's gpt-2/src/encoder.py.
SPLIT_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

# Which special tokens a text may contain as themselves; any other one is plain text.
AllowedSpecial = set[str] | frozenset[str] | Literal["all"]


def _byte_characters() -> dict[int, str]:
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    characters = {byte: chr(byte) for byte in visible}
    return characters | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


BYTE_TO_CHARACTER = _byte_characters()
CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}

# The byte with id 0 is "!" and the byte with id 255 is the soft hyphen.
BYTE_TOKENS = [bytes([byte]) for byte in sorted(range(256), key=BYTE_TO_CHARACTER.__getitem__)]


def to_characters(token: bytes) -> str:
    """Return a token as GPT-2's files write it: `b" the"` is `"Ġthe"`."""
    return "".join([BYTE_TO_CHARACTER[byte] for byte in token])


def to_bytes(characters: str) -> bytes:
    """Return the bytes of a token from GPT-2's files; a foreign character raises `KeyError`."""
    return bytes([CHARACTER_TO_BYTE[character] for character in characters])


@functools.cache
def splitter() -> Callable[[str], list[str]]:
    """Return the function that cuts a text into GPT-2's pieces."""
    import regex  # the standard library's re has no \p{L}

    return regex.compile(SPLIT_PATTERN).findall


def check_text(text: str) -> None:
    """Refuse what cannot be written as UTF-8, before it becomes wrong tokens.

    Raises:
        UserError: the text is not a str, or holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise UserError(f"expected text (str) to encode, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has a lone surrogate, U+{ord(text[error.start]):04X}, at position "
            f"{error.start}, which UTF-8 cannot express; read the file as UTF-8, or with "
            "errors='replace'"
        ) from None


def check_allowed_special(names: AllowedSpecial, special_tokens: Collection[str]) -> set[str]:
    """Return the names of the special tokens that a text may contain as themselves.

    Raises:
        UserError: one of them is no special token of this tokenizer.
    """
    if isinstance(names, str):
        if names == "all":
            return set(special_tokens)
        raise UserError(f"allowed_special must be 'all' or a set of tokens; give {{{names!r}}}")
    for name in names:
        if name not in special_tokens:
            raise UserError(
                f"allowed_special names {name!r}, which is not a special token here (known: "
                f"{', '.join(special_tokens) or 'none'}){did_you_mean(name, special_tokens)}"
            )
    return set(names)


def split_special(text: str, allowed: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Yield (part of the text, is it a special token), the longest token first."""
    if not allowed:
        yield text, False
        return
    longest_first = sorted(allowed, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    for index, part in enumerate(parts):
        if part:
            yield part, index % 2 == 1

"""Byte-level BPE of every other kind than GPT-2's: Llama 3's, Qwen's, SmolLM's and their kin.

What their `tokenizer.json` says is done by the library that wrote it, Hugging Face's `tokenizers`;
here it gets the face of our own tokenizers (`interface.py`), and rules for special tokens that no
text can get around.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.tokenizers.byte_level import (
    END_OF_TEXT,
    AllowedSpecial,
    check_allowed_special,
    check_text,
)
from groundup.tokenizers.files import (
    CONFIG,
    check_directory,
    write_json,
    write_template,
)
from groundup.tokenizers.interface import Tokenizer
from groundup.tokenizers.parts import CUT
from groundup.tokenizers.reading import TokenizerFiles, parse_content
from groundup.tokenizers.settings import check_byte_level, steps_of
from groundup.tokenizers.splits import SPLITS, effects
from groundup.tokenizers.vocabulary import Vocabulary, check_ids, unknown_id

_OVERRIDING = {"chat_template", "auto_map", "add_prefix_space", "add_bos_token", "add_eos_token"}
"""What a tokenizer_config.json would set against the tokenizer.json, or says elsewhere."""


class LibraryTokenizer(Tokenizer):
    """A tokenizer that Hugging Face's library runs.

    Args:
        files: what a model directory, or a GGUF file, says of it.

    Raises:
        UserError: it is not byte-level BPE, or damaged.
    """

    name = "library"

    def __init__(self, files: TokenizerFiles) -> None:
        from tokenizers import Tokenizer as Library

        check_byte_level(files.content)
        self._files, self.chat_template = files, files.chat_template
        try:
            self._library = Library.from_str(json.dumps(files.content))
        except Exception as error:  # it knows no other kind
            raise UserError(f"the tokenizers library cannot use it: {error!s:.300}") from None
        self._library.no_truncation()  # settings of a call
        self._library.no_padding()
        self._library.encode_special_tokens = True  # special tokens are plain text; see split
        vocab = files.content["model"]["vocab"]
        added = files.content.get("added_tokens") or []
        self._added = {token["content"]: token for token in added}
        self._ids = vocab | {name: token["id"] for name, token in self._added.items()}
        self._roles = {role: token for role, token in files.roles.items() if token in self._ids}
        special = [name for name, token in self._added.items() if token.get("special", True)]
        names = dict.fromkeys([*special, *self._roles.values()])
        self._special_tokens: dict[str, int] = {name: self._ids[name] for name in names}
        self._begin = self._library.encode("").ids

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens, merges and special tokens as plain data; it may have holes and lack bytes."""
        return self._vocabulary

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        found = parse_content(self._files.content, strict=False)
        specials = self.special_tokens
        whole = set(specials.values())
        ids = {token: index for token, index in found.ids.items() if index not in whole}
        added = {token: i for token, i in found.added_tokens.items() if token not in specials}
        return Vocabulary(ids, found.merges, specials, added, strict=False)

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """Return the text's token ids; nothing is added to them.

        Args:
            text: any text. A special token spelled in it is plain text, since users type it too.
            allowed_special: special tokens that shall become their id instead, or `"all"`.

        Raises:
            UserError: the text has a lone surrogate, or `allowed_special` an unknown token.
        """
        check_text(text)
        ids: list[int] = []
        for part, index in self.split(
            text, check_allowed_special(allowed_special, self.special_tokens)
        ):
            if index is None:
                ids += self._library.encode(part, add_special_tokens=False).ids
            else:
                ids.append(index)
        return ids

    def pieces(self, text: str) -> Iterator[list[int]]:
        """Yield the ids of each piece that the text is cut into; no merge, and no token, spans two.

        Raises:
            UserError: as :meth:`encode`.
        """
        check_text(text)
        found = self._library.encode(text, add_special_tokens=False)
        numbered = zip(found.word_ids, found.ids, strict=True)
        for _, piece in groupby(numbered, key=lambda each: each[0]):
            yield [index for _, index in piece]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of token ids; one that is left out in the vocabulary has none.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        tokens, size, found = self.vocabulary.token_bytes, self.vocab_size, []
        for index in check_ids(ids):
            if not 0 <= index < size:
                raise unknown_id(index, size)
            found.append(tokens.get(index, b""))
        return b"".join(found)

    @cached_property
    def _size(self) -> int:
        return max(self._ids.values(), default=-1) + 1

    @property
    def vocab_size(self) -> int:
        """Every id is below it."""
        return self._size

    @property
    def eot_token(self) -> int | None:
        """The declared end-of-sequence token, else `<|endoftext|>`, if there is one."""
        return self._ids.get(self._roles.get("eos_token", END_OF_TEXT))

    @property
    def begin(self) -> list[int]:
        """The ids that a text begins with where it stands alone, such as Llama 3's BOS."""
        return list(self._begin)

    @property
    def roles(self) -> dict[str, str]:
        """Which token is `bos_token`, `eos_token`, …, as chat templates call them."""
        return dict(self._roles)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens and their ids: those that are called so, and those with a role."""
        return self._special_tokens

    @property
    def fingerprint(self) -> str:
        """A SHA-256: two tokenizers of the same one give every text the same ids."""
        rules = {part: self._files.content.get(part) for part in ("normalizer", "pre_tokenizer")}
        rules |= {"ignore_merges": self.ignore_merges, "added_tokens": [*self._added.values()]}
        said = self.vocabulary.fingerprint + json.dumps(rules, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def cuttable(self) -> bool:
        """Whether its split is one of `splits.py`, and no added word reaches across a cut."""
        known = {split.steps for split in SPLITS.values()}
        words = [token for token in self._added.values() if not token.get("special", True)]
        flags = ("lstrip", "rstrip", "single_word")
        across = any(
            CUT.search("a" + token["content"]) or any(token.get(flag) for flag in flags)
            for token in words
        )
        return tuple(effects(self.steps("pre_tokenizer"))) in known and not across

    def steps(self, part: str) -> list[Mapping[str, Any]]:
        """The steps of a part of its tokenizer.json that have an effect."""
        return steps_of(part, self._files.content)

    @property
    def ignore_merges(self) -> bool:
        """Whether a piece that is a token is that token, whatever its merges make."""
        return bool(self._files.content["model"].get("ignore_merges"))

    def save(self, directory: str | Path, model_max_length: int | None = None) -> None:
        """Write the `tokenizer.json` it came from, and a configuration that lets it be as it is.

        The generic class in it takes tokenizer.json as it is. transformers 5 gives the classes that
        SmolLM2's and others' files name their own split instead, and with it other ids.

        Raises:
            UserError: the path is a file.
        """
        directory = check_directory(directory)
        config = {k: v for k, v in self._files.config.items() if k not in _OVERRIDING}
        config = {"clean_up_tokenization_spaces": False, **config}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        write_json(directory / "tokenizer.json", self._files.content)
        write_json(directory / CONFIG, config)
        write_template(directory, self.chat_template)

    def __reduce__(self) -> tuple[type[LibraryTokenizer], tuple[TokenizerFiles]]:
        return type(self), (self._files,)

    def split(self, text: str, special: Collection[str]) -> Iterator[tuple[str, int | None]]:
        """Yield each part of a text with the id of the special token that it is, or None.

        It is what the library does, but for any choice of special tokens: one may take the white
        space around it, or be no part of a word.
        """
        if not special:
            yield text, None
            return
        longest_first = sorted(special, key=len, reverse=True)
        done = 0
        for match in re.finditer("|".join(map(re.escape, longest_first)), text):
            begin, end, token = match.start(), match.end(), self._added.get(match[0], {})
            if token.get("single_word") and (_in_word(text, begin - 1) or _in_word(text, end)):
                continue
            if token.get("lstrip"):
                begin = max(done, len(text[:begin].rstrip()))
            if token.get("rstrip"):
                end += len(text[end:]) - len(text[end:].lstrip())
            if begin > done:
                yield text[done:begin], None
            yield text[begin:end], self.special_tokens[match[0]]
            done = end
        if done < len(text) or not text:
            yield text[done:], None


def _in_word(text: str, place: int) -> bool:
    """Whether there is a letter, a digit or an underscore at a place."""
    return 0 <= place < len(text) and bool(re.match(r"\w", text[place]))

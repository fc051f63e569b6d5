"""Open a tokenizer by name or from a directory, whoever made it."""

from __future__ import annotations

from pathlib import Path

from groundup.errors import UserError
from groundup.tokenizers.bpe import BPETokenizer
from groundup.tokenizers.byte_level import END_OF_TEXT
from groundup.tokenizers.gpt2 import GPT2Tokenizer, get_gpt2_tokenizer, is_gpt2
from groundup.tokenizers.interface import Tokenizer
from groundup.tokenizers.library import LibraryTokenizer
from groundup.tokenizers.reading import (
    TokenizerFiles,
    parse_files,
    read_openai_vocabulary,
    to_vocabulary,
)
from groundup.tokenizers.settings import is_gpt2_like
from groundup.tokenizers.vocabulary import Vocabulary


def load_tokenizer(directory: str | Path, vocab_size: int | None = None) -> Tokenizer:
    """Open the tokenizer of a model directory; GPT-2's own vocabulary gets tiktoken's speed.

    What does the same as GPT-2's with another vocabulary is our own `BPETokenizer`; any other
    byte-level BPE runs in Hugging Face's library (`library.py`). Tokens that were added for a
    model that knows only ``vocab_size`` of them are left out.

    Raises:
        UserError: there is no `tokenizer.json`, or not one that can be used here.
    """
    return parse_files(directory, lambda files: open_tokenizer(files, vocab_size))


def open_tokenizer(files: TokenizerFiles, vocab_size: int | None = None) -> Tokenizer:
    """The same, of what such files say.

    Raises:
        UserError: it is not byte-level BPE, or damaged.
    """
    ends = {files.roles.get(role, END_OF_TEXT) for role in ("bos_token", "eos_token")}
    if ends == {END_OF_TEXT} and is_gpt2_like(files.content):
        vocabulary = to_vocabulary(files)
        tokenizer = _tokenizer_of(vocabulary.within(vocab_size) if vocab_size else vocabulary)
        tokenizer.chat_template = files.chat_template
        return tokenizer
    return LibraryTokenizer(files.within(vocab_size) if vocab_size else files)


def load_openai_tokenizer(directory: Path) -> BPETokenizer | GPT2Tokenizer:
    """Open the tokenizer of a folder with OpenAI's `encoder.json` and `vocab.bpe`.

    Raises:
        UserError: one of them is missing or damaged.
    """
    return _tokenizer_of(read_openai_vocabulary(directory))


def get_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """Return the tokenizer that a command line names: `gpt2`, a directory, or a tokenizer.json.

    Raises:
        UserError: it is none of these, or what is there cannot be used.
    """
    if str(name_or_path) == "gpt2":
        return get_gpt2_tokenizer()
    if not Path(name_or_path).exists():
        raise UserError(
            f"unknown tokenizer {str(name_or_path)!r}; give gpt2, or the path of a directory with "
            "a tokenizer.json or of the file itself"
        )
    if Path(name_or_path).suffix == ".pkl":
        raise UserError(
            f"{name_or_path} is a pickle, as nanoGPT's vocabularies of characters are, and "
            "groundup opens none: it would run what is in it. Convert your own in Python: "
            f"stoi = pickle.load(open({str(name_or_path)!r}, 'rb'))['stoi'], then "
            "groundup.BPETokenizer.from_characters(stoi).save('characters')"
        )
    return load_tokenizer(name_or_path)


def _tokenizer_of(vocabulary: Vocabulary) -> BPETokenizer | GPT2Tokenizer:
    if is_gpt2(vocabulary):
        return GPT2Tokenizer.from_vocabulary(vocabulary)
    return BPETokenizer(vocabulary)

"""Open a tokenizer by name or from a directory, whoever made it."""

from __future__ import annotations

from pathlib import Path

from groundup.errors import UserError
from groundup.tokenizers.bpe import BPETokenizer
from groundup.tokenizers.files import read_openai_vocabulary, read_vocabulary
from groundup.tokenizers.gpt2 import GPT2Tokenizer, get_gpt2_tokenizer, is_gpt2
from groundup.tokenizers.vocabulary import Vocabulary


def load_tokenizer(
    directory: str | Path, vocab_size: int | None = None
) -> BPETokenizer | GPT2Tokenizer:
    """Open the tokenizer of a model directory; GPT-2's own vocabulary gets tiktoken's speed.

    Tokens that were added for a model that knows only ``vocab_size`` of them are left out.

    Raises:
        UserError: there is no `tokenizer.json`, or not one that can be used here.
    """
    vocabulary = read_vocabulary(directory)
    return _tokenizer_of(vocabulary.within(vocab_size) if vocab_size else vocabulary)


def load_openai_tokenizer(directory: Path) -> BPETokenizer | GPT2Tokenizer:
    """Open the tokenizer of a folder with OpenAI's `encoder.json` and `vocab.bpe`.

    Raises:
        UserError: one of them is missing or damaged.
    """
    return _tokenizer_of(read_openai_vocabulary(directory))


def get_tokenizer(name_or_path: str | Path) -> BPETokenizer | GPT2Tokenizer:
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

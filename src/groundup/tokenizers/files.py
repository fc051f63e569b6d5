"""Write a byte-level BPE vocabulary as Hugging Face's tokenizer files.

`tokenizer.json` holds everything, and is laid out by Hugging Face's own library;
`tokenizer_config.json` tells transformers how to open it; `vocab.json` and `merges.txt` are GPT-2's
original pair of files, for older tools. `reading.py` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.tokenizers.byte_level import END_OF_TEXT, to_characters
from groundup.tokenizers.vocabulary import Merge, Vocabulary

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"

MERGES_HEADER = "#version: 0.2"


def write_vocabulary(
    directory: str | Path, vocabulary: Vocabulary, model_max_length: int | None = None
) -> None:
    """Write the four files into a directory, which is created if need be.

    Raises:
        UserError: the path is a file, not a directory.
    """
    directory = check_directory(directory)
    vocab = {to_characters(token): index for token, index in vocabulary.ids.items()}
    vocab |= vocabulary.special_tokens | vocabulary.added_tokens
    vocab = dict(sorted(vocab.items(), key=lambda item: item[1]))
    config = _tokenizer_config(vocabulary, model_max_length)
    _write(directory / "tokenizer.json", _tokenizer_json(vocab, vocabulary))
    write_json(directory / CONFIG, config)
    _write(directory / "vocab.json", json.dumps(vocab, ensure_ascii=False))
    (directory / "merges.txt").write_bytes(merges_file(vocabulary.merges))


def check_directory(directory: str | Path) -> Path:
    """The directory to write a tokenizer into, which is made if need be.

    Raises:
        UserError: the path is a file, not a directory.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"cannot save a tokenizer in {directory}: it is a file; give a directory")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def merges_file(merges: Iterable[Merge]) -> bytes:
    """Return the content of `merges.txt`; for GPT-2, OpenAI's `vocab.bpe` byte for byte."""
    lines = [f"{to_characters(left)} {to_characters(right)}\n" for left, right in merges]
    return f"{MERGES_HEADER}\n{''.join(lines)}".encode()


def _tokenizer_json(vocab: dict[str, int], vocabulary: Vocabulary) -> str:
    """The file as the `tokenizers` library writes the same tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    merges = [(to_characters(left), to_characters(right)) for left, right in vocabulary.merges]
    library = Tokenizer(models.BPE(vocab, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    specials = [token for token in vocab if token in vocabulary.special_tokens]
    library.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    library.add_tokens([AddedToken(token, normalized=False) for token in vocabulary.added_tokens])
    return library.to_str(pretty=True)


def _tokenizer_config(vocabulary: Vocabulary, model_max_length: int | None) -> dict[str, Any]:
    # The generic class takes tokenizer.json as it is, in transformers 4 and 5.
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,  # transformers 4 would turn "a ." into "a."
    }
    if END_OF_TEXT in vocabulary.special_tokens:
        config |= dict.fromkeys(["bos_token", "eos_token", "unk_token"], END_OF_TEXT)
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    return config


def write_json(path: Path, value: object) -> None:
    """Write a value for people to read too; a number or a key comes back as it was."""
    _write(path, json.dumps(value, ensure_ascii=False, indent=2))


def write_text(path: Path, text: str) -> None:
    """Write a text as it is, in UTF-8 and with its own line ends."""
    path.write_text(text, encoding="utf-8", newline="")


def write_template(directory: str | Path, template: str | None) -> None:
    """Write a chat template to its file, if there is one."""
    if template is not None:
        write_text(Path(directory) / TEMPLATE, template)


def _write(path: Path, text: str) -> None:
    write_text(path, text + "\n")

"""Read and write a byte-level BPE vocabulary as Hugging Face's tokenizer files.

`tokenizer.json` holds everything, and is laid out by Hugging Face's own library;
`tokenizer_config.json` tells transformers how to open it; `vocab.json` and `merges.txt` are GPT-2's
original pair of files, for older tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.tokenizers.byte_level import END_OF_TEXT, to_bytes, to_characters
from groundup.tokenizers.vocabulary import Merge, Vocabulary

MERGES_HEADER = "#version: 0.2"


def write_vocabulary(
    directory: str | Path, vocabulary: Vocabulary, model_max_length: int | None = None
) -> None:
    """Write the four files into a directory, which is created if need be.

    Raises:
        UserError: the path is a file, not a directory.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"cannot save a tokenizer in {directory}: it is a file; give a directory")
    directory.mkdir(parents=True, exist_ok=True)

    vocab = {to_characters(token): index for token, index in vocabulary.ids.items()}
    vocab |= vocabulary.special_tokens
    vocab = dict(sorted(vocab.items(), key=lambda item: item[1]))
    config = _tokenizer_config(vocabulary, model_max_length)
    _write(directory / "tokenizer.json", _tokenizer_json(vocab, vocabulary))
    _write(directory / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2))
    _write(directory / "vocab.json", json.dumps(vocab, ensure_ascii=False))
    (directory / "merges.txt").write_bytes(merges_file(vocabulary.merges))


def read_openai_vocabulary(directory: Path) -> Vocabulary:
    """Read OpenAI's pair of files.

    Raises:
        UserError: one is missing or damaged, or the two do not fit together.
    """
    try:
        encoder = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))
        merges = parse_merges((directory / "vocab.bpe").read_text(encoding="utf-8"))
        special = [END_OF_TEXT] if END_OF_TEXT in encoder else []
        vocabulary = Vocabulary.from_merges(merges, special)
        names = {to_characters(token): index for token, index in vocabulary.ids.items()}
        if names | vocabulary.special_tokens != encoder:
            raise ValueError("encoder.json does not number what vocab.bpe merges")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{directory}: encoder.json and vocab.bpe cannot be used: {error}"
        ) from None
    return vocabulary


def merges_file(merges: Iterable[Merge]) -> bytes:
    """Return the content of `merges.txt`; for GPT-2, OpenAI's `vocab.bpe` byte for byte."""
    lines = [f"{to_characters(left)} {to_characters(right)}\n" for left, right in merges]
    return f"{MERGES_HEADER}\n{''.join(lines)}".encode()


def parse_merges(text: str) -> list[Merge]:
    """Undo :func:`merges_file`; a line that is no pair of tokens raises an error of Python's."""
    pairs = [line.split(" ") for line in text.splitlines()[1:] if line]
    return [(to_bytes(left), to_bytes(right)) for left, right in pairs]


def _tokenizer_json(vocab: dict[str, int], vocabulary: Vocabulary) -> str:
    """The file as the `tokenizers` library writes the same tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    merges = [(to_characters(left), to_characters(right)) for left, right in vocabulary.merges]
    library = Tokenizer(models.BPE(vocab, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    specials = [token for token in vocab if token in vocabulary.special_tokens]
    library.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
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


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read a `tokenizer.json`, given the file or its directory, without the `tokenizers` library.

    Its `truncation` and `padding` are settings of a call, not of the vocabulary, and are left out.

    Raises:
        UserError: the file is missing, not valid, inconsistent, or asks for something that
            byte-level BPE as GPT-2 does it has not (a normalizer, a prefix space, ...).
    """
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot read {file} ({error.strerror}); give a model directory with a tokenizer.json"
        ) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise UserError(
            f"{file} is not valid JSON ({error}); it may be truncated, so copy or save it again"
        ) from None
    try:
        _check_is_byte_level_bpe(content)
        return _parse(content)
    except UserError as error:
        raise UserError(f"cannot use {file}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{file} is not laid out as a tokenizer.json ({problem}); save the tokenizer again"
        ) from None


# What a tokenizer.json may say, part by part; a key that is absent has the first value.
_ACCEPTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "pre_tokenizer": {"type": ("ByteLevel",), "add_prefix_space": (False,), "use_regex": (True,)},
    "decoder": {"type": ("ByteLevel",)},
    "normalizer": {"type": (None,)},
    "post_processor": {"type": (None, "ByteLevel")},  # GPT-2's own is ByteLevel: it adds nothing
    "model": {
        "type": ("BPE",),
        "dropout": (None, 0),
        "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""),
        "byte_fallback": (False,),
        "ignore_merges": (False,),
    },
}
_ACCEPTED_ADDED_TOKEN: dict[str, tuple[Any, ...]] = {
    "special": (True,),
    **dict.fromkeys(("single_word", "lstrip", "rstrip"), (False,)),
}


def _check_is_byte_level_bpe(content: dict[str, Any]) -> None:
    """Refuse whatever would make the `tokenizers` library give other ids than ours."""
    for part, accepted in _ACCEPTED.items():
        _check_part(part, content.get(part) or {"type": None}, accepted)
    for token in content.get("added_tokens") or []:
        _check_part(f"added token {token['content']!r}", token, _ACCEPTED_ADDED_TOKEN)


def _check_part(part: str, found: dict[str, Any], accepted: dict[str, tuple[Any, ...]]) -> None:
    for key, values in accepted.items():
        if found.get(key, values[0]) not in values:
            raise UserError(
                f"its {part} has {key} = {json.dumps(found[key])}, and only "
                f"{' or '.join(map(json.dumps, values))} is supported here (byte-level BPE with "
                "GPT-2's split); open it with transformers.AutoTokenizer"
            )


def _parse(content: dict[str, Any]) -> Vocabulary:
    vocab: dict[str, int] = dict(content["model"]["vocab"])
    specials: dict[str, int] = {}
    for token in content.get("added_tokens") or []:
        name, index = token["content"], token["id"]
        if vocab.pop(name, index) != index:
            raise UserError(f"the special token {name!r} has two ids, {index} among them")
        specials[name] = index
    ids = {_token(characters): index for characters, index in vocab.items()}
    merges = [_merge(merge) for merge in content["model"]["merges"]]
    return Vocabulary(ids, merges, specials)


def _merge(merge: str | list[str]) -> Merge:
    """Parse `["a", "b"]`, or `"a b"` as older files have it."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise UserError(f"the merge {merge!r} is not a pair of tokens")
    return _token(parts[0]), _token(parts[1])


def _token(characters: str) -> bytes:
    try:
        return to_bytes(characters)
    except KeyError:
        raise UserError(
            f"the token {characters!r} is not spelled in GPT-2's byte characters, so this is not a "
            "byte-level vocabulary"
        ) from None

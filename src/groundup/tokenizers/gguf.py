"""A tokenizer out of what a GGUF file says of it, and what to write into one: plain values.

llama.cpp keeps the tokens, their types and merges, and names the way of cutting texts
(``splits.py``). Reading makes the ``tokenizer.json`` that says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.errors import UserError
from groundup.tokenizers.byte_level import to_characters
from groundup.tokenizers.interface import Tokenizer
from groundup.tokenizers.library import LibraryTokenizer
from groundup.tokenizers.opening import open_tokenizer
from groundup.tokenizers.reading import TokenizerFiles
from groundup.tokenizers.splits import Split, effects, find_split, name_of, written

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
"""llama.cpp's types of tokens; bytes by themselves (6) are SentencePiece's."""

_PREFIX = "tokenizer.ggml."
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}

# llama.cpp refuses a file with no merges. A piece never holds a letter before a space, so this
# merge changes nothing.
_NO_MERGES = ["a Ġ"]


def read_gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in a GGUF file, with its chat template if it has one.

    Tokens of the type "control" are special, "user defined" ones are added words, and "unused" ones
    are no tokens.

    Args:
        metadata: the file's, as Python's values (``reader.fields[name].contents()``) by name.

    Raises:
        UserError: it is not byte-level BPE, its way of cutting texts is not known here, or
            something is missing or damaged.
    """
    if (kind := metadata.get(f"{_PREFIX}model")) != "gpt2":
        raise UserError(
            f"its tokenizer.ggml.model is {kind!r}, and only 'gpt2', byte-level BPE, can be opened "
            "here (not SentencePiece's 'llama', 'bert', 't5', …); choose a model such as SmolLM2, "
            "Llama 3 or Qwen3"
        )
    split = find_split(metadata.get(f"{_PREFIX}pre", "default"))
    try:
        return open_tokenizer(_files(metadata, split))
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"its tokenizer is damaged ({type(error).__name__}: {error!s:.200}); "
            "convert or download the file again"
        ) from None


def _files(metadata: Mapping[str, Any], split: Split) -> TokenizerFiles:
    """The model directory's files that say the same."""
    tokens = _list(metadata, "tokens")
    types = _list(metadata, "token_type", [NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise UserError(f"it lists {len(tokens)} tokens and the types of {len(types)}")
    found = {role: metadata.get(_PREFIX + key, -1) for role, key in _ROLES.items()}
    # A file may say -1, or an id that is none.
    roles = {role: tokens[at] for role, at in found.items() if 0 <= at < len(tokens)}
    vocab: dict[str, int] = {}
    added: list[dict[str, Any]] = []
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == UNUSED:
            continue
        if vocab.setdefault(token, index) != index:
            raise UserError(f"it has the token {token!r:.60} twice, as {vocab[token]} and {index}")
        if kind in (UNKNOWN, CONTROL, USER_DEFINED):
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append({"id": index, "content": token, **flags, "special": kind != USER_DEFINED})
    model = {
        "type": "BPE",
        **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix"), None),
        **{"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False},
        "ignore_merges": split.ignore_merges,
        "vocab": vocab,
        "merges": [merge.split(" ") for merge in _list(metadata, "merges", [])],
    }
    if model["merges"] == [merge.split(" ") for merge in _NO_MERGES] and "aĠ" not in vocab:
        model["merges"] = []
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if split.nfc else None,
        "pre_tokenizer": written(split.steps),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
        | {"use_regex": True},
        "model": model,
    }
    if metadata.get(f"{_PREFIX}add_bos_token", split.adds_bos) and "bos_token" in roles:
        content["post_processor"] = _begin(roles["bos_token"], vocab[roles["bos_token"]])
    template = metadata.get("tokenizer.chat_template")
    return TokenizerFiles(content, dict(roles), template if isinstance(template, str) else None)


def _list(metadata: Mapping[str, Any], name: str, default: list[Any] | None = None) -> list[Any]:
    found = metadata.get(_PREFIX + name, default)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise UserError(f"it has no list {_PREFIX}{name}; convert or download the file again")
    return list(found)


def _begin(token: str, index: int) -> dict[str, Any]:
    """A post-processor that begins every text with a token."""
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    pair = [special, text, _second(special), _second({"Sequence": {"id": "B", "type_id": 0}})]
    return {
        "type": "TemplateProcessing",
        "single": [special, text],
        "pair": pair,
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }


def _second(piece: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {kind: {**what, "type_id": 1} for kind, what in piece.items()}


def gguf_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """What a GGUF file says of a tokenizer, by name, but for the chat template.

    Args:
        tokenizer: any of ours.
        vocab_size: the model's; ids that are no tokens become unused ones.

    Raises:
        UserError: llama.cpp has no such way of cutting texts, a token is there twice, nothing ends
            a text, or the model has fewer tokens than the tokenizer.
    """
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model vocab_size {vocab_size}; "
            "export the model with its own tokenizer"
        )
    if tokenizer.eot_token is None:
        raise UserError(
            "the tokenizer has no <|endoftext|>, and llama.cpp would take an ordinary token (id "
            "11) for the end of the text; train with a tokenizer that has it"
        )
    vocabulary = tokenizer.vocabulary
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]  # llama.cpp's own spelling
    types = [UNUSED] * vocab_size
    ordinary = {to_characters(token): index for token, index in vocabulary.ids.items()}
    kinds = {NORMAL: ordinary, CONTROL: vocabulary.special_tokens}
    for kind, ids in (kinds | {USER_DEFINED: vocabulary.added_tokens}).items():
        for token, index in ids.items():
            tokens[index], types[index] = token, kind
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise UserError(
            f"the token {twice!r} is there twice, as an ordinary and as a special token, which "
            "GGUF cannot tell apart; train a tokenizer with other special tokens"
        )
    merges = [f"{to_characters(a)} {to_characters(b)}" for a, b in vocabulary.merges]
    eos = {"eos_token": tokenizer.eot_token, "bos_token": tokenizer.eot_token}
    roles = eos | {role: tokenizer.special_tokens[t] for role, t in tokenizer.roles.items()}
    return {
        f"{_PREFIX}model": "gpt2",
        f"{_PREFIX}pre": _pre(tokenizer),
        f"{_PREFIX}tokens": tokens,
        f"{_PREFIX}token_type": types,
        f"{_PREFIX}merges": merges or _NO_MERGES,
        **{_PREFIX + key: roles[role] for role, key in _ROLES.items() if role in roles},
        f"{_PREFIX}add_bos_token": bool(tokenizer.begin),
    }


def _pre(tokenizer: Tokenizer) -> str:
    """llama.cpp's name for how a tokenizer cuts texts."""
    if not isinstance(tokenizer, LibraryTokenizer):
        return "gpt-2"
    name = name_of(effects(tokenizer.steps("pre_tokenizer")), tokenizer.ignore_merges)
    begin, bos = tokenizer.begin, tokenizer.roles.get("bos_token")
    if begin and begin != [tokenizer.special_tokens.get(bos or "")]:
        raise UserError(
            f"the tokenizer begins a text with the ids {begin}, llama.cpp with the BOS token alone "
            f"({bos or 'of which there is none'}); use --to hf"
        )
    if name is None:
        raise UserError(
            "the tokenizer cuts texts in a way that has no name in llama.cpp, or takes whole "
            "pieces for tokens where llama.cpp does not; use --to hf"
        )
    return name

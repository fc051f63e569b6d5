"""Read the files of a tokenizer, whoever wrote them: `tokenizer.json`, or the older pairs of files.

The configuration and the chat template beside them are read too (`files.py` writes them all).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from groundup.errors import UserError
from groundup.parsing import from_json, read_json, read_text
from groundup.tokenizers.byte_level import END_OF_TEXT, to_bytes
from groundup.tokenizers.files import CONFIG, TEMPLATE
from groundup.tokenizers.settings import check_settings
from groundup.tokenizers.vocabulary import Merge, Vocabulary

T = TypeVar("T")

LARGEST = 128 << 20
"""Bytes of a file with a vocabulary; the largest that models have are a fourth of that."""

ROLES = [f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]


@dataclass(frozen=True)
class TokenizerFiles:
    """What a model directory says of its tokenizer.

    Attributes:
        content: of ``tokenizer.json``.
        config: of ``tokenizer_config.json``, and the roles of an older
            ``special_tokens_map.json``.
        chat_template: in Jinja, wherever it was found.
    """

    content: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    chat_template: str | None = None

    @property
    def roles(self) -> dict[str, str]:
        """Which token is ``bos_token``, ``eos_token``, …, as far as it is said."""
        found = {role: self.config.get(role) for role in ROLES}
        named = {r: t["content"] if isinstance(t, dict) else t for r, t in found.items() if t}
        return {role: token for role, token in named.items() if isinstance(token, str)}

    def within(self, size: int) -> TokenizerFiles:
        """Without tokens that were added at the end of it for a model that has no room for them."""
        vocab, added = self.content["model"]["vocab"], self.content.get("added_tokens") or []
        kept = [token for token in added if token["id"] < size]
        if len(kept) == len(added) or max(vocab.values(), default=0) >= size:
            return self
        left_out = {token["content"] for token in added} - {token["content"] for token in kept}
        roles = {role for role, token in self.roles.items() if token in left_out}
        config = {key: value for key, value in self.config.items() if key not in roles}
        config.pop("added_tokens_decoder", None)  # transformers finds them in tokenizer.json
        return TokenizerFiles(self.content | {"added_tokens": kept}, config, self.chat_template)


def read_openai_vocabulary(directory: Path) -> Vocabulary:
    """Read OpenAI's pair of files.

    Raises:
        UserError: one is missing or damaged, or the two do not fit together.
    """
    try:
        return parse_content(_pair(directory, "encoder.json", "vocab.bpe", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{directory}: encoder.json and vocab.bpe cannot be used: {error}"
        ) from None


def parse_merges(text: str) -> list[Merge]:
    """Undo :func:`merges_file`.

    Raises:
        UserError: a line is no pair of tokens.
    """
    return [_merge(line) for line in text.splitlines() if line and not line.startswith("#version")]


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read a `tokenizer.json`, given the file or its directory, without the `tokenizers` library.

    A directory may have the pair `vocab.json` and `merges.txt` instead. What the settings in these
    files do to a text must be what GPT-2's do (`settings.py`). `truncation` and `padding` are
    settings of a call, not of the vocabulary, and are left out.

    Raises:
        UserError: the file is missing, not valid, inconsistent, or asks for something that
            byte-level BPE as GPT-2 does it has not (a normalizer, a prefix space, ...).
    """
    return parse_files(path, to_vocabulary)


def to_vocabulary(files: TokenizerFiles) -> Vocabulary:
    """The vocabulary of a tokenizer that does what GPT-2's does."""
    check_settings(files.content)
    return parse_content(files.content)


def parse_files(path: str | Path, parse: Callable[[TokenizerFiles], T]) -> T:
    """Read a `tokenizer.json` and what belongs to it, given the file or its directory.

    Args:
        path: where it is.
        parse: makes something of it; what it stumbles over is told as a mistake in the file.

    Raises:
        UserError: a file is missing or not valid, or ``parse`` cannot use it.
    """
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    in_two = path.is_dir() and not file.exists() and (path / "vocab.json").exists()
    file = path / "vocab.json" if in_two else file
    try:
        return parse(_read_files(path, file, in_two))
    except OSError as error:
        what = "with a tokenizer.json, or with vocab.json and merges.txt"
        if (path / "tokenizer.model").exists():
            what += "; its tokenizer.model is SentencePiece's, as Llama 2's, which is not read here"
        raise UserError(
            f"cannot read {error.filename} ({error.strerror}); give a model directory {what}"
        ) from None
    except UserError as error:
        raise UserError(f"cannot use {file}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{file} is not laid out as a tokenizer's ({problem:.300}); save the tokenizer again"
        ) from None


def _read_files(path: Path, file: Path, in_two: bool) -> TokenizerFiles:
    beside = path if path.is_dir() else None
    config, older = ({}, {})
    if beside is not None:
        config, older = (
            read_json(beside / name) if (beside / name).exists() else {}
            for name in (CONFIG, "special_tokens_map.json")
        )
    content = _pair(path, "vocab.json", "merges.txt", config) if in_two else _read(file)
    if config.get("add_prefix_space") and "GPT2Tokenizer" in config.get("tokenizer_class", ""):
        content = content | {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}
    roles = {role: older[role] for role in ROLES if role in older}
    return TokenizerFiles(content, roles | config, beside and _template(beside, config))


def _template(directory: Path, config: Mapping[str, Any]) -> str | None:
    """A model's own chat template; of several that have names, the one called default."""
    if (directory / TEMPLATE).exists():
        return read_text(directory / TEMPLATE)
    found = config.get("chat_template")
    if isinstance(found, list):
        found = {one["name"]: one["template"] for one in found}.get("default")
    return found if isinstance(found, str) else None


def has_template(directory: Path) -> bool:
    """Whether a model directory brings a chat template of its own.

    Raises:
        UserError: a file that might say so is damaged.
    """
    if not directory.is_dir():
        return False
    config = read_json(directory / CONFIG) if (directory / CONFIG).exists() else {}
    try:
        return _template(directory, config) is not None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the chat template of {directory} cannot be read: {error}") from None


def _read(file: Path) -> Any:
    try:
        return from_json(read_text(file, LARGEST))
    except ValueError as error:  # not UTF-8, or not JSON
        problem = f"{file.name} is not valid JSON ({error})"
        raise UserError(f"{problem}; it may be truncated, so copy or save it again") from None


def _pair(
    directory: Path, vocab_name: str, merges_name: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """A vocabulary and its merges in two files, as the `tokenizer.json` that says the same.

    Which tokens are special is said elsewhere, if at all; `<|endoftext|>` always is.
    """
    kind = str(config.get("tokenizer_class") or "GPT2Tokenizer")
    if kind.removesuffix("Fast") not in ("GPT2Tokenizer", "PreTrainedTokenizer"):
        raise UserError(
            f"{vocab_name} and {merges_name} do not say how a {kind:.60} splits texts; save it "
            "with transformers as a tokenizer.json"
        )
    vocab = _read(directory / vocab_name)
    merges = parse_merges(read_text(directory / merges_name, LARGEST))
    others, more = (
        read_json(directory / name) if (directory / name).exists() else {}
        for name in ("special_tokens_map.json", "added_tokens.json")
    )
    roles = [config.get(role, others.get(role)) for role in ROLES]
    roles += others.get("additional_special_tokens") or []
    specials = {END_OF_TEXT, *(t["content"] if isinstance(t, dict) else t for t in roles if t)}
    ids = more | {name: vocab[name] for name in specials if name in vocab}
    added = {
        name: {"content": name, "id": index, "special": name in specials}
        for name, index in ids.items()
    }
    for index, token in (config.get("added_tokens_decoder") or {}).items():
        added[token["content"]] = {**token, "id": int(index)}
    bos = [{"SpecialToken": {"id": str(config.get("bos_token", END_OF_TEXT))}}]
    begin = bos if config.get("add_bos_token") else []
    return {
        "model": {"vocab": vocab, "merges": merges},
        "added_tokens": list(added.values()),
        "pre_tokenizer": {"type": "ByteLevel"},
        "decoder": {"type": "ByteLevel"},
        "post_processor": {"type": "TemplateProcessing", "single": [*begin, {"Sequence": "A"}]},
    }


def parse_content(content: Mapping[str, Any], *, strict: bool = True) -> Vocabulary:
    """The vocabulary in a ``tokenizer.json``, whatever its settings; see :class:`Vocabulary`."""
    vocab: dict[str, int] = dict(content["model"]["vocab"])
    specials: dict[str, int] = {}
    added: dict[str, int] = {}
    for token in content.get("added_tokens") or []:
        name, index = token["content"], token["id"]
        if vocab.pop(name, index) != index:
            raise UserError(f"the special token {name!r} has two ids, {index} among them")
        name.encode()  # half a character raises ValueError
        (specials if token.get("special", True) else added)[name] = index
    if not all(type(index) is int for ids in (vocab, specials, added) for index in ids.values()):
        raise TypeError("an id is not a whole number")
    ids = {_token(characters): index for characters, index in vocab.items()}
    merges = [_merge(merge) for merge in content["model"]["merges"]]
    return Vocabulary(ids, merges, specials, added, strict)


def _merge(merge: str | Sequence[str | bytes]) -> Merge:
    """Parse `["a", "b"]`, or `"a b"` as older files have it."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise UserError(f"the merge {merge!r:.60} is not a pair of tokens")
    return _token(parts[0]), _token(parts[1])


def _token(characters: str | bytes) -> bytes:
    if isinstance(characters, bytes):
        return characters
    try:
        return to_bytes(characters)
    except KeyError:
        raise UserError(
            f"the token {characters!r:.60} is not spelled in GPT-2's byte characters, so this is "
            "not a byte-level vocabulary"
        ) from None

r"""How byte-level BPE tokenizers cut a text before they merge: the patterns of known models.

A tokenizer.json writes it out as a ``pre_tokenizer``; a GGUF file has only its name in llama.cpp,
``tokenizer.ggml.pre``, which this table translates in both directions.

In every one of them a text may be cut in front of a space that follows something else, and of a
line feed that follows a letter or a digit, without changing its pieces (``parts.py``): no
alternative takes white space behind other characters, but for a run of punctuation, which may take
the line ends after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.errors import UserError
from groundup.tokenizers.byte_level import SPLIT_PATTERN

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
LLAMA3 = _WORDS + r"|\p{N}{1,3}" + _REST
QWEN2 = _WORDS + r"|\p{N}" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# OpenAI's pattern, the same as tiktoken spells it, and as llama.cpp does.
GPT2 = (
    SPLIT_PATTERN,
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
)

Step = tuple[str, Any]
"""What a step of a pre_tokenizer does: its kind, and what of its settings has an effect."""

_BYTES: Step = ("ByteLevel", False)
_GPT2: Step = ("ByteLevel", True)  # and GPT-2's split
_DIGITS: Step = ("Digits", True)


@dataclass(frozen=True)
class Split:
    """How a kind of model cuts its texts.

    Attributes:
        steps: of its pre_tokenizer.
        nfc: whether its tokenizer.json first composes characters; llama.cpp never does.
        ignore_merges: whether a piece that is a token is that token, whatever its merges make.
        adds_bos: whether llama.cpp begins every text with the first token unless told otherwise.
    """

    steps: tuple[Step, ...]
    nfc: bool = False
    ignore_merges: bool = False
    adds_bos: bool = False


_DIGITS_ALONE = Split((_DIGITS, _GPT2))
_OF_LLAMA3 = Split((("Split", LLAMA3), _BYTES), ignore_merges=True, adds_bos=True)
_OF_QWEN2 = Split((("Split", QWEN2), _BYTES), nfc=True)

SPLITS: dict[str, Split] = {
    "gpt-2": Split((_GPT2,)),
    "smollm": _DIGITS_ALONE,
    "starcoder": _DIGITS_ALONE,
    "llama-bpe": _OF_LLAMA3,
    "llama3": _OF_LLAMA3,
    "llama-v3": _OF_LLAMA3,
    "qwen2": _OF_QWEN2,
    "deepseek-r1-qwen": _OF_QWEN2,
    "tekken": Split((("Split", TEKKEN), _BYTES), ignore_merges=True, adds_bos=True),
    "default": Split(  # what llama.cpp does where a file names none
        (
            ("Split", r"[\p{P}\$\+<=>\^~\|]+"),
            ("Split", GPT2[0].removesuffix(r"|\s+")),
            ("Split", r"\p{N}+"),
            ("Split", "[0-9][0-9][0-9]"),
            _BYTES,
        )
    ),
}
"""By llama.cpp's name. Where several names mean the same, the first one is written."""


def find_split(name: str) -> Split:
    """The split that llama.cpp calls so.

    Raises:
        UserError: it is none of those known here.
    """
    if name not in SPLITS:
        raise UserError(
            f"its tokenizer.ggml.pre is {name!r}, a way of cutting texts that is not known here "
            f"(known: {', '.join(SPLITS)}); use the model's Hugging Face directory instead"
        )
    return SPLITS[name]


def name_of(steps: Sequence[Step], ignore_merges: bool) -> str | None:
    """What llama.cpp calls a pre_tokenizer's steps; None if it is none of those known here."""
    for name, split in SPLITS.items():
        if (split.steps, split.ignore_merges) == (tuple(steps), ignore_merges):
            return name
    return None


def effects(steps: Sequence[Mapping[str, Any]]) -> list[Step]:
    """What the steps of a pre_tokenizer do."""
    found: list[Step] = []
    for step in steps:
        kind = step["type"]
        if kind == "ByteLevel":
            found.append((kind, step.get("use_regex", True)))
        elif kind == "Digits":
            found.append((kind, step.get("individual_digits", False)))
        elif kind == "Split" and _keeps_all(step):
            pattern = step["pattern"].get("Regex")
            found.append(("Split", GPT2[0] if pattern in GPT2 else pattern))
        else:
            found.append((kind, str(step)))
    if found == [("Split", GPT2[0]), _BYTES]:
        found = [_GPT2]
    if found == [_DIGITS, ("Split", GPT2[0]), _BYTES]:
        found = [_DIGITS, _GPT2]
    return found


def written(steps: Sequence[Step]) -> dict[str, Any]:
    """The steps as a tokenizer.json has them."""
    return {"type": "Sequence", "pretokenizers": [_written(*step) for step in steps]}


def _written(kind: str, what: Any) -> dict[str, Any]:
    if kind == "ByteLevel":
        return {"type": kind, "add_prefix_space": False, "trim_offsets": True, "use_regex": what}
    if kind == "Digits":
        return {"type": kind, "individual_digits": what}
    return {"type": kind, "pattern": {"Regex": what}, "behavior": "Isolated", "invert": False}


def _keeps_all(step: Mapping[str, Any]) -> bool:
    """Whether every match and all between matches is a piece of its own."""
    return (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True))

"""What the settings in somebody's tokenizer files do to a text, whatever they are called.

Only the effect counts. A post-processor that adds nothing is none, though it be a template (as all
that transformers 5 saves); a sequence of one step is that step. ``check_settings`` refuses what
would give other ids or another text than byte-level BPE with GPT-2's split, which is what our own
classes do; ``check_byte_level`` what is no byte-level BPE at all, which nothing here opens. The
message says what it does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from groundup.errors import UserError
from groundup.tokenizers.byte_level import CHARACTER_TO_BYTE
from groundup.tokenizers.splits import GPT2

Step = Mapping[str, Any]

_PARTS = {  # and what each calls the list of its steps
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}

# Steps that do nothing when they are set like this.
_IDLE: dict[tuple[str, str], Callable[[Step], bool]] = {
    ("normalizer", "Strip"): lambda step: not (step["strip_left"] or step["strip_right"]),
    ("normalizer", "Prepend"): lambda step: step["prepend"] == "",
    ("normalizer", "Replace"): lambda step: step["pattern"] == {"String": step["content"]},
    ("post_processor", "ByteLevel"): lambda step: True,  # it only moves the offsets
    ("post_processor", "TemplateProcessing"): lambda step: not _added(step),
    ("decoder", "Fuse"): lambda step: True,  # the bytes become one text in any case
}

_MODEL: dict[str, tuple[Any, ...]] = {
    "type": ("BPE",),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "ignore_merges": (False,),
    # unk_token, fuse_unk and byte_fallback say what becomes of a byte that is no token: all are.
}
"""What the model may say; a key that is absent has the first value."""

_ADDED_TOKEN: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("single_word", "lstrip", "rstrip"), (False,)
)

_BYTES = {"add_prefix_space": (False,), "use_regex": (True,)}

_PATTERNS = tuple({"Regex": pattern} for pattern in GPT2)
_WHOLE = (("Isolated", False), ("Removed", True))  # every piece is kept, either way


def check_settings(content: Mapping[str, Any]) -> None:
    """Refuse what would make others' libraries give other ids than ours, or another text.

    Args:
        content: of ``tokenizer.json``.

    Raises:
        UserError: some setting does.
    """
    steps = {part: steps_of(part, content) for part in _PARTS}
    for step in steps["normalizer"]:
        raise _unsupported("normalizer", "type", step.get("type"), (None,))
    _check_split(steps["pre_tokenizer"])
    _check_part("decoder", _only(steps["decoder"]), {"type": ("ByteLevel",)})
    if added := [token for step in steps["post_processor"] for token in _added(step)]:
        raise UserError(
            f"its post_processor adds {' and '.join(dict.fromkeys(added))} to every text, which "
            "groundup does not; open it with transformers.AutoTokenizer, or set post_processor to "
            "null if the model was not trained with it"
        )
    _check_part("model", content["model"], _MODEL)
    for token in content.get("added_tokens") or []:
        _check_part(f"added token {token['content']!r:.60}", token, _ADDED_TOKEN)


def is_gpt2_like(content: Mapping[str, Any]) -> bool:
    """Whether a ``tokenizer.json`` does what GPT-2's does, with whatever vocabulary."""
    try:
        check_settings(content)
    except UserError:
        return False
    return True


_KEEPING = ("ByteLevel", "Split", "Digits", "Punctuation")
"""Steps of a pre_tokenizer that only say where a text is cut."""


def check_byte_level(content: Mapping[str, Any]) -> None:
    """Refuse what is not byte-level BPE, of whatever split.

    Args:
        content: of ``tokenizer.json``.

    Raises:
        UserError: it is of another kind, or loses or adds something.
    """
    model = content["model"]
    if (kind := model.get("type", "BPE")) != "BPE":
        raise _not_byte_level(f"its model is {kind}")
    cuts, normalizers = (steps_of(part, content) for part in ("pre_tokenizer", "normalizer"))
    kinds = [step.get("type") for step in cuts]
    if "ByteLevel" not in kinds:
        if model.get("byte_fallback") or "Metaspace" in kinds or "\u2581" in model["vocab"]:
            raise _not_byte_level("it is SentencePiece's kind, as Llama 2's: spaces are \u2581")
        raise _not_byte_level(f"its pre_tokenizer is {' and '.join(map(str, kinds)) or 'none'}")
    _check_part("model", model, {key: _MODEL[key] for key in _MODEL if key != "ignore_merges"})
    whole = {token["content"] for token in content.get("added_tokens") or []}
    spelled = set("".join(token for token in model["vocab"] if token not in whole))
    if foreign := spelled - CHARACTER_TO_BYTE.keys():
        raise _not_byte_level(f"its tokens are spelled with {min(foreign)!r}, which is no byte")
    for step in normalizers:
        if step.get("type") != "NFC":
            raise _unsupported("normalizer", "type", step.get("type"), (None, "NFC"))
    for step in cuts:
        lossy = step["type"] == "Split" and (step["behavior"], step["invert"]) == ("Removed", False)
        if step["type"] not in _KEEPING or lossy or kinds.count("ByteLevel") > 1:
            raise _not_byte_level(f"its pre_tokenizer has the step {json.dumps(step):.200}")
        _check_part("pre_tokenizer", step, {"add_prefix_space": (False,)})
    _check_part("decoder", _only(steps_of("decoder", content)), {"type": ("ByteLevel",)})
    begin_of(content)


def begin_of(content: Mapping[str, Any]) -> list[str]:
    """The tokens that a post-processor puts before a text that stands alone.

    Raises:
        UserError: it puts something behind it, so that no text could go on.
    """
    steps = steps_of("post_processor", content)
    if not steps:
        return []
    added = _added(steps[0])
    single = steps[0].get("single") or [{}]
    if len(steps) > 1 or "Sequence" not in single[-1] or len(single) != len(added) + 1:
        raise UserError(
            f"its post_processor adds {' and '.join(dict.fromkeys(added))} behind every text, so "
            "that no model could continue it; set post_processor to null if the model was trained "
            "without it"
        )
    return added


def steps_of(part: str, content: Mapping[str, Any]) -> list[Step]:
    """The steps of a part of a ``tokenizer.json`` that have an effect, in order."""
    return _steps(part, content.get(part) or {})


def _not_byte_level(what: str) -> UserError:
    return UserError(
        f"{what}, and only byte-level BPE can be opened here (GPT-2, Llama 3, SmolLM, Qwen and "
        "their kin); choose a model with such a tokenizer"
    )


def _steps(part: str, found: Step) -> list[Step]:
    """The steps that have an effect, in order."""
    kind = found.get("type")
    if kind == "Sequence":
        return [step for inner in found[_PARTS[part]] for step in _steps(part, inner)]
    idle = _IDLE.get((part, str(kind)))
    return [] if kind is None or (idle is not None and idle(found)) else [found]


def _only(steps: list[Step]) -> Step:
    """The one step; several are one of no known type."""
    return steps[0] if len(steps) == 1 else {"type": [step["type"] for step in steps] or None}


def _check_split(steps: list[Step]) -> None:
    """GPT-2's split and bytes as letters, in one step or in two."""
    if len(steps) == 2 and steps[0].get("type") == "Split":
        split, use_regex = steps[0], False
        if split["pattern"] not in _PATTERNS or (split["behavior"], split["invert"]) not in _WHOLE:
            raise _unsupported("pre_tokenizer", "pattern", split["pattern"], _PATTERNS[:1])
        steps = steps[1:]
    else:
        use_regex = True
    accepted = {"type": ("ByteLevel",), **_BYTES, "use_regex": (use_regex,)}
    _check_part("pre_tokenizer", {"use_regex": True, **_only(steps)}, accepted)


def _added(step: Step) -> list[str]:
    """The tokens that a post-processor adds to a text that stands alone."""
    if step["type"] == "TemplateProcessing":
        pieces = [
            piece["SpecialToken"]["id"] for piece in step["single"] if "Sequence" not in piece
        ]
        return pieces if len(step["single"]) - len(pieces) == 1 else [*pieces, "the text again"]
    return [str(step[name][0]) for name in ("cls", "sep") if name in step] or [str(step["type"])]


def _check_part(part: str, found: Step, accepted: Mapping[str, tuple[Any, ...]]) -> None:
    for key, values in accepted.items():
        if found.get(key, values[0]) not in values:
            raise _unsupported(part, key, found[key], values)


def _unsupported(part: str, key: str, value: object, accepted: tuple[Any, ...]) -> UserError:
    return UserError(
        f"its {part} has {key} = {json.dumps(value):.200}, and only "
        f"{' or '.join(map(json.dumps, accepted))} is supported here"
    )

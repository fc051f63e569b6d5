"""Settings of foreign tokenizer files: what they do counts, not what they are called.

The `tokenizers` library and transformers say what they do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from transformers import AutoTokenizer

from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer
from groundup.tokenizers.byte_level import END_OF_TEXT, SPLIT_PATTERN

TEXTS = [
    "It was the best of times, it's 1234 times — don't you think so?",
    "  two  spaces\n\n\tand a tab   ",
    "café naïve 中文 🙂 ﬁ",
    "",
    " x",
]
TOKENIZER = BPETokenizer.train(TEXTS * 3, 320)

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ONLY_BYTES = BYTES | {"use_regex": False}
SPLIT = {
    "type": "Split",
    "pattern": {"Regex": SPLIT_PATTERN},
    "behavior": "Isolated",
    "invert": False,
}
NOTHING: dict[str, Any] = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}
EOT = {"id": END_OF_TEXT, "ids": [TOKENIZER.eot_token], "tokens": [END_OF_TEXT]}
BEGIN = NOTHING | {
    "single": [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}, *NOTHING["single"]],
    "special_tokens": {END_OF_TEXT: EOT},
}
ROBERTA = {
    **{"type": "RobertaProcessing", "sep": [END_OF_TEXT, 319], "cls": [END_OF_TEXT, 319]},
    **{"trim_offsets": True, "add_prefix_space": False},
}


def sequence(part: str, *steps: object) -> dict[str, Any]:
    names = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}
    names |= {"post_processor": "processors", "decoder": "decoders"}
    return {"type": "Sequence", names[part]: list(steps)}


OPENS: list[tuple[str, Any]] = [
    ("post_processor", NOTHING),
    ("post_processor", NOTHING | {"special_tokens": {END_OF_TEXT: EOT}}),
    ("post_processor", sequence("post_processor", BYTES, NOTHING)),
    ("post_processor", BYTES | {"trim_offsets": False}),
    ("normalizer", sequence("normalizer")),
    ("normalizer", {"type": "Strip", "strip_left": False, "strip_right": False}),
    ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "a"}),
    ("pre_tokenizer", sequence("pre_tokenizer", BYTES)),
    ("pre_tokenizer", sequence("pre_tokenizer", SPLIT, ONLY_BYTES)),
    (
        "pre_tokenizer",
        sequence("pre_tokenizer", SPLIT | {"behavior": "Removed", "invert": True}, ONLY_BYTES),
    ),
    ("decoder", sequence("decoder", BYTES)),
    ("decoder", sequence("decoder", BYTES, {"type": "Fuse"})),
    ("decoder", BYTES | {"add_prefix_space": True}),
    ("model", {"byte_fallback": True}),
    ("model", {"fuse_unk": True, "unk_token": END_OF_TEXT, "dropout": 0.0}),
]
REFUSED: list[tuple[str, Any, str]] = [
    ("post_processor", BEGIN, r"post_processor adds <\|endoftext\|> to every text"),
    ("post_processor", ROBERTA, r"adds <\|endoftext\|> to every text"),
    ("post_processor", sequence("post_processor", BYTES, BEGIN), "to every text"),
    ("post_processor", NOTHING | {"single": NOTHING["single"] * 2}, "the text again"),
    ("normalizer", {"type": "NFC"}, 'normalizer has type = "NFC"'),
    ("normalizer", sequence("normalizer", {"type": "Lowercase"}), "Lowercase"),
    ("normalizer", {"type": "Strip", "strip_left": True, "strip_right": False}, "Strip"),
    ("normalizer", {"type": "Replace", "pattern": {"Regex": "a"}, "content": "a"}, "Replace"),
    (
        "pre_tokenizer",
        sequence("pre_tokenizer", {"type": "WhitespaceSplit"}, BYTES),
        "WhitespaceSplit|ByteLevel",
    ),
    (
        "pre_tokenizer",
        sequence("pre_tokenizer", SPLIT | {"behavior": "MergedWithNext"}, ONLY_BYTES),
        "pattern",
    ),
    (
        "pre_tokenizer",
        sequence("pre_tokenizer", SPLIT | {"pattern": {"Regex": r"\d|\D+"}}, ONLY_BYTES),
        "pattern",
    ),
    ("pre_tokenizer", sequence("pre_tokenizer", SPLIT, BYTES | {"add_prefix_space": True}), "pref"),
    ("pre_tokenizer", BYTES | {"add_prefix_space": True}, "add_prefix_space"),
    (
        "decoder",
        sequence("decoder", BYTES, {"type": "Strip", "content": "#", "start": 1, "stop": 0}),
        "decoder",
    ),
    ("decoder", None, "decoder has type = null"),
]


def changed(directory: Path, part: str, change: Any) -> Library:
    """The saved tokenizer with one part changed, as the library opens it."""
    TOKENIZER.save(directory)
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content[part] = content[part] | change if part == "model" else change
    file.write_text(json.dumps(content), encoding="utf-8")
    return Library.from_file(str(file))


@pytest.mark.parametrize(("part", "change"), OPENS)
def test_what_has_no_effect_is_no_obstacle(tmp_path: Path, part: str, change: Any) -> None:
    library = changed(tmp_path, part, change)
    ours = BPETokenizer.load(tmp_path)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == library.encode(text).ids and library.decode(ids) == text == ours.decode(ids)


@pytest.mark.parametrize(("part", "change", "message"), REFUSED)
def test_what_has_one_is_refused_by_what_it_does(
    tmp_path: Path, part: str, change: Any, message: str
) -> None:
    library = changed(tmp_path, part, change)
    texts = [*TEXTS, "ABCaa", "e\u0301", "it 's"]
    plain = [TOKENIZER.encode(text) for text in texts]
    theirs = [library.encode(text).ids for text in texts]
    same_texts = all(library.decode(ids) == TOKENIZER.decode(ids) for ids in [*plain, [2, 2, 65]])
    assert theirs != plain or not same_texts or "Regex" in str(change)
    with pytest.raises(UserError, match=message):
        BPETokenizer.load(tmp_path)


@pytest.mark.parametrize("in_two", [False, True])
@pytest.mark.parametrize("config", [{}, {"add_bos_token": True}, {"add_prefix_space": True}])
@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "GPT2Tokenizer"])
def test_what_the_config_beside_it_does(
    tmp_path: Path, config: dict, kind: str, in_two: bool
) -> None:
    """Most of it has no effect: transformers asks the tokenizer.json, if there is one."""
    TOKENIZER.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text("utf-8")) | config | {"tokenizer_class": kind}),
        "utf-8",
    )
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', "utf-8")
    if in_two:
        if kind != "GPT2Tokenizer":
            pytest.skip("which transformers cannot open")
        (tmp_path / "tokenizer.json").unlink()
    ids = AutoTokenizer.from_pretrained(tmp_path)("It was")["input_ids"]
    if ids == TOKENIZER.encode("It was"):
        assert BPETokenizer.load(tmp_path).encode("It was") == ids
    else:
        with pytest.raises(UserError, match=r"adds <\|endoftext\|>|add_prefix_space = true"):
            BPETokenizer.load(tmp_path)
    assert (ids == TOKENIZER.encode("It was")) != (
        (in_two and bool(config)) or (kind == "GPT2Tokenizer" and "add_prefix_space" in config)
    )

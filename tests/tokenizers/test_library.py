"""Byte-level BPE of every kind: the same ids as transformers, from the same files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from groundup.data.windows import create_dataloader_v1
from groundup.decoding.engine import text_to_token_ids
from groundup.errors import UserError
from groundup.tokenizers import (
    BPETokenizer,
    LibraryTokenizer,
    StreamDecoder,
    Tokenizer,
    load_tokenizer,
)
from groundup.tokenizers.opening import open_tokenizer
from groundup.tokenizers.parts import encode_array, parts
from groundup.tokenizers.reading import TokenizerFiles
from tests.tokenizers.trained import KINDS, SAMPLE, SPECIALS, save, trained

Pair = tuple[Tokenizer, Any]

PIECES = st.sampled_from(
    ["'S", "'ll", "\n", "\r\n", "  ", "\t", "\u0085", "\u2003", "e\u0301", "é", "٣", "½", "₂", "_"]
    + ["<think>", "🙂", "👩‍👩‍👧", "ſ", "İ", "中", "한글", "\u1100\u1161", "0", "1234567", "!!\n\n"]
)
TEXTS = st.lists(PIECES | st.characters(codec="utf-8"), max_size=30).map("".join)


def opened(library: Library, **config: Any) -> LibraryTokenizer:
    """Ours, of the library's."""
    tokenizer = open_tokenizer(TokenizerFiles(json.loads(library.to_str()), config))
    assert isinstance(tokenizer, LibraryTokenizer)
    return tokenizer


def pair(kind: str, nfc: bool = False, bos: bool = False) -> Pair:
    """Ours and transformers', of the same file."""
    library = trained(kind, nfc=nfc, bos=bos)
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=library, split_special_tokens=True, eos_token="<|im_end|>"
    )
    return opened(library, eos_token="<|im_end|>"), theirs


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("nfc", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(text=TEXTS)
@example(text="")
@example(text="".join(SPECIALS))
def test_any_text_has_the_ids_of_transformers(kind: str, nfc: bool, bos: bool, text: str) -> None:
    ours, theirs = pair(kind, nfc, bos)
    ids = ours.encode_alone(text)
    assert ids == theirs(text)["input_ids"]
    assert ids[len(ours.begin) :] == ours.encode(text)
    assert ours.begin == ([0] if bos else [])
    if not nfc:
        assert ours.decode(ours.encode(text)) == text
    assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", KINDS)
def test_real_texts_too(kind: str, data_text: str) -> None:
    """A hundred kilobytes of each: the whole of it takes a minute."""
    ours, theirs = pair(kind, nfc=kind == "qwen2")
    text = data_text[:100_000]
    ids = theirs(text)["input_ids"]
    assert ours.encode(text) == ids == encode_array(ours, text).tolist()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(text=TEXTS)
def test_long_texts_are_cut_where_no_piece_is(kind: str, text: str) -> None:
    ours, _ = pair(kind, nfc=True)
    assert ours.cuttable
    cut = [index for part in parts(text, 1) for index in ours.encode(part)]
    assert cut == ours.encode(text)


def test_an_unknown_split_is_not_cut() -> None:
    content = json.loads(trained("llama3").to_str())
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"[^!]+|!"}
    ours = open_tokenizer(TokenizerFiles(content))
    text = "a b\n" * 40_000
    assert not ours.cuttable and encode_array(ours, text).tolist() == ours.encode(text)
    content = json.loads(trained("llama3").to_str())
    content["added_tokens"][-1] |= {"content": "a b"}
    assert not open_tokenizer(TokenizerFiles(content)).cuttable


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(SPECIALS) | PIECES, max_size=12).map("".join))
def test_special_tokens_are_text_unless_allowed(text: str) -> None:
    ours, theirs = pair("llama3")
    specials = set(range(len(SPECIALS)))
    assert not specials & set(ours.encode(text)) and ours.decode(ours.encode(text)) == text
    with_all = PreTrainedTokenizerFast(tokenizer_object=trained("llama3"))
    assert ours.encode(text, allowed_special="all") == with_all(text)["input_ids"]
    only = ours.encode(text, allowed_special={"<|im_end|>"})
    assert specials & set(only) <= {3} and only.count(3) == text.count("<|im_end|>")
    with pytest.raises(UserError, match="not a special token"):
        ours.encode(text, allowed_special={"<|imend|>"})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["<x>", " ", "  \n", "a", "_", "<y>", "!"]), max_size=9))
def test_special_tokens_that_take_white_space(parts: list[str]) -> None:
    """As Phi-4's do."""
    library = Library.from_str(trained("llama3").to_str())
    library.add_special_tokens(
        [AddedToken("<x>", lstrip=True, rstrip=True), AddedToken("<y>", single_word=True)]
    )
    text = "".join(parts)
    assert opened(library).encode(text, allowed_special="all") == library.encode(text).ids


def test_what_ends_and_begins_a_text() -> None:
    library = trained("smollm", bos=True)
    assert opened(library).eot_token == SPECIALS.index("<|endoftext|>")
    declared = {"content": "<|im_end|>", "lstrip": False}
    ours = opened(library, eos_token=declared, bos_token="<|begin|>", pad_token="<|no_such|>")
    assert ours.eot_token == 3 and ours.roles == {
        "bos_token": "<|begin|>",
        "eos_token": "<|im_end|>",
    }
    assert text_to_token_ids("<|endoftext|>Hi", ours).tolist() == [[0, 1, *ours.encode("Hi")]]
    content = json.loads(library.to_str())
    content["added_tokens"] = content["added_tokens"][:1]
    content["model"]["vocab"] |= {"<|stop|>": 900}
    ours = open_tokenizer(TokenizerFiles(content, {"eos_token": "<|stop|>"}))
    assert ours.eot_token == 900 and ours.vocab_size == 901
    assert "<|stop|>" in ours.special_tokens, "a token with a role is special, wherever it stands"
    assert ours.decode([700, 900]) == "<|stop|>", "a hole in the ids has no bytes"
    with pytest.raises(UserError, match="901 is not in this tokenizer's vocabulary"):
        ours.decode([901])
    assert text_to_token_ids("Hi", ours).tolist() == [ours.encode_alone("Hi")]


def test_the_lectures_windows_of_a_tokenizer_of_this_kind() -> None:
    ours = opened(trained("qwen2"))
    first, second = next(iter(create_dataloader_v1(SAMPLE, 1, 8, 8, False, tokenizer=ours)))
    assert first[0].tolist() == ours.encode(SAMPLE)[:8]
    assert second[0].tolist() == ours.encode(SAMPLE)[1:9]


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_a_stream_is_the_text(text: str) -> None:
    ours, _ = pair("tekken")
    stream = StreamDecoder(ours)
    pieces = [stream.push(index) for index in ours.encode(text)]
    assert "".join([*pieces, stream.finish()]) == text


@pytest.mark.parametrize("kind", ["smollm", "llama3", "qwen2"])
@pytest.mark.parametrize("named", ["GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast"])
def test_saved_it_opens_in_transformers_with_the_same_ids(
    tmp_path: Path, kind: str, named: str
) -> None:
    library = trained(kind, nfc=kind == "qwen2", bos=kind == "llama3")
    config = {"tokenizer_class": named, "eos_token": "<|im_end|>", "add_bos_token": False}
    config |= {"model_max_length": 99, "auto_map": {"AutoTokenizer": ["x.py", None]}, "kept": [1]}
    save(library, tmp_path / "a", **config, chat_template="{{ messages }}")
    ours = load_tokenizer(tmp_path / "a")
    ours.save(tmp_path / "b", model_max_length=64)
    before, after = (json.loads((tmp_path / d / "tokenizer.json").read_bytes()) for d in "ab")
    assert before == after
    (tmp_path / "b" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path / "b")
    for text in (SAMPLE, "1234 567<|im_end|>e\u0301 DON'T\n\n"):
        allowed = [*ours.begin, *ours.encode(text, allowed_special="all")]
        assert theirs(text)["input_ids"] == allowed
    assert theirs.eos_token_id == ours.eot_token == 3 and theirs.model_max_length == 64
    assert theirs.chat_template == ours.chat_template == "{{ messages }}"
    saved = json.loads((tmp_path / "b" / "tokenizer_config.json").read_bytes())
    assert saved["kept"] == [1] and "chat_template" not in saved
    again = load_tokenizer(tmp_path / "b")
    again.save(tmp_path / "c", model_max_length=64)
    for file in (tmp_path / "c").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    with pytest.raises(UserError, match="it is a file"):
        ours.save(tmp_path / "a" / "tokenizer.json")


def test_gpt2s_kind_stays_our_own_unless_another_token_ends_texts(tmp_path: Path) -> None:
    library = trained("gpt2")
    for eos, kind in (("<|endoftext|>", BPETokenizer), ("<|im_end|>", LibraryTokenizer)):
        save(library, tmp_path, eos_token=eos, chat_template="x")
        tokenizer = load_tokenizer(tmp_path)
        assert type(tokenizer) is kind and tokenizer.chat_template == "x"
        assert tokenizer.eot_token == SPECIALS.index(eos)
        assert tokenizer.encode(SAMPLE) == library.encode(SAMPLE).ids
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").chat_template == "x"


def test_what_a_fingerprint_tells_apart() -> None:
    kinds = [opened(trained(kind, nfc=nfc)) for kind in KINDS[1:] for nfc in (False, True)]
    assert len({tokenizer.fingerprint for tokenizer in kinds}) == len(kinds)
    again = pickle.loads(pickle.dumps(kinds[0]))
    assert again.fingerprint == kinds[0].fingerprint and again.encode("Hi") == kinds[0].encode("Hi")


def test_tokens_that_a_model_has_no_room_for(tmp_path: Path) -> None:
    library = Library.from_str(trained("qwen2").to_str())
    size = library.get_vocab_size()
    library.add_special_tokens(["[PAD]"])
    save(library, tmp_path, pad_token="[PAD]", eos_token="<|im_end|>")
    assert load_tokenizer(tmp_path).vocab_size == size + 1
    tokenizer = load_tokenizer(tmp_path, size)
    assert tokenizer.vocab_size == size and tokenizer.roles == {"eos_token": "<|im_end|>"}
    tokenizer.save(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert len(theirs) == size


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LLAMA2 = {
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    },
    "pre_tokenizer": None,
    "model": {"type": "BPE", "byte_fallback": True, "vocab": {"▁": 0}, "merges": []},
}
AFTER = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|im_end|>"}}],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (LLAMA2, "SentencePiece's kind, as Llama 2's: spaces are ▁, and only byte-level BPE"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "SentencePiece's kind"),
        ({"model": {"type": "Unigram", "vocab": []}}, "its model is Unigram, and only byte-level"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "its model is WordPiece"),
        ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, "its pre_tokenizer is BertPreTokenizer"),
        ({"pre_tokenizer": None}, "its pre_tokenizer is none"),
        ({"normalizer": {"type": "Lowercase"}}, 'normalizer has type = "Lowercase", and only null'),
        ({"pre_tokenizer": BYTES | {"add_prefix_space": True}}, "add_prefix_space = true"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [BYTES, {"type": "Whitespace"}],
                }
            },
            "has the step .*Whitespace",
        ),
        ({"decoder": {"type": "WordPiece"}}, 'decoder has type = "WordPiece"'),
        ({"post_processor": AFTER}, r"adds <\|im_end\|> behind every text"),
    ],
)
def test_what_is_no_byte_level_bpe_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    save(trained("llama3"), tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps(content | change), encoding="utf-8")
    with pytest.raises(UserError, match=message) as told:
        load_tokenizer(tmp_path)
    assert "\n" not in str(told.value) and len(str(told.value)) < 400


def test_a_sentencepiece_model_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    with pytest.raises(UserError, match=r"tokenizer\.model is SentencePiece's"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"merges": [["a"]]}, {"merges": [["zzz", "q"]]}, {"vocab": {"a": "b"}}, {"vocab": {"中": 0}}],
)
def test_a_damaged_one_is_an_error_in_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    save(trained("llama3"), tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_bytes())
    content["model"] |= change
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)

"""Byte-level BPE: every text comes back, and the ids are those of Hugging Face's library."""

from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as LibraryTokenizer

from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer, get_tokenizer
from groundup.tokenizers.bpe import merge_piece
from groundup.tokenizers.byte_level import END_OF_TEXT
from groundup.tokenizers.vocabulary import Vocabulary

SAMPLE = (
    "It was the best of times, it was the worst of times: it was the age of wisdom! "
    "Don't you   think so?\n\n\tWe'll see, naïve café 中文文字 🙂🙃 12345 1234 aaaaaaaa aaaa\n" * 3
)
USER = "<|user|>"
SAMPLE_TOKENIZER = BPETokenizer.train(SAMPLE, 400, [END_OF_TEXT, USER])

no_surrogates = st.characters(exclude_categories=["Cs"])
hard_alphabets = st.sampled_from("ab'st 1\n\t\r\u00a0\u3000é中🙂👩\u200d\ud7ff\U0010ffff<|>")
any_text = st.one_of(st.text(no_surrogates), st.text(hard_alphabets), st.text("a \n", max_size=80))


def is_assigned(text: str) -> bool:
    """Whether Python's Unicode knows every character: for newer ones, libraries may differ."""
    return all(unicodedata.category(character) != "Cn" for character in text)


@settings(deadline=None, max_examples=300)
@given(any_text)
@example("<|endoftext|><|user|>")
@example(" " * 1000 + "a" * 1000 + "\n" * 1000)
def test_round_trip(text):
    ids = SAMPLE_TOKENIZER.encode(text)
    assert SAMPLE_TOKENIZER.decode(ids) == text
    assert SAMPLE_TOKENIZER.decode_bytes(ids) == text.encode()
    assert SAMPLE_TOKENIZER.decode(SAMPLE_TOKENIZER.encode(text, allowed_special="all")) == text


def test_merges_are_applied_in_the_order_learned():
    tokenizer = BPETokenizer(
        Vocabulary.from_merges([(b"b", b"c"), (b"a", b"b"), (b"a", b"bc")], [])
    )
    assert tokenizer.encode("abc") == [258]
    assert tokenizer.encode("ab") == [257]
    assert tokenizer.encode("abbc") == [257, 256]
    assert tokenizer.encode("a bc") == [tokenizer.encode("a")[0], tokenizer.encode(" ")[0], 256]


def test_merge_piece_takes_the_leftmost_of_equals():
    ranks = {(0, 0): (0, 1), (1, 1): (1, 2)}
    assert merge_piece([0] * 5, ranks) == [2, 0]
    assert merge_piece([0] * 3, ranks) == [1, 0]
    assert merge_piece([], ranks) == []


def test_end_of_text_is_plain_text_unless_allowed():
    tokenizer = SAMPLE_TOKENIZER
    text = f"one{END_OF_TEXT}two{USER}"
    eot, user = tokenizer.special_tokens[END_OF_TEXT], tokenizer.special_tokens[USER]
    plain = tokenizer.encode(text)
    assert {eot, user}.isdisjoint(plain)

    one, two = tokenizer.encode("one"), tokenizer.encode("two")
    spelled_user = tokenizer.encode(f"two{USER}")
    assert tokenizer.encode(text, allowed_special={END_OF_TEXT}) == [*one, eot, *spelled_user]
    assert tokenizer.encode(text, allowed_special="all") == [*one, eot, *two, user]
    assert tokenizer.decode([eot, user]) == END_OF_TEXT + USER


def test_of_two_special_tokens_the_longer_wins():
    tokenizer = BPETokenizer.train("x", 300, ["<|a|>", "<|a|>b>"])
    assert tokenizer.encode("<|a|>b>", allowed_special="all") == [257]


def test_allowed_special_must_be_a_special_token():
    with pytest.raises(UserError, match=r"'<\|uesr\|>'.*did you mean '<\|user\|>'"):
        SAMPLE_TOKENIZER.encode("x", allowed_special={"<|uesr|>"})
    not_a_set: Any = USER
    with pytest.raises(UserError, match="'all' or a set"):
        SAMPLE_TOKENIZER.encode("x", allowed_special=not_a_set)


@pytest.mark.parametrize(("text", "position"), [("\ud800", 0), ("ab\udfffc", 2)])
def test_lone_surrogates_are_refused(text, position):
    with pytest.raises(UserError, match=f"surrogate.*position {position}"):
        SAMPLE_TOKENIZER.encode(text)


def test_only_text_can_be_encoded():
    not_text: Any = b"bytes"
    with pytest.raises(UserError, match="got bytes"):
        SAMPLE_TOKENIZER.encode(not_text)


def test_bytes_that_are_not_utf8_become_replacement_characters():
    ids = SAMPLE_TOKENIZER.encode("🙂")[:1]
    assert SAMPLE_TOKENIZER.decode(ids) == "\ufffd"


@pytest.mark.parametrize("wrong", [400, -1, 1 << 70])
def test_unknown_ids_are_named(wrong):
    assert SAMPLE_TOKENIZER.vocab_size < 400
    with pytest.raises(UserError, match=f"token id {wrong} .* {SAMPLE_TOKENIZER.vocab_size} tok"):
        SAMPLE_TOKENIZER.decode([0, wrong])
    with pytest.raises(UserError, match=f"token id {wrong} "):
        SAMPLE_TOKENIZER.token_bytes(wrong)


def test_ids_may_be_a_tensor_of_one_dimension():
    ids: Any = torch.tensor(SAMPLE_TOKENIZER.encode("it was"))
    assert SAMPLE_TOKENIZER.decode(ids) == "it was"
    with pytest.raises(UserError, match="Tensor.*row by row"):
        SAMPLE_TOKENIZER.decode(ids[None, :])


def test_a_full_cache_changes_nothing(monkeypatch):
    monkeypatch.setattr("groundup.tokenizers.bpe._CACHED_PIECES", 3)
    tokenizer = BPETokenizer(SAMPLE_TOKENIZER.vocabulary)
    assert tokenizer.encode(SAMPLE) == SAMPLE_TOKENIZER.encode(SAMPLE)
    assert len(tokenizer._pieces) <= 3


def test_pickle_keeps_the_tokenizer():
    copy = pickle.loads(pickle.dumps(SAMPLE_TOKENIZER))
    assert copy.encode(SAMPLE) == SAMPLE_TOKENIZER.encode(SAMPLE)
    assert copy.vocabulary == SAMPLE_TOKENIZER.vocabulary


@settings(deadline=None, max_examples=300)
@given(any_text.filter(is_assigned))
@example(f"a{END_OF_TEXT} b{USER}{USER}")
def test_same_ids_as_the_library(tmp_path_factory, text):
    directory = tmp_path_factory.getbasetemp() / "sample"
    if not directory.exists():
        SAMPLE_TOKENIZER.save(directory)
    library = LibraryTokenizer.from_file(str(directory / "tokenizer.json"))
    assert library.encode(text).ids == SAMPLE_TOKENIZER.encode(text, allowed_special="all")


def test_a_vocabulary_of_characters(tmp_path: Path) -> None:
    """As nanoGPT's, which has a token for each character of its text and no other."""
    tokenizer = BPETokenizer.from_characters({c: i for i, c in enumerate(sorted(set("a b!\n")))})
    for _ in range(2):
        assert tokenizer.encode("ab ba!\n\n") == [3, 4, 1, 4, 3, 2, 0, 0]
        assert tokenizer.decode([4, 1, 3]) == "b a" and tokenizer.vocab_size == 5
        for text, character in (("abc", "'c'"), ("a é", "'é'")):
            with pytest.raises(UserError, match=f"{character} is none of them"):
                tokenizer.encode(text)
        tokenizer.save(tmp_path)
        tokenizer = BPETokenizer.load(tmp_path)
    (tmp_path / "meta.pkl").write_bytes(b"\x80")
    with pytest.raises(UserError, match=r"opens none.*from_characters"):
        get_tokenizer(tmp_path / "meta.pkl")

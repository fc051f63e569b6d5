"""Merges one by one: they end where encoding ends, whatever the kind of tokenizer."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.tokenizers import BPETokenizer, Tokenizer
from groundup.tokenizers.bpe import merge_piece
from groundup.tokenizers.opening import open_tokenizer
from groundup.tokenizers.reading import TokenizerFiles
from groundup.tokenizers.steps import Step, merge_steps, ranks_of
from tests.tokenizers.trained import KINDS, SAMPLE, trained


def replayed(piece: bytes, steps: list[Step]) -> list[bytes]:
    parts = [piece[i : i + 1] for i in range(len(piece))]
    for step in steps:
        parts[step.place : step.place + 2] = [parts[step.place] + parts[step.place + 1]]
    return parts


def check(tokenizer: Tokenizer, text: str) -> None:
    ranks = ranks_of(tokenizer.merges)
    pieces = list(tokenizer.pieces(text))
    assert [index for piece in pieces for index in piece] == tokenizer.encode(text)
    for piece in pieces:
        steps = list(merge_steps(tokenizer.decode_bytes(piece), ranks))
        parts = replayed(tokenizer.decode_bytes(piece), steps)
        assert parts == [tokenizer.token_bytes(index) for index in piece]


def test_a_small_piece_by_hand() -> None:
    ranks = ranks_of([(b"e", b"r"), (b"l", b"o"), (b"lo", b"w"), (b"low", b"er")])
    steps = [(step.rank, step.place) for step in merge_steps(b"lowerer", ranks)]
    assert steps == [(0, 3), (0, 4), (1, 0), (2, 0), (3, 0)]  # of equals, the leftmost first
    assert list(merge_steps(b"", ranks)) == list(merge_steps(b"x", ranks)) == []


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_our_own_tokenizer_gets_there_step_by_step(tokenizer: BPETokenizer, text: str) -> None:
    check(tokenizer, text + " the quick brown fox")
    ids = tokenizer.vocabulary.ids
    pairs = {(ids[a], ids[b]): (rank, ids[a + b]) for rank, (a, b) in enumerate(tokenizer.merges)}
    data = text.encode()
    parts = replayed(data, list(merge_steps(data, ranks_of(tokenizer.merges))))
    assert [ids[part] for part in parts] == merge_piece([ids[bytes([b])] for b in data], pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_every_library_tokenizer_too(kind: str) -> None:
    library = trained(kind)
    tokenizer = open_tokenizer(TokenizerFiles(json.loads(library.to_str()), {}))
    check(tokenizer, SAMPLE)
    text = "It's 1234 times, 中文 🙂\n\nYes  no"
    ours = [tokenizer.decode_bytes(piece).decode() for piece in tokenizer.pieces(text)]
    theirs = [text[a:b] for _, (a, b) in library.pre_tokenizer.pre_tokenize_str(text)]
    assert ours == theirs

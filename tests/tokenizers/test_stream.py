"""A stream of tokens shows whole characters only, and in the end the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer, StreamDecoder

BYTES_ONLY = BPETokenizer.train("x", 257)


def test_half_a_character_is_held_back():
    stream = StreamDecoder(BYTES_ONLY)
    pushed = [stream.push(token_id) for token_id in BYTES_ONLY.encode("é🙂!")]
    assert pushed == ["", "é", "", "", "", "🙂", "!"]
    assert stream.finish() == ""


def test_finish_shows_what_is_left_and_starts_afresh():
    stream = StreamDecoder(BYTES_ONLY)
    first_two = BYTES_ONLY.encode("🙂")[:2]
    assert [stream.push(token_id) for token_id in first_two] == ["", ""]
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""
    assert stream.push(BYTES_ONLY.encode("a")[0]) == "a"


def test_gpt2_splits_an_emoji(gpt2):
    stream = StreamDecoder(gpt2)
    ids = gpt2.encode("Hi 🙃")
    assert len(ids) > 2
    pushed = [stream.push(token_id) for token_id in ids]
    assert "".join(pushed) == "Hi 🙃"
    assert "\ufffd" not in "".join(pushed)


def test_special_tokens_are_shown():
    assert StreamDecoder(BYTES_ONLY).push(256) == "<|endoftext|>"


@settings(deadline=None)
@given(st.lists(st.integers(0, 256), max_size=60))
def test_the_pieces_joined_equal_decode(ids):
    stream = StreamDecoder(BYTES_ONLY)
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) + stream.finish() == BYTES_ONLY.decode(ids)


def test_unknown_id_is_refused():
    with pytest.raises(UserError, match="257"):
        StreamDecoder(BYTES_ONLY).push(257)

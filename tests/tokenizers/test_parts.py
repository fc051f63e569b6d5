import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.tokenizers import BPETokenizer, get_gpt2_tokenizer, train_with_library
from groundup.tokenizers.bpe_train import count_words
from groundup.tokenizers.byte_level import splitter
from groundup.tokenizers.parts import PART, encode_array, parts
from tests.conftest import TEXT

TEXTS = st.text(st.sampled_from("ab1.'s \n\t\r\u00a0\x1cé日🙂"), max_size=60)


@given(TEXTS, st.integers(1, 10))
def test_parts_have_the_pieces_of_the_whole(text: str, size: int) -> None:
    cut = list(parts(text, size))
    assert "".join(cut) == text
    split = splitter()
    assert [piece for part in cut for piece in split(part)] == split(text)


def test_parts_are_small_and_a_text_without_spaces_is_whole() -> None:
    text = "Some words, and more of them.\n" * 10_000
    cut = list(parts(text))
    assert len(cut) == len(text) // PART + 1
    assert all(PART <= len(part) < PART + 30 for part in cut[:-1])
    assert list(parts("x" * 200_000)) == ["x" * 200_000]
    assert list(parts("")) == [""]


@pytest.mark.parametrize("name", ["own", "gpt2"])
def test_an_array_has_the_ids_of_encode(tokenizer: BPETokenizer, name: str) -> None:
    chosen = tokenizer if name == "own" else get_gpt2_tokenizer()
    text = TEXT * 1000
    done: list[int] = []
    ids = encode_array(chosen, text, progress=done.append)
    assert ids.dtype == np.uint16 and ids.tolist() == chosen.encode(text)
    assert len(done) > 1 and sum(done) == len(text)


def test_a_big_vocabulary_takes_four_bytes_and_special_tokens_stay_whole() -> None:
    class Words:
        n_vocab = 2**16 + 1

        def encode(self, text: str, *, allowed_special: set[str] | frozenset[str]) -> list[int]:
            assert not allowed_special or "<a b>" in text or "<a" not in text
            return [2**16] * len(text.split())

    assert encode_array(Words(), "one two").tolist() == [2**16] * 2
    text = ("x" * PART + "<a b>") * 3  # the only places to cut are within the special token
    assert len(encode_array(Words(), text, allowed_special={"<a b>"})) == 4


def test_one_long_document_gives_the_merges_of_its_parts() -> None:
    lines = [TEXT, "Another one; with marks -- and 12 numbers.\n", "  indented\n\n\ttabs \n"]
    text = "".join(lines) * 1500
    assert len(text) > 3 * PART
    trained = train_with_library(text, 400)
    assert trained.merges == BPETokenizer.train(text, 400).merges
    assert count_words(parts(text)) == count_words([text])

"""Our merges are those of Hugging Face's tokenizers library, merge for merge."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer, train_with_library
from groundup.tokenizers.bpe_train import learn_merges
from groundup.tokenizers.byte_level import BYTE_TOKENS, END_OF_TEXT, to_characters


def library_merges(documents: list[str], vocab_size: int) -> tuple[list[list[str]], int]:
    """Return the library's merges, and the size of its vocabulary."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END_OF_TEXT],
        show_progress=False,
    )
    library.train_from_iterator(documents, trainer)
    return json.loads(library.to_str())["model"]["merges"], library.get_vocab_size()


def assert_same_as_library(documents: list[str], vocab_size: int) -> None:
    ours = BPETokenizer.train(documents, vocab_size)
    merges, size = library_merges(documents, vocab_size)
    assert [[to_characters(a), to_characters(b)] for a, b in ours.merges] == merges
    assert ours.vocab_size == size == 257 + len(merges)  # no token comes from two merges


def test_worked_example_of_the_module():
    merges = learn_merges({"low": 5, "lower": 2, "newest": 6}, n_tokens=256 + 3)
    assert merges == [(b"w", b"e"), (b"l", b"o"), (b"e", b"we")]


texts = st.one_of(
    st.text(alphabet="ab", max_size=40),
    st.text(alphabet="aab c", max_size=60),
    st.text(alphabet="01 ", max_size=40),
    st.text(alphabet="🙂🙃é \n", max_size=25),
    st.text(alphabet="abc' \t!", max_size=40),
)


@settings(deadline=None, max_examples=400)
@given(st.lists(texts, min_size=1, max_size=4).filter(any), st.integers(0, 40))
@example(["aaaaaaa aaaa aaa aa"], 20)
@example(["aab aab ab ab aa aa aaab abab aabaab"], 40)
def test_same_merges_as_the_library(documents, n_merges):
    assert_same_as_library(documents, 257 + n_merges)


def test_same_merges_as_the_library_on_real_text(data_text):
    assert_same_as_library([data_text], 1500)


def test_documents_do_not_merge_with_each_other():
    together = BPETokenizer.train("xyxyxy", 300)
    apart = BPETokenizer.train(["x", "y", "x", "y"], 300)
    assert (b"x", b"y") in together.merges
    assert apart.merges == []
    assert apart.vocab_size == 257


def test_training_through_the_library_is_the_same(verdict):
    documents = verdict.split("\n\n")
    ours = BPETokenizer.train(documents, 700, ["<|user|>", END_OF_TEXT])
    theirs = train_with_library(documents, 700, ["<|user|>", END_OF_TEXT])
    assert ours.vocabulary == theirs.vocabulary
    assert ours.vocab_size == 700


def test_ids_are_bytes_then_merges_then_special_tokens():
    tokenizer = BPETokenizer.train("low low lower", 260, ["<|user|>", END_OF_TEXT])
    assert [tokenizer.token_bytes(index) for index in range(256)] == BYTE_TOKENS
    assert tokenizer.token_bytes(0) == b"!"
    assert [tokenizer.token_bytes(index) for index in (256, 257)] == [b"lo", b"low"]
    assert tokenizer.special_tokens == {"<|user|>": 258, END_OF_TEXT: 259}
    assert (tokenizer.vocab_size, tokenizer.n_vocab, tokenizer.eot_token) == (260, 260, 259)
    assert BPETokenizer.train("low", 256, []).eot_token is None


def test_progress_counts_up_to_what_was_wanted():
    calls: list[tuple[int, int]] = []
    BPETokenizer.train("low lower lowest", 261, progress=lambda *call: calls.append(call))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4), (4, 4)]


@pytest.mark.parametrize("train", [BPETokenizer.train, train_with_library])
@pytest.mark.parametrize(
    ("text", "vocab_size", "special_tokens", "problem"),
    [
        ("", 300, [], "empty"),
        ([], 300, [], "empty"),
        (["", ""], 300, [], "empty"),
        ("low", 256, [END_OF_TEXT], "vocab_size is 256, .* need 257"),
        ("low", -1, [], "need 256"),
        ("low", 300, END_OF_TEXT, r"give \['<\|endoftext\|>'\]"),
        ("low", 300, ["PAD"], "'PAD' can also come about .* '<|PAD|>'"),
        ("low", 300, [""], "'' can also come about"),
        ("low", 300, ["<a>", "<a>"], "twice"),
        ("low \udc80", 300, [], r"U\+DC80, at position 4"),
        ([b"low"], 300, [], "got bytes"),
    ],
)
def test_what_cannot_be_trained(train, text, vocab_size, special_tokens, problem):
    with pytest.raises(UserError, match=problem):
        train(text, vocab_size, special_tokens)

"""The word tokenizers do what the course prints."""

import pytest

from groundup.errors import UserError
from groundup.tokenizers import SimpleTokenizerV1, SimpleTokenizerV2, build_vocab
from groundup.tokenizers.words import split_words

TEA_AND_PALACE = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."


def test_split_of_the_course():
    assert split_words("Hello, world. Is this-- a test?") == (
        ["Hello", ",", "world", ".", "Is", "this", "--", "a", "test", "?"]
    )


def test_vocabulary_of_the_course(verdict):
    assert len(split_words(verdict)) == 4690
    assert len(build_vocab(verdict, special_tokens=())) == 1130
    vocab = build_vocab(verdict)
    assert len(vocab) == 1132
    assert list(vocab.items())[-5:] == [
        ("younger", 1127),
        ("your", 1128),
        ("yourself", 1129),
        ("<|endoftext|>", 1130),
        ("<|unk|>", 1131),
    ]


def test_v1_example_of_the_course(verdict):
    tokenizer = SimpleTokenizerV1(build_vocab(verdict, special_tokens=()))
    text = """"It's the last he painted, you know," Mrs. Gisburn said with pardonable pride."""
    ids = tokenizer.encode(text)
    assert ids == (
        [1, 56, 2, 850, 988, 602, 533, 746, 5, 1126, 596, 5, 1, 67, 7, 38, 851, 1108, 754, 793, 7]
    )
    assert tokenizer.decode(ids) == (
        """" It' s the last he painted, you know," Mrs. Gisburn said with pardonable pride."""
    )


def test_v2_example_of_the_course(verdict):
    tokenizer = SimpleTokenizerV2(build_vocab(verdict))
    ids = tokenizer.encode(TEA_AND_PALACE)
    assert ids == ([1131, 5, 355, 1126, 628, 975, 10, 1130, 55, 988, 956, 984, 722, 988, 1131, 7])
    assert tokenizer.decode(ids) == (
        "<|unk|>, do you like tea? <|endoftext|> In the sunlit terraces of the <|unk|>."
    )


def test_v1_and_v2_differ_in_colons():
    vocab = build_vocab("a : b ; c", special_tokens=["<|unk|>"])
    ids = SimpleTokenizerV1(vocab).encode("a: b; c")
    assert SimpleTokenizerV1(vocab).decode(ids) == "a : b ; c"
    assert SimpleTokenizerV2(vocab).decode(ids) == "a: b; c"


def test_v1_names_the_unknown_word_and_the_way_out():
    tokenizer = SimpleTokenizerV1(build_vocab("the palace"))
    with pytest.raises(UserError, match=r"'palaces'.*SimpleTokenizerV2.*did you mean 'palace'"):
        tokenizer.encode("the palaces")


def test_v2_without_unk_in_its_vocabulary():
    tokenizer = SimpleTokenizerV2(build_vocab("the palace", special_tokens=()))
    assert tokenizer.encode("palace") == [0]
    with pytest.raises(UserError, match=r"'Hello'.*no <\|unk\|>.*build_vocab"):
        tokenizer.encode("Hello palace")


def test_decode_refuses_an_unknown_id():
    with pytest.raises(UserError, match="token id 99 .* 4 tokens"):
        SimpleTokenizerV2(build_vocab("the palace")).decode([0, 99])


def test_special_tokens_in_the_text_are_numbered_once():
    assert build_vocab("a <|unk|> b") == {"a": 0, "b": 1, "<|endoftext|>": 2, "<|unk|>": 3}


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_empty_text_has_no_vocabulary(text):
    with pytest.raises(UserError, match="empty"):
        build_vocab(text)

import pytest
import torch
from torch import Tensor

from groundup.data.labelled_tokens import LabelledTokens, padding_token
from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer, get_gpt2_tokenizer


def test_encoding_counts_what_is_cut_off(tokenizer: BPETokenizer) -> None:
    texts = ["The quick brown fox", "fox", "The fox, the dog, the fox"]
    whole = [tokenizer.encode(text) for text in texts]
    longest = len(whole[0])
    found = LabelledTokens.encode(texts, [1, 0, 1], tokenizer, max_length=longest)
    assert found.ids == [whole[0], whole[1], whole[2][:longest]]
    assert found.truncated == 1 and found.classes == [1, 0, 1]
    assert found.lengths == [longest, len(whole[1]), longest]
    assert found.length is None and found.pad_token == tokenizer.eot_token
    assert LabelledTokens.encode(texts, [1, 0, 1], tokenizer, max_length=999).truncated == 0


def lists(batch: tuple[Tensor, ...]) -> list[list]:
    assert all(tensor.dtype == torch.int64 for tensor in batch)
    return [tensor.tolist() for tensor in batch]


def test_each_text_is_read_at_its_last_token() -> None:
    tokens = LabelledTokens([[5, 6, 7], [8], [1, 2]], [2, 0, 1], pad_token=9)
    assert lists(tokens.collate([0, 1])) == [[[5, 6, 7], [8, 9, 9]], [2, 0], [2, 0]]
    assert lists(tokens.collate([2])) == [[[1, 2]], [1], [1]]


def test_the_courses_way_reads_the_last_position(tokenizer: BPETokenizer) -> None:
    tokens = LabelledTokens([[5, 6, 7], [8]], [2, 0], pad_token=9, length=4)
    assert lists(tokens.collate([1, 0])) == [[[8, 9, 9, 9], [5, 6, 7, 9]], [3, 3], [0, 2]]
    found = LabelledTokens.encode(["a"], [0], tokenizer, max_length=7, read_padded=True)
    assert found.length == 7


def test_a_text_that_ends_with_the_padding_token_is_read_to_its_end() -> None:
    tokens = LabelledTokens([[5, 9], [1, 2, 3]], [1, 0], pad_token=9)
    assert lists(tokens.collate([0, 1])) == [[[5, 9, 9], [1, 2, 3]], [1, 2], [1, 0]]


def test_empty_texts_are_named(tokenizer: BPETokenizer) -> None:
    with pytest.raises(UserError, match=r"nothing to classify in an empty text \(2, 3\)"):
        LabelledTokens.encode(["a", "", ""], [0, 1, 1], tokenizer, max_length=7)


def test_token_dropout() -> None:
    ids = list(range(100, 1100))
    tokens = LabelledTokens([ids, [5], [7, 8]], [2, 0, 1], pad_token=9, token_dropout=0.3)
    found = []
    for _ in range(2):
        inputs, ends, classes = tokens.collate([0, 1, 2])
        end, row = int(ends[0]), inputs[0].tolist()
        assert row[: end + 1] == sorted(set(row[: end + 1]) & set(ids))
        assert 600 < end < 800 and set(row[end + 1 :]) <= {9}
        assert inputs[1, 0] == 5 and ends[1] == 0  # never nothing
        assert classes.tolist() == [2, 0, 1]
        found.append(row)
    assert found[0] != found[1]
    tokens = LabelledTokens([ids], [2], 9, 1200, token_dropout=0.3)
    inputs, ends, classes = tokens.collate([0])
    assert inputs.shape == (1, 1200) and ends.tolist() == [1199] and classes.tolist() == [2]


def test_a_sample_is_spread_over_all_texts_with_their_classes() -> None:
    tokens = LabelledTokens([[i] for i in range(10)], list(range(10)), 9, 4, token_dropout=0.3)
    sample = tokens.sample(4)
    assert sample.classes == [0, 3, 6, 9] and sample.ids == [[0], [3], [6], [9]]
    assert (sample.pad_token, sample.length, sample.token_dropout) == (9, 4, 0.3)
    assert tokens.sample(None) == tokens == tokens.sample(99)


def test_what_pads() -> None:
    assert padding_token(get_gpt2_tokenizer()) == 50256
    assert padding_token(BPETokenizer.train("a", 256, special_tokens=())) == 0

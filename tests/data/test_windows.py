from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.batching import ShuffledBatches, evaluation_rows
from groundup.data.windows import GPTDatasetV1, TokenWindows, create_dataloader_v1
from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9))
def test_windows_are_the_courses_loop(n: int, max_length: int, stride: int) -> None:
    ids = list(range(n))
    expected = [
        (ids[i : i + max_length], ids[i + 1 : i + max_length + 1])
        for i in range(0, len(ids) - max_length, stride)
    ]
    windows = TokenWindows(ids, max_length, stride)
    assert len(windows) == len(expected)
    assert [(x.tolist(), y.tolist()) for x, y in (windows[i] for i in range(len(windows)))] == (
        expected
    )


def test_the_lectures_batches(data_dir: Path) -> None:
    text = (data_dir / "the-verdict.txt").read_text(encoding="utf-8")
    loader = create_dataloader_v1(text, batch_size=1, max_length=4, stride=1, shuffle=False)
    batches = iter(loader)
    assert [b.tolist() for b in next(batches)] == [
        [[40, 367, 2885, 1464]],
        [[367, 2885, 1464, 1807]],
    ]
    assert [b.tolist() for b in next(batches)] == [
        [[367, 2885, 1464, 1807]],
        [[2885, 1464, 1807, 3619]],
    ]
    loader = create_dataloader_v1(text, batch_size=8, max_length=4, stride=4, shuffle=False)
    inputs, targets = next(iter(loader))
    assert inputs[1].tolist() == [1807, 3619, 402, 271]
    assert inputs[7].tolist() == [284, 3285, 326, 11]
    assert targets[1].tolist() == [3619, 402, 271, 10899]
    assert targets[7].tolist() == [3285, 326, 11, 287]


def test_the_lectures_split_of_the_verdict(data_dir: Path) -> None:
    text = (data_dir / "the-verdict.txt").read_text(encoding="utf-8")
    cut = int(0.9 * len(text))
    torch.manual_seed(123)
    options: dict[str, Any] = {"batch_size": 2, "max_length": 256, "stride": 256}
    train = create_dataloader_v1(text[:cut], **options)
    val = create_dataloader_v1(text[cut:], **options, drop_last=False, shuffle=False)
    assert (len(train), len(val)) == (9, 1)
    assert sum(x.numel() for x, _ in train) == 4608
    assert sum(x.numel() for x, _ in val) == 512


def test_the_global_seed_decides_the_courses_order(tokenizer: BPETokenizer) -> None:
    def batches(seed: int) -> list[list]:
        torch.manual_seed(seed)
        loader = create_dataloader_v1(
            "the quick brown fox " * 50, 2, max_length=8, stride=8, tokenizer=tokenizer
        )
        return [x.tolist() for x, _ in loader]

    assert batches(7) == batches(7) != batches(8)


def test_end_of_text_in_a_text_is_the_token_as_in_the_course(tokenizer: BPETokenizer) -> None:
    data = GPTDatasetV1("a<|endoftext|>b", tokenizer, max_length=1, stride=1)
    assert tokenizer.eot_token in data.input_ids.flatten().tolist()


def test_a_text_shorter_than_a_window_says_how_much_is_needed(tokenizer: BPETokenizer) -> None:
    with pytest.raises(UserError, match=r"has \d+ tokens; one window needs max_length \+ 1 = 257"):
        GPTDatasetV1("too short", tokenizer, max_length=256, stride=256)


@pytest.mark.parametrize("name", ["max_length", "stride"])
def test_senseless_sizes_are_refused(name: str) -> None:
    sizes = {"max_length": 1, "stride": 1, name: 0}
    with pytest.raises(UserError, match=f"{name} is 0"):
        TokenWindows([1, 2, 3], sizes["max_length"], sizes["stride"])


def loader(data: TokenWindows) -> ShuffledBatches:
    """As ``groundup pretrain`` makes it."""
    return ShuffledBatches(len(data), 5, 1, data.collate, drop_last=True)


def test_every_epoch_has_another_order_and_all_windows() -> None:
    data = loader(TokenWindows(range(81), 4, 4))  # 20 windows
    epochs = [[x[:, 0].tolist() for x, _ in data.next(9)] for _ in range(2)]
    assert data.epoch == 2
    assert epochs[0] != epochs[1]
    assert sorted(sum(epochs[0], [])) == sorted(sum(epochs[1], [])) == list(range(0, 80, 4))


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_an_epoch_can_begin_at_any_batch(batch: int) -> None:
    windows = TokenWindows(range(81), 4, 4)
    data = loader(windows)
    data.load_state_dict({"epoch": 3, "batch": 0})
    whole = [x.tolist() for x, _ in data.next(9)]
    assert (data.epoch, data.batch) == (4, 0)
    before = torch.get_rng_state()
    data = loader(windows)
    data.load_state_dict({"epoch": 3, "batch": batch})
    assert [x.tolist() for x, _ in data.next(9)] == whole[batch:]
    assert torch.equal(torch.get_rng_state(), before), "it must not use the global generator"
    assert len(data) == 4


def test_few_windows_still_make_a_batch() -> None:
    data = loader(TokenWindows(range(10), 4, 4))
    assert len(data) == 1
    assert [len(x) for x, _ in data.next(9)] == [2]


def test_an_incomplete_batch_is_left_out_if_there_are_others() -> None:
    data = loader(TokenWindows(range(93), 4, 4))  # 23 windows
    assert len(data) == 4
    assert [len(x) for x, _ in data.next(9)] == [5] * 4


def test_a_batch_is_windows_and_the_same_moved_one_token_on() -> None:
    inputs, targets = TokenWindows(range(41), 4, 4).collate([7, 0])
    assert inputs.tolist() == [[28, 29, 30, 31], [0, 1, 2, 3]]
    assert torch.equal(inputs + 1, targets)


def test_evaluation_batches_are_spread_over_the_text() -> None:
    data = TokenWindows(range(401), 4, 4)  # 100 windows
    few = [data.collate(rows) for rows in evaluation_rows(len(data), 5, 2)]
    starts = [int(row[0]) // 4 for x, _ in few for row in x]
    assert len(few) == 2
    assert len(starts) == len(set(starts)) == 10
    assert (starts[0], starts[-1]) == (0, 99)
    everything = [data.collate(rows) for rows in evaluation_rows(len(data), 8)]
    assert sum(len(x) for x, _ in everything) == 100
    for x, y in everything:
        assert torch.equal(x + 1, y)
    assert evaluation_rows(len(TokenWindows([1], 4, 4)), 8) == []

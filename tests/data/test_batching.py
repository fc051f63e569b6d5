import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from groundup.data.batching import BucketLoader, evaluation_batches, pad_right

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=150)


def rows_of(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def nothing(rows: object) -> tuple[Tensor, Tensor]:
    raise AssertionError("no batch was to be made")


def numbers(rows: object) -> tuple[Tensor, Tensor]:
    """The rows themselves as a batch."""
    return torch.tensor(rows), torch.tensor(rows)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_every_example_once_per_epoch(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    loader = BucketLoader(lengths, batch_size, seed, nothing)
    loader.start(epoch, 0)
    batches = loader.batches()
    assert sorted(rows_of(batches)) == list(range(len(lengths)))
    assert len(batches) == len(loader)
    sizes = [len(batch) for batch in batches]
    assert all(size == batch_size for size in sizes[:-1]) and 1 <= sizes[-1] <= batch_size
    assert batches == loader_at(lengths, batch_size, seed, epoch)


def loader_at(lengths: list[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    loader = BucketLoader(lengths, batch_size, seed, nothing)
    loader.start(epoch, 0)
    return loader.batches()


def test_epochs_and_seeds_differ() -> None:
    lengths = torch.randint(1, 100, (90,)).tolist()
    orders = [loader_at(lengths, 4, seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert len({str(order) for order in orders}) == 6
    assert len({str(sorted(map(sorted, order))) for order in orders}) == 6  # not only their order
    assert orders == [loader_at(lengths, 4, seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]


def test_an_epoch_goes_on_from_any_batch() -> None:
    loader = BucketLoader(torch.randint(1, 100, (30,)).tolist(), 4, 7, numbers)
    loader.start(3, 0)
    whole = [inputs.tolist() for inputs, _ in loader]
    assert len(whole) == 8
    for batch in range(9):
        loader.start(3, batch)
        assert [inputs.tolist() for inputs, _ in loader] == whole[batch:]


def test_global_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    BucketLoader([1, 2, 3, 4], 2, 7, nothing).batches()
    assert torch.equal(torch.get_rng_state(), before)


def test_little_is_padding() -> None:
    lengths = torch.randint(1, 200, (1000,)).tolist()

    def padding(batches: list[list[int]]) -> float:
        padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
        return 1 - sum(lengths) / padded

    shuffled = torch.randperm(1000).split(8)
    at_random = padding([batch.tolist() for batch in shuffled])
    assert at_random > 0.35
    assert padding(loader_at(lengths, 8, 1, 0)) < at_random / 4


def test_batches_are_not_in_order_of_length() -> None:
    """Else every epoch would end with the long texts, and those are spam."""
    lengths = list(range(1000))
    batches = loader_at(lengths, 8, 1, 0)
    longest = [max(batch) for batch in batches]
    order = torch.corrcoef(torch.stack([torch.arange(125.0), torch.tensor(longest).float()]))[0, 1]
    assert abs(order) < 0.3


@given(LENGTHS, st.integers(1, 9))
def test_evaluation_covers_all_in_order_of_length(lengths: list[int], batch_size: int) -> None:
    batches = evaluation_batches(lengths, batch_size)
    assert sorted(rows_of(batches)) == list(range(len(lengths)))
    found = [lengths[row] for row in rows_of(batches)]
    assert found == sorted(found)
    assert batches == evaluation_batches(lengths, batch_size)


@given(LENGTHS, st.integers(1, 9), st.integers(1, 5))
def test_evaluation_of_a_part_is_spread_over_all(
    lengths: list[int], batch_size: int, max_batches: int
) -> None:
    batches = evaluation_batches(lengths, batch_size, max_batches)
    rows = sorted(rows_of(batches))
    assert len(batches) == min(max_batches, -(-len(lengths) // batch_size))
    assert len(rows) == len(set(rows)) == min(len(lengths), max_batches * batch_size)
    assert rows[0] == 0 and (rows[-1] == len(lengths) - 1 or len(rows) == 1)


def test_nothing_makes_no_evaluation_batches() -> None:
    assert evaluation_batches([], 4) == [] == evaluation_batches([], 4, 2)


def test_padding_on_the_right() -> None:
    assert pad_right([[1, 2, 3], [4]], 9).tolist() == [[1, 2, 3], [4, 9, 9]]
    assert pad_right([[1]], 9, 3).tolist() == [[1, 9, 9]]

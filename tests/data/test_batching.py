from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from groundup.data.batching import (
    Batches,
    LoaderBatches,
    ShuffledBatches,
    evaluation_rows,
    evenly_spaced,
    pad_right,
    shuffled,
)
from groundup.errors import UserError

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=150)


def rows_of(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def nothing(rows: object) -> tuple[Tensor, Tensor]:
    raise AssertionError("no batch was to be made")


def numbers(rows: object) -> tuple[Tensor, Tensor]:
    """The rows themselves as a batch."""
    return torch.tensor(rows), torch.tensor(rows)


def rows_at(lengths: list[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    return ShuffledBatches(len(lengths), batch_size, seed, nothing, lengths=lengths).rows(epoch)


def seen(data: Batches, batches: int, at_once: int = 1) -> list[list[int]]:
    """The rows of so many batches of :func:`numbers`."""
    found: list[list[int]] = []
    while len(found) < batches:
        found += [inputs.tolist() for inputs, _ in data.next(at_once)]
    return found


@given(
    LENGTHS,
    st.integers(1, 9),
    st.integers(0, 2**63 - 1),
    st.integers(0, 50),
    st.booleans(),
    st.booleans(),
)
def test_every_example_once_per_epoch(
    lengths: list[int], batch_size: int, seed: int, epoch: int, by_length: bool, drop_last: bool
) -> None:
    size = len(lengths)
    more: dict[str, Any] = {"lengths": lengths if by_length else None, "drop_last": drop_last}
    data = ShuffledBatches(size, batch_size, seed, nothing, **more)
    batches = data.rows(epoch)
    assert len(batches) == len(data)
    found = rows_of(batches)
    left_out = size % batch_size if drop_last and size >= batch_size else 0
    assert len(found) == len(set(found)) == size - left_out
    assert set(found) <= set(range(size))
    sizes = [len(batch) for batch in batches]
    assert all(size == batch_size for size in sizes[:-1]) and 1 <= sizes[-1] <= batch_size
    assert batches == ShuffledBatches(size, batch_size, seed, nothing, **more).rows(epoch)


def test_epochs_and_seeds_differ() -> None:
    lengths = torch.randint(1, 100, (90,)).tolist()
    orders = [rows_at(lengths, 4, seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert len({str(order) for order in orders}) == 6
    assert len({str(sorted(map(sorted, order))) for order in orders}) == 6  # not only their order
    assert orders == [rows_at(lengths, 4, seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]


def test_orders_are_those_of_the_first_version() -> None:
    """Else a run that it saved in the middle of an epoch would see batches twice, others never."""
    shuffle = torch.Generator().manual_seed(7 * 1_000_003 + 3)
    order = torch.randperm(10, generator=shuffle)
    assert ShuffledBatches(10, 4, 7, nothing).rows(3) == [b.tolist() for b in order.split(4)]
    lengths = torch.tensor([5, 3, 9, 1, 7, 7, 2, 8, 4, 6])
    by_length = order[lengths[order].argsort(stable=True)].split(4)
    full = [by_length[i].tolist() for i in torch.randperm(2, generator=shuffle)]
    assert rows_at(lengths.tolist(), 4, 7, 3) == [*full, by_length[2].tolist()]


@pytest.mark.parametrize("lengths", [None, torch.randint(1, 100, (30,)).tolist()])
def test_an_epoch_goes_on_from_any_batch(lengths: list[int] | None) -> None:
    def make() -> ShuffledBatches:
        return ShuffledBatches(30, 4, 7, numbers, lengths=lengths)

    whole = seen(make(), 24)  # 8 batches per epoch
    assert len({str(whole[i : i + 8]) for i in (0, 8, 16)}) == 3
    data = make()
    for done in range(17):
        again = make()
        again.load_state_dict(data.state_dict())
        assert (again.epoch, again.batch) == divmod(done, 8)
        assert seen(again, 24 - done) == whole[done:]
        data.next(1)


def test_several_batches_at_once_never_cross_an_epochs_end() -> None:
    data = ShuffledBatches(10, 4, 7, numbers)
    assert [len(data.next(2)) for _ in range(4)] == [2, 1, 2, 1]
    assert (data.epoch, data.batch) == (2, 0)
    assert seen(ShuffledBatches(10, 4, 7, numbers), 6, at_once=2) == seen(
        ShuffledBatches(10, 4, 7, numbers), 6
    )


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"epoch": 0, "batch": 5, "batches": 9}, "there is no batch 5 of 9 in an epoch of 3"),
        ({"epoch": 0, "batch": 1, "batches": 9}, "there is no batch 1 of 9 in an epoch of 3"),
        ({"epoch": 0, "batch": 5}, "there is no batch 5 in an epoch of 3"),  # the first version's
    ],
)
def test_other_batches_cannot_be_gone_on_with(state: dict[str, int], sentence: str) -> None:
    data = ShuffledBatches(10, 4, 7, nothing)
    with pytest.raises(UserError, match=f"{sentence}; a run can be resumed only on the same"):
        data.load_state_dict(state)
    data.load_state_dict({"epoch": 4, "batch": 2})
    assert (data.epoch, data.batch) == (4, 2)


def test_global_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    ShuffledBatches(4, 2, 7, numbers, lengths=[1, 2, 3, 4]).next(9)
    ShuffledBatches(4, 2, 7, numbers).next(9)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_list_of_batches_is_gone_through_epoch_after_epoch() -> None:
    batches = [numbers([i]) for i in range(3)]
    data = LoaderBatches(batches)
    assert len(data) == 3
    assert seen(data, 7, at_once=2) == [[0], [1], [2], [0], [1], [2], [0], [1]]
    assert (data.epoch, data.batch) == (2, 2)
    again = LoaderBatches(batches)
    again.load_state_dict(data.state_dict())
    assert seen(again, 3) == [[2], [0], [1]] == seen(data, 3)


def test_pytorchs_loader_draws_its_order_where_an_epoch_begins() -> None:
    """As the course's ``for`` loop does, so that the same seed gives the same batches."""
    rows = TensorDataset(torch.arange(9))
    torch.manual_seed(5)
    expected = [x.tolist() for _ in range(2) for (x,) in DataLoader(rows, 4, shuffle=True)]
    torch.manual_seed(5)
    data = LoaderBatches(DataLoader(rows, 4, shuffle=True))
    assert [x.tolist() for _ in range(6) for (x,) in data.next(1)] == expected


def test_little_is_padding() -> None:
    lengths = torch.randint(1, 200, (1000,)).tolist()

    def padding(batches: list[list[int]]) -> float:
        padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
        return 1 - sum(lengths) / padded

    mixed = torch.randperm(1000).split(8)
    at_random = padding([batch.tolist() for batch in mixed])
    assert at_random > 0.35
    assert padding(rows_at(lengths, 8, 1, 0)) < at_random / 4


def test_batches_are_not_in_order_of_length() -> None:
    """Else every epoch would end with the long texts, and those are spam."""
    lengths = list(range(1000))
    batches = rows_at(lengths, 8, 1, 0)
    longest = [max(batch) for batch in batches]
    order = torch.corrcoef(torch.stack([torch.arange(125.0), torch.tensor(longest).float()]))[0, 1]
    assert abs(order) < 0.3


@given(LENGTHS, st.integers(1, 9))
def test_evaluation_covers_all_in_order_of_length(lengths: list[int], batch_size: int) -> None:
    batches = evaluation_rows(len(lengths), batch_size, lengths=lengths)
    assert sorted(rows_of(batches)) == list(range(len(lengths)))
    found = [lengths[row] for row in rows_of(batches)]
    assert found == sorted(found)
    assert batches == evaluation_rows(len(lengths), batch_size, lengths=lengths)


@given(st.integers(1, 10**6), st.integers(1, 200))
def test_evenly_spaced_numbers(size: int, count: int) -> None:
    found = evenly_spaced(size, count)
    assert len(found) == len(set(found)) == min(size, count)
    assert found == sorted(found) and found[0] == 0 and found[-1] < size
    gaps = {b - a for a, b in zip(found, found[1:], strict=False)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert count == 1 or found[-1] == size - 1
    assert evenly_spaced(min(size, 99), None) == list(range(min(size, 99)))


@given(LENGTHS, st.integers(1, 9), st.integers(1, 5))
def test_evaluation_of_a_part_is_spread_over_all(
    lengths: list[int], batch_size: int, max_batches: int
) -> None:
    batches = evaluation_rows(len(lengths), batch_size, max_batches, lengths)
    rows = sorted(rows_of(batches))
    assert len(batches) == min(max_batches, -(-len(lengths) // batch_size))
    assert len(rows) == len(set(rows)) == min(len(lengths), max_batches * batch_size)
    assert rows[0] == 0 and (rows[-1] == len(lengths) - 1 or len(rows) == 1)


def test_nothing_makes_no_evaluation_batches() -> None:
    assert evaluation_rows(0, 4) == [] == evaluation_rows(0, 4, 2)
    assert evaluation_rows(0, 4, lengths=[]) == [] == evenly_spaced(0, None) == evenly_spaced(0, 3)


def test_padding_on_the_right() -> None:
    assert pad_right([[1, 2, 3], [4]], 9).tolist() == [[1, 2, 3], [4, 9, 9]]
    assert pad_right([[1]], 9, 3).tolist() == [[1, 9, 9]]


@pytest.mark.parametrize("lengths", [None, [n * 7 % 11 + 1 for n in range(30)]])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_one_order(world: int, lengths: list[int] | None) -> None:
    """Together they have what one has with batches as large as all of theirs."""
    alone = ShuffledBatches(30, 6, 7, numbers, lengths=lengths)
    dealt = [ShuffledBatches(30, 6 // world, 7, numbers, lengths=lengths) for _ in range(world)]
    for rank, data in enumerate(dealt):
        data.deal(rank, world)
        assert len(data) == len(alone) == 5
    for _ in range(12):
        (whole,) = seen(alone, 1)
        parts = [seen(data, 1)[0] for data in dealt]
        assert sorted(sum(parts, [])) == sorted(whole)
        assert {len(part) for part in parts} == {6 // world}


def test_a_process_may_have_nothing_of_the_last_batch() -> None:
    dealt = [ShuffledBatches(9, 2, 7, numbers) for _ in range(4)]  # 8 and 1
    for rank, data in enumerate(dealt):
        data.deal(rank, 4)
    parts = [seen(data, 2) for data in dealt]
    assert [len(part[1]) for part in parts] == [1, 0, 0, 0]
    assert sorted(sum((sum(part, []) for part in parts), [])) == list(range(9))


def test_more_processes_than_examples() -> None:
    data = ShuffledBatches(3, 2, 7, numbers)
    data.deal(0, 3)
    with pytest.raises(UserError, match="4 processes cannot share 3 training examples"):
        data.deal(0, 4)
    with pytest.raises(UserError, match="cannot be dealt to several processes"):
        LoaderBatches([numbers([0])]).deal(0, 2)


@pytest.mark.parametrize(
    ("before", "after"), [((2, 4), (3, 4)), ((2, 4), (1, 4)), ((1, 3), (2, 5))]
)
@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_another_number_of_processes_goes_on_behind_the_same_example(
    before: tuple[int, int], after: tuple[int, int], done: int
) -> None:
    def together(world: int, batch: int, state: dict[str, int] | None, steps: int):
        dealt = [ShuffledBatches(40, batch, 7, numbers) for _ in range(world)]
        for rank, data in enumerate(dealt):
            data.deal(rank, world)
            if state is not None:
                data.load_state_dict(state)
        taken = [sorted(sum((seen(d, 1)[0] for d in dealt), [])) for _ in range(steps)]
        return taken, dealt[0].state_dict()

    first, state = together(*before, None, done)
    again = ShuffledBatches(40, after[1], 7, numbers)
    again.deal(0, after[0])
    again.load_state_dict(state)
    left = -(-(40 - done * before[0] * before[1]) // (after[0] * after[1]))
    rest, state = together(*after, state, left)
    assert sorted(sum(first + rest, [])) == list(range(40))  # the epoch, each once
    assert (state["epoch"], state["batch"]) == (1, 0)


def test_an_order_by_length_cannot_be_gone_on_with_in_other_batches() -> None:
    lengths = [n * 7 % 11 + 1 for n in range(30)]
    data, again = (ShuffledBatches(30, 3, 7, numbers, lengths=lengths) for _ in range(2))
    data.deal(0, 2)
    again.deal(0, 3)
    data.next(2)
    sentence = "depend on batch size times processes, which was 6 and now is 9; .* that makes 6"
    with pytest.raises(UserError, match=sentence):
        again.load_state_dict(data.state_dict())
    data.next(3)  # the epoch's end: another order begins
    again.load_state_dict(data.state_dict())
    assert (again.epoch, again.batch) == (1, 0)


@pytest.mark.parametrize("count", [0, 1, 10, 100_000])
def test_a_shuffled_order_is_pytorchs_in_half_the_memory(count: int) -> None:
    first, second = (torch.Generator().manual_seed(7) for _ in range(2))
    order = shuffled(count, first)
    assert order.tolist() == torch.randperm(count, generator=second).tolist()
    assert order.nbytes == 4 * count

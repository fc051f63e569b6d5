from collections import Counter

import pytest
import torch

from groundup.data.batching import Batches
from groundup.data.mixture import MixedBatches, Share, parse_shares, short_names
from groundup.errors import UserError

SIZES = {"a": 100, "b": 37}
WEIGHTS = {"a": 0.7, "b": 0.3}


def mixture(seed: int = 3, sizes: dict[str, int] = SIZES, batch_size: int = 8) -> MixedBatches:
    def share(name: str, offset: int) -> Share:
        def collate(rows):
            return (torch.tensor(rows) + offset, torch.full((len(rows),), offset))

        return Share(name, WEIGHTS[name], sizes[name], collate)

    return MixedBatches([share("a", 0), share("b", 1000)], batch_size, seed)


def drawn(data: Batches, count: int) -> list[int]:
    """The examples of so many batches, one after the other."""
    return [row for _ in range(count) for row in data.next(1)[0][0].tolist()]


def test_sources_come_by_their_shares_and_none_twice_in_its_epoch() -> None:
    data = mixture()
    rows = drawn(data, 400)
    assert len(rows) == 3200 and len(data) == 137 // 8
    share = sum(row >= 1000 for row in rows) / len(rows)
    assert share == pytest.approx(0.3, abs=0.03)
    for name, own in (("a", [r for r in rows if r < 1000]), ("b", [r for r in rows if r >= 1000])):
        size = SIZES[name]
        full = len(own) // size
        epochs = [own[n * size : (n + 1) * size] for n in range(full)]
        assert full > 10 and all(len(set(epoch)) == size for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == full  # each in another order
        assert data.progress()[f"epochs.{name}"] == round(len(own) / size, 6)
    assert data.epoch == 400 // 17 and data.batch == 400 % 17


def test_the_seed_decides() -> None:
    assert drawn(mixture(), 50) == drawn(mixture(), 50)
    assert Counter(drawn(mixture(4), 50)) != Counter(drawn(mixture(), 50))


@pytest.mark.parametrize("at", [0, 1, 16, 17, 90])
def test_it_goes_on_where_it_was(at: int) -> None:
    whole, data, again = mixture(), mixture(), mixture()
    expected = drawn(whole, at + 60)
    drawn(data, at)
    again.load_state_dict(data.state_dict())
    assert drawn(again, 60) == expected[8 * at :]
    assert again.state_dict() == whole.state_dict()
    with pytest.raises(UserError, match="only on the same mixture"):
        mixture(sizes={"a": 100, "b": 370}).load_state_dict(data.state_dict())


@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_the_batches_of_one(size: int) -> None:
    whole = mixture(batch_size=8)
    parts = [mixture(batch_size=8 // size) for _ in range(size)]
    for rank, part in enumerate(parts):
        part.deal(rank, size)
    for _ in range(40):
        dealt = [row for part in parts for row in drawn(part, 1)]
        assert sorted(dealt) == sorted(drawn(whole, 1))
    states = [part.state_dict() for part in parts]
    assert all(state == whole.state_dict() for state in states)


def test_an_epoch_is_not_crossed_and_a_batch_may_take_a_source_several_times() -> None:
    data = mixture()
    assert [len(data.next(10)) for _ in range(3)] == [10, 7, 10]
    tiny = mixture(sizes={"a": 3, "b": 1}, batch_size=50)
    ((rows, _),) = tiny.next(1)
    assert len(rows) == 50 and sum(tiny.taken) == 50


def test_shares_are_read() -> None:
    assert parse_shares(["a/b=c=0.25", "d=0.7500000001"]) == {"a/b=c": 0.25, "d": 0.7500000001}
    for given, message in (
        (["a=0.7", "b=0.2"], "add up to 0.9; expected 1: a=0.7, b=0.2"),
        (["a=0.5", "a=0.5"], "names a twice"),
        (["a"], "--mix is 'a'; expected a prepared corpus and its share"),
        (["=1"], "--mix is '=1'"),
        (["a=x"], "--mix is 'a=x'"),
        (["a=nan"], "--mix is 'a=nan'"),
        (["a=1.5", "b=-0.5"], "--mix is 'a=1.5'"),
    ):
        with pytest.raises(UserError, match=message):
            parse_shares(given)


def test_names_are_short_where_they_tell_apart() -> None:
    assert short_names(["x/books/", "y/code"]) == ["books", "code"]
    assert short_names(["x/books", "y/books"]) == ["x/books", "y/books"]

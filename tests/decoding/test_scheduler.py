"""The scheduler on lists of ids: a model is played by a list of what each row of a cache holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.decoding.config import SamplingConfig
from groundup.decoding.rows import Batch
from groundup.decoding.scheduler import SHARED, Scheduler
from groundup.decoding.sequence import Sequence
from groundup.errors import UserError

NEXT = 1000
"""What is written: always this."""


def text(*ids: int, most: int = 4, **options: object) -> Sequence:
    return Sequence(ids, SamplingConfig(max_new_tokens=most), **options)  # pyright: ignore


class Machine:
    """Does what the scheduler says, and checks that the cache holds what it takes it to hold."""

    def __init__(self, max_batch: int = 4, context: int = 64, **limits: int | bool) -> None:
        self.scheduler = Scheduler(max_batch, context, **limits)  # pyright: ignore
        self.rows: list[list[int]] = []
        self.batches: list[Batch] = []

    def add(self, *texts: Sequence) -> None:
        for each in texts:
            self.scheduler.add(each)

    def step(self) -> Batch | None:
        batch = self.scheduler.next()
        if batch is None:
            return None
        self.batches.append(batch)
        moved = [place + 1 for move in batch.moves for place in move[:2]]
        missing = max(len(self.scheduler.slots), *moved, 0) - len(self.rows)
        self.rows += [[] for _ in range(missing)]
        for source, target, length, swap in batch.moves:
            moved = self.rows[source][:length]
            if swap:
                self.rows[source] = self.rows[target][:length]
            self.rows[target] = moved
        for i, (row, new) in enumerate(zip(batch.rows, batch.ids, strict=True)):
            place, n = batch.first + i, batch.lengths[i]
            window = row.ids[row.start :]
            assert len(new) == batch.counts[i] >= 1
            assert self.rows[place][:n] == window[:n] or not self.scheduler.cached
            assert n + max(batch.counts) <= self.scheduler.context
            self.rows[place][n:] = new
        complete = [batch.rows[i] for i in batch.complete]
        self.scheduler.done(batch)
        for row in complete:
            row.push(NEXT)
            if row.finish_reason:
                self.scheduler.remove(row)
        longest = max(len(slot.ids) for slot in self.scheduler.slots)
        assert len(self.scheduler.slots) * longest <= self.scheduler.max_tokens
        return batch

    def run(self) -> list[list[int]]:
        """Go on to the end; how many tokens of which row each call computed."""
        while len(self.scheduler):
            assert self.step() is not None
        return [batch.counts for batch in self.batches]


def test_prompts_are_read_together_and_written_token_by_token() -> None:
    machine = Machine()
    machine.add(text(1, 2, 3), text(4, 5, most=2), text(6))
    assert machine.run() == [[3, 2], [1, 1, 1], [1, 1], [1, 1], [1]]


def test_first_come_first_served_and_a_place_goes_to_the_next() -> None:
    machine = Machine(max_batch=2)
    texts = [text(i, i, most=most) for i, most in enumerate((3, 1, 2, 1))]
    machine.add(*texts)
    order = []
    while len(machine.scheduler):
        batch = machine.step()
        assert batch is not None
        order.append([texts.index(row) for row in batch.rows])
        assert len(batch.rows) <= 2
    assert order == [[0, 1], [2], [0, 2], [3], [0]]


def test_a_long_prompt_does_not_stall_the_others() -> None:
    machine = Machine(context=200, chunk=10)
    machine.add(short := text(1, 2, most=50))
    machine.step()
    machine.add(long := text(*range(100, 195), most=2))
    waits = 0
    while not long.token_ids:
        batch = machine.step()
        assert batch is not None and max(batch.counts) <= 10
        waits = 0 if short in batch.rows else waits + 1
        assert waits < 2
    assert len(short.token_ids) >= 9
    # While nobody waits, it is read at once.
    machine = Machine(context=200, chunk=10)
    machine.add(text(*range(100, 195), most=1))
    assert machine.run() == [[95]]


def test_a_short_prompt_is_not_padded_to_a_long_ones_length() -> None:
    machine = Machine(context=400)
    machine.add(text(*range(300), most=1), text(*range(300, 350), most=1), text(7, 8, most=1))
    assert machine.run() == [[300], [50, 2]]


def test_what_can_never_be_admitted_is_refused_at_once() -> None:
    machine = Machine(context=64, max_tokens=40)
    with pytest.raises(UserError, match="the prompt has 65 tokens, but the model's context is 64"):
        machine.add(text(*range(65)))
    with pytest.raises(UserError, match="take 49 tokens, but the cache holds 40"):
        machine.add(text(*range(40), most=10))
    machine.add(text(*range(30), most=11))
    machine.run()


def test_the_budget_counts_rows_times_the_longest() -> None:
    machine = Machine(max_batch=8, context=64, max_tokens=60)
    machine.add(*(text(i, i, i, most=8) for i in range(6)), text(*range(100, 120), most=11))
    most = 0
    while len(machine.scheduler):
        machine.step()
        running = len(machine.scheduler.running)
        most = max(most, running)
        assert running * machine.scheduler.need <= 60
    assert most == 6


def test_an_aborted_one_leaves_at_once_wherever_it_is() -> None:
    machine = Machine(max_batch=2)
    machine.add(one := text(1, 2), two := text(3, 4), three := text(5, 6))
    machine.step()
    machine.scheduler.remove(one)
    machine.scheduler.remove(three)
    machine.scheduler.remove(three)
    machine.run()
    assert len(two.token_ids) == 4 and not three.token_ids and len(one.token_ids) == 1


def test_a_window_slides_or_the_text_ends() -> None:
    machine = Machine(context=8)
    machine.add(end := text(*range(6), most=20))
    machine.run()
    assert end.finish_reason == "length" and len(end.token_ids) == 3
    machine = Machine(context=8)
    machine.add(slide := text(*range(6), most=9, on_full="slide", keep=4))
    assert machine.run() == [[6], [1], [1], [4], [1], [1], [1], [1], [4]]
    assert len(slide.token_ids) == 9
    machine = Machine(context=8)
    machine.add(text(*range(12), most=3, on_full="slide"))
    assert machine.run() == [[8], [8], [8]]


def test_without_a_cache_windows_of_one_length_are_computed_anew() -> None:
    machine = Machine(context=4, cached=False)
    machine.add(text(1, 2), text(3, 4), text(5, most=5))
    assert machine.run() == [[2, 2], [1], [3, 3], [2], [4, 4], [3], [4]]


PREFIX = list(range(200, 200 + SHARED + 4))


def test_samples_of_one_prompt_read_it_once() -> None:
    machine = Machine()
    machine.add(*(text(*PREFIX, 1, 2) for _ in range(3)))
    counts = machine.run()
    assert counts[:2] == [[len(PREFIX) + 2], [1, 1, 1]]
    assert sum(map(sum, counts)) == len(PREFIX) + 2 + 2 + 3 * 3
    copies = [move for batch in machine.batches for move in batch.moves]
    assert [move.length for move in copies] == [len(PREFIX) + 1] * 2
    apart = Machine(share=False)
    apart.add(*(text(*PREFIX, 1, 2) for _ in range(3)))
    assert apart.run()[0] == [len(PREFIX) + 2] * 3


def test_a_conversation_goes_on_where_it_was() -> None:
    machine = Machine(context=128)
    machine.add(first := text(*PREFIX, most=3))
    machine.run()
    machine.add(text(1, 2, 3, most=2))  # somebody else
    machine.run()
    machine.batches.clear()
    machine.add(text(*first.ids, 5, 6, most=1))
    assert machine.run() == [[3]]  # the last token written was never read
    other = text(*PREFIX, 9, most=1, adapter="other")
    machine.add(other)  # another adapter's keys and values are others
    machine.batches.clear()
    assert machine.run() == [[len(PREFIX) + 1]]


def test_a_call_is_of_one_adapter_and_they_take_turns() -> None:
    machine = Machine()
    texts = [text(i, i, most=5, adapter=name) for i, name in enumerate(("a", "b", "a", None))]
    machine.add(*texts)
    machine.run()
    for batch in machine.batches:
        assert {row.adapter for row in batch.rows} == {batch.adapter}
    latest = [batch.adapter for batch in machine.batches if batch.counts[0] == 1]
    assert sorted(map(str, latest)) == ["None"] * 4 + ["a"] * 4 + ["b"] * 4
    assert all(now != then for now, then in pairwise(latest))
    assert sum(len(batch.moves) for batch in machine.batches) == 1  # rows are brought together once


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_is_lost_mixed_up_or_starved(data: st.DataObject) -> None:
    draw = data.draw
    machine = Machine(
        max_batch=draw(st.integers(1, 4)),
        context=draw(st.integers(24, 60)),
        chunk=draw(st.integers(1, 20)),
        prompt_tokens=draw(st.integers(1, 80)),
        cached=draw(st.booleans()),
    )
    machine.scheduler.max_tokens = draw(st.integers(60, 240))
    ids = st.lists(st.integers(0, 1), min_size=1, max_size=30)
    texts = []
    for _ in range(draw(st.integers(1, 7))):
        prompt = draw(st.sampled_from([[], PREFIX])) + draw(ids)
        new = text(
            *prompt,
            most=draw(st.integers(1, 9)),
            on_full=draw(st.sampled_from(["slide", "end"])),
            keep=draw(st.sampled_from([None, 12])),
            adapter=draw(st.sampled_from([None, "a"])),
        )
        try:
            machine.add(new)
            texts.append(new)
        except UserError:
            continue
        for _ in range(draw(st.integers(0, 6))):
            machine.step()
        if draw(st.integers(0, 9)) == 0:
            machine.scheduler.remove(gone := draw(st.sampled_from(texts)))
            texts.remove(gone)
    for _ in range(2000):
        if not len(machine.scheduler):
            break
        machine.step()
    assert all(each.finish_reason == "length" for each in texts)
    assert all(len(each.token_ids) == each.most for each in texts)

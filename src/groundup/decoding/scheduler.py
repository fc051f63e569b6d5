"""Who is computed next: the scheduler decides, without a model, on lists of token ids.

A sequence waits, is admitted to a slot (a row of the cache), has its prompt computed in one piece
or several, is written token by token, and leaves. What a slot holds stays there until somebody else
needs it: a later sequence that begins with the same tokens goes on from them.

First come, first served; of those that are admitted, whoever waited longest. Prompts and the next
tokens of the others take turns, and a prompt's turn is no longer than ``chunk`` tokens, so a long
prompt doesn't stall the others.
"""

from __future__ import annotations

from collections import deque

from groundup.decoding.rows import Batch, Move, Slot
from groundup.decoding.sequence import Sequence
from groundup.errors import UserError

SHARED = 16
"""A common beginning of fewer tokens is sooner computed than copied."""

PADDING = 64
"""Prompts are computed together if the shorter is padded by no more than this, or by half."""


class Scheduler:
    """Decides which tokens each call of the model computes.

    Args:
        max_batch: most sequences at a time.
        context: most tokens that the model can look at.
        max_tokens: most tokens that the cache may hold, rows times the longest; no limit unless
            given.
        chunk: tokens of prompts in a call while others wait for their next token.
        prompt_tokens: the same while nobody waits.
        cached: whether there is a cache. Without one, whole windows are computed, of equal length
            only (a model that takes only ids knows no padding).
        share: whether one goes on from what another has computed of the same beginning.
        rows: a call that writes further tokens may compute so many, with those that are guessed.
    """

    def __init__(
        self,
        max_batch: int,
        context: int,
        *,
        max_tokens: int | None = None,
        chunk: int = 512,
        prompt_tokens: int = 8192,
        cached: bool = True,
        share: bool = True,
        rows: int = 1,
    ) -> None:
        self.rows = rows if cached else 1
        self.max_batch, self.context, self.cached = max_batch, context, cached
        self.share = share and cached
        self.max_tokens = max_tokens or max_batch * context
        self.chunk, self.prompt_tokens = chunk, prompt_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.slots: list[Slot] = []
        self.turn = 0
        self._prompts_were_last = False
        self._moves: list[Move] = []

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn.

        Raises:
            UserError: it can never have one.
        """
        length, context = sequence.prompt_length, self.context
        if sequence.on_full == "slide":
            sequence.start = max(0, length - context)
        elif length > context:
            raise UserError(
                f"the prompt has {length} tokens, but the model's context is {context}; shorten it"
            )
        else:
            sequence.most = min(sequence.most, context - length + 1)  # the last one is never read
        if self._need(sequence) > self.max_tokens:
            raise UserError(
                f"the prompt and what may be written after it take {self._need(sequence)} tokens, "
                f"but the cache holds {self.max_tokens}; shorten the prompt or lower max_new_tokens"
            )
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Let go of a sequence that has ended or isn't wanted any more."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            assert sequence.slot is not None
            sequence.slot.owner = sequence.slot = None

    def next(self) -> Batch | None:
        """What to compute next; None if there is nothing to do. Then call :meth:`done`."""
        self.turn += 1
        self._admit()
        for row in self.running:
            if len(row.ids) - row.start > self.context:  # the window slides
                keep = row.keep if row.keep and self.cached else self.context
                row.start = len(row.ids) - min(keep, self.context)
                _slot(row).ids.clear()
        able = [row for row in self.running if not (row.fresh and self._waits_for_another(row))]
        prompts = [row for row in able if self.pending(row) > 1 or not self.cached]
        latest = [row for row in able if self.pending(row) == 1 and self.cached]
        if not able:
            return None
        waited = any(row.served < self.turn - 1 for row in latest)
        self._prompts_were_last = bool(prompts) and not (waited and self._prompts_were_last)
        chosen = prompts if self._prompts_were_last else latest
        return self._batch(chosen, self.chunk if latest else self.prompt_tokens)

    def done(self, batch: Batch) -> None:
        """Note that a batch was computed."""
        for row, new, guess in zip(batch.rows, batch.ids, batch.guesses, strict=True):
            slot = _slot(row)
            slot.used = row.served = self.turn
            row.guessed = len(guess)
            if self.cached:
                slot.ids += new

    def written(self, row: Sequence) -> None:
        """Note that a sequence has another token; if it was guessed otherwise, drop the guess."""
        if not row.guessed:
            return
        right = row.guessed - len(row.ahead)
        if row.ahead:
            slot, place = _slot(row), len(row.ids) - 1 - row.start
            if slot.ids[place] == row.ids[-1]:
                return
            del slot.ids[place:]
        row.learn(right)

    def pending(self, row: Sequence) -> int:
        """How many tokens of a running sequence are to be computed before its next is known."""
        return len(row.ids) - row.start - len(_slot(row).ids)

    @property
    def need(self) -> int:
        """How many tokens the longest of the running ones may come to."""
        return max((self._need(row) for row in self.running), default=0)

    @property
    def longest(self) -> int:
        """How many tokens are in the fullest slot."""
        return max((len(slot.ids) for slot in self.slots), default=0)

    def forget(self) -> None:
        """Take it that no slot holds anything any more."""
        self._moves.clear()
        for slot in self.slots:
            slot.ids = []
        for row in self.running:
            row.ahead.clear()
            row.guessed = 0

    def _need(self, sequence: Sequence) -> int:
        return min(self.context, sequence.prompt_length + sequence.most - 1)

    def _batch(self, able: list[Sequence], limit: int) -> Batch:
        """Whoever waited longest, and who can be computed in the same call."""
        lead = min(able, key=lambda row: row.served)
        T = self.pending(lead) if not self.cached else min(self.pending(lead), limit)
        rows: list[Sequence] = []
        for row in sorted(able, key=lambda row: row.served):
            new = self.pending(row)
            alike = new == T if not self.cached else new >= min(T - PADDING, T // 2)
            fits = len(_slot(row).ids) + T <= self.context
            if alike and fits and row.adapter == lead.adapter:
                rows.append(row)
        rows = rows[: max(1, limit // T)]
        first = self._bring_together(rows)
        rows.sort(key=lambda row: _slot(row).place)
        for row in rows:
            row.fresh = False
        lengths = [len(_slot(row).ids) for row in rows]
        counts = [min(T, self.pending(row)) for row in rows]
        moves, self._moves = self._moves, []
        guesses = self._guesses(rows) if T == 1 else [[] for _ in rows]
        return Batch(rows, counts, guesses, first, lengths, moves, lead.adapter)

    def _guesses(self, rows: list[Sequence]) -> list[list[int]]:
        """What may follow the last token of each, as far as there is room for it."""
        lengths = [len(_slot(row).ids) for row in rows]
        room = min(self.context, self.max_tokens // len(self.slots)) - max(lengths)
        most = min(self.rows // len(rows), room) - 1  # all rows are padded alike
        rooms = [self._need(row) - n - 1 for row, n in zip(rows, lengths, strict=True)]
        return [row.guess(min(most, room)) for row, room in zip(rows, rooms, strict=True)]

    # Slots

    def _admit(self) -> None:
        """Give slots to those that wait, in their order, as long as there is room."""
        while self.waiting and len(self.running) < self.max_batch:
            row = self.waiting[0]
            need = max(self.need, self._need(row))
            if (len(self.running) + 1) * need > self.max_tokens:
                return
            self.waiting.popleft()
            slot = self._choose_slot(row, need)
            common = _common(slot, row)
            slot.ids, slot.adapter = slot.ids[:common], row.adapter
            slot.owner, row.slot = row, slot
            self.running.append(row)
            while len(self.slots) * max(need, self.longest) > self.max_tokens:
                oldest = min(self._idle(), key=lambda idle: idle.used)
                self._swap(oldest, self.slots[-1])
                self.slots.pop()

    def _choose_slot(self, row: Sequence, need: int) -> Slot:
        """The slot of what this goes on from; else a new one; else the one idle for longest."""
        idle = self._idle()
        if idle:
            best = max(idle, key=lambda slot: _common(slot, row))
            if (common := _common(best, row)) and 2 * common >= len(best.ids):
                return best
        more = len(self.slots) + 1
        # A new one is never given up again at once: the cache would not have its row yet.
        fits = more * max(need, self.longest) <= self.max_tokens
        if not idle or (more <= self.max_batch and fits):
            self.slots.append(Slot(len(self.slots)))
            return self.slots[-1]
        return min(idle, key=lambda slot: slot.used)

    def _idle(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.owner is None]

    def _waits_for_another(self, row: Sequence) -> bool:
        """Take over what another slot has of its beginning; whether one will have more of it soon.

        So texts of the same beginning compute it once, also if they come together.
        """
        if not self.share:
            return False
        slot = _slot(row)
        here = len(slot.ids)
        for other in self.running[: self.running.index(row)]:
            common = _common_ids(other.ids[other.start :], row.ids[row.start : -1])
            soon = common - max(here, len(_slot(other).ids))
            if soon >= SHARED and other.adapter == row.adapter:
                return True
        best = max(self.slots, key=lambda source: _common(source, row))
        if (common := _common(best, row)) >= here + SHARED:
            self._moves.append(Move(best.place, slot.place, common, swap=False))
            slot.ids = best.ids[:common]
        return False

    def _bring_together(self, rows: list[Sequence]) -> int:
        """Swap slots so that those of the rows stand side by side; return the first place."""
        places = {_slot(row).place for row in rows}
        size, low = len(places), min(places)
        if max(places) - low + 1 == size:
            return low
        candidates = range(len(self.slots) - size + 1)
        first = max(candidates, key=lambda at: len(places.intersection(range(at, at + size))))
        inside = set(range(first, first + size))
        for far, near in zip(sorted(places - inside), sorted(inside - places), strict=True):
            self._swap(self.slots[far], self.slots[near])
        return first

    def _swap(self, one: Slot, other: Slot) -> None:
        if one is not other:
            length = max(len(one.ids), len(other.ids))
            self._moves.append(Move(one.place, other.place, length, swap=True))
            self.slots[one.place], self.slots[other.place] = other, one
            one.place, other.place = other.place, one.place


def _slot(row: Sequence) -> Slot:
    assert row.slot is not None, "only those that run have one"
    return row.slot


def _common(slot: Slot, row: Sequence) -> int:
    """How much of what a slot holds is this sequence's beginning, all but its last token."""
    if slot.adapter != row.adapter:
        return 0
    return _common_ids(slot.ids, row.ids[row.start : -1])


def _common_ids(one: list[int], other: list[int]) -> int:
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size
    return next(i for i in range(size) if one[i] != other[i])

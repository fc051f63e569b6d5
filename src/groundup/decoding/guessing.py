"""Guess what a text says next from what it has said before, to compute several tokens in one call.

Texts repeat themselves: names, code, quotations. Where the last few tokens stood before, what came
after them then is a guess. The model reads the guess behind the last token in a single call, which
takes little longer than one token does, since the weights are read once; and where it would have
written the guessed tokens itself, so many calls are saved (Saxena 2023, "prompt lookup decoding").

Nothing is taken on trust: every token is drawn from the model's own scores, as it would be without
guesses and from the same random numbers. So the text is the same, drawn or not.
"""

from __future__ import annotations

from collections.abc import Sequence

LAST = 3
"""So many tokens must have stood there before: fewer are often there by chance."""

FIRST = 3
"""Guessed at first: with the last token, as many rows as the kernels take at a time."""

LONGEST_REST = 64

WITH_GUESSES = 8
"""Tokens in a call: more take clearly longer than one does."""


class Guesser:
    """The guesses for one text; a text that doesn't repeat itself is soon left in peace."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}  # after which tokens: where, last
        self._read = LAST
        self._size = FIRST
        self._rest, self._pause = 0, 1  # tokens until the next guess, and after the next wrong one

    def guess(self, ids: Sequence[int], most: int) -> list[int]:
        """What may come after ``ids``, at most so many tokens; often nothing."""
        for end in range(self._read, len(ids)):
            self._places[tuple(ids[end - LAST : end])] = end
        self._read = max(self._read, len(ids))
        if self._rest > 0:
            self._rest -= 1
            return []
        place = self._places.get(tuple(ids[-LAST:]))
        if place is None:
            return []
        text = list(ids[place:])
        period = len(text)  # what comes after the end is guessed to go round again
        return [text[i % period] for i in range(min(most, self._size))]

    def learn(self, right: int, guessed: int) -> None:
        """Note how many tokens of a guess were right, and guess more or less from now on."""
        if right == guessed:
            self._size = 2 * self._size + 1
        else:
            self._size = FIRST
        if right:
            self._pause = 1
        else:
            self._rest, self._pause = self._pause, min(2 * self._pause, LONGEST_REST)

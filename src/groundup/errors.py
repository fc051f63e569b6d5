"""What a user did wrong, said in one sentence: what was given, what is expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend; the command line prints it and exits with status 2."""


class TrainingFailed(RuntimeError):
    """A run that cannot go on (a non-finite loss, say); the command line exits with status 1."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'emb_dim'?"`` for the nearest known word, or an empty string."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""

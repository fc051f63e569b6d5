"""Where no judge runs: a score by common words, which is none, and says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from groundup.judge.servers import PORT


def local_judge(url: str = f"http://localhost:{PORT}", timeout: float = 1.0) -> str | None:
    """The model of an Ollama on this machine that is to judge; None if none answers in time.

    It is the course's llama3 where that is installed, else whichever comes first.

    Args:
        url: where Ollama listens.
        timeout: seconds to wait for it.
    """
    import httpx

    try:  # no proxy stands between this machine and itself
        with httpx.Client(timeout=timeout, trust_env=False) as client:
            listed = client.get(f"{url}/api/tags").json()["models"]
        names = [str(model["name"]) for model in listed]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return next((name for name in names if name.startswith("llama3:")), next(iter(names), None))


def word_overlap(reference: str, response: str) -> int:
    """Common words of two texts in percent (F1): 100 if they have the same, in whatever order."""
    wanted, given = (Counter(re.findall(r"\w+", text.lower())) for text in (reference, response))
    total = wanted.total() + given.total()
    return round(200 * (wanted & given).total() / total) if total else 100


def word_overlap_scores(json_data: Sequence[Mapping[str, Any]], json_key: str) -> list[int]:
    """Stand-in for ``generate_model_scores``: common words, for nobody has judged the meaning.

    Args:
        json_data: entries with output and ``json_key``.
        json_key: the field that holds the response.
    """
    print(
        "(No Ollama answers on this machine, so no model judges. In its place: how many words an\n"
        "answer has in common with its reference, in percent. That is word overlap, not a judge.)"
    )
    return [word_overlap(entry["output"], entry[json_key]) for entry in json_data]

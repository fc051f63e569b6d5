"""The course's functions for a judge, under the course's names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from groundup.errors import UserError
from groundup.judge.address import split_address
from groundup.judge.config import JudgeConfig
from groundup.judge.failures import Failed, Refusal
from groundup.judge.responses import Entry
from groundup.judge.scoring import COURSE, parse_score
from groundup.judge.servers import PORT, OllamaClient
from groundup.output import progress_bar, show

CHAT = "/api/chat"


def query_model(
    prompt: str, model: str = "llama3", url: str = f"http://localhost:{PORT}{CHAT}"
) -> str:
    """Ask a model of Ollama and put its streamed answer together.

    Raises:
        UserError: the address is none, or Ollama does not answer, has no such model, or breaks off.
    """
    expected = f"http://HOST:{PORT}{CHAT}"
    split_address(url, expected)
    if not url.endswith(CHAT):
        raise UserError(f"url is {url!r}; expected {expected}")
    server = url.removesuffix(CHAT)
    config = JudgeConfig(judge=f"ollama:{model}", base_url=server)  # the course's seed and context
    client = OllamaClient(config)
    client.longest_answer = math.inf
    try:
        return client.chat(prompt, None, config.seed, config.warmup_timeout).text
    except Refusal as refusal:
        pull = f"; `ollama pull {model}` fetches the model" if refusal.status == 404 else ""
        raise UserError(f"{server} refuses to answer as {model}: {refusal}{pull}") from None
    except Failed as failure:
        if failure.offline:
            raise client.nobody_there(failure) from None
        raise UserError(f"there is no whole answer from {server}: {failure}; ask again") from None


def generate_model_scores(
    json_data: Sequence[Mapping[str, Any]], json_key: str, model: str = "llama3"
) -> list[int]:
    """Score the responses of entries, with the course's question.

    As in the course an empty response scores 0 unasked, and the list is shorter than the data
    where the judge gave no score; every such entry is printed with its number, counted from 1.
    :func:`judge_responses` keeps their places, repeats, resumes and reports.

    Args:
        json_data: entries with instruction, input, output and ``json_key``.
        json_key: the field that holds the response.
        model: a model of Ollama.

    Raises:
        UserError: Ollama does not answer, or has no such model.
    """
    scores: list[int] = []
    for number, row in enumerate(progress_bar(json_data, desc="Scoring entries"), 1):
        entry = Entry(
            number, row["instruction"], row.get("input") or "", row["output"], row[json_key]
        )
        if entry.empty:
            scores.append(0)
            continue
        answer = query_model(COURSE.fill(entry), model)
        score = parse_score(answer, (0, 100))
        if score is None:
            show(f"Could not convert score of entry {number}: {answer}")
        else:
            scores.append(score)
    return scores

"""The classifier page: which tokens move a classifier, and what it did on the texts of its test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from torch import Tensor

from groundup.data.labelled_tokens import LabelledTokens
from groundup.errors import UserError
from groundup.evaluate.classification_report import PREDICTIONS
from groundup.evaluate.classifier import Classifier, class_scores
from groundup.files import JsonLines
from groundup.options import fits
from groundup.output import shell, visible
from groundup.serve.asking import BadRequest, read_body
from groundup.serve.models import Models, Served
from groundup.tasks.outdir import REPORT
from groundup.xray.take import words_of

LONGEST, MOST, AT_ONCE = 10_000, 256, 16
"""Characters of a text; tokens of it that are left out, one by one; texts of one step."""

ROWS, SHOWN = 5_000, 400
"""Texts of a test that a page gets, and characters of each."""


@dataclass
class Message:
    """A text to classify."""

    model: str
    text: str


@dataclass
class Named:
    """Which classifier."""

    model: str


def routes(models: Models) -> list[BaseRoute]:
    """What the classifier page asks."""

    async def classify(request: Request) -> Response:
        asked = await read_body(request, Message)
        served = _classifier(models, asked.model)
        if len(asked.text) > LONGEST:
            raise BadRequest(
                f"the text has {len(asked.text):,} characters; expected at most {LONGEST:,}", "text"
            )
        return JSONResponse(await moved_by(served, asked.text))

    async def tested(request: Request) -> Response:
        asked = await read_body(request, Named)
        served = _classifier(models, asked.model)
        return JSONResponse(await asyncio.to_thread(tested_on, served))

    return [
        Route("/page/classify", classify, methods=["POST"]),
        Route("/page/classify/tested", tested, methods=["POST"]),
    ]


async def moved_by(served: Served, text: str) -> dict[str, Any]:
    """How likely each class is for a text, and for the text without each of its tokens.

    Returns:
        ``labels``; ``odds``: the logarithm of each class's odds, ``log(p / (1 - p))``, which says
        more where the classifier is sure; ``tokens``: the ids that are read; ``words``: their
        texts; ``without``: for each of the first tokens the odds without it, or None where nothing
        would be left; ``cut``: how many tokens are not read.

    Raises:
        UserError: the text is empty.
    """
    facts, tokenizer = served.facts, served.tokenizer
    context = served.model.cfg.context_length
    longest = min(facts.reading.max_length or context, context)
    how = served.model, tokenizer, facts.labels, longest, facts.reading.padded
    tokens = Classifier(*how).encode([text])
    (ids,) = tokens.ids
    texts = [ids, *(ids[:i] + ids[i + 1 :] for i in range(min(MOST, len(ids))))]
    texts = texts if len(ids) > 1 else [ids]
    rows: list[list[float]] = []
    for start in range(0, len(texts), AT_ONCE):  # others' requests come in between
        part = texts[start : start + AT_ONCE]
        batch = LabelledTokens(part, [0] * len(part), tokens.pad_token, tokens.length)
        found = await served.work(lambda batch=batch: class_scores(served.model, batch))
        rows += log_odds(found).tolist()
    return {
        "labels": [visible(label) for label in facts.labels],
        "odds": rows[0],
        "tokens": ids,
        "words": words_of(tokenizer, [ids]),
        "without": rows[1:] or [None],
        "cut": len(tokenizer.encode_alone(text)) - len(ids),
    }


def log_odds(scores: Tensor) -> Tensor:
    """``log(p / (1 - p))`` of each class, from scores ``(texts, classes)``."""
    scores = scores.double()
    others = [
        torch.cat([scores[:, :i], scores[:, i + 1 :]], dim=1).logsumexp(dim=1)
        for i in range(scores.shape[1])
    ]
    return scores - torch.stack(others, dim=1)


def tested_on(served: Served) -> dict[str, Any]:
    """Every text of the run's test split, with what it is and how likely each class was for it.

    Returns:
        ``labels``; ``rows``; ``count``: how many there are (a page gets ``ROWS`` at most); or
        ``missing``: what to run, so that there are some.

    Raises:
        UserError: the file is damaged.
    """
    labels = served.facts.labels
    told: dict[str, Any] = {"labels": [visible(label) for label in labels], "rows": [], "count": 0}
    directory = served.directory
    path = directory / REPORT / PREDICTIONS if directory is not None else None
    if path is None or not path.is_file():
        return told | {"missing": _what_to_run(served)}
    numbers = {label: index for index, label in enumerate(labels)}
    rows = JsonLines(path, row="prediction").read()
    for number, row in enumerate(rows, 1):
        if not _is_prediction(row, numbers):
            raise UserError(f"{path} is damaged: line {number} is no prediction of this classifier")
    every = -(-len(rows) // ROWS) or 1
    told["rows"] = [
        {
            "row": row["row"],
            "text": visible(row["text"][:SHOWN]),
            "label": numbers[row["label"]],
            "probabilities": row["probabilities"],
        }
        for row in rows[::every]
    ]
    return told | {"count": len(rows)}


def _what_to_run(served: Served) -> str:
    if served.facts.task == "classify" and served.directory is not None:
        again = shell("groundup", "classify", "train", "--out", str(served.directory), "--resume")
        return (
            f"This run has no {REPORT}/{PREDICTIONS}: it had no test split, or an earlier groundup "
            f"made it. In that case this writes it: {visible(again)}"
        )
    return (
        "This classifier is no run of groundup classify train, which leaves what it did on a test."
    )


def _is_prediction(row: dict[str, Any], numbers: dict[str, int]) -> bool:
    return (
        fits(row.get("row"), int)
        and fits(row.get("text"), str)
        and fits(row.get("probabilities"), list[float])
        and row.get("label") in numbers
        and len(row["probabilities"]) == len(numbers)
        and all(0 <= p <= 1 for p in row["probabilities"])
    )


def _classifier(models: Models, name: str) -> Served:
    served = models.get(name)
    if not served.is_classifier:
        raise BadRequest(
            f"{name} is no classifier: it continues texts, it doesn't sort them", "model"
        )
    return served

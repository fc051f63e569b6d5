"""``/v1/classify``: texts in, labels with their probabilities out."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from groundup.errors import UserError
from groundup.evaluate.classifier import BATCH, Classifier, Prediction
from groundup.serve.asking import BadRequest, read_body
from groundup.serve.models import Models, Served
from groundup.serve.streams import unless_gone

MOST = 1024
"""Texts of one request."""


@dataclass(kw_only=True)
class Asked:
    """Texts to classify."""

    model: str
    input: str | list[str]


def classifier_of(served: Served) -> Classifier:
    """A served classifier; call it through ``served.work`` only.

    Raises:
        BadRequest: it is a language model.
    """
    if not served.is_classifier:
        raise BadRequest(
            f"{served.name} is a language model, not a classifier; ask it at /v1/completions or "
            "/v1/chat/completions",
            "model",
        )
    facts = served.facts
    longest = min(facts.reading.max_length or served.context_length, served.context_length)
    return Classifier(served.model, served.tokenizer, facts.labels, longest, facts.reading.padded)


def routes(models: Models) -> list[BaseRoute]:
    """The one route."""

    async def classify(request: Request) -> Response:
        asked = await read_body(request, Asked)
        served = models.get(asked.model)
        classifier = classifier_of(served)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not 1 <= len(texts) <= MOST:
            raise BadRequest(f"input has {len(texts)} texts; expected 1 to {MOST}", "input")

        async def sort() -> list[Prediction]:
            """A batch at a time: others are asked in between."""
            found: list[Prediction] = []
            for start in range(0, len(texts), BATCH):
                part = texts[start : start + BATCH]
                found += await served.work(lambda part=part: classifier.predict(part))
            return found

        try:
            found = await unless_gone(request, sort())
        except UserError as error:
            raise BadRequest(f"input: {error}", "input") from None
        data = [
            {
                "index": index,
                "label": one.label,
                "probability": one.probability,
                "probabilities": one.probabilities,
            }
            for index, one in enumerate(found)
        ]
        return JSONResponse({"object": "list", "model": served.name, "data": data})

    return [Route("/v1/classify", classify, methods=["POST"])]

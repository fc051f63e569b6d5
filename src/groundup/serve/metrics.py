"""``/health`` and ``/metrics``: whether the server is well, and what it does, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.serve.models import Models
from groundup.serve.writing import Writing

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """What is counted."""

    def __init__(self, models: Models) -> None:
        self.models, self.registry = models, CollectorRegistry()
        own = {"registry": self.registry, "namespace": "groundup"}
        self.requests = Counter("requests", "Requests answered", ["route", "status"], **own)
        self.errors = Counter("errors", "Of these, with an error", ["route", "status"], **own)
        self.prompt_tokens = Counter("prompt_tokens", "Tokens read", ["model"], **own)
        self.tokens = Counter("tokens", "Tokens written", ["model"], **own)
        self.first = Histogram(
            "time_to_first_token_seconds",
            "Seconds from a request to its first token, waiting included",
            ["model"],
            buckets=SECONDS,
            **own,
        )
        self.rate = Histogram(
            "tokens_per_second",
            "Tokens per second of a request after its first",
            ["model"],
            buckets=RATES,
            **own,
        )
        self.registry.register(self)  # pyright: ignore[reportArgumentType]
        for served in models:
            served.runner.wrote = self.wrote

    def wrote(self, writing: Writing) -> None:
        """Count what was written for a request, whole or not."""
        # Several texts after one prompt read it once.
        prompts = {tuple(text.ids[: text.prompt_length]) for text in writing.texts}
        self.prompt_tokens.labels(writing.name).inc(sum(map(len, prompts)))
        self.tokens.labels(writing.name).inc(writing.tokens)
        if writing.first is not None and writing.last is not None:
            self.first.labels(writing.name).observe(writing.first - writing.began)
            if writing.last > writing.first:
                rate = (writing.tokens - 1) / (writing.last - writing.first)
                self.rate.labels(writing.name).observe(rate)

    def answered(self, route: str, status: int) -> None:
        """Count a request."""
        self.requests.labels(route, str(status)).inc()
        if status >= 400:
            self.errors.labels(route, str(status)).inc()

    def collect(self) -> Iterable[Metric]:
        """What is so just now."""
        running = GaugeMetricFamily(
            "groundup_running", "Texts that are being written", labels=["model"]
        )
        waiting = GaugeMetricFamily("groundup_waiting", "Texts that wait", labels=["model"])
        seen = set()
        for served in self.models:
            if served.runner in seen or served.is_classifier:
                continue
            seen.add(served.runner)  # adapters share one
            running.add_metric([served.name], served.runner.running)
            waiting.add_metric([served.name], served.runner.waiting)
        return [running, waiting]

    def routes(self) -> list[BaseRoute]:
        """The routes that tell it."""

        async def health(request: Request) -> Response:
            alive = all(served.runner.alive for served in self.models)
            status = {"status": "ok" if alive else "a model's thread has ended"}
            return JSONResponse(status, 200 if alive else 503)

        async def metrics(request: Request) -> Response:
            return Response(
                generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
            )

        return [Route("/health", health), Route("/metrics", metrics)]


class Counting:
    """The middleware that counts requests by their route; unknown paths are one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when its answer begins."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                path = route.path if isinstance(route, Route) else "other"
                self.metrics.answered(path, message["status"])
            await send(message)

        await self.app(scope, receive, counted if scope["type"] == "http" else send)

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from groundup.serve import streams
from groundup.serve.models import Served
from groundup.serve.streams import Streamed, as_line
from groundup.tokenizers import BPETokenizer
from tests.assistants import lively_model
from tests.serve.conftest import client_of

pytestmark = pytest.mark.anyio

ASK = {"model": "lively", "prompt": "the fox", "temperature": 0, "max_tokens": 40}


async def test_a_client_that_reads_no_further_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALLED", 0.1)
    ended: list[str] = []

    async def lines() -> AsyncIterator[str]:
        while True:
            yield "x"

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(100)
        return {}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(100)  # its buffer is full

    answer = Streamed(lines(), "text/plain", lambda: ended.append("ended"))
    async with asyncio.timeout(5):
        await answer({"type": "http"}, receive, send)  # pyright: ignore[reportArgumentType]
    assert ended == ["ended"]


def test_a_line_is_one_line_whatever_it_says() -> None:
    said = {"text": "a\nb\r\x85\u2028\u2029\x00🙂"}
    line = as_line(said)
    assert line.splitlines() == [line.removesuffix("\n")] and json.loads(line) == said


@pytest.fixture
def failing(tokenizer: BPETokenizer) -> tuple[Served, threading.Event]:
    """A model that fails at its next step once it is told to."""
    served = Served.of("lively", lively_model(tokenizer), tokenizer)
    at_work, fails, calls = served.model.forward, threading.Event(), []

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if fails.is_set() and len(calls) > 3:
            fails.clear()
            calls.clear()
            raise RuntimeError("out of order")
        return at_work(*args, **kwargs)

    served.model.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    return served, fails


def test_a_model_that_fails_is_a_500_or_the_last_event(
    failing: tuple[Served, threading.Event], capsys: pytest.CaptureFixture[str]
) -> None:
    served, fails = failing
    with client_of(served) as client:
        right = client.post("/v1/completions", json=ASK).json()["choices"]
        fails.set()
        answer = client.post("/v1/completions", json=ASK)
        assert answer.status_code == 500
        error = answer.json()["error"]
        assert error["type"] == "server_error" and "RuntimeError" in error["message"]
        fails.set()
        *parts, last = [
            json.loads(line.removeprefix("data: "))
            for line in client.post("/v1/completions", json=ASK | {"stream": True}).text.split("\n")
            if line
        ]
        assert parts and last["error"]["type"] == "server_error"
        fails.set()
        asked = {"model": "lively", "prompt": "the fox", "raw": True}
        lines = client.post("/api/generate", json=asked).text.splitlines()
        assert "RuntimeError" in json.loads(lines[-1])["error"]
        assert client.post("/v1/completions", json=ASK).json()["choices"] == right
        assert client.get("/health").status_code == 200
    assert capsys.readouterr().err.count("\nRuntimeError: out of order") == 3

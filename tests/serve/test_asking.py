from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from groundup.serve.asking import BadRequest, from_object, read_body
from groundup.serve.models import Served
from groundup.serve.openai_shapes import ChatAsked, CompletionAsked
from tests.serve.conftest import client_of


@dataclass
class Shape:
    """Says in which thread it was made."""

    text: str
    REFUSED: ClassVar = {"cores": "there is one"}

    def __post_init__(self) -> None:
        self.thread = threading.get_ident()


@pytest.fixture
def client() -> Iterator[TestClient]:
    async def read(request: Request) -> Response:
        shape = await read_body(request, Shape)
        return JSONResponse({"here": shape.thread == threading.get_ident()})

    with TestClient(Starlette(routes=[Route("/", read, methods=["POST"])])) as client:
        yield client


def test_large_requests_are_read_beside_the_event_loop(client: TestClient) -> None:
    for size, here in ((10, True), (100_000, False)):
        assert client.post("/", json={"text": "a" * size}).json() == {"here": here}


def test_long_lists_are_read_quickly() -> None:
    said = [{"role": "user", "content": ""}] * 30_000
    began = time.process_time()
    assert len(from_object({"model": "x", "messages": said}, ChatAsked).messages) == 30_000
    asked = from_object({"model": "x", "prompt": [1] * 300_000}, CompletionAsked)
    assert asked.prompt == [1] * 300_000
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ([1, 2, "a"], "prompt[2] is 'a'; expected a whole number"),
        (["a", 1], "prompt[1] is 1; expected a text"),
        ([[1, 2], ["x"]], "prompt[1][0] is 'x'; expected a whole number"),
        ([1, 2, True, 3], "prompt[2] is True; expected a whole number"),
        ([[[1] * 10**6]], "prompt[0][0] is [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,"),
        ([2.5], "prompt[0] is 2.5; expected"),
        ({"a": 1}, "prompt is {'a': 1}; expected a text or a list"),
    ],
)
def test_the_item_is_named_at_which_the_nearest_reading_fails(prompt: object, told: str) -> None:
    with pytest.raises(BadRequest) as error:
        from_object({"model": "x", "prompt": prompt}, CompletionAsked)
    assert str(error.value).startswith(told)


@pytest.mark.parametrize("value", [0, 0.0, 1, "", [1]])
def test_what_says_something_is_refused_and_what_says_nothing_is_not(value: Any) -> None:
    with pytest.raises(BadRequest, match="cores cannot be honoured: there is one"):
        from_object({"text": "a", "cores": value}, Shape)
    for nothing in (None, False, [], {}):
        assert from_object({"text": "a", "cores": nothing}, Shape).text == "a"


def test_too_many_texts_are_refused_before_they_are_read(
    lively: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(text: str) -> list[int]:
        raise AssertionError("a prompt was read")

    monkeypatch.setattr(lively.tokenizer, "encode_alone", encode)
    with client_of(lively) as client:
        asked = {"model": "lively", "prompt": ["a"] * 81}
        answer = client.post("/v1/completions", content=json.dumps(asked).encode())
    assert answer.status_code == 400 and "81 texts at a time" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "prompt"

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from groundup.data.instructions import encode_prompt
from groundup.prompts import get_style
from groundup.serve.models import Served
from groundup.tokenizers import BPETokenizer
from tests.assistants import lively_model
from tests.serve.conftest import client_of
from tests.serve.test_openai import greedy

HELLO = [{"role": "user", "content": "Hello, fox."}]
OPTIONS = {"temperature": 0, "num_predict": 10}


@pytest.fixture
def client(lively: Served) -> Iterator[TestClient]:
    with client_of(lively) as client:
        yield client


def lines(response: Any) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/x-ndjson", response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_chat_is_streamed_unless_it_is_not_to_be(client: TestClient, lively: Served) -> None:
    ids = encode_prompt(HELLO, lively.tokenizer, get_style("alpaca"))
    expected = greedy(lively, ids, 10)
    asked = {"model": "lively", "messages": HELLO, "options": OPTIONS}
    *parts, last = lines(client.post("/api/chat", json=asked))
    assert "".join(part["message"]["content"] for part in [*parts, last]) == expected
    assert not any(part["done"] for part in parts) and last["done"]
    assert (last["prompt_eval_count"], last["eval_count"]) == (len(ids), 10)
    assert last["done_reason"] == "length"
    assert last["total_duration"] >= last["eval_duration"] > 0 < last["prompt_eval_duration"]
    whole = client.post("/api/chat", json={**asked, "stream": False, "model": "lively:latest"})
    assert whole.json()["message"] == {"role": "assistant", "content": expected}


def test_a_prompt_is_answered_or_continued(client: TestClient, lively: Served) -> None:
    asked = {"model": "lively", "prompt": "Hello, fox.", "options": OPTIONS, "stream": False}
    ids = encode_prompt(HELLO, lively.tokenizer, get_style("alpaca"))
    assert client.post("/api/generate", json=asked).json()["response"] == greedy(lively, ids, 10)
    continued = greedy(lively, lively.tokenizer.encode("Hello, fox."), 10)
    raw = client.post("/api/generate", json={**asked, "raw": True}).json()
    assert raw["response"] == continued
    lively.style = None  # a base model
    assert client.post("/api/generate", json=asked).json()["response"] == continued
    chat = client.post("/api/chat", json={"model": "lively", "messages": HELLO})
    assert chat.status_code == 400 and "/api/generate" in chat.json()["error"]


def test_without_anything_to_say_a_client_learns_that_the_model_is_there(
    client: TestClient,
) -> None:
    for path in ("chat", "generate"):
        answer = client.post(f"/api/{path}", json={"model": "lively"}).json()
        assert answer["done"] and answer["done_reason"] == "load"
        assert client.post(f"/api/{path}", json={"model": "other"}).status_code == 404


def test_options_are_honoured_or_refused_by_name(client: TestClient) -> None:
    def ask(**more: Any) -> Any:
        options = {**OPTIONS, **more.pop("options", {})}
        asked = {"model": "lively", "prompt": "lazy", "raw": True, "stream": False, **more}
        return client.post("/api/generate", json={**asked, "options": options})

    text = ask().json()["response"]
    assert ask(options={"num_ctx": 100_000}).json()["response"] == text  # the model's is shorter
    stopped = ask(options={"stop": [text[4:6]]}).json()
    assert stopped["response"] == text[: text.index(text[4:6])]
    assert stopped["done_reason"] == "stop"
    seeded = {"temperature": 2, "seed": 5}
    assert len({ask(options=seeded).json()["response"] for _ in range(3)}) == 1
    assert ask(options={"num_predict": -1, "num_ctx": 12}).json()["eval_count"] < 12
    assert ask(options={"top_k": 1, "temperature": 2}).json()["response"] == text
    for more, message in (
        ({"options": {"num_gpu": 1}}, "options.num_gpu cannot be honoured"),
        ({"options": {"num_gpu": 0}}, "options.num_gpu cannot be honoured"),
        ({"options": {"stop": [""]}}, "options.stop has an empty text"),
        ({"options": {"stop": ["x"] * 17}}, "options.stop has 17 texts; expected 16 at most"),
        ({"options": {"mirostat": 1}}, "options.mirostat cannot be honoured"),
        ({"options": {"temprature": 1}}, "no field options.temprature; did you mean"),
        ({"options": {"seed": "x"}}, "options.seed is 'x'; expected a whole number"),
        ({"options": {"num_predict": 0}}, "options.num_predict is 0"),
        ({"options": {"num_ctx": 1}}, "tokens, but the context is 1 tokens"),
        ({"think": True}, "think cannot be honoured"),
        ({"format": "xml"}, "format is 'xml'; expected json or a JSON schema"),
        ({"images": ["abc"]}, "images cannot be honoured"),
    ):
        answer = ask(**more)
        assert answer.status_code == 400 and message in answer.json()["error"], answer.text


def test_a_format_is_followed(client: TestClient) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    schema["additionalProperties"] = False  # pyright: ignore[reportArgumentType]
    options = {"temperature": 0, "num_predict": 60}
    asked = {"model": "lively", "messages": HELLO, "options": options, "stream": False}
    text = client.post("/api/chat", json={**asked, "format": schema}).json()["message"]["content"]
    assert text.lstrip().startswith("{")
    text = client.post("/api/chat", json={**asked, "format": "json"}).json()["message"]["content"]
    assert text.lstrip().startswith("{")


def test_a_tag_may_be_part_of_a_name(tokenizer: BPETokenizer) -> None:
    model = Served.of("tiny:latest", lively_model(tokenizer), tokenizer)
    with client_of(model) as client:
        (tag,) = client.get("/api/tags").json()["models"]
        asked = {"model": tag["name"], "prompt": "lazy", "stream": False, "options": OPTIONS}
        assert client.post("/api/generate", json=asked).json()["response"]
        asked = {"model": tag["name"], "input": "lazy"}
        assert len(client.post("/api/embed", json=asked).json()["embeddings"]) == 1
    model.runner.close()


def test_models_are_described(client: TestClient, lively: Served) -> None:
    (tag,) = client.get("/api/tags").json()["models"]
    assert tag["name"] == tag["model"] == "lively:latest" and len(tag["digest"]) == 64
    assert tag["details"]["family"] and tag["size"] > 10_000
    (running,) = client.get("/api/ps").json()["models"]
    assert running["digest"] == tag["digest"] and running["context_length"] == 320
    shown = client.post("/api/show", json={"model": "lively"}).json()
    assert "### Instruction" in shown["template"] and "completion" in shown["capabilities"]
    assert client.post("/api/show", json={"name": "lively"}).json() == shown
    assert client.post("/api/show", json={}).status_code == 400
    assert client.get("/api/version").json()["version"]


def test_embeddings_are_the_mean_of_the_hidden_states(client: TestClient, lively: Served) -> None:
    texts = ["The quick", "a"]
    with torch.no_grad():
        expected = [
            lively.model(torch.tensor([lively.tokenizer.encode(text)]), hidden=True)[0].mean(dim=0)
            for text in texts
        ]
    answer = client.post("/v1/embeddings", json={"model": "lively", "input": texts}).json()
    for row, vector in zip(answer["data"], expected, strict=True):
        torch.testing.assert_close(torch.tensor(row["embedding"]), vector)
    tokens = sum(len(lively.tokenizer.encode(text)) for text in texts)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    theirs = client.post("/api/embed", json={"model": "lively", "input": texts}).json()
    assert theirs["embeddings"] == [row["embedding"] for row in answer["data"]]
    for more, message in (
        ({"dimensions": 3}, "dimensions is 3; the vectors of lively have 32"),
        ({"input": ["a", ""]}, "input has an empty text"),
        ({"input": []}, "input has 0 texts"),
        ({"input": "fox " * 400}, "but the context is 320 tokens"),
    ):
        refused = client.post("/v1/embeddings", json={"model": "lively", "input": "a", **more})
        assert refused.status_code == 400 and message in refused.text

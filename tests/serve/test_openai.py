from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from groundup.data.instructions import encode_prompt
from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import Engine, generate
from groundup.decoding.sequence import Sequence
from groundup.prompts import get_style
from groundup.serve.models import Served
from tests.serve.conftest import client_of

ASK = {"model": "lively", "temperature": 0, "max_tokens": 12}
HELLO = [{"role": "user", "content": "Hello, fox."}]


@pytest.fixture
def client(lively: Served) -> Iterator[TestClient]:
    with client_of(lively) as client:
        yield client


def greedy(served: Served, ids: list[int], length: int) -> str:
    context = served.context_length
    found = generate(
        served.model, torch.tensor([ids]), length, context, eos_id=served.tokenizer.eot_token
    )
    return served.tokenizer.decode(found[0, len(ids) :].tolist())


def chunks(response: Any) -> list[dict[str, Any]]:
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_completion_is_what_generate_writes(client: TestClient, lively: Served) -> None:
    answer = client.post("/v1/completions", json={**ASK, "prompt": "The quick"}).json()
    ids = lively.tokenizer.encode("The quick")
    expected = greedy(lively, ids, 12)
    choice = answer["choices"][0]
    assert (answer["object"], choice["text"]) == ("text_completion", expected)
    assert answer["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": 12,
        "total_tokens": len(ids) + 12,
    }
    assert choice["finish_reason"] == "length"
    echoed = client.post("/v1/completions", json={**ASK, "prompt": "The quick", "echo": True})
    assert echoed.json()["choices"][0]["text"] == "The quick" + expected
    by_ids = client.post("/v1/completions", json={**ASK, "prompt": [ids, ids[:3]]}).json()
    assert [c["index"] for c in by_ids["choices"]] == [0, 1]
    assert by_ids["choices"][0]["text"] == expected
    assert by_ids["choices"][1]["text"] == greedy(lively, ids[:3], 12)


def test_a_chat_is_asked_in_the_models_style_and_streams_the_same(
    client: TestClient, lively: Served
) -> None:
    ids = encode_prompt(HELLO, lively.tokenizer, get_style("alpaca"))
    expected = greedy(lively, ids, 12)
    whole = client.post("/v1/chat/completions", json={**ASK, "messages": HELLO}).json()
    assert whole["choices"][0]["message"] == {
        "role": "assistant",
        "content": expected,
        "refusal": None,
    }
    asked = {**ASK, "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    response = client.post("/v1/chat/completions", json=asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    first, *parts, last, usage = chunks(response)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    texts = [part["choices"][0]["delta"].get("content", "") for part in [*parts, last]]
    assert "".join(texts) == expected and len(parts) > 1
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == [] and usage["usage"] == whole["usage"]
    parted = [
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("Hello,", " fox.")]}
    ]
    again = client.post("/v1/chat/completions", json={**ASK, "messages": parted}).json()
    assert again["choices"][0]["message"]["content"] == expected


def test_several_are_drawn_from_one_seed_each_with_its_own(
    client: TestClient, lively: Served
) -> None:
    drawn = {**ASK, "prompt": "a dog", "temperature": 1.5, "seed": 7, "n": 3}
    texts = [c["text"] for c in client.post("/v1/completions", json=drawn).json()["choices"]]
    assert len(set(texts)) == 3
    options = SamplingConfig(max_new_tokens=12, temperature=1.5, top_p=1.0, seed=7)
    engine = Engine(lively.model, lively.tokenizer)
    ids = lively.tokenizer.encode("a dog")
    rows = [
        engine.add(Sequence(ids, options, tokenizer=lively.tokenizer, index=i)) for i in range(3)
    ]
    list(engine.run())
    assert texts == [lively.tokenizer.decode(row.token_ids) for row in rows]
    streamed = chunks(client.post("/v1/completions", json={**drawn, "stream": True}))
    for place, text in enumerate(texts):
        own = [c["choices"][0] for c in streamed if c["choices"][0]["index"] == place]
        assert "".join(c["text"] for c in own) == text


def test_stops_biases_and_penalties(client: TestClient, lively: Served) -> None:
    plain = client.post("/v1/completions", json={**ASK, "prompt": "lazy"}).json()
    text = plain["choices"][0]["text"]
    stop = text[5:7]
    stopped = client.post("/v1/completions", json={**ASK, "prompt": "lazy", "stop": stop}).json()
    assert stopped["choices"][0]["text"] == text[: text.index(stop)]
    assert stopped["choices"][0]["finish_reason"] == "stop"
    b, c = (lively.tokenizer.encode(letter)[0] for letter in "bc")
    biased = {**ASK, "prompt": "lazy", "logit_bias": {b: 500, c: 480}, "max_tokens": 4}
    for penalty, expected in (("frequency_penalty", "bcbc"), ("presence_penalty", "bcbb")):
        answer = client.post("/v1/completions", json={**biased, penalty: 50}).json()
        assert answer["choices"][0]["text"] == expected, penalty


def test_logprobs_are_the_models(client: TestClient, lively: Served) -> None:
    ids = lively.tokenizer.encode("The quick")
    with torch.no_grad():
        scores = lively.model(torch.tensor([ids]))[0, -1, : lively.tokenizer.vocab_size]
    values = scores.log_softmax(-1).topk(3).values
    asked = {**ASK, "prompt": "The quick", "logprobs": 3}
    told = client.post("/v1/completions", json=asked).json()["choices"][0]["logprobs"]
    assert len(told["tokens"]) == 12 and told["text_offset"][0] == 0
    assert math.isclose(told["token_logprobs"][0], float(values[0]), abs_tol=1e-4)
    chat = {**ASK, "messages": HELLO, "logprobs": True, "top_logprobs": 2}
    content = client.post("/v1/chat/completions", json=chat).json()["choices"][0]["logprobs"]
    first = content["content"][0]
    assert len(content["content"]) == 12 and len(first["top_logprobs"]) == 2
    assert first["top_logprobs"][0]["logprob"] == first["logprob"]
    assert bytes(first["bytes"]).decode("utf-8", "replace") == first["token"]


def test_an_answer_follows_a_schema(client: TestClient) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    schema["additionalProperties"] = False  # pyright: ignore[reportArgumentType]
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    asked = {**ASK, "messages": HELLO, "response_format": form, "max_tokens": 120}
    asked["logit_bias"] = {"125": 8}  # the end is likely
    choice = client.post("/v1/chat/completions", json=asked).json()["choices"][0]
    if choice["finish_reason"] == "stop":
        assert set(json.loads(choice["message"]["content"])) == {"n"}
    else:
        assert choice["message"]["content"].replace(" ", "").startswith('{"n":')


REFUSALS = [
    ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools cannot be honoured"),
    ({"messages": HELLO, "temprature": 1}, "no field temprature; did you mean 'temperature'?"),
    ({"messages": HELLO, "temperature": "hot"}, "temperature is 'hot'; expected a number"),
    ({"messages": HELLO, "temperature": -1}, "temperature is -1"),
    ({"messages": HELLO, "max_tokens": 0}, "max_tokens is 0; expected at least 1"),
    ({"messages": HELLO, "n": 0}, "n is 0; expected at least 1"),
    ({"messages": HELLO, "n": 100}, "100 texts at a time; this server takes 80 at most"),
    ({"messages": HELLO, "stop": [""]}, "stop has an empty text"),
    ({"messages": HELLO, "max_completion_tokens": 0}, "max_completion_tokens is 0"),
    ({"messages": HELLO, "top_logprobs": 2}, "top_logprobs is given, but logprobs is not true"),
    ({"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "expected 0 to 20"),
    ({"messages": HELLO, "logit_bias": {"99999": 1}}, "logit_bias has '99999'"),
    ({"messages": HELLO, "stream_options": {}}, "stream_options is given, but stream is not"),
    ({}, "messages is missing"),
    ({"messages": "hi"}, "messages is 'hi'; expected a list"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, r"messages[0].content is missing"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content is 5; expected"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "has the role 'robot'"),
    ({"messages": [*HELLO, {"role": "assistant", "content": "hi"}]}, "not the user's"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0] is of the type 'image_url'; expected a text",
    ),
    (
        {"messages": HELLO, "response_format": {"type": "json_schema"}},
        "response_format.json_schema is missing",
    ),
    (
        {
            "messages": HELLO,
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}},
        },
        "JSON schema",
    ),
    (
        {"messages": [{"role": "user", "content": "fox " * 400}]},
        "but the context is 320 tokens; shorten it",
    ),
]


@pytest.mark.parametrize(("more", "message"), REFUSALS)
def test_what_makes_no_sense_is_refused_by_name(
    client: TestClient, more: dict[str, Any], message: str
) -> None:
    response = client.post("/v1/chat/completions", json={"model": "lively", **more})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert message in error["message"] and error["type"] == "invalid_request_error"


def test_what_is_no_request_is_told(client: TestClient, lively: Served) -> None:
    post = client.post
    for path in ("/v1/chat/completions", "/v1/completions"):
        for data in (b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"a":1,"a":2}'):
            response = post(path, content=data)
            assert response.status_code == 400 and "the request is" in response.text, data
    half = post("/v1/completions", content=b'{"model": "lively", "prompt": "\\ud800"}')
    assert half.status_code == 400 and "half of a character" in half.text
    huge = {"model": "lively", "prompt": "x", "logit_bias": {"9" * 5000: 1}}
    assert post("/v1/completions", json=huge).status_code == 400
    wordy = {"model": "lively", "prompt": "x", "logit_bias": {f"x{i}": 1 for i in range(400)}}
    told = post("/v1/completions", json=wordy).json()["error"]["message"]
    assert told.startswith("logit_bias has") and len(told) < 2_010
    for number in ("NaN", "Infinity", "1e999", "9" * 400):
        for name in ("temperature", "top_p", "min_p", "presence_penalty", "n", "top_k"):
            data = f'{{"model": "lively", "prompt": "x", "{name}": {number}}}'
            answer = post("/v1/completions", content=data.encode())
            assert answer.status_code == 400 or name == "top_k", answer.text
    missing = post("/v1/completions", json={"prompt": "x"})
    assert missing.status_code == 400 and missing.json()["error"]["param"] == "model"
    unknown = post("/v1/completions", json={"model": "gpt-5", "prompt": "x"})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert client.get("/v1/chat/completions").status_code == 405
    assert client.get("/v1/nothing").status_code == 404
    for id in (-1, 100000):
        wrong = post("/v1/completions", json={"model": "lively", "prompt": [1, id, 2]})
        assert wrong.status_code == 400 and f"prompt has the id {id}" in wrong.text
    lively.style = None
    answer = post("/v1/chat/completions", json={"model": "lively", "messages": HELLO})
    assert answer.status_code == 400 and "ask it at /v1/completions" in answer.text


def test_the_models_are_listed(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["lively"]
    assert client.get("/v1/models/lively").json() == listed["data"][0]
    assert client.get("/v1/models/other").status_code == 404

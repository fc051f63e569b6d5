"""The official clients, the course's function and our judge, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
import torch

from groundup.data.instructions import encode_prompt
from groundup.judge.course import query_model
from groundup.prompts import get_style
from groundup.serve.models import Served
from tests.conftest import Run
from tests.serve.live import Live, live
from tests.serve.test_openai import greedy

HELLO: Any = [{"role": "user", "content": "Hello, fox."}]


@pytest.fixture
def server(lively: Served) -> Iterator[Live]:
    with live(lively) as server:
        yield server


def expected(lively: Served, length: int) -> str:
    return greedy(lively, encode_prompt(HELLO, lively.tokenizer, get_style("alpaca")), length)


def test_openais_client(server: Live, lively: Served) -> None:
    text = expected(lively, 15)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["lively"]
        assert client.models.retrieve("lively").owned_by == "groundup"
        ask: Any = {"model": "lively", "messages": HELLO, "temperature": 0, "max_tokens": 15}
        whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
        assert whole.choices[0].message.content == text and whole.usage
        assert whole.choices[0].logprobs and whole.choices[0].logprobs.content
        assert len(whole.choices[0].logprobs.content) == 15
        pieces = list(
            client.chat.completions.create(
                **ask, stream=True, stream_options={"include_usage": True}
            )
        )
        assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == text
        assert pieces[-1].usage == whole.usage
        completion = client.completions.create(
            model="lively", prompt="The", temperature=0, max_tokens=9, logprobs=1
        )
        assert completion.choices[0].text == greedy(lively, lively.tokenizer.encode("The"), 9)
        vectors = client.embeddings.create(model="lively", input=["The", "a dog"]).data
        floats = client.embeddings.create(model="lively", input="The", encoding_format="float")
        torch.testing.assert_close(
            torch.tensor(vectors[0].embedding), torch.tensor(floats.data[0].embedding)
        )
        with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-5'"):
            client.completions.create(model="gpt-5", prompt="x")
        with pytest.raises(openai.BadRequestError, match="tools cannot be honoured") as refused:
            client.chat.completions.create(**ask, tools=[{"type": "function"}])  # pyright: ignore
        assert refused.value.param == "tools"


def test_ollamas_client(server: Live, lively: Served) -> None:
    client = ollama.Client(host=server.url)
    text = expected(lively, 15)
    options = {"temperature": 0, "num_predict": 15}
    assert [model.model for model in client.list().models] == ["lively:latest"]
    assert client.ps().models[0].context_length == lively.context_length
    shown = client.show("lively")
    assert shown.modelinfo and shown.template and "### Instruction" in shown.template
    answer = client.chat("lively", HELLO, options=options)
    assert answer.message.content == text and answer.eval_count == 15
    parts = list(client.chat("lively:latest", HELLO, options=options, stream=True))
    assert "".join(part.message.content or "" for part in parts) == text
    assert parts[-1].done and parts[-1].done_reason == "length"
    written = client.generate("lively", "The", raw=True, options=options)
    assert written.response == greedy(lively, lively.tokenizer.encode("The"), 15)
    assert len(client.embed("lively", ["The", "a dog"]).embeddings) == 2
    with pytest.raises(ollama.ResponseError, match="there is no model 'llama3'"):
        client.chat("llama3", HELLO)
    with pytest.raises(ollama.ResponseError, match="options.num_gpu cannot be honoured"):
        client.chat("lively", HELLO, options={"num_gpu": 1})


def test_the_courses_function(server: Live, lively: Served) -> None:
    answer = query_model("Hello, fox.", "lively", f"{server.url}/api/chat")
    ids = encode_prompt(HELLO, lively.tokenizer, get_style("alpaca"))
    assert answer == expected(lively, lively.context_length - len(ids))


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_our_judge_judges_by_our_own_server(
    server: Live, run: Run, tmp_path: Path, kind: str
) -> None:
    entry = {"instruction": "Say fox.", "input": "", "output": "fox", "model_response": "fox"}
    responses = tmp_path / "responses.json"
    responses.write_text(json.dumps([entry, {**entry, "output": "a"}]), encoding="utf-8")
    question = tmp_path / "question.txt"
    question.write_text("{prompt} {reference} {response}?", encoding="utf-8")
    url = server.url + ("/v1" if kind == "openai" else "")
    judge = ["--judge", f"{kind}:lively", "--base-url", url, "--template", question]
    result = run("judge", responses, *judge, "--out", tmp_path / "judged")
    assert result.status == 0, result.err
    found = json.loads((tmp_path / "judged" / "results.json").read_text(encoding="utf-8"))
    assert found["summary"]["scored"] == 2 and found["structured"]
    assert (len(found["digest"] or "") == 64) == (kind == "ollama")

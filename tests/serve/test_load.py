"""Many clients at once, and such as misbehave, against a real server."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from groundup.decoding.engine import generate
from groundup.serve import listening
from groundup.serve.models import Served
from groundup.tokenizers import BPETokenizer
from groundup.weights.load import load_model
from tests.assistants import lively_model
from tests.labelled import save_classifier
from tests.serve.live import Live, live, wait_until

pytestmark = pytest.mark.anyio

KEY = {"Authorization": "Bearer secret"}
LENGTH = 12
REQUESTS = int(os.environ.get("GROUNDUP_SERVE_REQUESTS", "300"))
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "🙂")


@pytest.fixture
def served(tokenizer: BPETokenizer) -> Iterator[Served]:
    torch.manual_seed(4)
    model = lively_model(tokenizer, context_length=96)
    served = Served.of("lively", model, tokenizer, max_batch=16, queue=400)
    yield served
    served.runner.close()


def known(served: Served, prompts: list[str]) -> dict[str, str]:
    """What the model writes after each of them, by ``generate``."""
    eot = served.tokenizer.eot_token
    found: dict[str, str] = {}
    by_length: dict[int, list[str]] = {}
    for prompt in prompts:
        by_length.setdefault(len(served.tokenizer.encode(prompt)), []).append(prompt)
    for length, alike in by_length.items():
        idx = torch.tensor([served.tokenizer.encode(prompt) for prompt in alike])
        for prompt, ids in zip(alike, generate(served.model, idx, LENGTH, 96), strict=True):
            written = ids[length:].tolist()
            end = written.index(eot) if eot in written else len(written)
            found[prompt] = served.tokenizer.decode(written[:end])
    return found


def some_prompts(count: int) -> list[str]:
    draw = random.Random(1)
    return [f"{i} " + " ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for i in range(count)]


async def streamed(client: httpx.AsyncClient, prompt: str) -> str:
    asked = {"model": "lively", "prompt": prompt, "temperature": 0, "max_tokens": LENGTH}
    text = ""
    async with client.stream("POST", "/v1/completions", json=asked | {"stream": True}) as lines:
        assert lines.status_code == 200, await lines.aread()
        done = False
        async for line in lines.aiter_lines():
            if line == "data: [DONE]":
                done = True
            elif line:
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
    assert done
    return text


def client_of(server: Live) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.AsyncClient(base_url=server.url, headers=KEY, timeout=120, limits=limits)


async def test_200_clients_at_once_get_each_its_own_text(served: Served) -> None:
    prompts = some_prompts(200)
    expected = known(served, prompts)
    assert len(set(expected.values())) > 100  # so that a mix-up would show
    with live(served, api_key="secret") as server:
        async with client_of(server) as client:
            texts = await asyncio.gather(*(streamed(client, prompt) for prompt in prompts))
    assert dict(zip(prompts, texts, strict=True)) == expected
    assert served.runner.running == served.runner.waiting == 0


async def test_too_many_are_told_when_to_come_again(tokenizer: BPETokenizer) -> None:
    served = Served.of("lively", lively_model(tokenizer), tokenizer, max_batch=1, queue=1)
    asked = {"model": "lively", "prompt": "a", "max_tokens": 200, "temperature": 0}
    with live(served) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            post = [client.post("/v1/completions", json=asked) for _ in range(12)]
            answers = await asyncio.gather(*post)
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) >= 2 and set(statuses) == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert "ask again in a moment" in refused.json()["error"]["message"]


def open_request(server: Live, path: str = "/v1/completions", **more: Any) -> socket.socket:
    """A connection on which a long text was asked for."""
    asked = {"model": "lively", "prompt": "the fox", "max_tokens": 10_000, "temperature": 0}
    body = json.dumps(asked | more).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(server.address)
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_frees_its_place(
    tokenizer: BPETokenizer, stream: bool
) -> None:
    served = Served.of("lively", lively_model(tokenizer, 4000), tokenizer, max_batch=2, queue=10)
    with live(served) as server:
        # All of them would take minutes, with two places.
        connections = [open_request(server, stream=stream) for _ in range(6)]
        wait_until(lambda: served.runner.running == 2)
        began = time.monotonic()
        for connection in connections:
            connection.close()
        wait_until(lambda: served.runner.running == served.runner.waiting == 0)
        answer = httpx.post(
            f"{server.url}/v1/completions",
            json={"model": "lively", "prompt": "a", "max_tokens": 3},
            timeout=30,
        )
        assert answer.status_code == 200 and time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("path", "seconds", "in_all"),
    [("/v1/embeddings", 0.02, 200), ("/api/embed", 0.02, 200), ("/v1/classify", 0.2, 7)],
)
async def test_nothing_more_is_computed_for_who_hangs_up(
    tokenizer: BPETokenizer, tmp_path: Path, path: str, seconds: float, in_all: int
) -> None:
    texts, calls = [f"the fox {i}" for i in range(200)], 0

    def slow(*_: object) -> None:
        nonlocal calls
        calls += 1
        time.sleep(seconds)

    if path == "/v1/classify":
        model, _ = load_model(save_classifier(tmp_path / "asked", tokenizer))
    else:
        model = lively_model(tokenizer)
    served = Served.of("asked", model, tokenizer)
    model.register_forward_pre_hook(slow)
    with live(served) as server:
        with pytest.raises(httpx.ReadTimeout):
            asked = {"model": "asked", "input": texts}
            httpx.post(f"{server.url}{path}", json=asked, timeout=0.1)
        time.sleep(2 * seconds + 0.3)  # what was going on
        before = calls
        time.sleep(2 * seconds + 0.3)
        assert calls == before < in_all


async def test_who_sends_slowly_or_garbage_or_never_ends_is_let_go(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PATIENCE", 0.3)
    monkeypatch.setattr("groundup.serve.asking.PATIENCE", 0.3)
    with live(served) as server:

        def says(*sent: bytes) -> bytes:
            with socket.create_connection(server.address, timeout=10) as connection:
                for part in sent:
                    connection.sendall(part)
                answer = b""
                try:
                    while part := connection.recv(1 << 16):
                        answer += part
                except ConnectionResetError:
                    pass
                return answer

        post = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        assert says(b"") == b""  # says nothing
        assert says(b"GET / HT") == b""  # stops in the middle
        assert b" 408 " in says(post + b"Content-Length: 100\r\n\r\n{")  # of its body
        assert b" 400 " in says(b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n")  # speaks TLS
        assert b" 400 " in says(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert b" 400 " in says(post + b"Content-Length: -5\r\n\r\n")
        assert b" 400 " in says(b"X" * 100_000)
        assert b" 413 " in says(post + b"Content-Length: 10000000\r\n\r\n" + b" " * 1000)
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


async def test_a_server_that_is_stopped_finishes_what_it_writes(tokenizer: BPETokenizer) -> None:
    served = Served.of("lively", lively_model(tokenizer), tokenizer)
    asked = {"model": "lively", "prompt": "a", "max_tokens": 150, "temperature": 0}
    with live(served, grace=20.0) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            answering = asyncio.create_task(client.post("/v1/completions", json=asked))
            async with asyncio.timeout(30):
                while not served.runner.running:
                    await asyncio.sleep(0.01)
            server.stop()
            answer = await answering
            assert answer.json()["usage"]["completion_tokens"] == 150
            with pytest.raises(httpx.TransportError):
                await client.get("/health")


async def test_grace_ends(tokenizer: BPETokenizer) -> None:
    served = Served.of("lively", lively_model(tokenizer, 8000), tokenizer)
    began = time.monotonic()
    with live(served, grace=1.0) as server:
        connection = open_request(server)
        wait_until(lambda: served.runner.running == 1)
    assert time.monotonic() - began < 40 and not served.runner.alive
    connection.close()


async def test_any_mixture_of_requests(served: Served) -> None:
    """``GROUNDUP_SERVE_REQUESTS=10000`` makes it long, and looks at the memory too."""
    prompts = some_prompts(40)
    expected = known(served, prompts)
    draw = random.Random(REQUESTS)
    with live(served, api_key="secret") as server:
        async with client_of(server) as client:
            asking = Asking(server, client, expected)
            await asking.several(draw, min(REQUESTS, 300))
            gc.collect()
            before = psutil.Process().memory_info().rss
            if REQUESTS > 300:
                await asking.several(draw, REQUESTS - 300)
            wait_until(lambda: served.runner.running == served.runner.waiting == 0)
            assert (await client.get("/health")).json() == {"status": "ok"}
            for prompt in prompts[:3]:
                assert await streamed(client, prompt) == expected[prompt]
            gc.collect()
            grown = psutil.Process().memory_info().rss - before
            if REQUESTS > 300:
                print(f"{REQUESTS} requests, memory {before >> 20} MiB, grown {grown >> 20} MiB")
            assert grown < 64 << 20


class Asking:
    """One request of any kind, and whether the answer is right."""

    def __init__(self, server: Live, client: httpx.AsyncClient, expected: dict[str, str]) -> None:
        self.server, self.client, self.expected = server, client, expected
        self.kinds = [
            *[self.whole, self.stream, self.ollama, self.hang_up, self.several_texts] * 3,
            *(self.bad_json, self.bad_field, self.no_model, self.no_key, self.embed, self.look),
            *(self.garbage, self.no_chat),
        ]

    async def several(self, draw: random.Random, count: int) -> None:
        kinds = iter(draw.choices(self.kinds, k=count))
        seeds = iter([draw.random() for _ in range(count)])

        async def worker() -> None:
            for kind in kinds:
                own = random.Random(next(seeds))
                await kind(own, own.choice(list(self.expected)))

        await asyncio.gather(*(worker() for _ in range(24)))
        large = await self.client.post("/v1/completions", content=b" " * 10_000_000)
        assert large.status_code == 413

    async def post(self, path: str, **asked: Any) -> httpx.Response:
        return await self.client.post(path, json={"model": "lively", **asked})

    async def whole(self, draw: random.Random, prompt: str) -> None:
        answer = await self.post(
            "/v1/completions", prompt=prompt, temperature=0, max_tokens=LENGTH, echo=False
        )
        assert answer.json()["choices"][0]["text"] == self.expected[prompt]

    async def stream(self, draw: random.Random, prompt: str) -> None:
        assert await streamed(self.client, prompt) == self.expected[prompt]

    async def ollama(self, draw: random.Random, prompt: str) -> None:
        options = {"temperature": 0, "num_predict": LENGTH}
        answer = await self.post("/api/generate", prompt=prompt, raw=True, options=options)
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert "".join(line["response"] for line in lines) == self.expected[prompt]

    async def hang_up(self, draw: random.Random, prompt: str) -> None:
        asked = {"model": "lively", "prompt": prompt, "max_tokens": 80, "stream": True}
        async with self.client.stream("POST", "/v1/completions", json=asked) as answer:
            lines = answer.aiter_lines()
            for _ in range(draw.randint(0, 4)):
                await anext(lines, None)

    async def several_texts(self, draw: random.Random, prompt: str) -> None:
        asked = {"prompt": prompt, "n": 2, "seed": draw.randint(0, 99), "max_tokens": 6}
        one, two = [await self.post("/v1/completions", **asked) for _ in range(2)]
        assert one.json()["choices"] == two.json()["choices"]

    async def bad_json(self, draw: random.Random, prompt: str) -> None:
        data = draw.choice([b"", b"{", b"[]", b"\xff", b'{"model": "lively"', draw.randbytes(50)])
        answer = await self.client.post("/v1/completions", content=data)
        assert answer.status_code == 400

    async def bad_field(self, draw: random.Random, prompt: str) -> None:
        wrong = draw.choice(
            [{"n": "x"}, {"nn": 1}, {"top_p": 5}, {"stop": 1}, {"prompt": {}}, {"seed": 1.5}]
        )
        answer = await self.post("/v1/completions", **{"prompt": prompt, **wrong})
        assert answer.status_code == 400
        assert next(iter(wrong)) in answer.json()["error"]["message"]

    async def no_model(self, draw: random.Random, prompt: str) -> None:
        answer = await self.post("/v1/completions", prompt=prompt, model="other")
        assert answer.status_code == 404

    async def no_key(self, draw: random.Random, prompt: str) -> None:
        key = {"Authorization": f"Bearer {draw.choice(['secre', 'secrets', 'x' * 999])}"}
        answer = await self.client.post("/v1/completions", json={}, headers=key)
        assert answer.status_code == 401

    async def embed(self, draw: random.Random, prompt: str) -> None:
        answer = await self.post("/v1/embeddings", input=[prompt, "fox"])
        assert len(answer.json()["data"]) == 2

    async def look(self, draw: random.Random, prompt: str) -> None:
        path = draw.choice(["/v1/models", "/api/tags", "/metrics", "/health", "/api/ps"])
        assert (await self.client.get(path)).status_code == 200

    async def no_chat(self, draw: random.Random, prompt: str) -> None:
        messages = [{"role": "user", "content": prompt}]
        answer = await self.post("/v1/chat/completions", messages=messages)
        assert answer.status_code == 400 and "/v1/completions" in answer.text

    async def garbage(self, draw: random.Random, prompt: str) -> None:
        reader, writer = await asyncio.open_connection(*self.server.address)
        writer.write(draw.randbytes(draw.randint(1, 300)) + b"\r\n\r\n")
        if draw.random() < 0.5:
            await reader.read(1000)
        writer.close()

"""A local server that speaks Ollama's protocol and OpenAI's, and fails on purpose.

    with FakeLLM() as llm:
        llm.faults = [status(500), cut]

The first question gets a 500, the second half an answer, all others what ``llm.answer`` says.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

DIGEST = "365c0bd3c000a25d28ddbf732fe1c6add414de7275464c4e4d1c3b5fcb5d8ad1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def llm(self) -> FakeLLM:
        assert isinstance(self.server, Server)
        return self.server.llm

    def do_GET(self) -> None:
        self.llm.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        if self.path in self.llm.pages:
            self.whole(*self.llm.pages[self.path])
        elif self.path == "/api/tags":
            models = [{"model": n, "name": n, "digest": d} for n, d in self.llm.models.items()]
            self.json(200, {"models": models})
        elif self.path == "/api/version":
            self.json(200, {"version": "0.5.7"})
        elif self.path == "/v1/models":
            models = [{"id": n, "object": "model"} for n in self.llm.models]
            self.json(200, {"object": "list", "data": models})
        else:
            self.whole(404, "404 page not found", "text/plain")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.llm.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        if self.path not in ("/api/chat", "/v1/chat/completions"):
            self.whole(404, "404 page not found", "text/plain")
            return
        with self.llm.lock:
            self.llm.asked.append(body)
            fault = self.llm.faults.pop(0) if self.llm.faults else None
            self.llm.busy += 1
            self.llm.most_busy = max(self.llm.most_busy, self.llm.busy)
        try:
            if self.llm.knows_no_schema and ("format" in body or "response_format" in body):
                self.error(400, "json: cannot unmarshal object into field format of type string")
            elif fault is not None:
                fault(self, body)
            else:
                answer(self, body)
        finally:
            with self.llm.lock:
                self.llm.busy -= 1

    def stream(self, body: dict[str, Any], text: str, *, parts: int | None = None) -> None:
        """Send an answer token by token; only the first ``parts`` lines of it, then hang up."""
        ollama = self.path == "/api/chat"
        lines = (ollama_lines if ollama else openai_lines)(body["model"], text, self.llm.tokens)
        data = "".join(lines[:parts]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson" if ollama else "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for start in range(0, len(data), 7):  # characters of several bytes are split as well
            self.write(data[start : start + 7])

    def write(self, data: bytes) -> bool:
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:  # the client has had enough
            return False
        return True

    def error(self, code: int, text: str, **headers: str) -> None:
        """An error as the two protocols have it."""
        ollama = self.path == "/api/chat"
        self.json(code, {"error": text if ollama else {"message": text}}, **headers)

    def json(self, code: int, value: object, **headers: str) -> None:
        self.whole(code, json.dumps(value), "application/json", **headers)

    def whole(self, code: int, text: str, kind: str, **headers: str) -> None:
        data = text.encode()
        self.send_response(code)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


Fault = Callable[[Handler, dict[str, Any]], None]


def ollama_lines(model: str, text: str, tokens: int | None) -> list[str]:
    """An answer of /api/chat: a line of JSON per token, and one that says it is done."""
    told = [{"message": {"role": "assistant", "content": piece}, "done": False} for piece in text]
    last: dict[str, Any] = {"message": {"role": "assistant", "content": ""}, "done": True}
    last |= {"done_reason": "stop", **({"prompt_eval_count": tokens} if tokens else {})}
    return [
        json.dumps({"model": model, **part}, ensure_ascii=False) + "\n" for part in (*told, last)
    ]


def openai_lines(model: str, text: str, tokens: int | None) -> list[str]:
    """An answer of /v1/chat/completions: events, and one that says it is done."""
    deltas = [{"delta": {"content": piece}, "finish_reason": None} for piece in text]
    chunks = [
        {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [c]}
        for c in (
            {"index": 0, **delta} for delta in (*deltas, {"delta": {}, "finish_reason": "stop"})
        )
    ]
    events = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
    return [*events, "data: [DONE]\n\n"]


def answer(handler: Handler, body: dict[str, Any]) -> None:
    """What the server does when nothing goes wrong."""
    prompt = body["messages"][0]["content"]
    handler.stream(body, handler.llm.answer(prompt))
    with handler.llm.lock:
        handler.llm.answered[prompt] += 1


def says(text: str) -> Fault:
    """Answer this."""
    return lambda handler, body: handler.stream(body, text)


def status(code: int, text: str = "trouble", **headers: str) -> Fault:
    """Answer with an error; header names with _ for -."""
    return lambda handler, body: handler.error(code, text, **headers)


def cut(handler: Handler, body: dict[str, Any]) -> None:
    """Hang up in the middle of the answer."""
    handler.stream(body, handler.llm.answer(""), parts=3)


def stall(handler: Handler, body: dict[str, Any]) -> None:
    """Take the question and say nothing until the test is over."""
    handler.llm.over.wait(10)
    handler.close_connection = True


def garbage(handler: Handler, body: dict[str, Any]) -> None:
    """Answer with what is of neither protocol."""
    handler.whole(200, "data: <html>Welcome to the Wi-Fi!\n\n", "text/event-stream")


def broken_off(handler: Handler, body: dict[str, Any]) -> None:
    """Report an error in the middle of the answer, as both protocols can."""
    line = json.dumps({"error": "the runner has crashed"})
    handler.whole(200, line + "\n" if "api/chat" in handler.path else f"data: {line}\n\n", "text/x")


def without_end(text: str, pause: float = 0.0) -> Fault:
    """Stream this token for ever, or rather for ten seconds."""

    def fault(handler: Handler, body: dict[str, Any]) -> None:
        ollama = handler.path == "/api/chat"
        lines = (ollama_lines if ollama else openai_lines)(body["model"], "x", None)
        line = lines[0].replace('"x"', json.dumps(text)).encode()
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        ends = time.monotonic() + 10
        while time.monotonic() < ends and handler.write(line):
            if pause and handler.llm.over.wait(pause):
                break

    return fault


def flood(size: int) -> Fault:
    """Answer with so many bytes, and no line end."""

    def fault(handler: Handler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        for _ in range(size // 2**16):
            if not handler.write(b"x" * 2**16):
                break

    return fault


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, llm: FakeLLM) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.llm = llm


class FakeLLM:
    """Runs the server while in its ``with`` block.

    Attributes:
        models: the models that it has, with their digests.
        answer: the answer to a prompt.
        faults: what goes wrong with the next questions, one each.
        pages: what to answer to a GET instead: status, text, content type, by path.
        knows_no_schema: refuse questions that ask for structured output.
        tokens: how long a prompt is, as Ollama counts it.
        asked: the bodies of all questions that came.
        answered: how often each prompt was answered as it should be.
    """

    def __init__(self) -> None:
        self.models = {"llama3:latest": DIGEST}
        self.answer: Callable[[str], str] = lambda prompt: '{"score": 85}'
        self.faults: list[Fault] = []
        self.pages: dict[str, tuple[int, str, str]] = {}
        self.knows_no_schema = False
        self.tokens: int | None = 20
        self.asked: list[dict[str, Any]] = []
        self.answered: Counter[str] = Counter()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.server = Server(self)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> FakeLLM:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

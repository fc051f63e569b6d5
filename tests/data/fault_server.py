"""A local HTTP server that fails on purpose, in one way per request.

    with FaultServer() as server:
        server.files["/a.txt"] = Served(b"...", faults=[cut(100), status(503)])

The first request for /a.txt is cut after 100 bytes, the second gets a 503, all others the file.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import pytest


@dataclass
class Served:
    """A file, and what shall go wrong with its next requests."""

    body: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    faults: list[Fault] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request that came."""

    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("Range")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def faulty(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        with self.faulty.lock:
            self.faulty.asked.append(Asked(path, dict(self.headers)))
            served = self.faulty.files.get(path)
            fault = served.faults.pop(0) if served is not None and served.faults else None
        if served is None:
            status(404)(self, Served(b""))
        else:
            (fault or give)(self, served)

    def do_HEAD(self) -> None:
        served = self.faulty.files.get(self.path.partition("?")[0])
        self.begin(404 if served is None else 200, *parts(self, served or Served(b""))[1:])

    def begin(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def write(self, body: bytes) -> None:
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:  # the client has had enough
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass


Fault = Callable[[Handler, Served], None]


def parts(handler: Handler, served: Served) -> tuple[int, bytes, dict[str, str]]:
    """The right answer: status, body, headers; a part if that was asked for and still holds."""
    headers = dict(served.headers)
    if served.etag:
        headers["ETag"] = served.etag
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if asked is None or not served.ranges:
        return 200, served.body, headers
    if handler.headers.get("If-Range", served.etag) != served.etag:
        return 200, served.body, headers
    start, size = int(asked[1]), len(served.body)
    if start >= size:
        return 416, b"", {"Content-Range": f"bytes */{size}"}
    headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    return 206, served.body[start:], headers


def give(handler: Handler, served: Served) -> None:
    code, body, headers = parts(handler, served)
    handler.begin(code, body, headers)
    handler.write(body)


def status(code: int, **headers: str) -> Fault:
    """Answer with this status; header names with _ for -."""
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, served: handler.begin(code, b"", renamed)


def redirect(where: str) -> Fault:
    return status(302, Location=where)


def cut(sent: int) -> Fault:
    """Close the connection after so many bytes of the body."""

    def fault(handler: Handler, served: Served) -> None:
        code, body, headers = parts(handler, served)
        handler.begin(code, body, headers)
        handler.write(body[:sent])

    return fault


def stall(sent: int) -> Fault:
    """Send so many bytes of the body, then nothing until the test is over."""

    def fault(handler: Handler, served: Served) -> None:
        code, body, headers = parts(handler, served)
        handler.begin(code, body, headers)
        handler.write(body[:sent])
        handler.faulty.over.wait(10)

    return fault


def slowly(seconds: float) -> Fault:
    """Wait, then answer as one should."""

    def fault(handler: Handler, served: Served) -> None:
        handler.faulty.over.wait(seconds)
        give(handler, served)

    return fault


def send(body: bytes, **headers: str) -> Fault:
    """Answer 200 with another body and, if need be, other headers ("" drops one)."""
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}

    def fault(handler: Handler, served: Served) -> None:
        handler.begin(200, body, renamed)
        handler.write(body)

    return fault


def wrong_part(handler: Handler, served: Served) -> None:
    """Answer a range request with bytes from the beginning."""
    size = len(served.body)
    handler.begin(206, served.body, {"Content-Range": f"bytes 0-{size - 1}/{size}"})
    handler.write(served.body)


def hang_up(handler: Handler, served: Served) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self.over = threading.Event()


class FaultServer:
    """Runs the server while in its ``with`` block."""

    def __init__(self) -> None:
        self.server = Server()
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def files(self) -> dict[str, Served]:
        return self.server.files

    @property
    def asked(self) -> list[Asked]:
        return self.server.asked

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def serve(self, path: str, body: bytes, *faults: Fault, **settings: object) -> str:
        """Serve a file with these faults and return its URL."""
        served = Served(body, faults=list(faults))
        for name, value in settings.items():
            setattr(served, name, value)
        self.files[path] = served
        return self.url + path

    def __enter__(self) -> FaultServer:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def closed_port() -> int:
    """A local port on which nobody listens."""
    with FaultServer() as server:
        return server.server.server_port


COMMIT = "0123456789" * 4


def play_hub(server: FaultServer, content: Mapping[str, bytes], name: str = "gpt2") -> None:
    """Let the server play the Hugging Face Hub with one repository; set HF_ENDPOINT to its url."""
    repo = f"openai-community/{name}"
    info = json.dumps({"id": repo, "sha": COMMIT, "siblings": []}).encode()
    tree = [
        {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
        for name, body in content.items()
    ]
    server.serve(f"/api/models/{repo}/revision/main", info)
    server.serve(f"/api/models/{repo}", info)
    server.serve(f"/api/models/{repo}/tree/{COMMIT}", json.dumps(tree).encode())
    for file, body in content.items():
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        headers = {"X-Repo-Commit": COMMIT}
        server.serve(f"/{repo}/resolve/{COMMIT}/{file}", body, etag=etag, headers=headers)


def allow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what keeps tests from the network, and let no proxy come between them and 127.0.0.1."""
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

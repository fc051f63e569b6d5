from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from groundup.errors import UserError
from groundup.serve.config import ServeConfig
from groundup.serve.models import Served
from tests.serve.conftest import client_of

KEY = {"Authorization": "Bearer s3cret"}
OTHER = "https://elsewhere.example"


@pytest.fixture
def client(lively: Served) -> Iterator[TestClient]:
    with client_of(lively, api_key="s3cret", allow_origin=["https://school.example"]) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer s3cre"},
        {"Authorization": "Bearer s3cret1"},
        {"Authorization": "Basic s3cret"},
        {"Authorization": "s3cret"},
        {"Authorization": "Bearer \xff\xfe".encode("latin-1")},
    ],
)
def test_a_wrong_key_opens_nothing(client: TestClient, headers: dict[str, Any]) -> None:
    for path in ("/v1/models", "/api/tags", "/metrics", "/page/models", "/nothing"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401 and "wants a key" in answer.text
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/v1/completions", json={}, headers=headers).status_code == 401
    assert client.get("/health", headers=headers).json() == {"status": "ok"}


def test_the_right_key_does(client: TestClient) -> None:
    assert client.get("/v1/models", headers=KEY).status_code == 200


def test_other_hosts_are_refused(client: TestClient, lively: Served) -> None:
    for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "localhost."):
        assert client.get("/health", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example:8000", "10.0.0.1", "[", ""):
        answer = client.get("/health", headers={"Host": host})
        assert answer.status_code == 403 and "not called" in answer.text, host
    for host, more, status in (
        ("10.0.0.1:8000", {"no_auth": True}, 200),
        ("evil.example", {"no_auth": True}, 403),
        ("my.school", {"api_key": "x"}, 200),
    ):
        everywhere = client_of(lively, host="0.0.0.0", **more)
        assert everywhere.get("/health", headers={"Host": host}).status_code == status


def test_pages_of_other_sites_can_neither_read_nor_set_off_anything(client: TestClient) -> None:
    answer = client.get("/v1/models", headers={**KEY, "Origin": OTHER})
    assert answer.status_code == 403 and "may not use this server" in answer.text
    assert "access-control-allow-origin" not in answer.headers
    assert client.options("/v1/models", headers={"Origin": OTHER}).status_code == 403
    own = client.get("/v1/models", headers={**KEY, "Origin": "http://127.0.0.1:8000"})
    assert own.status_code == 200 and "access-control-allow-origin" not in own.headers
    friend = {"Origin": "https://school.example"}
    allowed = client.get("/v1/models", headers={**KEY, **friend})
    assert allowed.headers["access-control-allow-origin"] == "https://school.example"
    asks = {**friend, "Access-Control-Request-Headers": "authorization"}
    asks["Access-Control-Request-Method"] = "POST"
    preflight = client.options("/v1/chat/completions", headers=asks)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization"
    assert client.get("/v1/models", headers=friend).status_code == 401


def test_what_is_too_large_is_refused_before_it_is_read(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(6):
            yield b" " * (1 << 20)

    large = client.post("/v1/completions", content=b" " * (5 << 20), headers=KEY)
    assert large.status_code == 413 and "larger than 4 MiB" in large.text
    unknown = client.post("/v1/completions", content=chunks(), headers=KEY)
    assert unknown.status_code == 413 and "larger than 4 MiB" in unknown.text


def test_more_requests_than_it_takes_are_told_to_come_again(lively: Served) -> None:
    with client_of(lively, max_connections=1) as client:
        client.get("/health")
        guard: Any = client.app.middleware_stack  # pyright: ignore
        while not hasattr(guard, "active"):
            guard = guard.app
        guard.active = 1
        answer = client.get("/health")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        guard.active = 0
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 lets others reach the server: give a key"),
        ({"port": 70000}, "port is 70000; expected 0 to 65535"),
        ({"max_batch": 0, "queue": -1}, "max_batch is 0; .*; queue is -1"),
        ({"grace": -1.0}, "grace is -1.0"),
        ({"allow_origin": ["*"]}, "expected the origin of one web site"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROUNDUP_API_KEY", raising=False)
    with pytest.raises(UserError, match=message):
        ServeConfig(**options).check()


def test_the_key_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_API_KEY", "from there")
    options = ServeConfig(host="0.0.0.0")
    options.check()
    assert options.key == "from there" and "from there" not in repr(options)
    assert ServeConfig(api_key="given").key == "given"
    assert ServeConfig(api_key=" given\n").key == "given"  # what a header says has no ends either
    with pytest.raises(UserError, match="api_key is empty"):
        ServeConfig(api_key=" ").check()
    assert ServeConfig(no_auth=True).key is None

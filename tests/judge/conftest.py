"""A judge that runs here, and responses for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from groundup.judge import asking
from groundup.judge.config import JudgeConfig
from tests.data.fault_server import allow_network
from tests.judge.fake_llm import FakeLLM

Write = Callable[..., Path]
Configure = Callable[..., JudgeConfig]


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLLM]:
    """A server of both protocols; nothing of the environment comes between it and the tests."""
    allow_network(monkeypatch)
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with FakeLLM() as server:
        yield server


@pytest.fixture(params=["ollama", "openai"])
def configure(request: pytest.FixtureRequest, llm: FakeLLM) -> Configure:
    """Options with which either protocol reaches the server."""

    def make(**changes: Any) -> JudgeConfig:
        if request.param == "ollama":
            known: dict[str, Any] = {"judge": "ollama:llama3", "base_url": llm.url}
        else:
            known = {"judge": "openai:llama3:latest", "base_url": f"{llm.url}/v1"}
        return JudgeConfig(**(known | changes))

    return make


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let nobody wait, and note for how long one would have."""
    noted: list[float] = []

    def pause(stop: object, seconds: float) -> None:
        noted.append(seconds)

    monkeypatch.setattr(asking, "pause", pause)
    return noted


def rows(count: int, **fields: str) -> list[dict[str, str]]:
    """Entries that all differ."""
    return [
        {
            "instruction": f"Name the number {i}.",
            "input": f"{i}" if i % 2 else "",
            "output": f"It is {i}.",
            "model_response": f"The number is {i}.",
            **fields,
        }
        for i in range(1, count + 1)
    ]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write entries to a file."""

    def call(entries: object, name: str = "responses.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(entries), encoding="utf-8")
        return path

    return call

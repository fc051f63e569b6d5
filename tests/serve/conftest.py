"""Tiny models that are served, for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from groundup.prompts import get_style
from groundup.serve.app import make_app
from groundup.serve.config import ServeConfig
from groundup.serve.models import Models, Served
from groundup.tokenizers import BPETokenizer
from tests.assistants import lively_model


@pytest.fixture
def anyio_backend() -> str:
    """What runs tests that are coroutines."""
    return "asyncio"


@pytest.fixture
def lively(tokenizer: BPETokenizer) -> Iterator[Served]:
    """A language model that is asked in Alpaca's style; its texts do not repeat themselves."""
    torch.manual_seed(3)
    model = Served.of("lively", lively_model(tokenizer), tokenizer, style=get_style("alpaca"))
    yield model
    model.runner.close()


def client_of(*served: Served, **options: object) -> TestClient:
    """A client of a server with these models, within this process."""
    app = make_app(Models(served), ServeConfig(**options))  # pyright: ignore[reportArgumentType]
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def asked_page(client: TestClient, where: str, *, model: str, **body: Any) -> Any:
    """What the page is told."""
    response = client.post(f"/page/{where}", json={"model": model} | body)
    assert response.status_code == 200, response.text
    return response.json()


def refused_page(client: TestClient, where: str, *, model: str, **body: Any) -> str:
    """Why the page is told nothing."""
    response = client.post(f"/page/{where}", json={"model": model} | body)
    assert 400 <= response.status_code < 500
    return response.json()["error"]["message"]

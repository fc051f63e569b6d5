"""The two kinds of servers, each through its official client: Ollama, and OpenAI-compatible."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from groundup.errors import UserError
from groundup.judge.address import credentials, split_address, without_credentials
from groundup.judge.client import NEEDS_KEY, JudgeClient, Piece
from groundup.judge.config import JudgeConfig
from groundup.judge.failures import CONNECT, Failed, Refusal

if TYPE_CHECKING:
    import ollama

PORT = 11434

OFFICIAL = "https://api.openai.com/v1"

PLAIN = {"Accept-Encoding": "identity"}
"""Compressed, an answer's size would not be known before it is in memory."""

THOUGHTS = ("reasoning_content", "reasoning")


def connect(config: JudgeConfig) -> JudgeClient:
    """The client of a judge; nothing is sent yet.

    Raises:
        UserError: the address is none, or a key lacks.
    """
    return OllamaClient(config) if config.kind == "ollama" else OpenAIClient(config)


class OllamaClient(JudgeClient):
    """A model of an Ollama server; its digest identifies it."""

    form = expected = "Ollama"
    start = (
        "start Ollama with `ollama serve` (it can be had from https://ollama.com/download), or "
        "name its address with --base-url or OLLAMA_HOST"
    )
    smaller = ", or a smaller --num-ctx"

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__(config, ollama_url(config.base_url))
        self._auth = credentials(urlsplit(_ollama_given(config.base_url)))
        if ":" not in self.model.rpartition("/")[2]:
            self.wanted = f"{self.model}:latest"
        self.fetch = f"`ollama pull {self.model}` fetches it; "
        self._clients: dict[float, ollama.Client] = {}

    def models(self) -> dict[str, dict[str, str | None]]:
        """The models that are pulled."""
        listing = self._client(CONNECT).list()
        return {model.model: {"digest": model.digest} for model in listing.models if model.model}

    def server_version(self) -> str | None:
        """The version of the Ollama server, for which its client has no call."""
        import httpx

        try:
            with httpx.Client(**self._how(CONNECT)) as client:
                return str(client.get(f"{self.url}/api/version").json()["version"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError, Failed, Refusal):
            return None  # nice to know, no more

    def stream(
        self, prompt: str, schema: Mapping[str, Any] | None, seed: int, silence: float
    ) -> Generator[Piece]:
        """Send one question and yield the answer."""
        for part in self._client(silence).chat(
            self.model,
            [{"role": "user", "content": prompt}],
            stream=True,
            format=dict(schema) if schema is not None else None,
            options={"temperature": 0, "seed": seed, "num_ctx": self.num_ctx},
        ):
            said, thinks = part.message.content or "", bool(part.message.thinking)
            yield Piece(said, bool(part.done), part.prompt_eval_count, thinks)

    def _client(self, silence: float) -> ollama.Client:
        """The client with this patience, of which each has one for all its requests."""
        import ollama

        if silence not in self._clients:
            self._clients[silence] = ollama.Client(host=self.url, **self._how(silence))
        return self._clients[silence]

    def _how(self, silence: float) -> dict[str, Any]:
        """How requests are made."""
        import httpx

        return self._transport(self._auth) | {
            "timeout": httpx.Timeout(silence, connect=CONNECT),
            "headers": PLAIN,
        }


class OpenAIClient(JudgeClient):
    """A model of a server that speaks OpenAI's protocol; its address identifies it."""

    form, expected = "OpenAI", "an OpenAI-compatible one"
    start = "start the server, or name its address with --base-url"

    def __init__(self, config: JudgeConfig) -> None:
        import openai

        given = config.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL
        parts = split_address(given.strip().rstrip("/"), "one such as http://localhost:8080/v1")
        url = without_credentials(parts)
        key = os.environ.get("OPENAI_API_KEY")
        if not key and url == OFFICIAL:
            raise UserError(
                f"{config.judge} is a model of OpenAI's own server{NEEDS_KEY}; "
                "--base-url names another server"
            )
        super().__init__(config, url)
        self.hint = "" if url.endswith("/v1") else "; such addresses usually end in /v1"
        self._client = openai.OpenAI(
            base_url=url,
            api_key=key or "none",  # servers of one's own want none, but the client does
            max_retries=0,  # we do it, and say so
            default_headers=PLAIN,
            http_client=openai.DefaultHttpxClient(**self._transport(credentials(parts))),
        )

    def models(self) -> dict[str, dict[str, str | None]]:
        """The models that the server lists; it tells no digests."""
        models = self._client.with_options(timeout=CONNECT).models
        listing = json.loads(models.with_raw_response.list().http_response.text)
        return {str(model["id"]): {"base_url": self.url} for model in listing["data"]}

    def stream(
        self, prompt: str, schema: Mapping[str, Any] | None, seed: int, silence: float
    ) -> Generator[Piece]:
        """Send one question and yield the answer."""
        import openai

        held: Any = openai.omit
        if schema is not None:
            named = {"name": "verdict", "strict": True, "schema": schema}
            held = {"type": "json_schema", "json_schema": named}
        with self._client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            seed=seed,
            response_format=held,
            stream=True,
            timeout=openai.Timeout(silence, connect=CONNECT),
        ) as parts:
            for part in parts:
                for choice in part.choices[:1]:
                    # Of what a model thinks, OpenAI's protocol knows nothing, but some servers.
                    thinks = any((choice.delta.model_extra or {}).get(name) for name in THOUGHTS)
                    done = choice.finish_reason is not None
                    yield Piece(choice.delta.content or "", done, None, thinks)


def ollama_url(base_url: str | None) -> str:
    """The address of an Ollama server, completed as Ollama completes OLLAMA_HOST.

    Raises:
        UserError: it is no address.
    """
    given = _ollama_given(base_url)
    parts = split_address(given, f"http://HOST:{PORT}", needs_host=False)
    port = parts.port
    if port is None:
        port = {"http": 80, "https": 443}[parts.scheme] if given == _asked(base_url) else PORT
    host = parts.hostname or "127.0.0.1"
    if host == "0.0.0.0":  # where a server listens, not where one can ask
        host = "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _asked(base_url: str | None) -> str:
    return (base_url or os.environ.get("OLLAMA_HOST") or "").strip()


def _ollama_given(base_url: str | None) -> str:
    asked = _asked(base_url)
    return asked if "://" in asked else f"http://{asked}"

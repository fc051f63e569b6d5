"""A judge that Ollama runs, through its official client."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from groundup.data.transfer import Failed
from groundup.errors import UserError
from groundup.judge.clients import (
    CONNECT,
    LONGEST_ANSWER,
    JudgeClient,
    Refusal,
    Reply,
    is_local,
    no_connection,
    proxy_hint,
    retry_after,
    split_address,
)
from groundup.judge.config import JudgeConfig

if TYPE_CHECKING:
    import httpx
    import ollama

PORT = 11434


class OllamaClient(JudgeClient):
    """A model of an Ollama server."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__(config, ollama_url(config.base_url))
        self._clients: dict[float, ollama.Client] = {}

    def preflight(self) -> dict[str, str | None]:
        """Check that Ollama answers and that the model is pulled; its digest identifies it."""
        try:
            with explained(self.url, CONNECT):
                listing = self._client(CONNECT).list()
        except Refusal as refusal:
            raise self._stranger(str(refusal), "Ollama") from None
        except Failed as failure:
            if failure.offline:
                raise UserError(nobody_there(self.url, failure)) from None
            raise self._stranger(str(failure), "Ollama") from None
        digests = {model.model: model.digest for model in listing.models if model.model}
        wanted = self.model if ":" in self.model.rpartition("/")[2] else f"{self.model}:latest"
        if wanted not in digests:
            raise self._missing(digests, f"`ollama pull {self.model}` fetches it; ")
        return {"judge": self.name, "digest": digests[wanted]}

    def server_version(self) -> str | None:
        """The version of the Ollama server."""
        import httpx

        try:
            answer = httpx.get(
                f"{self.url}/api/version", timeout=CONNECT, trust_env=not is_local(self.url)
            )
            return str(answer.json()["version"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None  # nice to know, no more

    def chat(
        self, prompt: str, schema: Mapping[str, Any] | None, seed: int, silence: float
    ) -> Reply:
        """Stream one answer: then ``silence`` is the time between two tokens, not of the whole."""
        text, prompt_tokens, done = "", None, False
        with explained(self.url, silence):
            for part in self._client(silence).chat(
                self.model,
                [{"role": "user", "content": prompt}],
                stream=True,
                format=dict(schema) if schema is not None else None,
                options={"temperature": 0, "seed": seed, "num_ctx": self.num_ctx},
            ):
                text += part.message.content or ""
                prompt_tokens = part.prompt_eval_count or prompt_tokens
                done = bool(part.done)
                if len(text) > LONGEST_ANSWER:
                    break
        if not done and len(text) <= LONGEST_ANSWER:
            raise Failed("the answer was cut off", again=True)
        return Reply(text, schema is not None, prompt_tokens)

    def _client(self, silence: float) -> ollama.Client:
        """The client with this patience."""
        if silence not in self._clients:
            self._clients[silence] = make_client(self.url, silence)
        return self._clients[silence]


def make_client(url: str, silence: float) -> ollama.Client:
    """An official client that raises ``Refusal`` on error statuses."""
    import httpx
    import ollama

    return ollama.Client(
        host=url,
        timeout=httpx.Timeout(silence, connect=CONNECT),
        trust_env=not is_local(url),
        event_hooks={"response": [_refuse]},
    )


@contextmanager
def explained(url: str, silence: float) -> Iterator[None]:
    """Turn everything that can go wrong on the way into ``Failed``, with the reason."""
    import httpx
    import ollama

    try:
        yield
    except httpx.ConnectTimeout:
        raise Failed(f"no connection within {CONNECT:g} s", again=True, offline=True) from None
    except httpx.TimeoutException:
        raise Failed(f"nothing came for {silence:g} s", again=True) from None
    except (ConnectionError, httpx.ConnectError) as error:
        # The client replaces httpx's error by its own, whose text is the same for any reason.
        cause = error.__context__ if isinstance(error, ConnectionError) else error
        raise no_connection(str(cause)) from None
    except httpx.ProxyError:
        raise Failed(f"the proxy does not let it through{proxy_hint(url)}", again=True) from None
    except httpx.TransportError:
        raise Failed("the connection was cut", again=True) from None
    except ollama.ResponseError as error:  # in the middle of an answer
        raise Refusal(500, error.error) from None
    except (ValueError, TypeError, AttributeError):  # no JSON, or not of this form
        raise Failed("the answer is not of Ollama's form", again=True) from None


def nobody_there(url: str, failure: Failed) -> str:
    """What to tell a user whose Ollama does not take connections."""
    return (
        f"nothing listens at {url} ({failure}); start Ollama with `ollama serve` (it can be had "
        f"from https://ollama.com/download), or name its address with --base-url or OLLAMA_HOST"
        f"{proxy_hint(url)}"
    )


def ollama_url(base_url: str | None) -> str:
    """The address of an Ollama server, completed as Ollama completes OLLAMA_HOST.

    Raises:
        UserError: it is no address.
    """
    given = (base_url or os.environ.get("OLLAMA_HOST") or "").strip()
    url = given if "://" in given else f"http://{given}"
    parts = split_address(url, f"http://HOST:{PORT}", needs_host=False)
    port = parts.port
    if port is None:
        port = {"http": 80, "https": 443}[parts.scheme] if "://" in given else PORT
    host = parts.hostname or "127.0.0.1"
    if host == "0.0.0.0":  # where a server listens, not where one can ask
        host = "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _refuse(response: httpx.Response) -> None:
    """Raise the server's error with what the official client's own error leaves out."""
    if response.status_code < 400:
        return
    response.read()
    try:
        text = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        text = response.text
    raise Refusal(response.status_code, text, retry_after(response.headers.get("retry-after", "")))

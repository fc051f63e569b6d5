"""A judge on any OpenAI-compatible server, through OpenAI's official client."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from groundup.data.transfer import Failed
from groundup.errors import UserError
from groundup.judge.clients import (
    CONNECT,
    LONGEST_ANSWER,
    NEEDS_KEY,
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

OFFICIAL = "https://api.openai.com/v1"


class OpenAIClient(JudgeClient):
    """A model of a server that speaks OpenAI's protocol; such servers tell no digest."""

    def __init__(self, config: JudgeConfig) -> None:
        import openai

        given = config.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL
        url = given.strip().rstrip("/")
        split_address(url, "one such as http://localhost:8080/v1")
        key = os.environ.get("OPENAI_API_KEY")
        if not key and url == OFFICIAL:
            raise UserError(
                f"{config.judge} is a model of OpenAI's own server{NEEDS_KEY}; "
                "--base-url names another server"
            )
        super().__init__(config, url)
        self._client = openai.OpenAI(
            base_url=url,
            api_key=key or "none",  # servers of one's own want none, but the client does
            max_retries=0,  # we do it, and say so
            http_client=openai.DefaultHttpxClient(trust_env=not is_local(url)),
        )

    def preflight(self) -> dict[str, str | None]:
        """Check that the server answers and lists the model; its address identifies it."""
        try:
            with explained(self.url, CONNECT):
                models = self._client.with_options(timeout=CONNECT).models
                listing = json.loads(models.with_raw_response.list().http_response.text)
                names = [str(model["id"]) for model in listing["data"]]
        except Refusal as refusal:
            if refusal.status == 401:
                raise self._explained(refusal) from None
            raise self._stranger(str(refusal) + self._v1(), "an OpenAI-compatible one") from None
        except Failed as failure:
            if failure.offline:
                raise UserError(
                    f"nothing listens at {self.url} ({failure}); start the server, or name its "
                    f"address with --base-url{proxy_hint(self.url)}"
                ) from None
            raise self._stranger(str(failure) + self._v1(), "an OpenAI-compatible one") from None
        if self.model not in names:
            raise self._missing(names, "")
        return {"judge": self.name, "base_url": self.url}

    def server_version(self) -> str | None:
        """Servers of this kind do not tell it."""
        return None

    def chat(
        self, prompt: str, schema: Mapping[str, Any] | None, seed: int, silence: float
    ) -> Reply:
        """Stream one answer: then ``silence`` is the time between two tokens, not of the whole."""
        import openai

        held: Any = openai.omit
        if schema is not None:
            named = {"name": "verdict", "strict": True, "schema": schema}
            held = {"type": "json_schema", "json_schema": named}
        text, done = "", False
        with (
            explained(self.url, silence),
            self._client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                temperature=0,
                seed=seed,
                response_format=held,
                stream=True,
                timeout=openai.Timeout(silence, connect=CONNECT),
            ) as stream,
        ):
            for part in stream:
                for choice in part.choices[:1]:
                    text += choice.delta.content or ""
                    done = done or choice.finish_reason is not None
                if len(text) > LONGEST_ANSWER:
                    break
        if not done and len(text) <= LONGEST_ANSWER:
            raise Failed("the answer was cut off", again=True)
        return Reply(text, schema is not None)

    def _v1(self) -> str:
        return "" if self.url.endswith("/v1") else "; such addresses usually end in /v1"


@contextmanager
def explained(url: str, silence: float) -> Iterator[None]:
    """Turn the client's errors into ``Refusal`` and ``Failed``, with the reason."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        wait = retry_after(error.response.headers.get("retry-after", ""))
        raise Refusal(error.status_code, _words(error.body, error.response.text), wait) from None
    except openai.APITimeoutError:
        raise Failed(f"nothing came for {silence:g} s", again=True) from None
    except openai.APIConnectionError as error:
        kind = type(error.__cause__).__name__  # of the HTTP library that the client has chosen
        if kind == "ConnectError":
            raise no_connection(str(error.__cause__)) from None
        if kind == "ProxyError":
            why = f"the proxy does not let it through{proxy_hint(url)}"
            raise Failed(why, again=True) from None
        raise Failed("the connection was cut", again=True) from None
    except openai.APIError as error:  # in the middle of an answer
        raise Refusal(500, error.message) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failed("the answer is not of OpenAI's form", again=True) from None


def _words(body: object, otherwise: str) -> str:
    """The message of an error; servers put it in several places."""
    while isinstance(body, dict):
        body = body.get("message") or body.get("error")
    return str(body or otherwise)

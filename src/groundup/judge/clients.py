"""Asking a judge over the network: what its servers have in common, and how they fail."""

from __future__ import annotations

import ipaddress
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from groundup.data.transfer import Failed, host_of
from groundup.errors import UserError, did_you_mean
from groundup.judge.config import JudgeConfig

CONNECT = 10.0
"""Seconds within which a server must take a connection."""

LONGEST_ANSWER = 4000
"""Characters after which a judge that was asked for one number has lost its way."""

_NO_SCHEMA = (400, 422)
"""What servers answer that know no structured output; Ollama before 0.5 is one."""


@dataclass(frozen=True)
class Reply:
    """A judge's answer; ``structured`` tells whether the server was held to the schema."""

    text: str
    structured: bool
    prompt_tokens: int | None = None


class Refusal(Exception):
    """An answer with an error status; ``wait`` is the server's Retry-After in seconds."""

    def __init__(self, status: int, text: str, wait: float | None = None) -> None:
        self.status, self.text, self.wait = status, tidy(text), wait
        super().__init__(f"{status} {self.text}".strip())


class Unanswerable(Exception):
    """The server will not take this question, such as one longer than its context."""


class JudgeClient(ABC):
    """A model on a server. Threads may share it once :meth:`preflight` and a question are done."""

    def __init__(self, config: JudgeConfig, url: str) -> None:
        self.name, self.model, self.num_ctx = config.judge, config.model, config.num_ctx
        self.url = url
        self.structured = True

    @abstractmethod
    def preflight(self) -> dict[str, str | None]:
        """Check that the server answers and has the model.

        Returns:
            What identifies the judge: its name, and its digest or its address.

        Raises:
            UserError: it does not; the message says what to do.
        """

    @abstractmethod
    def server_version(self) -> str | None:
        """The server's version, where it tells."""

    @abstractmethod
    def chat(
        self, prompt: str, schema: Mapping[str, Any] | None, seed: int, silence: float
    ) -> Reply:
        """Send one question and return the whole answer.

        Raises:
            Refusal: the server answers with an error status.
            Failed: the answer did not arrive; asking again may help.
        """

    def ask(self, prompt: str, schema: Mapping[str, Any], seed: int, silence: float) -> Reply:
        """Ask for an answer that follows the schema, or for any, where the server knows no schemas.

        Args:
            prompt: the question.
            schema: a JSON schema of the answer.
            seed: the sampling seed.
            silence: seconds without a sign of life after which the request has failed.

        Raises:
            Failed: asking again may help.
            Unanswerable: asking this again is useless.
            UserError: asking anything is useless.
        """
        try:
            if self.structured:
                try:
                    return self.chat(prompt, schema, seed, silence)
                except Refusal as refusal:
                    if refusal.status not in _NO_SCHEMA:
                        raise
            reply = self.chat(prompt, None, seed, silence)
            self.structured = False
            return reply
        except Refusal as refusal:
            raise self._explained(refusal) from None

    def _explained(self, refusal: Refusal) -> Exception:
        status, text = refusal.status, refusal.text
        if re.search(r"\bmemory\b", text):
            return UserError(
                f"there is not enough memory for the judge {self.name} ({text}); "
                "choose a smaller model, or a smaller --num-ctx"
            )
        if status in (408, 429) or status >= 500:
            return Failed(str(refusal), again=True, wait=refusal.wait)
        if status in (400, 413, 422):
            return Unanswerable(str(refusal))
        return UserError(
            f"the server at {self.url} refuses to answer as {self.model}: {refusal}"
            + (NEEDS_KEY if status == 401 else proxy_hint(self.url))
        )

    def _missing(self, there: Iterable[str], how: str) -> UserError:
        """The model is not among those that are there; ``how`` to get it."""
        names = list(there)
        listed = f"there are: {', '.join(names)}" if names else "it has none yet"
        hint = did_you_mean(self.model, names)
        return UserError(
            f"the server at {self.url} has no model {self.model!r}{hint}; {how}{listed}"
        )

    def _stranger(self, what: str, expected: str) -> UserError:
        """Something is there, but not the server that was meant."""
        return UserError(
            f"{self.url} does not answer as {expected} does ({what}): it is another server, or "
            f"something between answers in its place; check --base-url{proxy_hint(self.url)}"
        )


NEEDS_KEY = "; the environment variable OPENAI_API_KEY must hold a key that it accepts"


def connect(config: JudgeConfig) -> JudgeClient:
    """The client of a judge; nothing is sent yet.

    Raises:
        UserError: the address is none, or a key lacks.
    """
    if config.kind == "ollama":
        from groundup.judge.ollama_client import OllamaClient

        return OllamaClient(config)
    from groundup.judge.openai_client import OpenAIClient

    return OpenAIClient(config)


def split_address(url: str, expected: str, *, needs_host: bool = True) -> SplitResult:
    """The parts of a server's address, which the clients take without an error of their own.

    Args:
        url: the address.
        expected: what an address looks like, for the message.
        needs_host: whether one without a host is none.

    Raises:
        UserError: it is no address.
    """
    import httpx

    why = ""
    try:
        parts = urlsplit(url)
        _ = parts.port  # only whoever asks for it learns that it is none
        httpx.URL(url)  # refuses control characters, and names that cannot be a host's
        if parts.scheme in ("http", "https") and (parts.hostname or not needs_host):
            return parts
    except (ValueError, httpx.InvalidURL) as error:
        why = f" ({error})"
    raise UserError(f"{url!r} is no address of a server{why}; expected {expected}")


def no_connection(cause: str) -> Failed:
    """Why there is no connection, from the system's words for it."""
    if "getaddrinfo" in cause or "ame or service" in cause or "nodename" in cause:
        why = "the name does not resolve"
    elif "SSL" in cause:
        why = "its TLS certificate is not accepted"
    else:
        why = "the connection is refused"
    return Failed(why, again=True, offline=True)


def is_local(url: str) -> bool:
    """Whether the server is this machine, which no proxy can reach for us."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_hint(url: str) -> str:
    """``"; requests to it go through the proxy …"``, if they do."""
    host = urlsplit(url).hostname or ""
    proxies = getproxies()
    proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    if not proxy or is_local(url) or proxy_bypass(host):
        return ""
    return (
        f"; requests to it go through the proxy {host_of(proxy)}, which the environment names "
        f"(HTTP_PROXY); NO_PROXY={host} lets them pass it by"
    )


def retry_after(value: str) -> float | None:
    """Seconds to wait according to a Retry-After header: a number, or a date."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return None


def tidy(text: str) -> str:
    """A server's words on one line, without HTML tags, and not too many of them."""
    plain = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    return plain if len(plain) <= 200 else plain[:199] + "…"

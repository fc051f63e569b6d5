"""The one interface through which every judge is asked."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from groundup.errors import UserError, did_you_mean
from groundup.judge.address import is_local, proxy_hint
from groundup.judge.config import JudgeConfig
from groundup.judge.failures import (
    CONNECT,
    Endless,
    Failed,
    Refusal,
    Unanswerable,
    explained,
    look_at,
)
from groundup.judge.scoring import after_thought

NEEDS_KEY = "; the environment variable OPENAI_API_KEY must hold a key that it accepts"

_NO_SCHEMA = (400, 422)
"""What servers answer that know no structured output; Ollama before 0.5 is one."""


class Piece(NamedTuple):
    """A part of an answer that is streamed; ``done`` with the last one.

    ``thinks`` tells a part of what the model thinks, which is no part of the answer.
    """

    text: str
    done: bool
    prompt_tokens: int | None = None
    thinks: bool = False


@dataclass(frozen=True)
class Reply:
    """A judge's answer; ``structured`` tells whether the server was held to the schema."""

    text: str
    structured: bool
    prompt_tokens: int | None = None


class JudgeClient(ABC):
    """A model on a server. Threads may share it once :meth:`preflight` and a question are done.

    Attributes:
        form: whose protocol the server speaks.
        expected: what the server should be.
        start: what to do if nothing listens.
        wanted: the model's name as the server lists it.
        fetch: how to get a model that is not there.
        hint: what else may be wrong if something strange answers.
        smaller: what else than a smaller model takes less memory.
        longest_answer: characters after which a judge that was asked for one number has lost its
            way.
    """

    form: str
    expected: str
    start: str
    fetch = hint = smaller = ""
    longest_answer: float = 4000

    def __init__(self, config: JudgeConfig, url: str) -> None:
        self.name, self.model, self.num_ctx = config.judge, config.model, config.num_ctx
        self.url, self.wanted = url, config.model
        self.timeout, self.answer_timeout = config.timeout, config.answer_timeout
        self.structured = True

    @abstractmethod
    def models(self) -> dict[str, dict[str, str | None]]:
        """The models that the server has; of each, what identifies it: its digest or its server."""

    @abstractmethod
    def stream(
        self, prompt: str, schema: Mapping[str, Any] | None, seed: int, silence: float
    ) -> Generator[Piece]:
        """Send one question and yield the answer as it comes (see :meth:`ask`)."""

    def server_version(self) -> str | None:
        """The server's version, where it tells."""
        return None

    def preflight(self) -> dict[str, str | None]:
        """Check that the server answers and has the model.

        Returns:
            What identifies the judge: its name, and its digest or its address.

        Raises:
            UserError: it does not; the message says what to do.
        """
        try:
            with explained(self.url, CONNECT, self.form):
                there = self.models()
        except (Refusal, Failed) as error:
            if isinstance(error, Failed) and error.offline:
                raise self.nobody_there(error) from None
            if isinstance(error, Refusal) and error.status == 401 and self.form == "OpenAI":
                raise self._meant(error) from None
            raise UserError(
                f"{self.url} does not answer as {self.expected} does ({error}{self.hint}): it is "
                "another server, or something between answers in its place; check --base-url"
                f"{proxy_hint(self.url)}"
            ) from None
        if self.wanted not in there:
            listed = f"there are: {', '.join(there)}" if there else "it has none yet"
            hint = did_you_mean(self.model, there)
            raise UserError(
                f"the server at {self.url} has no model {self.model!r}{hint}; {self.fetch}{listed}"
            )
        return {"judge": self.name, **there[self.wanted]}

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
            raise self._meant(refusal) from None

    def chat(
        self, prompt: str, schema: Mapping[str, Any] | None, seed: int, silence: float
    ) -> Reply:
        """Send one question and return the whole answer, or the beginning of one without end.

        It is streamed: then ``silence`` is the time between two tokens, not of the whole. Empty
        tokens are silence as well; what the model thinks is none.

        Raises:
            Refusal: the server answers with an error status.
            Failed: the answer did not arrive; asking again may help.
        """
        text, prompt_tokens, done, heard = "", None, False, None
        try:
            with (
                explained(self.url, silence, self.form),
                closing(self.stream(prompt, schema, seed, silence)) as pieces,
            ):
                for piece in pieces:
                    text += piece.text
                    prompt_tokens = piece.prompt_tokens or prompt_tokens
                    done = done or piece.done
                    if piece.thinks or piece.text.strip() or heard is None:
                        heard = time.monotonic()  # from the first on, the model is loaded
                    elif time.monotonic() > heard + min(silence, self.timeout):
                        raise Failed(f"only empty tokens came for {min(silence, self.timeout):g} s")
                    if self._is_endless(text):
                        done = True
                        break
        except Endless:
            if not text.strip():
                raise
            done = True
        if not done:
            raise Failed("the answer was cut off")
        return Reply(text, schema is not None, prompt_tokens)

    def _is_endless(self, text: str) -> bool:
        return len(text) > self.longest_answer < len(after_thought(text))

    def _transport(self, auth: tuple[str, str] | None) -> dict[str, Any]:
        """What both HTTP libraries are told; ``auth`` is a user name and a password."""
        return {
            "trust_env": not is_local(self.url),
            "auth": auth,
            "event_hooks": {"response": [partial(look_at, seconds=self.answer_timeout)]},
        }

    def nobody_there(self, failure: Failed) -> UserError:
        """What to tell a user whose server does not take connections."""
        return UserError(
            f"nothing listens at {self.url} ({failure}); {self.start}{proxy_hint(self.url)}"
        )

    def _meant(self, refusal: Refusal) -> Exception:
        """What an error status means for this question, or for all of them."""
        status, text = refusal.status, refusal.text
        if re.search(r"\bmemory\b", text):
            return UserError(
                f"there is not enough memory for the judge {self.name} ({text}); "
                f"choose a smaller model{self.smaller}"
            )
        if status in (408, 429) or status >= 500:
            return Failed(str(refusal), wait=refusal.wait)
        if status in (400, 413, 422):
            return Unanswerable(str(refusal))
        return UserError(
            f"the server at {self.url} refuses to answer as {self.model}: {refusal}"
            + (NEEDS_KEY if status == 401 else proxy_hint(self.url))
        )

"""What one may ask by OpenAI's API, field by field; what isn't here is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from groundup.decoding.config import SamplingConfig
from groundup.prompts import Message
from groundup.serve.asking import BadRequest

NO_TOOLS = "this server's models call no tools"
ONLY_TEXT = "this server's models read and write text only"
NOT_KEPT = "this server keeps nothing of a request"
MOST_STOPS = 16


@dataclass
class StreamOptions:
    """How an answer is streamed."""

    REFUSED: ClassVar = {"include_obfuscation": "nothing is added to hide how long a token is"}
    include_usage: bool = False


@dataclass
class Part:
    """A part of a message's content."""

    type: str
    text: str | None = None
    REFUSED: ClassVar = dict.fromkeys(("image_url", "input_audio", "file", "refusal"), ONLY_TEXT)


@dataclass
class Said:
    """A message of a conversation."""

    role: str
    content: str | list[Part]
    REFUSED: ClassVar = {
        **dict.fromkeys(("tool_calls", "tool_call_id", "function_call"), NO_TOOLS),
        **dict.fromkeys(("audio", "refusal", "annotations", "images"), ONLY_TEXT),
        "name": "the prompts of this server's models say no names",
    }


@dataclass
class Schema:
    """A JSON schema that an answer follows."""

    schema: dict[str, Any]
    name: str = ""
    description: str = ""
    strict: bool = True


@dataclass
class Format:
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    def schema(self) -> dict[str, Any] | None:
        """The schema that the answer follows, if any.

        Raises:
            BadRequest: it is not given.
        """
        if self.type != "json_schema":
            return {"type": "object"} if self.type == "json_object" else None
        if self.json_schema is None:
            raise BadRequest("response_format.json_schema is missing", "response_format")
        return self.json_schema.schema


@dataclass(kw_only=True)
class Asked:
    """What completions and chats have in common. ``user`` changes nothing."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    user: str | None = None

    def check(self) -> None:
        """Raise ``BadRequest`` if the fields don't go together."""
        if self.n < 1:
            raise BadRequest(f"n is {self.n}; expected at least 1", "n")
        if self.stream_options is not None and not self.stream:
            raise BadRequest("stream_options is given, but stream is not true", "stream_options")
        check_stops(self.stops, "stop")

    @property
    def stops(self) -> Sequence[str]:
        """The strings that end a text."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, most: int | None, vocab_size: int) -> SamplingConfig:
        """The options of the engine; ``most`` tokens, or as many as there is room for.

        Raises:
            BadRequest: ``most`` is less than 1.
        """
        if most is not None and most < 1:
            raise BadRequest(f"max_tokens is {most}; expected at least 1", "max_tokens")
        return SamplingConfig(
            max_new_tokens=most or 1 << 30,
            temperature=self.temperature,
            top_k=None if self.top_k in (None, 0, -1) else min(self.top_k, vocab_size),
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias=self.logit_bias,
            seed=None if self.seed is None else self.seed % 2**63,  # OpenAI's may be negative
            num_samples=self.n,
        )


@dataclass(kw_only=True)
class ChatAsked(Asked):
    """A chat."""

    messages: list[Said]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    response_format: Format | None = None
    REFUSED: ClassVar = {
        **dict.fromkeys(
            ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls"), NO_TOOLS
        ),
        **dict.fromkeys(("modalities", "audio", "web_search_options"), ONLY_TEXT),
        **dict.fromkeys(("store", "metadata", "prompt_cache_key", "safety_identifier"), NOT_KEPT),
        **dict.fromkeys(
            ("reasoning_effort", "verbosity", "prediction", "service_tier"),
            "this server's models know no such thing",
        ),
    }

    def check(self) -> None:
        """Raise ``BadRequest`` if the fields don't go together."""
        super().check()
        if self.max_completion_tokens is not None and self.max_completion_tokens < 1:
            raise BadRequest(
                f"max_completion_tokens is {self.max_completion_tokens}; expected at least 1",
                "max_completion_tokens",
            )
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise BadRequest("give max_tokens or max_completion_tokens, not both", "max_tokens")
        if self.top_logprobs is not None:
            if not self.logprobs:
                raise BadRequest("top_logprobs is given, but logprobs is not true", "top_logprobs")
            _check_range("top_logprobs", self.top_logprobs, 20)

    @property
    def most(self) -> int | None:
        """The most tokens to write, by the older name or the newer."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def conversation(self) -> list[Message]:
        """The messages, each with one text."""
        return [
            {"role": _role(said.role), "content": _content(said.content, f"messages[{i}].content")}
            for i, said in enumerate(self.messages)
        ]


@dataclass(kw_only=True)
class CompletionAsked(Asked):
    """Texts to continue: one, or several, as words or as ids."""

    prompt: str | list[str] | list[int] | list[list[int]] = ""
    max_tokens: int | None = 16
    logprobs: int | None = None
    echo: bool = False
    best_of: int | None = None
    REFUSED: ClassVar = {"suffix": "a text is continued at its end only"}

    def check(self) -> None:
        """Raise ``BadRequest`` if the fields don't go together."""
        super().check()
        if self.logprobs is not None:
            _check_range("logprobs", self.logprobs, 20)
            if self.echo:
                raise BadRequest("logprobs of a prompt (echo) are not computed", "echo")
        if self.best_of not in (None, self.n):
            raise BadRequest(
                f"best_of is {self.best_of}; expected n ({self.n}), as all are returned", "best_of"
            )
        if self.prompt == [] and isinstance(self.prompt, list):
            raise BadRequest("prompt is empty; expected a text", "prompt")

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each of the prompts."""
        return prompts_of(self.prompt)


@dataclass(kw_only=True)
class EmbeddingsAsked:
    """Texts whose mean hidden state is asked for."""

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


def prompts_of(given: str | list[Any]) -> list[str | list[int]]:
    """The prompts that a field holds: a text or ids, or a list of them."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]
    return list(given)


def check_stops(stops: Sequence[str], name: str) -> None:
    """Raise ``BadRequest`` if one is empty or there are too many: each token meets them all."""
    if len(stops) > MOST_STOPS:
        raise BadRequest(f"{name} has {len(stops)} texts; expected {MOST_STOPS} at most", name)
    if "" in stops:
        raise BadRequest(f"{name} has an empty text; expected what should end the answer", name)


def _check_range(name: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise BadRequest(f"{name} is {value}; expected 0 to {most}", name)


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _content(content: str | list[Part], name: str) -> str:
    if isinstance(content, str):
        return content
    for i, part in enumerate(content):
        if part.type != "text" or part.text is None:
            raise BadRequest(
                f"{name}[{i}] is of the type {part.type!r:.40}; expected a text: {ONLY_TEXT}", name
            )
    return "".join(part.text or "" for part in content)

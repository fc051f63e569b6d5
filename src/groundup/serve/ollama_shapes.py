"""What one may ask by Ollama's API, field by field; what isn't here is refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from groundup.decoding.config import SamplingConfig
from groundup.prompts import Message
from groundup.serve.asking import BadRequest
from groundup.serve.openai_shapes import NO_TOOLS, ONLY_TEXT, check_stops

AT_START = "how this server computes is said when it is started"
NO_SUCH = "this server samples by temperature, top_k, top_p and min_p"


@dataclass
class Options:
    """How a text is drawn. What is not given is Ollama's own default, but no penalty."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float | None = None
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    num_ctx: int | None = None
    num_predict: int = -1
    stop: str | list[str] | None = None
    REFUSED: ClassVar = {
        **dict.fromkeys(
            ("numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all"),
            AT_START,
        ),
        **dict.fromkeys(
            ("vocab_only", "use_mmap", "use_mlock", "embedding_only", "num_thread"), AT_START
        ),
        **dict.fromkeys(
            ("tfs_z", "typical_p", "mirostat", "mirostat_tau", "mirostat_eta"), NO_SUCH
        ),
        "num_keep": "a text ends where the context is full",
        "repeat_last_n": "repeat_penalty looks at the whole text",
        "penalize_newline": "line ends are tokens like others",
    }

    @property
    def stops(self) -> list[str]:
        """The strings that end a text.

        Raises:
            BadRequest: one is empty, or there are too many.
        """
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        check_stops(stops, "options.stop")
        return stops

    def context(self, longest: int) -> int:
        """How many tokens are looked at: as asked for, where the model can.

        Raises:
            BadRequest: none are.
        """
        if self.num_ctx is not None and self.num_ctx < 1:
            raise BadRequest(
                f"options.num_ctx is {self.num_ctx}; expected at least 1", "options.num_ctx"
            )
        return min(self.num_ctx or longest, longest)

    def sampling(self, room: int, vocab_size: int) -> SamplingConfig:
        """The options of the engine, for at most ``room`` tokens.

        Raises:
            BadRequest: no tokens are asked for.
        """
        if self.num_predict == 0 or self.num_predict < -2:
            raise BadRequest(
                f"options.num_predict is {self.num_predict}; expected at least 1, or -1 for as "
                "many as there is room for",
                "options.num_predict",
            )
        return SamplingConfig(
            max_new_tokens=min(self.num_predict if self.num_predict > 0 else room, room),
            temperature=self.temperature,
            top_k=min(self.top_k, vocab_size) if self.top_k > 0 else None,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            seed=None if self.seed in (None, -1) else self.seed % 2**63,
        )


@dataclass(kw_only=True)
class Asked:
    """What chats and texts have in common. ``keep_alive`` changes nothing: models stay."""

    model: str
    stream: bool = True
    format: str | dict[str, Any] | None = None
    options: Options = field(default_factory=Options)
    keep_alive: str | float | None = None
    REFUSED: ClassVar[dict[str, str]] = {
        "tools": NO_TOOLS,
        "images": ONLY_TEXT,
        "think": "this server's models have no thoughts apart from their answers",
        **dict.fromkeys(("logprobs", "top_logprobs"), "ask for them at /v1/completions"),
    }

    def schema(self) -> dict[str, Any] | None:
        """The schema that the text follows, if any.

        Raises:
            BadRequest: the format is none.
        """
        if isinstance(self.format, dict):
            return self.format
        if self.format in (None, ""):
            return None
        if self.format != "json":
            raise BadRequest(
                f"format is {self.format!r:.40}; expected json or a JSON schema", "format"
            )
        return {"type": "object"}


@dataclass
class Said:
    """A message of a conversation."""

    role: str
    content: str = ""
    REFUSED: ClassVar = {
        "images": ONLY_TEXT,
        "thinking": "this server's models read no thoughts",
        **dict.fromkeys(("tool_calls", "tool_name", "tool_call_id"), NO_TOOLS),
    }


@dataclass(kw_only=True)
class ChatAsked(Asked):
    """A chat; without a message, only whether the model is there."""

    messages: list[Said] = field(default_factory=list)

    @property
    def conversation(self) -> list[Message]:
        """The messages."""
        return [{"role": said.role, "content": said.content} for said in self.messages]


@dataclass(kw_only=True)
class TextAsked(Asked):
    """A text: the answer to a prompt, or, if ``raw`` or without a prompt style, what follows it."""

    prompt: str = ""
    system: str | None = None
    raw: bool = False
    REFUSED: ClassVar = {
        **Asked.REFUSED,
        "suffix": "a text is continued at its end only",
        "template": "a model is asked in the prompt style that it was trained in",
        "context": "give the conversation to /api/chat instead",
    }


@dataclass(kw_only=True)
class ShowAsked:
    """Which model to describe; older clients say ``name``."""

    model: str | None = None
    name: str | None = None
    verbose: bool = False


@dataclass(kw_only=True)
class EmbedAsked:
    """Texts whose mean hidden state is asked for."""

    model: str
    input: str | list[str]
    keep_alive: str | float | None = None
    truncate: bool = False
    dimensions: int | None = None
    REFUSED: ClassVar = {"options": AT_START}

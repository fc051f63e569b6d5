"""Prompt styles: what stands around instructions, answers and turns, declared once for all uses.

Training, answering, chatting and the exports (a Hugging Face chat template, Ollama's
``TEMPLATE``) read the same declaration, so nobody prompts a model in a style that it wasn't
trained on. The markers are plain text; no style adds tokens to a vocabulary. In every style the
tokenizer's end-of-text token ends each response, also those in the middle of a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.errors import UserError, did_you_mean

Entry = Mapping[str, Any]
"""``{"instruction", "input", "output"}`` as in the course (input and output may be absent), perhaps
with a ``system`` message and a ``history`` of pairs of texts; or ``{"messages": [...]}``."""

Message = Mapping[str, str]
"""``{"role": "system", "user" or "assistant", "content": text}``."""

ROLES = ("system", "user", "assistant")

OWN = "model"
"""The name of a model's own chat template as a prompt style (``data/model_style.py``)."""

CONTENT = "{content}"
"""Where a style's text takes what somebody wrote."""


@dataclass(frozen=True)
class PromptStyle:
    """A named way to write a conversation as one text.

    Args:
        name: how a user asks for it.
        system: what a system message becomes.
        user: what a user's message becomes, up to where the response begins.
        before_input: what stands between an instruction and its input.
        between: what stands between a response and the user's next message.
        stop: strings that end a response, in case the model goes on writing.
        default_system: the system message of a conversation that has none.
    """

    name: str
    system: str
    user: str
    before_input: str
    between: str
    stop: tuple[str, ...] = ()
    default_system: str | None = None

    def conversation(self, entry: Entry) -> list[Message]:
        """An entry as messages: one from the user and, if there is an output, the response.

        Before them come its system message and the turns of its history, if it has any.

        Raises:
            UserError: the history is not a list of pairs.
        """
        if "messages" in entry:
            return list(entry["messages"])
        given = entry.get("input")
        content = entry["instruction"] + (self.before_input + given if given else "")
        system = entry.get("system")
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        for asked, answered in earlier_turns(entry):
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answered})
        messages.append({"role": "user", "content": content})
        if "output" in entry:
            messages.append({"role": "assistant", "content": entry["output"]})
        return messages

    def format(self, entry: Entry) -> str:
        """The prompt for an entry, which ends where its (last) response begins.

        Raises:
            UserError: the entry's messages are not a conversation.
        """
        messages = self.conversation(entry)
        answered = messages[-1]["role"] == "assistant"
        return self.format_turns(messages[:-1] if answered else messages)

    def format_turns(self, messages: Sequence[Message]) -> str:
        """The prompt for a conversation, which ends where the next response begins.

        The end-of-text token after each earlier response is not written, as it has no spelling
        that a user could not type too; ``data.instructions.encode_prompt`` puts it in.

        Raises:
            UserError: the messages are not a conversation that ends with the user's.
        """
        pairs = self.exchanges(messages)
        if not pairs or pairs[-1][1] is not None:
            raise UserError("the last message is not the user's; a response follows a user message")
        return "".join(prompt + (response or "") for prompt, response in pairs)

    def exchanges(self, messages: Sequence[Message]) -> list[tuple[str, str | None]]:
        """A conversation as pairs: the text up to where a response begins, and the response.

        The response of the last pair is None if the last message is the user's.

        Raises:
            UserError: the messages are not a conversation.
        """
        if problems := message_problems(messages):
            raise UserError("; ".join(problems))
        first = messages[0]
        system = first["content"] if first["role"] == "system" else self.default_system
        before = "" if system is None else self.system.replace(CONTENT, system)
        pairs: list[tuple[str, str | None]] = []
        for message in messages:
            content = message["content"]
            if message["role"] == "user":
                pairs.append((before + self.user.replace(CONTENT, content), None))
                before = self.between
            elif message["role"] == "assistant":
                pairs[-1] = (pairs[-1][0], content)
        return pairs

    def chat_template(self) -> str:
        """The style as a Hugging Face chat template, in Jinja; also what a GGUF file holds.

        It renders the text of :meth:`format_turns`, with ``eos_token`` after each response. Texts
        are quoted strings, because Jinja would drop a final newline of plain text.
        """
        parts = []
        if self.default_system is not None:
            default = json.dumps(self.system.replace(CONTENT, self.default_system))
            parts += ["{%- if messages[0]['role'] != 'system' -%}{{ ", default, " }}{%- endif -%}"]
        return "".join(
            [
                *parts,
                "{%- for message in messages -%}",
                "{%- if message['role'] == 'system' -%}",
                _jinja(self.system),
                "{%- elif message['role'] == 'user' -%}",
                _jinja(self.user),
                "{%- else -%}{{ message['content'] }}{{ eos_token }}",
                "{%- if not loop.last -%}{{ ",
                json.dumps(self.between),
                " }}{%- endif -%}",
                "{%- endif -%}{%- endfor -%}",
            ]
        )


def _jinja(text: str) -> str:
    """A style's text around a message's content, as an expression."""
    before, _, after = text.partition(CONTENT)
    return f"{{{{ {json.dumps(before)} + message['content'] + {json.dumps(after)} }}}}"


_STYLES = (
    PromptStyle(
        name="plain",
        system="{content}\n",
        user="{content}\n",
        before_input="\n",
        between="\n",
    ),
    PromptStyle(
        # Stanford Alpaca's, and the course's.
        name="alpaca",
        system="{content}",
        default_system=(
            "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request."
        ),
        user="\n\n### Instruction:\n{content}\n\n### Response:\n",
        before_input="\n\n### Input:\n",
        between="",
        stop=("### Instruction:",),
    ),
    PromptStyle(
        # The course's exercise: shorter than Phi-3's own, which writes <|end|> after each turn.
        name="phi3",
        system="<|system|>\n{content}\n",
        user="<|user|>\n{content}\n<|assistant|>\n",
        before_input="\n",
        between="\n",
        stop=("<|user|>", "<|end|>"),
    ),
    PromptStyle(
        name="chatml",
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n",
        before_input="\n",
        between="<|im_end|>\n",
        stop=("<|im_end|>", "<|im_start|>"),
    ),
)

PROMPT_STYLES = {style.name: style for style in _STYLES}
"""Every style by its name, but for a model's own."""

DEFAULT_STYLE = "alpaca"
"""The prompt style of a model that brings none and was trained in none."""

STYLE_NAMES = f"{', '.join(PROMPT_STYLES)}, or {OWN} (the model's own chat template)"


def get_style(name: str) -> PromptStyle:
    """The prompt style of this name.

    Raises:
        UserError: there is no such style; the message lists them.
    """
    if name not in PROMPT_STYLES:
        hint = did_you_mean(name, [*PROMPT_STYLES, OWN]) or ";"
        raise UserError(f"unknown prompt style {name!r}{hint} there are: {STYLE_NAMES}")
    return PROMPT_STYLES[name]


def check_style(name: str) -> None:
    """Refuse a name that is no style's; whether a model has its own is seen when it is opened.

    Raises:
        UserError: there is no such style; the message lists them.
    """
    if name != OWN:
        get_style(name)


def earlier_turns(entry: Entry) -> Sequence[Sequence[str]]:
    """The pairs of an entry's history: what the user asked, what the assistant answered.

    Raises:
        UserError: it is not a list of pairs.
    """
    history = entry.get("history") or ()
    if not isinstance(history, list | tuple) or any(
        not isinstance(turn, list | tuple) or len(turn) != 2 for turn in history
    ):
        raise UserError(
            f"the history is {history!r:.40}; expected a list of pairs of an instruction and its "
            "response"
        )
    return history


def message_problems(messages: object) -> list[str]:
    """What keeps this from being a conversation: an optional system message, then user and
    assistant in turn, the user first.
    """
    if not isinstance(messages, list | tuple) or not messages:
        return ["messages is not a list of messages; expected [{role, content}, ...]"]
    problems = []
    turn = "user"
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            problems.append(f"message {number} is {message!r:.40}; expected {{role, content}}")
            continue
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            known = ", ".join(ROLES)
            problems.append(f"message {number} has the role {role!r}; expected one of {known}")
        elif role == "system" and number > 1:
            problems.append(f"message {number} is a system message; only the first can be one")
        elif role != "system" and role != turn:
            problems.append(
                f"message {number} is the {role}'s, but it is the {turn}'s turn; "
                "user and assistant take turns, the user first"
            )
        if not isinstance(content, str):
            problems.append(f"the content of message {number} is {content!r:.40}; expected a text")
        if role != "system":
            turn = "assistant" if role == "user" else "user"
    return problems


def format_input(entry: Entry) -> str:
    """The course's prompt: instruction and input in Alpaca's style, without the response's head."""
    return get_style("alpaca").format(entry).removesuffix("\n\n### Response:\n")

"""A model's own chat template as a prompt style: the tokens that ``apply_chat_template`` gives.

The special tokens that the template writes become those tokens; the same spelled by somebody in a
message stays text, so that nobody can end a turn, or begin another's, by writing so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from groundup.chat_template import render
from groundup.errors import UserError
from groundup.prompts import OWN, ROLES, Message, PromptStyle, get_style
from groundup.tokenizers import Tokenizer

_PROBE = "Xanadu"
"""An answer that stands in no template."""

_PLACEHOLDERS = 0xF0000
"""From here on there are 65,534 characters that Unicode leaves to private use."""


def style_of(name: str, tokenizer: Tokenizer) -> PromptStyle:
    """The prompt style of this name; ``model`` is the chat template that a tokenizer brought.

    Raises:
        UserError: there is no such style, or the model has no template.
    """
    return ModelStyle.of(tokenizer) if name == OWN else get_style(name)


def check_markers(style: PromptStyle, tokenizer: Tokenizer) -> None:
    """Refuse to train in a named style whose markers are special tokens of the model.

    The style writes them as plain text; whoever else reads the template that is saved with the
    model would read them as those tokens.

    Raises:
        UserError: one of them is.
    """
    if isinstance(style, ModelStyle):
        return
    text = "".join((style.system, style.user, style.between, style.default_system or ""))
    for name in tokenizer.special_tokens:
        if name in text:
            raise UserError(
                f"the prompt style {style.name} writes {name} as plain text, and for this model it "
                f"is a token of its own; use --style {OWN}, or a style without it, such as alpaca"
            )


def template_of(name: str, tokenizer: Tokenizer) -> str:
    """The Jinja template that a model of this style is saved with.

    Raises:
        UserError: there is no such style, or the model has no template.
    """
    if name == OWN:
        return _template(tokenizer)
    template = get_style(name).chat_template()
    # What transformers puts before every other text, it does not put before a template's.
    return "{{- bos_token -}}" + template if tokenizer.begin else template


def _template(tokenizer: Tokenizer) -> str:
    if tokenizer.chat_template is None:
        raise UserError(
            "the model brings no chat template (chat_template.jinja, or the key chat_template in "
            "tokenizer_config.json); name a prompt style with --style"
        )
    return tokenizer.chat_template


@dataclass(frozen=True)
class ModelStyle(PromptStyle):
    """The chat template that a tokenizer brought.

    Attributes:
        tokenizer: the model's.
        turn_end: the special token that the template writes after an answer, if any; where it is
            not the end-of-text token, it is a stop string.
    """

    tokenizer: Tokenizer = field(kw_only=True)
    turn_end: int | None = field(kw_only=True)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ModelStyle:
        """The style of this tokenizer.

        Raises:
            UserError: it brought no template.
        """
        _template(tokenizer)
        style = cls(OWN, "", "", "\n", "", tokenizer=tokenizer, turn_end=None)
        name, end = style._find_turn_end()
        stop = () if end in (None, tokenizer.eot_token) else (name,)
        return replace(style, stop=stop, turn_end=end)

    def chat_template(self) -> str:
        """The template itself."""
        return _template(self.tokenizer)

    def format_turns(self, messages: Sequence[Message]) -> str:
        """The prompt for a conversation as text, which ends where the next response begins.

        Raises:
            UserError: the last message is not the user's, or the template refuses them.
        """
        return self._text(_asked(messages))

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """What the model reads before it answers the last message.

        Raises:
            UserError: the last message is not the user's, or the template refuses them.
        """
        shield = _Shield(self, messages)
        return self._ids(self._text(shield.messages(_asked(messages))), shield)

    def encode_conversation(
        self, messages: Sequence[Message]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """A conversation's ids, and where each response begins and ends in them.

        A response ends with the token that the template writes after it. Where it begins the text
        is encoded apart, since a model that answers has seen the prompt alone.

        Raises:
            UserError: the template refuses the conversation, writes nothing by which a model could
                learn where an answer ends, or writes a turn otherwise once others follow it.
        """
        shield = _Shield(self, messages)
        shielded = shield.messages(messages)
        text = self._text(shielded, ask=False)
        if self.turn_end is None:
            raise UserError(
                "the model's chat template writes no special token after an answer, so a model "
                "could not learn where one ends; name another prompt style with --style"
            )
        ids: list[int] = []
        responses: list[tuple[int, int]] = []
        done = 0
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            begin = self._response_begin(text, shielded[:place])
            ids += self._ids(text[done:begin], shield)
            first, done, index = len(ids), begin, None
            for part, index in self.tokenizer.split(text[begin:], self._special):
                ids += shield.encode(part) if index is None else [index]
                done += len(part)
                if index == self.turn_end:
                    break
            last = place + 1 == len(messages)
            if index != self.turn_end or not (last or done <= self._next(shielded[: place + 1])):
                raise _unlearnable("does not end every answer in the same way")
            responses.append((first, len(ids)))
        return ids + self._ids(text[done:], shield), responses

    def _response_begin(self, text: str, before: Sequence[Message]) -> int:
        """Where an answer begins in a text: where it departs from the prompt that asks for it."""
        begin = len(os.path.commonprefix([text, self._text(before)]))
        if begin < len(self._text(before, ask=False)):
            raise _unlearnable("writes a turn otherwise once others follow it")
        return begin

    def _next(self, before: Sequence[Message]) -> int:
        """Where the content of the user's next message begins."""
        return self._text([*before, {"role": "user", "content": _PROBE}]).rfind(_PROBE)

    def _text(self, messages: Sequence[Message], *, ask: bool = True) -> str:
        return render(self.chat_template(), messages, self.tokenizer.roles, ask=ask)

    def _ids(self, text: str, shield: _Shield) -> list[int]:
        ids: list[int] = []
        for part, index in self.tokenizer.split(text, self._special):
            ids += shield.encode(part) if index is None else [index]
        return ids

    @cached_property
    def _special(self) -> list[str]:
        return [name for name in self.tokenizer.special_tokens if name]

    def _find_turn_end(self) -> tuple[str, int | None]:
        """The special token after an answer, by its name and id, as a short conversation has it."""
        asked: list[Message] = [{"role": "user", "content": "Hi"}]
        try:
            text = self._text([*asked, {"role": "assistant", "content": _PROBE}], ask=False)
        except UserError:  # told when somebody asks
            return "", None
        after = text[text.rfind(_PROBE) + len(_PROBE) :] if _PROBE in text else ""
        for part, index in self.tokenizer.split(after, self._special):
            if index is not None:
                return part.strip(), index
        return "", None


class _Shield:
    """Messages in which nothing spells a special token, for as long as the template handles them.

    The first character of each special token that a content spells, and of what could become one
    with what the template writes behind it, is replaced by one that nobody uses; encoding gives it
    back. A content that spells none is as it was, so that the template sees what it is to see.
    """

    def __init__(self, style: ModelStyle, messages: Sequence[Message]) -> None:
        self._encode = style.tokenizer.encode
        self._names = style._special
        contents = [str(message.get("content")) for message in messages]
        used = set(style.chat_template()).union(*contents)
        firsts = dict.fromkeys(name[0] for name in self._names)
        unused = (
            c for c in map(chr, range(_PLACEHOLDERS, _PLACEHOLDERS + 65_534)) if c not in used
        )
        self._instead = dict(zip(firsts, unused, strict=False))
        self._back = str.maketrans({new: old for old, new in self._instead.items()})
        self._spelled = re.compile(f"(?={'|'.join(map(re.escape, self._names)) or '(?!)'})")

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, shielded."""
        return [{**message, "content": self._shielded(message["content"])} for message in messages]

    def encode(self, text: str) -> list[int]:
        """The ids of a part of what was rendered, in which no special token is."""
        return self._encode(text.translate(self._back))

    def _shielded(self, content: str) -> str:
        places = {found.start() for found in self._spelled.finditer(content)}
        end = content.rstrip()
        longest = max(map(len, self._names), default=0)
        for place in range(max(0, len(end) - longest), len(end)):
            if any(name.startswith(end[place:]) for name in self._names):
                places.add(place)
        return "".join(self._instead[c] if i in places else c for i, c in enumerate(content))


def _asked(messages: Sequence[Message]) -> Sequence[Message]:
    """Check that somebody asks for an answer; the rest is the template's to judge.

    Raises:
        UserError: nobody does, or these are no messages.
    """
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise UserError(f"message {number} is {message!r:.60}; expected {{role, content}}")
        if message.get("role") not in ROLES:
            known = ", ".join(ROLES)
            raise UserError(
                f"message {number} has the role {message.get('role')!r}; expected one of {known}"
            )
    if not messages or messages[-1]["role"] != "user":
        raise UserError("the last message is not the user's; a response follows a user message")
    return messages


def _unlearnable(what: str) -> UserError:
    return UserError(
        f"the model's chat template {what}, so it is not clear what a model should learn of this "
        "conversation; train on single questions and answers, or name another --style"
    )

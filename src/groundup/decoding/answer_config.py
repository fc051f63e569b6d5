"""The options of answering: one response to each instruction, or a conversation."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.decoding.config import SamplingConfig
from groundup.options import option

BATCH_SIZE = 16
"""Responses written at a time."""


@dataclass(frozen=True)
class RespondConfig(SamplingConfig):
    """How responses are written: greedily and at most 256 tokens long, as in the course."""

    max_new_tokens: int = option(256, "most tokens of a response")


@dataclass(frozen=True)
class ChatConfig(SamplingConfig):
    """How a chat is written: not greedily.

    A small model's likeliest words repeat themselves and what was said before, and a question
    asked again would get the same answer; far above 0.7 it stops making sense. Without a seed no
    two chats are the same.
    """

    max_new_tokens: int = option(256, "most tokens of an answer")
    temperature: float = option(0.7, "0 always takes the likeliest token; higher is more daring")

"""Instructions and their responses as token ids, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from groundup.config import IGNORE_INDEX, TrainOn
from groundup.data.batching import pad_right
from groundup.data.model_style import ModelStyle
from groundup.errors import UserError
from groundup.prompts import Entry, Message, PromptStyle, get_style
from groundup.tokenizers import Tokenizer


@dataclass(frozen=True)
class Example:
    """A conversation as token ids: prompt, response and what ends it, once or several times.

    Args:
        ids: the token ids.
        responses: where each response begins and ends in ``ids``, the token that ends it included.
    """

    ids: list[int]
    responses: list[tuple[int, int]]

    def loses_response(self, max_length: int) -> bool:
        """Whether nothing of any response is left where only so many tokens are read."""
        return self.responses[0][0] > max_length


def encode_entry(entry: Entry, tokenizer: Tokenizer, style: PromptStyle) -> Example:
    """Encode an entry to learn from.

    ``<|endoftext|>`` spelled in a text is plain text; the token itself ends each response only.

    Raises:
        UserError: the entry has no response, or the tokenizer no end-of-text token.
    """
    messages = style.conversation(entry)
    if not messages or messages[-1].get("role") == "user":
        raise UserError("the entry has no response to learn from")
    if isinstance(style, ModelStyle):
        return Example(*style.encode_conversation(messages))
    return _encode(style.exchanges(messages), tokenizer)


def encode_prompt(
    messages: Sequence[Message], tokenizer: Tokenizer, style: PromptStyle
) -> list[int]:
    """Encode what a model reads before it answers the last message.

    These are the ids that an :class:`Example` of the same conversation begins with.

    Raises:
        UserError: the last message is not the user's, or the messages are no conversation.
    """
    if isinstance(style, ModelStyle):
        return style.encode_prompt(messages)
    style.format_turns(messages)  # checks them
    return _encode(style.exchanges(messages), tokenizer).ids


def _encode(pairs: Sequence[tuple[str, str | None]], tokenizer: Tokenizer) -> Example:
    # Prompt and response are encoded apart, since a model that answers has seen the prompt alone.
    # Encoded as one text they mostly give the same ids, because no token spans a line end and a
    # word; but white space at the beginning of a response could join the prompt's last token.
    ids = list(tokenizer.begin)
    responses: list[tuple[int, int]] = []
    for prompt, response in pairs:
        ids += tokenizer.encode(prompt)
        if response is not None:
            begin = len(ids)
            ids += [*tokenizer.encode(response), _end_of_text(tokenizer)]
            responses.append((begin, len(ids)))
    return Example(ids, responses)


def _end_of_text(tokenizer: Tokenizer) -> int:
    if tokenizer.eot_token is None:
        raise UserError(
            "the tokenizer has no <|endoftext|>, so a model could not learn where a response ends; "
            "use a model whose tokenizer has it"
        )
    return tokenizer.eot_token


def collate_examples(
    examples: Sequence[Example],
    pad_token_id: int,
    *,
    train_on: TrainOn,
    max_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Make a batch of examples: inputs and targets, each ``(B, T)``.

    Padding never counts. The end-of-text token after a response always does, unless it is cut off.

    Args:
        examples: one per row.
        pad_token_id: fills the inputs after the end of an example.
        train_on: ``response`` takes every other token out of the targets.
        max_length: most tokens per row; what goes beyond is cut off.
    """
    rows = [(example.ids, _learned(example, train_on)) for example in examples]
    return _pad(rows, pad_token_id, IGNORE_INDEX, max_length)


def drop_unlearnable(
    examples: Sequence[Example], max_length: int | None, train_on: TrainOn
) -> tuple[list[Example], int]:
    """Drop the examples of which ``collate_examples`` would leave no target, and count them.

    Such are those whose prompt alone is longer than ``max_length``.
    """
    kept = [
        example
        for example in examples
        if any(target != IGNORE_INDEX for target in _learned(example, train_on)[1:][:max_length])
    ]
    return kept, len(examples) - len(kept)


def _learned(example: Example, train_on: TrainOn) -> list[int]:
    """The ids, with ``IGNORE_INDEX`` for those that are not to be learned."""
    if train_on == "all":
        return example.ids
    learned = [IGNORE_INDEX] * len(example.ids)
    for begin, end in example.responses:
        learned[begin:end] = example.ids[begin:end]
    return learned


def _pad(
    rows: Sequence[tuple[list[int], list[int]]],
    pad_token_id: int,
    ignore_index: int,
    max_length: int | None,
) -> tuple[Tensor, Tensor]:
    """Inputs and targets ``(B, T)`` from ids and what is learned of them, one token apart."""
    inputs = [ids[:-1][:max_length] for ids, _ in rows]
    targets = [learned[1:][:max_length] for _, learned in rows]
    return pad_right(inputs, pad_token_id), pad_right(targets, ignore_index)


class InstructionDataset(Dataset[list[int]]):
    """The course's dataset: each entry's prompt and output, encoded as one text.

    Args:
        data: entries with instruction, input and output.
        tokenizer: encodes them.
        style: another prompt style than the course's.
    """

    def __init__(
        self, data: Sequence[Entry], tokenizer: Tokenizer, *, style: str = "alpaca"
    ) -> None:
        self.data = data
        chosen = get_style(style)
        self.encoded_texts = [
            tokenizer.encode(chosen.format(entry) + entry["output"]) for entry in data
        ]

    def __getitem__(self, index: int) -> list[int]:
        return self.encoded_texts[index]

    def __len__(self) -> int:
        return len(self.data)


def custom_collate_fn(
    batch: Sequence[list[int]],
    pad_token_id: int = 50256,
    ignore_index: int = -100,
    allowed_max_length: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """The course's batches: inputs and targets, each ``(B, T)``, of :class:`InstructionDataset`.

    After each row comes one end-of-text token, which is also the padding; the targets keep the
    first and ignore the rest. (The course tells them by their value, and so takes an end-of-text
    token *within* a row for padding; here the position counts.)
    """
    rows = [([*item, pad_token_id], [*item, pad_token_id]) for item in batch]
    inputs, targets = _pad(rows, pad_token_id, ignore_index, allowed_max_length)
    return inputs.to(device), targets.to(device)

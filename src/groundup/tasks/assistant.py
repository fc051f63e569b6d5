"""A model that answers, with the prompt style that it was trained in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup.errors import UserError
from groundup.facts import Facts
from groundup.model.gpt import GPTModel
from groundup.output import show
from groundup.prompts import PROMPT_STYLES, PromptStyle, get_style
from groundup.tokenizers import Tokenizer
from groundup.weights.load import expect_language_model, load_model

Say = Callable[[str], None]


@dataclass(frozen=True)
class Assistant:
    """A model, its tokenizer, and the one prompt style that it is asked in."""

    model: GPTModel
    tokenizer: Tokenizer
    style: PromptStyle

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device | str = "cpu",
        *,
        style: str | None = None,
        fallback: str | None = None,
        tokenizer: str | None = None,
        n_heads: int | None = None,
        checkpoint: str | None = None,
        verify: bool = True,
        say: Say = show,
    ) -> Assistant:
        """Open a model to ask it.

        Args:
            source: what :func:`~groundup.weights.load.load_model` opens.
            device: where the weights go.
            style: the prompt style of a model that does not say it.
            fallback: the style if neither the model nor ``style`` says it.
            tokenizer: ``gpt2`` or a directory, for a file that brings none.
            n_heads: attention heads, for a ``.pth`` that cannot say it.
            checkpoint: of a run: ``last``, or ``step-N``; its best model unless given.
            verify: whether to compare the files with the SHA-256 that were saved with them.
            say: told if the model may not have been trained in the style.

        Raises:
            UserError: the model cannot be opened, or the style is unknown, missing, or another
                than the one it was trained in.
        """
        chosen: dict[str | None, PromptStyle] = {}

        def choose(facts: Facts, source: str | Path) -> None:
            expect_language_model(facts, source)
            if facts.prompt_style not in chosen:  # if it is asked again, nothing is said twice
                saved = facts.prompt_style
                chosen[saved] = choose_style(source, saved, style, fallback, say)

        model, tokens = load_model(
            source,
            device,
            n_heads=n_heads,
            tokenizer=tokenizer,
            checkpoint=checkpoint,
            expect=choose,
            verify=verify,
        )
        return cls(model, tokens, chosen[(model.facts or Facts()).prompt_style])


def choose_style(
    source: str | Path, saved: str | None, asked: str | None, fallback: str | None, say: Say
) -> PromptStyle:
    """The prompt style to ask a model in; see :meth:`Assistant.load`."""
    wanted = None if asked is None else get_style(asked)
    if saved is not None:
        if wanted is not None and wanted.name != saved:
            raise UserError(
                f"{source} was trained in the prompt style {saved} and would not understand "
                f"{wanted.name}; leave out --style"
            )
        return get_style(saved)
    if wanted is not None:
        say(
            f"note: {source} does not say that it was trained in any prompt style; it is asked in "
            f"{wanted.name}, and if it was not trained in that, it continues texts and does not "
            "answer"
        )
        return wanted
    teach = f"`groundup instruct train --model {source} …` makes an assistant of it"
    if fallback is None:
        raise UserError(
            f"{source} names no prompt style, so it was never instruction-tuned by groundup; "
            f"{teach}; if it was tuned elsewhere, name its style with --style: "
            f"{', '.join(PROMPT_STYLES)}"
        )
    say(
        f"note: {source} was never instruction-tuned, as far as it says: a language model "
        f"continues texts and does not answer. {teach}; until then it is asked in the prompt "
        f"style {fallback} (--style names another: {', '.join(PROMPT_STYLES)})"
    )
    return get_style(fallback)

"""A model that answers, with the prompt style that it was trained in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup.config import Quantization
from groundup.data.model_style import style_of
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.model.gpt import GPTModel
from groundup.output import show
from groundup.prompts import OWN, PROMPT_STYLES, STYLE_NAMES, PromptStyle, check_style
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
        quantize: Quantization | None = None,
        verify: bool = True,
        say: Say = show,
    ) -> Assistant:
        """Open a model to ask it.

        Args:
            source: what :func:`~groundup.weights.load.load_model` opens.
            device: where the weights go.
            style: the prompt style of a model that does not say it; ``model`` is its own chat
                template, in which one that brings one is asked anyway.
            fallback: the style if neither the model nor ``style`` says it.
            tokenizer: ``gpt2`` or a directory, for a file that brings none.
            n_heads: attention heads, for a ``.pth`` that cannot say it.
            checkpoint: of a run: ``last``, or ``step-N``; its best model unless given.
            quantize: as for :func:`~groundup.weights.load.load_model`.
            verify: whether to compare the files with the SHA-256 that were saved with them.
            say: told if the model may not have been trained in the style.

        Raises:
            UserError: the model cannot be opened, or the style is unknown, missing, or another
                than the one it was trained in.
        """
        chosen: dict[str | None, str] = {}

        def choose(facts: Facts, source: str | Path) -> None:
            expect_language_model(facts, source)
            if facts.prompt_style not in chosen:  # if it is asked again, nothing is said twice
                saved = facts.prompt_style
                chosen[saved] = choose_style(source, facts, style, fallback, say)

        model, tokens = load_model(
            source,
            device,
            n_heads=n_heads,
            tokenizer=tokenizer,
            checkpoint=checkpoint,
            expect=choose,
            quantize=quantize,
            verify=verify,
        )
        name = chosen[(model.facts or Facts()).prompt_style]
        return cls(model, tokens, style_of(name, tokens))


def choose_style(
    source: str | Path, facts: Facts, asked: str | None, fallback: str | None, say: Say
) -> str:
    """The name of the prompt style to ask a model in; see :meth:`Assistant.load`."""
    saved = facts.prompt_style
    for name in filter(None, (asked, saved)):
        check_style(name)
    if saved == OWN != (asked or OWN) and not facts.task:
        say(f"note: {source} brings its own chat template; it is asked in {asked} all the same")
        return asked or OWN
    if saved is not None:
        if asked not in (None, saved):
            raise UserError(
                f"{source} was trained in the prompt style {saved} and would not understand "
                f"{asked}; leave out --style"
            )
        return saved
    if asked == OWN:
        raise UserError(
            f"{source} brings no chat template; name another style: {', '.join(PROMPT_STYLES)}"
        )
    if asked is not None:
        say(
            f"note: {source} does not say that it was trained in any prompt style; it is asked in "
            f"{asked}, and if it was not trained in that, it continues texts and does not "
            "answer"
        )
        return asked
    teach = f"`groundup instruct train --model {source} …` makes an assistant of it"
    if fallback is None:
        raise UserError(
            f"{source} names no prompt style, so it was never instruction-tuned by groundup; "
            f"{teach}; if it was tuned elsewhere, name its style with --style: "
            f"{STYLE_NAMES}"
        )
    say(
        f"note: {source} was never instruction-tuned, as far as it says: a language model "
        f"continues texts and does not answer. {teach}; until then it is asked in the prompt "
        f"style {fallback} (--style names another: {STYLE_NAMES})"
    )
    return fallback

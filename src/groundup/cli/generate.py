"""``groundup generate``: let a model write."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from groundup.cli.app import WholeNumber, app, opening_of, pick, with_options
from groundup.data.finding import STDIN
from groundup.data.text import read_stdin
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.output import say, show
from groundup.weights.open_config import OpenConfig

if TYPE_CHECKING:
    from groundup.decoding.engine import Engine
    from groundup.decoding.sequence import Sequence
    from groundup.model.gpt import GPTModel
    from groundup.tokenizers import Tokenizer

MOST_AT_A_TIME = 16
"""Samples that are written at the same time."""


@app.command
@with_options(hide=["style"], Opening=OpenConfig, Sampling=SamplingConfig)
def generate(
    model: str,
    prompt: str = "",
    /,
    *,
    stop: Annotated[list[str] | None, Parameter(negative=())] = None,
    json_schema: Path | None = None,
    regex: str | None = None,
    beams: WholeNumber = 1,
    given: dict[str, Any],
) -> None:
    """Continue a prompt with a model, streaming the text.

    Args:
        model: a model directory, a GGUF file, a .pth of the course, or the name of a downloaded or
            imported model.
        prompt: what to continue; "-" reads it from stdin; without one the model begins anew.
        stop: end the text before this string (may be given several times).
        json_schema: a file with a JSON schema that the text follows.
        regex: a regular expression that the text matches.
        beams: find the likeliest text as a whole, with so many side by side (beam search).
    """
    opening = opening_of(given, model)
    options = SamplingConfig(**pick(given, SamplingConfig))
    stops = ["-" if text == STDIN else text for text in stop or ()]

    from groundup.decoding.constraint import Constraint, read_schema
    from groundup.decoding.engine import Engine
    from groundup.decoding.sequence import Sequence
    from groundup.weights.load import expect_language_model, load_model

    shaped = json_schema is not None or regex is not None
    if beams != 1 and shaped:
        raise UserError("--beams takes no --json-schema and no --regex; leave out either")
    schema = read_schema(json_schema) if json_schema else None
    if prompt == STDIN:
        prompt = read_stdin()
    runtime = opening.runtime
    gpt, tokens = load_model(model, runtime.device, expect=expect_language_model, **opening.how)
    gpt.to(runtime.dtype)
    options.check(gpt.cfg.vocab_size)
    ids = tokens.encode_alone(prompt) or [tokens.eot_token or 0]
    longest = gpt.cfg.context_length
    if len(ids) > longest:
        say(f"note: the prompt has {len(ids)} tokens; the model sees the last {longest} of them")
    if beams != 1:
        show(prompt + _likeliest(gpt, tokens, ids, options, beams, stops))
        return
    engine = Engine(gpt, tokens, max_batch=min(options.num_samples, MOST_AT_A_TIME))
    texts = [
        engine.add(
            Sequence(
                ids,
                options,
                tokenizer=tokens,
                stop=stops,
                index=number,
                on_full="slide",
                keep=max(1, longest // 2),
                constraint=Constraint(tokens, schema, regex) if shaped else None,
            )
        )
        for number in range(options.num_samples)
    ]
    _show_in_order(engine, texts, prompt)


def _likeliest(
    model: GPTModel,
    tokenizer: Tokenizer,
    ids: list[int],
    options: SamplingConfig,
    beams: int,
    stops: list[str],
) -> str:
    """The best text that beam search finds, up to the first stop string."""
    from groundup.decoding.beams import beam_search
    from groundup.decoding.text import TextWriter, check_stop

    plain = SamplingConfig(options.max_new_tokens, seed=options.seed)
    if options != plain:
        raise UserError(
            "--beams finds the likeliest text: there is nothing to draw, and no other score; leave "
            "out the other options of sampling but --max-new-tokens"
        )
    check_stop(stops)
    best, *_ = beam_search(
        model,
        ids[-model.cfg.context_length :],
        beams,
        options.max_new_tokens,
        eos_id=tokenizer.eot_token,
        vocab_size=tokenizer.vocab_size,
    )
    writer = TextWriter(tokenizer, stops)
    text = ""
    for token in best.token_ids:
        if writer.finish_reason is None:
            text += writer.push(token)
    return text + (writer.finish("length") if writer.finish_reason is None else "")


def _show_in_order(engine: Engine, texts: list[Sequence], prompt: str) -> None:
    """Show the first text as it is written, and after it the others, which come with it."""
    pieces: list[deque[str]] = [deque() for _ in texts]
    for number, shown in enumerate(texts):
        if len(texts) > 1:
            show(f"--- sample {number + 1} of {len(texts)}")
        show(prompt, end="", flush=True)
        while pieces[number] or shown.finish_reason is None:
            if not pieces[number]:
                for text, _, piece in engine.step():
                    pieces[text.index].append(piece)
            while pieces[number]:
                show(pieces[number].popleft(), end="", flush=True)
        if shown.error is not None:
            raise shown.error
        show()

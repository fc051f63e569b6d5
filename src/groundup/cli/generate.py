"""``groundup generate``: let a model write."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from groundup.cli.app import Flag, WholeNumber, app, with_options
from groundup.data.finding import STDIN
from groundup.data.text import read_stdin
from groundup.decoding.config import SamplingConfig
from groundup.output import say, show


@app.command
@with_options(Sampling=SamplingConfig)
def generate(
    model: str,
    prompt: str = "",
    /,
    *,
    stop: Annotated[list[str] | None, Parameter(negative=())] = None,
    device: str = "auto",
    tokenizer: str | None = None,
    n_heads: WholeNumber | None = None,
    checkpoint: str | None = None,
    no_verify: Flag = False,
    given: dict[str, Any],
) -> None:
    """Continue a prompt with a model, streaming the text.

    Args:
        model: a model directory, a GGUF file, a .pth of the course, or the name of a downloaded or
            imported model.
        prompt: what to continue; "-" reads it from stdin; without one the model begins anew.
        stop: end the text before this string (may be given several times).
        device: auto, cpu, cuda, cuda:1, mps.
        tokenizer: gpt2 or a directory, for a .pth that brings none.
        n_heads: attention heads, for a .pth that cannot say it.
        checkpoint: of a run: last, or step-N (its best one unless given).
        no_verify: open it though a file is not as it was saved.
    """
    options = SamplingConfig(**given)
    stops = ["-" if text == STDIN else text for text in stop or ()]

    from groundup.decoding.engine import TextStream, sampler_of
    from groundup.runtime import resolve_device
    from groundup.weights.load import expect_language_model, load_model

    if prompt == STDIN:
        prompt = read_stdin()
    where = resolve_device(device)
    gpt, tokens = load_model(
        model,
        where,
        n_heads=n_heads,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        expect=expect_language_model,
        verify=not no_verify,
    )
    options.check(gpt.cfg.vocab_size)
    ids = tokens.encode_alone(prompt) or [tokens.eot_token or 0]
    longest = gpt.cfg.context_length
    if len(ids) > longest:
        say(f"note: the prompt has {len(ids)} tokens; the model sees the last {longest} of them")
    sampler = sampler_of(options, where)  # one for all samples, so that they differ
    for number in range(options.num_samples):
        if options.num_samples > 1:
            show(f"--- sample {number + 1} of {options.num_samples}")
        text = TextStream(gpt, tokens, ids, options, stop=stops, sampler=sampler)
        show(prompt, end="", flush=True)
        for piece in text:
            show(piece, end="", flush=True)
        show()

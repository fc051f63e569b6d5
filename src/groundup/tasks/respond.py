"""Responses to a whole data set, kept as they are written: a killed run goes on where it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from groundup.data.instruction_files import (
    entries_fingerprint,
    read_instructions,
    split_instructions,
)
from groundup.data.instructions import encode_prompt
from groundup.data.text import fingerprint
from groundup.decoding.answer_config import BATCH_SIZE
from groundup.decoding.config import SamplingConfig
from groundup.decoding.text import FinishReason
from groundup.decoding.texts import Completion, generate_batch
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.files import atomic_file, locked, write_json
from groundup.output import progress_bar, show
from groundup.tasks.assistant import Assistant, Say
from groundup.tasks.config import InstructConfig
from groundup.tasks.kept_responses import ADVICE, PARTIAL, REASON, RESPONSE, KeptResponses, Response
from groundup.weights.load import read_facts
from groundup.weights.tensors import weights_fingerprint

SHOWN = 10
"""So many entry numbers are listed."""

Part = Literal["train", "validation", "test", "all"]
"""A part of a data set."""

_REASONS: dict[FinishReason, str] = {
    "end_of_text": "by end-of-text",
    "stop": "by a stop string",
    "length": "by their length (--max-new-tokens, or the context is full)",
}


def choose_entries(
    model: str | Path,
    data: str | None = None,
    part: Part | None = None,
    limit: int | None = None,
    say: Say = show,
    *,
    verify: bool = True,
) -> list[dict[str, Any]]:
    """The entries that a model is to answer.

    Args:
        model: the model, whose own run says how its data was split.
        data: a file of entries; without one, what the model was trained on.
        part: without one, all entries of ``data``, or the test part of what it was trained on.
        limit: only so many, from the beginning.
        say: told what may not be as expected about the split.
        verify: whether to check that what the model says of itself is as it was saved.

    Raises:
        UserError: the file cannot be read or has changed since the model was trained on it, or it
            is not said what to read, or no entry is left.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; expected at least 1")
    facts = read_facts(model, verify=verify)
    trained = facts.options_of(InstructConfig) if facts.task == InstructConfig.TASK else None
    source = data or (trained.data if trained else "")
    if not source:
        raise UserError(f"{model} does not say what it was trained on; name entries with --data")
    entries = read_instructions(source, with_responses=False, say=say)
    wanted = part or ("all" if data else "test")
    if wanted != "all":
        if trained:
            _check_same_data(str(source), entries, facts, say if data else None)
            shares = trained.train_ratio, trained.test_ratio
            split = split_instructions(entries, *shares, seed=trained.split_seed)
        else:
            say(f"note: {model} does not say how its data was split; this is the course's split")
            split = split_instructions(entries)
        entries = getattr(split, wanted)
        if not entries:
            raise UserError(f"the {wanted} part of {source} is empty; choose another --split")
    return entries[:limit]


def _check_same_data(
    source: str, entries: Sequence[Mapping[str, Any]], facts: Facts, say: Say | None
) -> None:
    """Refuse (or with ``say`` only tell) that a split is made of other data than was trained on."""
    if facts.data.sha256 in (None, entries_fingerprint(entries)):
        return
    if say is None:
        raise UserError(
            f"{source} has changed since the model was trained on it, so which entries it has not "
            "seen is not known; name entries with --data"
        )
    say(f"note: {source} is not what the model was trained on; it is split in the same way")


def check_free(out: Path) -> None:
    """Refuse to write responses where something is.

    Raises:
        UserError: ``out`` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists; choose another --out")


def respond(
    assistant: Assistant,
    entries: Sequence[Mapping[str, Any]],
    out: str | Path,
    config: SamplingConfig,
    *,
    batch_size: int = BATCH_SIZE,
    say: Say = show,
) -> Counter[str]:
    """Answer every entry and write them all as JSON, in their order, with the responses.

    Each response is on the disk as soon as it is written; the same call goes on with a run that
    was interrupted. The result is the same as without the interruption, unless it is drawn without
    a seed.

    Args:
        assistant: who answers.
        entries: what to answer; a response that one has already is not shown to the model.
        out: the JSON file; it appears when all responses are there.
        config: the sampling options.
        batch_size: responses written at a time.
        say: told what is being done.

    Returns:
        How many responses ended for which reason.

    Raises:
        UserError: ``out`` exists, an option makes no sense, what an interrupted run has left is
            of another run, or the disk is full.
    """
    out = Path(out)
    check_free(out)
    config.check(assistant.tokenizer.vocab_size)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    prompts = _encode(assistant, entries, say)
    if any(RESPONSE in entry for entry in entries):
        say(
            f"note: the {RESPONSE} that entries have already is not shown to the model; {out} "
            "gets the new one in its place"
        )
    run = {
        "model": weights_fingerprint(assistant.model.parameters()),
        "prompts": fingerprint(" ".join(map(str, ids)) for ids in prompts),
        "settings": _deciding(config),
    }
    lock, busy = out.with_name(f".{out.name}.lock"), f"another run is writing {out} just now"
    with locked(lock, f"{busy}; choose another --out", advice=ADVICE):
        check_free(out)  # another run may have just finished it
        kept = KeptResponses(out.with_name(out.name + PARTIAL), run)
        _write_missing(assistant, prompts, kept, config, batch_size, say)
        responses = [kept.responses[index] for index in range(len(entries))]
        answered = [
            {**entry, RESPONSE: response.text, REASON: response.finish_reason}
            for entry, response in zip(entries, responses, strict=True)
        ]
        with atomic_file(out) as temporary:
            write_json(temporary, answered)
        kept.path.unlink()
    lock.unlink(missing_ok=True)  # nobody waits for it
    return Counter(response.finish_reason for response in responses)


def describe(reasons: Counter[str]) -> str:
    """How responses ended, in words: ``110 responses: 108 ended by end-of-text, 2 …``."""
    told = [f"{reasons[name]} {how}" for name, how in _REASONS.items() if reasons[name]]
    return f"{reasons.total()} responses ended: {', '.join(told)}"


def _write_missing(
    assistant: Assistant,
    prompts: Sequence[Sequence[int]],
    kept: KeptResponses,
    config: SamplingConfig,
    batch_size: int,
    say: Say,
) -> None:
    """Answer the prompts that have no response yet; keep each as soon as it is written."""
    if kept.responses:
        say(f"going on with {kept.path}: {len(kept.responses)} of {len(prompts)} are there")
    left = [index for index in range(len(prompts)) if index not in kept.responses]
    completions = generate_batch(
        assistant.model,
        assistant.tokenizer,
        [prompts[index] for index in left],
        config,
        stop=assistant.style.stop,
        batch_size=batch_size,
        indices=left,
    )
    try:
        _keep_all(completions, left, kept, len(prompts))
    except KeyboardInterrupt:
        say(
            f"{len(kept.responses)} of {len(prompts)} responses are kept in {kept.path}; "
            "the same command goes on from there"
        )
        raise


def _keep_all(
    completions: Iterator[Completion], left: Sequence[int], kept: KeptResponses, total: int
) -> None:
    bar = progress_bar(
        desc="responding",
        total=total,
        initial=len(kept.responses),
        unit="response",
    )
    with bar:
        for done in completions:
            kept.add(left[done.index], Response(done.text.strip(), done.finish_reason))
            bar.update()


def _encode(
    assistant: Assistant, entries: Sequence[Mapping[str, Any]], say: Say
) -> list[list[int]]:
    """The prompts as ids; says how many are too long."""
    style, context = assistant.style, assistant.model.cfg.context_length
    prompts = []
    for entry in entries:
        messages = style.conversation(entry)
        answered = messages[-1]["role"] == "assistant"
        asked = messages[:-1] if answered else messages
        prompts.append(encode_prompt(asked, assistant.tokenizer, style))
    too_long = [number for number, ids in enumerate(prompts, start=1) if len(ids) > context]
    if too_long:
        listed = ", ".join(map(str, too_long[:SHOWN]))
        say(
            f"note: {len(too_long)} of {len(prompts)} prompts are longer than the model's context "
            f"of {context} tokens; the model does not see their beginnings, and has room for one "
            f"token (entries {listed}{', …' if len(too_long) > SHOWN else ''})"
        )
    return prompts


def _deciding(config: SamplingConfig) -> dict[str, Any]:
    """The options that decide on the responses."""
    drawn = {} if config.temperature == 0 else {"seed": config.seed}
    names = ("max_new_tokens", "temperature", "top_k", "top_p")
    penalties = ("repetition_penalty", "frequency_penalty", "presence_penalty")
    others = ("min_p", *penalties, "logit_bias")
    changed = {n: v for n in others if (v := getattr(config, n)) != getattr(SamplingConfig(), n)}
    return {name: getattr(config, name) for name in names} | changed | drawn

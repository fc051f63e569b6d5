"""Before a run's first step: whether it will fit; and if memory runs out, a batch that would do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from groundup.errors import UserError, is_out_of_memory
from groundup.model.activations import FP32_BYTES, activation_bytes_of, logits_bytes
from groundup.model.classifier import is_classifier
from groundup.model.gpt import GPTModel
from groundup.planning.devices import free_memory
from groundup.planning.memory import (
    GATHERED_BLOCKS,
    GRADIENT,
    WEIGHT,
    choose_strategy,
    state_bytes,
)
from groundup.tasks.task import Job, Material

CLEARLY = 0.5
"""A run whose rough bound is within this share of the free memory isn't counted exactly, which
takes seconds."""


@contextmanager
def within_memory(job: Job[Any], model: GPTModel, material: Material) -> Iterator[None]:
    """Say before a run if it won't fit its device; say what to do when it didn't.

    Args:
        job: the run.
        model: what it trains, before it goes to its device.
        material: its batches.

    Raises:
        UserError: memory ran out; names a smaller micro-batch with the same global batch.
    """
    shape = _first_batch(material)
    free = free_memory(job.runtime.device)
    sharing = _sharing(job, model, free)
    if shape is not None and free is not None:
        needed = _needed(job, model, shape, sharing, rough=True)
        if needed > CLEARLY * free:
            needed = _needed(job, model, shape, sharing)
        if needed > free:
            job.say(
                f"note: by the plan a step needs {needed / 2**30:.2f} GiB more, but "
                f"{job.runtime.device} has {free / 2**30:.2f} GiB free; if memory runs out: "
                f"{_advice(job, model, shape, sharing, free)}"
            )
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        advice = _advice(job, model, shape, sharing, free)
        raise UserError(f"there is not enough memory for this run; {advice}") from error


def _sharing(job: Job[Any], model: GPTModel, free: float | None) -> int:
    """How many processes share the model's state: all of them with FSDP, else one."""
    how = job.config.parallel
    if how == "auto":
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        state = state_bytes(model.num_parameters(), trained)
        how = choose_strategy(state, free or math.inf, job.world.size)
    return job.world.size if how == "fsdp" else 1


def _advice(
    job: Job[Any],
    model: GPTModel,
    shape: tuple[int, int] | None,
    sharing: int,
    free: float | None,
) -> str:
    """What to try: first of all what changes nothing in the result."""
    size, count = job.config.batch_size, job.config.grad_accum_steps
    again = "" if job.config.activation_checkpointing else "--activation-checkpointing"
    if size == 1:
        return (
            f"a micro-batch has one text only, so try {again + ', ' if again else ''}shorter ones "
            "(--context-length, --max-length), a smaller model, or several devices (torchrun, "
            "--parallel fsdp)"
        )
    smaller = [n for n in range(size // 2, 0, -1) if size % n == 0]
    best = smaller[0]
    if shape is not None and free is not None:

        def fits(n: int) -> bool:
            return _needed(job, model, (n, shape[1]), sharing, accumulating=True) <= free

        best = next((n for n in smaller if fits(n)), 1)
    advice = (
        f"the same global batch in smaller pieces: --batch-size {best} "
        f"--grad-accum-steps {count * size // best}"
    )
    if job.saved is not None:
        advice += (
            f" (a run that goes on keeps its batches, so that takes a new run: {job.config.AFRESH})"
        ).format(out=job.out)
    return advice + (f"; or {again}, less memory for more time" if again else "")


def _needed(
    job: Job[Any],
    model: GPTModel,
    shape: tuple[int, int],
    sharing: int,
    *,
    accumulating: bool | None = None,
    rough: bool = False,
) -> float:
    """Bytes that a run takes on its device besides what is there already.

    Roughly, an upper bound of the activations without counting them: some 40 numbers per token and
    width, and four per pair of tokens and head.
    """
    cfg, (texts, tokens) = model.cfg, shape
    total = model.num_parameters()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    classes = int(is_classifier(model))
    precision, device = job.runtime.precision, job.runtime.device
    state = state_bytes(total, trained, sharing)
    if next(model.parameters()).device.type == device.type:
        state -= WEIGHT * total // sharing
    if rough:
        width = max(cfg.emb_dim, cfg.n_heads * cfg.head_size, cfg.feed_forward_dim // 4)
        numbers = texts * tokens * cfg.n_layers * (40 * width + 4 * cfg.n_heads * tokens)
        kept = FP32_BYTES * (numbers + total)
    else:
        again = job.config.activation_checkpointing
        what = texts, tokens, precision, classes
        kept = activation_bytes_of(model, *what, checkpointing=again)
    kind = "cpu" if device.type == "cpu" else "gpu"
    logits = 0 if classes else logits_bytes(cfg, texts * tokens, precision, kind)
    if accumulating is None:
        accumulating = job.config.grad_accum_steps > 1
    if sharing > 1:  # what FSDP has whole for a while, as in planning.memory
        block = sum(p.numel() for p in model.trf_blocks[0].parameters())
        whole = total - (cfg.n_layers - min(GATHERED_BLOCKS, cfg.n_layers)) * block
        state += WEIGHT * whole + GRADIENT * min(trained, whole)
    gradients = GRADIENT * trained // sharing
    saved = 0 if accumulating else min(gradients, kept + logits)
    return state + kept + logits - saved


def _first_batch(material: Material) -> tuple[int, int] | None:
    """Texts and tokens of the batch that comes first; None if there is none, or it is no text."""
    data = material.data
    if not len(data):
        return None
    position = data.state_dict()
    batch = data.next(1)
    data.load_state_dict(position)
    ids = batch[0][0] if batch else None
    return (ids.shape[0], ids.shape[1]) if ids is not None and ids.dim() == 2 else None

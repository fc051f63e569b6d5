"""Take an X-ray: ask a model, through ``watch``, what it computes while it reads a text.

Shapes: ``T`` tokens, ``V`` vocabulary size, ``L`` layers, ``H`` heads, ``C`` embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.door import device_of, evaluating, scores
from groundup.model.embeddings import nearest_tokens
from groundup.model.gpt import GPTModel
from groundup.model.watch import Seen, watch
from groundup.output import visible
from groundup.tokenizers import Tokenizer
from groundup.xray.changes import changes_without, guesses, parts_of, rounded, short
from groundup.xray.data import Lens, Next, Norms, Packed, ReadToken, XRay

MAX_TOKENS = 128
"""Attention grows with the square of the text's length, and is most of a page."""

CHOICES, GUESSES, NEIGHBOURS = 50, 5, 8
TEMPERATURES = [round(0.1 * step, 1) for step in range(1, 21)]
"""Where a temperature slider can stop."""


def take_xray(
    model: GPTModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    name: str = "",
    max_tokens: int = MAX_TOKENS,
) -> XRay:
    """Look through a language model while it reads a text.

    Args:
        model: a language model; an adapter is merged into it before.
        tokenizer: the model's.
        text: what it reads.
        name: what to call the model.
        max_tokens: how many tokens the text may have.

    Raises:
        UserError: the text is empty or too long, the model is a classifier, or its scores are not
            numbers.
    """
    ids = _ids(model, tokenizer, text, max_tokens)
    idx = torch.tensor([ids], device=device_of(model))
    with evaluating(model):
        with watch(model) as seen:
            logits = scores(model, idx)[0].float()  # (T, V)
        _check(model, logits)
        logs = logits.log_softmax(dim=-1)
        lens = _lens(seen, logs.argmax(dim=-1))
        attention = torch.stack([layer[0] for layer in seen.attention]).float()  # (L, H, T, T)
        norms = _norms(seen)
        layers, heads = attention.shape[:2]
        seen = None  # which is large
        changes = changes_without(model, idx, parts_of(layers, heads), logs, GUESSES)
        distinct = torch.tensor(sorted(set(ids)), device=idx.device)
        nearest = nearest_tokens(model, distinct, NEIGHBOURS)
    near = {
        token: list(zip(others, rounded(cosines), strict=True))
        for token, others, cosines in zip(
            distinct.tolist(), *(found.tolist() for found in nearest), strict=True
        )
    }
    after = [_next(row) for row in logits.cpu()]  # in fp64, which not every device has
    shown = [ids, *(n.ids for n in after), *([i for i, _ in row] for row in near.values())]
    told = [*lens, *changes]
    shown += [[i for i, _ in row] for each in told for row in each.guesses]
    return XRay(
        model=visible(name),
        architecture=architecture(model.cfg),
        parameters=model.num_parameters(),
        vocab_size=model.cfg.vocab_size,
        context_length=model.cfg.context_length,
        n_layers=layers,
        n_heads=heads,
        words=_words(tokenizer, shown),
        tokens=_tokens(ids, logs),
        temperatures=TEMPERATURES,
        next=after,
        lens=lens,
        attention=Packed.of(attention.cpu().numpy()),
        norms=norms,
        changes=changes,
        neighbours=near,
    )


def architecture(cfg: ModelConfig) -> str:
    """What a model is built like, in words."""
    if cfg.norm == "layer" and not cfg.rope and cfg.feed_forward != "swiglu":
        return "GPT-2's architecture"
    if cfg.norm == "rms" and cfg.rope and cfg.feed_forward == "swiglu":
        return "Qwen3's architecture" if cfg.qk_norm else "Llama's architecture"
    return "an architecture of its own"


def _ids(model: GPTModel, tokenizer: Tokenizer, text: str, max_tokens: int) -> list[int]:
    """The text's tokens, if it can be looked at."""
    if model.facts is not None and model.facts.is_classifier:
        raise UserError(
            f"this model is a classifier ({', '.join(model.facts.labels)}); an X-ray shows what a "
            "language model would write next"
        )
    if max_tokens < 1:
        raise UserError(f"max_tokens is {max_tokens}; expected at least 1")
    ids = tokenizer.encode(text)
    if not ids:
        raise UserError("the text is empty; give at least one character for the model to read")
    longest = model.cfg.context_length
    if len(ids) > longest:
        raise UserError(
            f"the text has {len(ids):,} tokens, but the model can read {longest:,} (its "
            "context_length); give a shorter text"
        )
    if len(ids) > max_tokens:
        raise UserError(
            f"the text has {len(ids):,} tokens; an X-ray holds {max_tokens:,}, since attention "
            f"grows with the square of them: give a shorter text, or --max-tokens {len(ids)}"
        )
    return ids


def _check(model: GPTModel, logits: Tensor) -> None:
    if logits.shape[-1] != model.cfg.vocab_size:
        raise UserError(
            f"the model gives {logits.shape[-1]} scores, not one for each of its "
            f"{model.cfg.vocab_size:,} tokens: it is a classifier; an X-ray shows what a language "
            "model would write next"
        )
    if not logits.isfinite().all():
        raise UserError(
            "the model's scores are not numbers: its weights are damaged, or its training has "
            "diverged; use another checkpoint"
        )


def _tokens(ids: list[int], logs: Tensor) -> list[ReadToken]:
    read = [ReadToken(ids[0], None, None)]
    for token, row in zip(ids[1:], logs, strict=False):  # the last row predicts what isn't there
        rank = int((row > row[token]).sum()) + 1
        read.append(ReadToken(token, short(-row[token].item()), rank))
    return read


def _next(logits: Tensor) -> Next:
    """The likeliest tokens after one position, of logits ``(V,)``, and the others' weight."""
    ordered, order = logits.double().sort(descending=True, stable=True)
    ordered = ordered - ordered[0]
    few, others = ordered[:CHOICES], ordered[CHOICES:]
    tails = [float((others / t).logsumexp(0)) for t in TEMPERATURES] if len(others) else []
    return Next(order[:CHOICES].tolist(), rounded(few), rounded(tails))


def _lens(seen: Seen, answers: Tensor) -> list[Lens]:
    """What each layer would have said; ``answers`` ``(T,)`` is what the model says."""
    found = []
    for layer in range(len(seen.residual)):
        logs = seen.logit_lens(layer)[0].float().log_softmax(dim=-1)  # (T, V)
        own = logs.gather(-1, answers[:, None])
        rank = (logs > own).sum(dim=-1) + 1
        found.append(Lens(guesses(logs, GUESSES), rank.tolist()))
    return found


def _norms(seen: Seen) -> Norms:
    layers = range(len(seen.residual))
    stream = [seen["drop_emb"], *seen.residual]
    return Norms(
        [_lengths(x) for x in stream],
        [_lengths(seen[f"trf_blocks.{layer}.att"]) for layer in layers],
        [_lengths(seen[f"trf_blocks.{layer}.ff"]) for layer in layers],
    )


def _lengths(x: Tensor) -> list[float]:
    return rounded(x[0].float().norm(dim=-1))


def _words(tokenizer: Tokenizer, shown: Iterable[Iterable[int]]) -> dict[int, str]:
    """The text of each id, safe to show; a model may know more ids than its tokenizer."""
    words = {}
    for token in sorted({i for ids in shown for i in ids}):
        if token >= tokenizer.vocab_size:
            words[token] = f"(no token: {token})"
            continue
        words[token] = visible(tokenizer.token_bytes(token).decode("utf-8", "backslashreplace"))
    return words

"""Take an X-ray: ask a model, through ``watch``, what it computes while it reads a text.

Shapes: ``T`` tokens, ``V`` vocabulary size, ``L`` layers, ``H`` heads, ``C`` embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.cache import KVCache
from groundup.model.door import device_of, evaluating, new_cache, scores
from groundup.model.embeddings import nearest_tokens
from groundup.model.gpt import GPTModel
from groundup.model.watch import Seen, watch
from groundup.output import progress_bar, visible
from groundup.tokenizers import Tokenizer
from groundup.xray.changes import (
    Part,
    batched,
    changes_without,
    edits,
    guesses,
    parts_of,
    rounded,
    short,
)
from groundup.xray.data import Change, Guess, Lens, Next, Norms, Packed, ReadToken, XRay

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
    reading = Reading(model, tokenizer, text, name=name, max_tokens=max_tokens)
    xray = reading.xray()
    batches = progress_bar(reading.batches(), desc="taking parts out", unit="batch")
    changes = [change for batch in batches for change in reading.changes(batch)]
    words = dict(sorted((xray.words | reading.words(changes)).items()))
    return replace(xray, words=words, changes=changes)


class Reading:
    """A model that reads a text: what :func:`take_xray` asks of it, in steps of bounded time.

    A server takes one step at a time, so that others' texts are written in between.

    Args:
        silenced: parts of the model that give nothing (zeros) all the while.

    Raises:
        UserError: as :func:`take_xray`; or there is no such part.
    """

    def __init__(
        self,
        model: GPTModel,
        tokenizer: Tokenizer,
        text: str,
        *,
        name: str = "",
        max_tokens: int = MAX_TOKENS,
        silenced: Sequence[Part] = (),
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.ids = _ids(model, tokenizer, text, max_tokens)
        self.parts = parts_of(model.cfg.n_layers, model.cfg.n_heads)
        for part in silenced:
            if part not in self.parts:
                head = "" if part.head is None else f" {part.head}"
                raise UserError(
                    f"there is no {part.kind}{head} of layer {part.layer}: the model has "
                    f"{model.cfg.n_layers} layers of {model.cfg.n_heads} heads, counted from 0"
                )
        self._edits = edits((part, slice(None)) for part in silenced)
        self._idx = torch.tensor([self.ids], device=device_of(model))
        self._logs = torch.empty(0)
        self._written: list[int] = []
        self._cache: KVCache | None = None

    def xray(self) -> XRay:
        """All but the changes: one call of the model. The other steps come after it."""
        model, ids = self.model, self.ids
        with evaluating(model):
            with watch(model, edit=self._edits) as seen:
                logits = scores(model, self._idx)[0].float()  # (T, V)
            _check(model, logits)
            self._logs = logs = logits.log_softmax(dim=-1)
            lens = _lens(seen, logs.argmax(dim=-1))
            attention = torch.stack([layer[0] for layer in seen.attention]).float()  # (L, H, T, T)
            norms = _norms(seen)
        near = neighbours(model, ids, NEIGHBOURS)
        after = [_next(row) for row in logits.cpu()]  # in fp64, which not every device has
        shown = [ids, *(n.ids for n in after), *([i for i, _ in row] for row in near.values())]
        shown += [[i for i, _ in row] for each in lens for row in each.guesses]
        return XRay(
            model=visible(self.name),
            architecture=architecture(model.cfg),
            parameters=model.num_parameters(),
            vocab_size=model.cfg.vocab_size,
            context_length=model.cfg.context_length,
            n_layers=attention.shape[0],
            n_heads=attention.shape[1],
            words=words_of(self.tokenizer, shown),
            tokens=_tokens(ids, logs),
            temperatures=TEMPERATURES,
            next=after,
            lens=lens,
            attention=Packed.of(attention.cpu().numpy()),
            norms=norms,
            changes=[],
            neighbours=near,
        )

    def batches(self, most: int | None = None) -> list[Sequence[Part]]:
        """The parts of the model, as many at once as make so many tokens, for :meth:`changes`."""
        return batched(self.parts, len(self.ids), most)

    def changes(self, parts: Sequence[Part]) -> list[Change]:
        """What becomes of the answers without each of these parts (and nothing else silenced)."""
        with evaluating(self.model):
            return changes_without(self.model, self._idx, parts, self._logs, GUESSES)

    def words(self, changes: Iterable[Change]) -> dict[int, str]:
        """The text of each token that changes tell."""
        rows = [row for change in changes for row in change.guesses]
        return words_of(self.tokenizer, [[i for i, _ in row] for row in rows])

    def write_on(self) -> str | None:
        """Write one more token, the likeliest; return all that was written so far.

        None says that nothing follows: the text has come to its end, or to that of the context.
        """
        before = [*self.ids, *self._written]
        if len(before) >= self.model.cfg.context_length:
            return None
        if not self._written:
            found = int(self._logs[-1].argmax())
        else:
            if self._cache is None:
                self._cache = new_cache(self.model)
            else:
                before = before[-1:]
            idx = torch.tensor([before], device=self._idx.device)
            last = torch.tensor([len(before) - 1], device=idx.device)
            watched = watch(self.model, edit=self._edits) if self._edits else nullcontext()
            with evaluating(self.model), watched:
                found = int(scores(self.model, idx, at=last, cache=self._cache)[0].argmax())
        if found == self.tokenizer.eot_token or found >= self.tokenizer.vocab_size:
            return None
        self._written.append(found)
        return visible(self.tokenizer.decode(self._written).removesuffix("\ufffd"))


def neighbours(model: GPTModel, ids: Iterable[int], count: int) -> dict[int, list[Guess]]:
    """Of each of these tokens, those whose embeddings are most alike, with their cosines."""
    distinct = torch.tensor(sorted(set(ids)), device=device_of(model))
    nearest = nearest_tokens(model, distinct, count)
    return {
        token: list(zip(others, rounded(cosines), strict=True))
        for token, others, cosines in zip(
            distinct.tolist(), *(found.tolist() for found in nearest), strict=True
        )
    }


def words_of(tokenizer: Tokenizer, shown: Iterable[Iterable[int]]) -> dict[int, str]:
    """The text of each id, safe to show; a model may know more ids than its tokenizer."""
    words = {}
    for token in sorted({i for ids in shown for i in ids}):
        if token >= tokenizer.vocab_size:
            words[token] = f"(no token: {token})"
            continue
        words[token] = visible(tokenizer.token_bytes(token).decode("utf-8", "backslashreplace"))
    return words


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

"""From a language model to a classifier: another output layer, and what of the rest trains.

Attention is causal, so only the last token has seen the whole text: the prediction is read there.
"""

from __future__ import annotations

from typing import get_args

from torch import nn

from groundup.config import Train
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.model.linear import Linear


def to_classifier(model: GPTModel, num_classes: int) -> GPTModel:
    """Replace the output layer in place by one of ``num_classes`` scores; return the model.

    It has no bias, as in transformers' ``GPT2ForSequenceClassification``; its weights are drawn as
    GPT-2's are (normal, 0.02), so that a new classifier begins undecided.

    Raises:
        UserError: fewer than two classes, or as many as the vocabulary has tokens, which would
            make a language model of it.
    """
    if num_classes < 2:
        raise UserError(f"num_classes is {num_classes}; a classifier needs at least 2")
    if num_classes == model.cfg.vocab_size:
        raise UserError(
            f"num_classes is {num_classes}, just the vocabulary's size, so that it could not be "
            "told from a language model; use a tokenizer of another size"
        )
    weight = model.out_head.weight
    model.out_head = Linear(
        model.cfg.emb_dim, num_classes, bias=False, device=weight.device, dtype=weight.dtype
    )
    nn.init.normal_(model.out_head.weight, std=0.02)
    model.cfg = model.cfg.replace(tie_weights=False)
    model.facts = None  # whatever it was, it is another model now
    return model


def is_classifier(model: GPTModel) -> bool:
    """Whether the output layer scores something else than the vocabulary's tokens."""
    return model.out_head.out_features != model.cfg.vocab_size


def set_trainable(model: GPTModel, train: Train) -> GPTModel:
    """Let only a part of the model train, by ``requires_grad``; return the model.

    ``head`` is the output layer, ``last-block`` the last block, the final norm and the head (the
    course's choice), ``last-two-blocks`` one block more, ``all`` everything. For ``lora``, where
    small matrices beside the frozen ones train, see ``model/lora.py``.

    Where the output layer's matrix is the token embedding as well (a language model with
    ``tie_weights``), it trains only with ``all``.

    Raises:
        UserError: ``train`` is none of these, or nothing would be left to train.
    """
    choices = [name for name in get_args(Train) if name != "lora"]
    if train not in choices:
        raise UserError(f"train is {train!r}; expected one of {', '.join(choices)}")
    tied = model.out_head.weight is model.tok_emb.weight
    if tied and train == "head":
        raise UserError(
            "the output layer is the token embedding as well (tie_weights), so it cannot train "
            "alone; use last-block, last-two-blocks or all"
        )
    model.requires_grad_(train == "all")
    if not tied:
        model.out_head.requires_grad_(True)
    blocks = {"head": 0, "last-block": 1, "last-two-blocks": 2}.get(train, 0)
    if blocks:
        model.trf_blocks[-blocks:].requires_grad_(True)
        model.final_norm.requires_grad_(True)
    return model

"""What ``groundup explain`` can explain: of each topic the source, and an example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from groundup.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Topic:
    """One part of the whole.

    Args:
        about: what it is, in a line.
        parts: the classes and functions that are it, as ``module:name`` below ``groundup``.
    """

    about: str
    parts: tuple[str, ...]

    def sources(self) -> list[tuple[str, Any]]:
        """The parts, each with the file that it is in."""
        found = []
        for part in self.parts:
            module, _, name = part.partition(":")
            place = import_module(f"groundup.{module}")
            found.append((f"groundup/{module.replace('.', '/')}.py", getattr(place, name)))
        return found


TOPICS = {
    "bpe": Topic(
        "how a text's bytes become tokens, merge by merge",
        ("tokenizers.bpe_train:learn_merges", "tokenizers.bpe:merge_piece"),
    ),
    "windows": Topic(
        "a text cut into inputs and their targets, one token on",
        ("data.windows:TokenWindows",),
    ),
    "embedding": Topic(
        "a token's vector: looked up, or a product with a one-hot row",
        ("lessons.embedding:embedding_as_product",),
    ),
    "softmax": Topic(
        "scores become probabilities, and what overflows on the way",
        ("lessons.softmax:softmax_naive",),
    ),
    "attention": Topic(
        "who looks at whom: queries, keys, values, several heads",
        ("model.attention:MultiHeadAttention", "model.attention:attend_explicitly"),
    ),
    "layernorm": Topic("mean 0 and variance 1 for each token", ("model.layers:LayerNorm",)),
    "gelu": Topic("the activation of GPT-2, beside ReLU", ("model.layers:GELU",)),
    "rmsnorm": Topic(
        "Llama's norm: a root mean square of 1, and nothing else",
        ("model.ladder_modern:RMSNormSpelledOut", "model.layers:RMSNorm"),
    ),
    "rope": Topic(
        "positions as rotations: what counts is how far apart tokens are",
        ("model.ladder_modern:rotary_embedding", "model.rotary:turns", "model.rotary:rotate"),
    ),
    "gqa": Topic(
        "grouped queries: heads share keys and values, the cache shrinks",
        ("model.ladder_modern:GroupedQueryAttention",),
    ),
    "swiglu": Topic(
        "Llama's feed-forward network: a gate decides what passes",
        ("model.ladder_modern:SwiGLUSpelledOut", "model.layers:SwiGLU"),
    ),
    "block": Topic(
        "attention, then each token on its own; shapes on the way",
        ("model.layers:FeedForward", "model.layers:TransformerBlock"),
    ),
    "shortcuts": Topic(
        "why gradients vanish, and what keeps them alive",
        ("lessons.network:ExampleDeepNeuralNetwork", "lessons.network:print_gradients"),
    ),
    "cache": Topic(
        "keys and values kept, so that each token is computed once",
        ("model.cache:LayerCache",),
    ),
    "loss": Topic(
        "how wrong a model is: cross-entropy and perplexity",
        ("train.course:calc_loss_batch", "model.loss:linear_cross_entropy"),
    ),
    "sampling": Topic(
        "scores to a choice: greedy, temperature, top-k, top-p",
        (
            "decoding.sampling:keep_top_k",
            "decoding.sampling:keep_top_p",
            "decoding.sampling:probabilities",
            "decoding.sampling:make_sampler",
        ),
    ),
    "lora": Topic("two thin matrices trained beside each big one", ("model.lora:LoRALinear",)),
    "collate": Topic(
        "instructions of different lengths in a batch; what is learned of it",
        ("data.instructions:custom_collate_fn", "data.batching:pad_right"),
    ),
}
"""In the order in which a text meets them."""


def find_topic(name: str) -> tuple[Topic, Callable[[], None]]:
    """A topic and its worked example.

    Raises:
        UserError: there is no such topic.
    """
    if name not in TOPICS:
        hint = did_you_mean(name, TOPICS) or ";"
        raise UserError(f"unknown topic {name!r}{hint} there are: {', '.join(TOPICS)}")
    from groundup.lessons import examples

    return TOPICS[name], getattr(examples, name)

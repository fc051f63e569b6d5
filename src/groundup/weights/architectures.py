"""The architectures that others open: which shapes each has, and its config's names there.

A model is saved as the first of these that has all of its parts. What an architecture can vary and
our model does not is refused by name when it is opened, never passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from groundup.config import FeedForwardKind, ModelConfig
from groundup.errors import UserError
from groundup.model.frequencies import DEFAULT_THETA

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One of ``transformers``' families of models.

    Attributes:
        name: its ``model_type``; a GGUF file's ``general.architecture`` too.
        family: how its classes' names begin.
        title: what people call it.
        body: the prefix of the weights' names that its bare model leaves out.
        fields: their name of a size, ours, and what the value must be.
        defaults: what ``transformers`` takes for a name that is not there.
        fixed: what it can vary and our model does not, with the values that we compute.
        parts: what all of its models have, of our config's switches.
        more: fields of our config that take more than another name.
        spelled: the same in the other direction.
        aliases: other names of models that are the same.
    """

    name: str
    family: str
    title: str
    body: str
    fields: Mapping[str, tuple[str, Any]]
    fixed: Mapping[str, tuple[Any, ...]]
    parts: Mapping[str, tuple[Any, ...]]
    more: Callable[[Values], dict[str, Any]]
    spelled: Callable[[ModelConfig], dict[str, Any]]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)  # model_type: how its classes begin

    @property
    def language_model(self) -> str:
        """Its class that continues texts."""
        return f"{self.family}LMHeadModel" if self.family == "GPT2" else f"{self.family}ForCausalLM"

    @property
    def classifier(self) -> str:
        """Its class that sorts texts."""
        return f"{self.family}ForSequenceClassification"

    def lacks(self, cfg: ModelConfig) -> list[str]:
        """What a shape has that this architecture has not."""
        found = [
            f"{name} {getattr(cfg, name)} instead of {' or '.join(map(str, allowed))}"
            for name, allowed in self.parts.items()
            if getattr(cfg, name) not in allowed
        ]
        if self is GPT2:
            usual = cfg.kv_heads == cfg.n_heads and cfg.head_size * cfg.n_heads == cfg.emb_dim
            return found + ["heads of another number or width"] * (not usual)
        return found + ["a bias in only one of qkv_bias and attn_bias"] * (
            cfg.qkv_bias != cfg.attn_bias
        )


# transformers' names of one and the same function; the first is the one that we write.
_ACTIVATIONS: dict[FeedForwardKind, tuple[str, ...]] = {
    "gelu": ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"),
    "gelu_exact": ("gelu", "gelu_python"),
}
_KINDS = {theirs: ours for ours, names in _ACTIVATIONS.items() for theirs in names}


def _gpt2_more(values: Values) -> dict[str, Any]:
    return {"feed_forward": _KINDS[values.get("activation_function", "gelu_new")]}


def _gpt2_spelled(cfg: ModelConfig) -> dict[str, Any]:
    return {
        "n_ctx": cfg.context_length,  # llama.cpp's converter asks for it
        "activation_function": _ACTIVATIONS[cfg.feed_forward][0],
        "embd_pdrop": cfg.drop_rate,
        "attn_pdrop": cfg.drop_rate,
    }


GPT2 = Architecture(
    name="gpt2",
    family="GPT2",
    title="GPT-2",
    body="transformer.",
    fields={
        "vocab_size": ("vocab_size", int),
        "n_positions": ("context_length", int),
        "n_embd": ("emb_dim", int),
        "n_head": ("n_heads", int),
        "n_layer": ("n_layers", int),
        "n_inner": ("hidden_dim", int | None),
        "layer_norm_epsilon": ("norm_eps", float),
        "resid_pdrop": ("drop_rate", float),
        "tie_word_embeddings": ("tie_weights", bool),
        "qkv_bias": ("qkv_bias", bool),  # ours; Hugging Face's GPT-2 always has it
    },
    defaults={
        "n_inner": None,
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.1,
        "tie_word_embeddings": True,
        "qkv_bias": True,
    },
    fixed={
        "activation_function": tuple(_KINDS),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "reorder_and_upcast_attn": (False, True),  # the same numbers, in another order
        "add_cross_attention": (False,),
    },
    parts={
        "norm": ("layer",),
        "rope": (False,),
        "feed_forward": ("gelu", "gelu_exact"),
        "qk_norm": (False,),
        "attn_bias": (True,),
        "mlp_bias": (True,),
    },
    more=_gpt2_more,
    spelled=_gpt2_spelled,
)


def _llama_more(values: Values) -> dict[str, Any]:
    """Biases and rotary positions, as version 5 of ``transformers`` writes them or as earlier."""
    if strange := set(values.get("layer_types") or ()) - {"full_attention"}:
        raise UserError(f"layer_types names {', '.join(map(str, strange))}, which groundup has not")
    bias = bool(values.get("attention_bias", False))
    found = {"norm": "rms", "rope": True, "feed_forward": "swiglu"}
    found |= {"qkv_bias": bias, "attn_bias": bias, "mlp_bias": bool(values.get("mlp_bias", False))}
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise UserError(f"rope_parameters is {rope!r:.60}; expected a table")
    rope = {name: value for name, value in rope.items() if value is not None}
    theta = rope.pop("rope_theta", values.get("rope_theta", DEFAULT_THETA))
    kind = rope.pop("type", "default")
    kind = rope.pop("rope_type", kind)
    if rope.pop("partial_rotary_factor", values.get("partial_rotary_factor") or 1.0) != 1.0:
        raise UserError("partial_rotary_factor is not 1: groundup turns whole heads only")
    found["rope_theta"] = theta
    if kind in ("default", None):
        return found
    if rope.pop("truncate", True) is not True:
        raise UserError("rope_parameters says truncate false, which groundup does not compute")
    if kind == "linear":
        rope = {"factor": rope.get("factor")}
    else:
        context = values.get("max_position_embeddings")
        rope.setdefault("original_max_position_embeddings", context)
    return found | {"rope_scaling": json.dumps({"rope_type": kind, **rope})}


def _llama_spelled(cfg: ModelConfig) -> dict[str, Any]:
    return {
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_size,
        "intermediate_size": cfg.feed_forward_dim,
        "hidden_act": "silu",
        "attention_bias": bool(cfg.attn_bias),
        "mlp_bias": bool(cfg.mlp_bias),
        "rope_theta": cfg.rope_theta,
        "rope_scaling": json.loads(cfg.rope_scaling) if cfg.rope_scaling else None,
    }


_LLAMA_FIELDS = {
    "vocab_size": ("vocab_size", int),
    "max_position_embeddings": ("context_length", int),
    "hidden_size": ("emb_dim", int),
    "num_attention_heads": ("n_heads", int),
    "num_hidden_layers": ("n_layers", int),
    "num_key_value_heads": ("n_kv_heads", int | None),
    "head_dim": ("head_dim", int | None),
    "intermediate_size": ("hidden_dim", int),
    "rms_norm_eps": ("norm_eps", float),
    "attention_dropout": ("drop_rate", float),
    "tie_word_embeddings": ("tie_weights", bool),
}
_LLAMA_DEFAULTS = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
}
_LLAMA_PARTS = {"norm": ("rms",), "rope": (True,), "feed_forward": ("swiglu",)}
_LLAMA_FIXED = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (True, False),
    "mlp_bias": (True, False),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), (None,)),
}

LLAMA = Architecture(
    name="llama",
    family="Llama",
    title="Llama",
    body="model.",
    fields=_LLAMA_FIELDS,
    defaults=_LLAMA_DEFAULTS,
    fixed=_LLAMA_FIXED | {"sliding_window": (None,)},
    parts=_LLAMA_PARTS | {"qk_norm": (False,)},
    more=_llama_more,
    spelled=_llama_spelled,
    aliases={"mistral": "Mistral"},  # which is the same where it has no sliding window
)

QWEN3 = Architecture(
    name="qwen3",
    family="Qwen3",
    title="Qwen3",
    body="model.",
    fields=_LLAMA_FIELDS,
    defaults=_LLAMA_DEFAULTS | {"head_dim": 128},
    fixed=_LLAMA_FIXED | {"use_sliding_window": (False,), "mlp_bias": (False,)},
    parts=_LLAMA_PARTS | {"qk_norm": (True,), "mlp_bias": (False,)},
    more=lambda values: _llama_more(values) | {"qk_norm": True},
    spelled=_llama_spelled,
)

ARCHITECTURES = (GPT2, LLAMA, QWEN3)
"""All of them; one is named after the first whose parts it has."""


def architecture_of(cfg: ModelConfig) -> Architecture:
    """The architecture as which a shape is saved.

    Raises:
        UserError: none has all its parts; the message says what keeps it from the nearest.
    """
    lacking = [(len(found := known.lacks(cfg)), found, known) for known in ARCHITECTURES]
    count, found, nearest = min(lacking, key=lambda row: row[0])
    if count:
        names = ", ".join(known.title for known in ARCHITECTURES)
        raise UserError(
            f"no model that others open has these parts ({names}); the nearest is {nearest.title}, "
            f"but this one has {'; '.join(found)}: such a model can be built and run, not saved "
            "(the presets have parts that go together: modern-tiny, llama-tiny, …)"
        )
    return nearest

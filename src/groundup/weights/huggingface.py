"""Hugging Face GPT-2 directories: ``config.json`` and the weights, in one file or in shards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.config import FeedForwardKind, ModelConfig
from groundup.errors import UserError, read_error
from groundup.options import describe_type, fits
from groundup.parsing import read_json
from groundup.weights.names import unwrapped
from groundup.weights.tensors import read_torch_file

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TORCH_WEIGHTS, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

CLASSIFIER = "GPT2ForSequenceClassification"
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model", CLASSIFIER)

_SHAPE: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", int),
    "n_positions": ("context_length", int),
    "n_embd": ("emb_dim", int),
    "n_head": ("n_heads", int),
    "n_layer": ("n_layers", int),
    "n_inner": ("hidden_dim", int | None),
    "resid_pdrop": ("drop_rate", float),
    "tie_word_embeddings": ("tie_weights", bool),
    "qkv_bias": ("qkv_bias", bool),  # ours; Hugging Face's GPT-2 always has it
}
"""Their names, ours, and what the value must be."""

_DEFAULTS = {"n_inner": None, "resid_pdrop": 0.1, "tie_word_embeddings": True, "qkv_bias": True}

# transformers' names of one and the same function; the first is the one that we write.
ACTIVATIONS: dict[FeedForwardKind, tuple[str, ...]] = {
    "gelu": ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"),
    "gelu_exact": ("gelu", "gelu_python"),
}
_KINDS: dict[str, FeedForwardKind] = {
    theirs: ours for ours, names in ACTIVATIONS.items() for theirs in names
}

# What transformers can vary about GPT-2 and our model does not; each with the values we compute.
FIXED = {
    "activation_function": tuple(_KINDS),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False, True),  # the same numbers, in another order
    "add_cross_attention": (False,),
}

# Causal masks, which old checkpoints carry beside the weights.
MASKS = re.compile(r"(^|\.)h\.\d+\.attn\.(bias|masked_bias)$")


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of a directory's files, each read when it is asked for.

    The files are safetensors or, where there are none, ``pytorch_model.bin``, which is not
    unpickled; one, or shards with an index. Names are those of ``GPT2LMHeadModel``, also where the
    file has ``GPT2Model``'s or a wrapper's; masks are left out.

    Raises:
        UserError: a file is missing or damaged, or the index names one outside the directory.
    """

    def __init__(self, directory: Path, device: torch.device | str = "cpu") -> None:
        self.directory, self.device = directory, str(device)
        self._where: dict[str, tuple[Path, str]] = {}  # our name: the file, its name there
        self._pytorch: dict[Path, dict[str, Any]] = {}  # what is open already, mapped into memory
        for path in self._files():
            for name, theirs in unwrapped(self._names(path), str(path)).items():
                if not MASKS.search(name):
                    full = name if name.startswith(("transformer.", "lm_head.", "score.")) else ""
                    self._where[full or f"transformer.{name}"] = path, theirs

    def _names(self, path: Path) -> list[str]:
        if path.suffix == ".bin":
            content = self._pytorch[path] = read_torch_file(path)
            strange = [name for name, value in content.items() if not isinstance(value, Tensor)]
            if strange:
                raise UserError(f"{path} is not a state dict: {strange[0]!r:.60} is no tensor")
            return list(content)
        try:
            with safe_open(path, "pt") as file:
                return list(file.keys())
        except (SafetensorError, OSError) as error:
            raise read_error(path, error) from error

    def _files(self) -> list[Path]:
        for whole, index in ((WEIGHTS, INDEX), (TORCH_WEIGHTS, TORCH_INDEX)):
            if (self.directory / whole).exists():
                return [self.directory / whole]
            if (self.directory / index).exists():
                return self._shards(self.directory / index)
        raise UserError(f"{self.directory} is not a complete model: {WEIGHTS} is missing")

    def _shards(self, index: Path) -> list[Path]:
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not fits(shards, dict[str, str]):
            raise UserError(f"{index} has no weight_map from tensors to files")
        return [self._inside(name, index) for name in sorted(set(shards.values()))]

    def _inside(self, name: str, index: Path) -> Path:
        """The path of a shard, which must not lead out of the directory."""
        if not name.isprintable() or len(name) > 200:
            raise UserError(f"{index} names {name!r:.60}, which is no file's name")
        path, home = self.directory / name, self.directory.resolve()
        homes = [home]
        if home.parent.name == "snapshots":  # the hub's cache links from snapshots/X to blobs/
            homes.append(home.parent.parent / "blobs")
        if "/" in name or "\\" in name or not any(h in path.resolve().parents for h in homes):
            raise UserError(
                f"{index} names {name!r}, which lies outside the directory; "
                "do not trust these files"
            )
        if not path.exists():
            raise UserError(f"{self.directory} is not a complete model: {name} is missing")
        return path

    def __getitem__(self, name: str) -> Tensor:
        path, theirs = self._where[name]
        if path in self._pytorch:
            return self._pytorch[path][theirs].to(self.device)
        try:
            with safe_open(path, "pt", device=self.device) as file:
                return file.get_tensor(theirs)
        except (SafetensorError, OSError) as error:
            raise read_error(path, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def read_model_config(directory: Path) -> ModelConfig:
    """Read a Hugging Face GPT-2 ``config.json`` as a ``ModelConfig``.

    Raises:
        UserError: it is missing or damaged, or describes a model that is not ours.
    """
    path = directory / CONFIG
    values = read_json(path)
    kind, architectures = values.get("model_type"), _architectures(values, path)
    if kind != "gpt2" or not set(ARCHITECTURES) & set(architectures):
        raise UserError(
            f"{path} describes a {kind!r:.60} model ({', '.join(architectures):.200}); "
            f"groundup opens models of type 'gpt2' ({', '.join(ARCHITECTURES)})"
        )
    given = _DEFAULTS | {name: value for name, value in values.items() if name in _SHAPE}
    problems = [
        f"{name} is {given[name]!r:.60}; expected {describe_type(hint)}"
        if name in given
        else f"it lacks {name}"
        for name, (_, hint) in _SHAPE.items()
        if name not in given or not fits(given[name], hint)
    ]
    problems += [
        f"{name} is {values[name]!r:.60}, groundup's is {' or '.join(map(repr, allowed))}"
        for name, allowed in FIXED.items()
        if name in values and values[name] not in allowed
    ]
    if problems:
        raise UserError(f"{path} cannot be used: {'; '.join(problems)}")
    shape = {ours: given[theirs] for theirs, (ours, _) in _SHAPE.items()}
    if shape["hidden_dim"] == 4 * shape["emb_dim"]:
        shape["hidden_dim"] = None  # which is the same
    activation = _KINDS[values.get("activation_function", "gelu_new")]
    try:
        cfg = ModelConfig(**shape, feed_forward=activation)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    # A classifier's output layer is never the token embedding, whatever its config says.
    return cfg.replace(tie_weights=False) if CLASSIFIER in architectures else cfg


def _architectures(values: Mapping[str, Any], path: Path) -> list[str]:
    """The classes that the config names; a language model's if it names none."""
    found = values.get("architectures") or [ARCHITECTURES[0]]
    if not fits(found, list[str]):
        raise UserError(f"{path} is damaged: architectures is {found!r:.60}; expected names")
    return found


def read_labels(directory: Path) -> list[str]:
    """The names of a classifier's classes, in the order of its scores; none for a language model.

    Raises:
        UserError: the config is missing or damaged.
    """
    values = read_json(directory / CONFIG)
    if CLASSIFIER not in _architectures(values, directory / CONFIG):
        return []
    # transformers leaves its default out: two classes without names.
    names = values.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    numbered = fits(names, dict[str, str | int | float]) and set(names) == {
        str(index) for index in range(len(names))
    }
    if numbered and names:
        return [str(names[str(index)]) for index in range(len(names))]
    raise UserError(f"{directory / CONFIG} is damaged: id2label does not number its labels from 0")


def hf_config(
    cfg: ModelConfig, eot_token: int | None, labels: Sequence[str] = ()
) -> dict[str, Any]:
    """The ``config.json`` with which ``transformers`` builds the same model.

    With ``labels`` it is a classifier's.
    """
    classifier = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
        "pad_token_id": eot_token,
        "problem_type": "single_label_classification",
    }
    return {
        "architectures": [CLASSIFIER if labels else "GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": cfg.vocab_size,
        "n_positions": cfg.context_length,
        "n_ctx": cfg.context_length,  # llama.cpp's converter asks for it
        "n_embd": cfg.emb_dim,
        "n_head": cfg.n_heads,
        "n_layer": cfg.n_layers,
        "n_inner": cfg.hidden_dim,
        "activation_function": ACTIVATIONS[cfg.feed_forward][0],
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "embd_pdrop": cfg.drop_rate,
        "attn_pdrop": cfg.drop_rate,
        "resid_pdrop": cfg.drop_rate,
        "bos_token_id": eot_token,
        "eos_token_id": eot_token,
        "tie_word_embeddings": bool(cfg.tie_weights),
        "qkv_bias": bool(cfg.qkv_bias),
        "dtype": "float32",
        **(classifier if labels else {}),
    }

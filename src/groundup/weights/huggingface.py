"""Hugging Face GPT-2 directories: ``config.json`` and safetensors, in one file or in shards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError, read_error
from groundup.files import read_json

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

CLASSIFIER = "GPT2ForSequenceClassification"
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model", CLASSIFIER)

# What transformers can vary about GPT-2 and our model does not; each with the values we compute.
FIXED = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False, True),  # the same numbers, in another order
    "add_cross_attention": (False,),
}

# Causal masks, which old checkpoints carry beside the weights.
MASKS = re.compile(r"(^|\.)h\.\d+\.attn\.(bias|masked_bias)$")


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of a directory's safetensors files, each read when it is asked for.

    Names are those of ``GPT2LMHeadModel``, also where the file has ``GPT2Model``'s; masks are
    left out.

    Raises:
        UserError: a file is missing or damaged, or the index names one outside the directory.
    """

    def __init__(self, directory: Path, device: torch.device | str = "cpu") -> None:
        self.directory, self.device = directory, str(device)
        self._where: dict[str, tuple[Path, str]] = {}  # our name: the file, its name there
        for path in self._files():
            try:
                with safe_open(path, "pt") as file:
                    names = list(file.keys())
            except (SafetensorError, OSError) as error:
                raise read_error(path, error) from error
            for name in names:
                if not MASKS.search(name):
                    full = name if name.startswith(("transformer.", "lm_head.", "score.")) else ""
                    self._where[full or f"transformer.{name}"] = path, name

    def _files(self) -> list[Path]:
        if (self.directory / WEIGHTS).exists() or not (self.directory / INDEX).exists():
            if not (self.directory / WEIGHTS).exists():
                raise UserError(f"{self.directory} is not a complete model: {WEIGHTS} is missing")
            return [self.directory / WEIGHTS]
        shards = read_json(self.directory / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
            raise UserError(f"{self.directory / INDEX} has no weight_map from tensors to files")
        return [self._inside(name) for name in sorted(set(shards.values()))]

    def _inside(self, name: str) -> Path:
        """The path of a shard, which must not lead out of the directory."""
        path, home = self.directory / name, self.directory.resolve()
        homes = [home]
        if home.parent.name == "snapshots":  # the hub's cache links from snapshots/X to blobs/
            homes.append(home.parent.parent / "blobs")
        if "/" in name or "\\" in name or not any(h in path.resolve().parents for h in homes):
            raise UserError(
                f"{self.directory / INDEX} names {name!r}, which lies outside the directory; "
                "do not trust these files"
            )
        if not path.exists():
            raise UserError(f"{self.directory} is not a complete model: {name} is missing")
        return path

    def __getitem__(self, name: str) -> Tensor:
        path, theirs = self._where[name]
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
    kind, architectures = values.get("model_type"), values.get("architectures") or ARCHITECTURES
    if kind != "gpt2" or not set(ARCHITECTURES) & set(architectures):
        raise UserError(
            f"{path} describes a {kind!r} model ({', '.join(map(str, architectures))}); "
            f"groundup opens models of type 'gpt2' ({', '.join(ARCHITECTURES)})"
        )
    names = {
        "vocab_size": "vocab_size",
        "n_positions": "context_length",
        "n_embd": "emb_dim",
        "n_head": "n_heads",
        "n_layer": "n_layers",
        "resid_pdrop": "drop_rate",
        "tie_word_embeddings": "tie_weights",
        "qkv_bias": "qkv_bias",  # ours; Hugging Face's GPT-2 always has it
    }
    given = {"tie_word_embeddings": True, "qkv_bias": True, "resid_pdrop": 0.1} | values
    problems = [f"it lacks {name}" for name in names if name not in given]
    problems += [
        f"{name} is {values[name]!r}, groundup's is {' or '.join(map(repr, allowed))}"
        for name, allowed in FIXED.items()
        if name in values and values[name] not in allowed
    ]
    if values.get("n_inner") not in (None, 4 * values.get("n_embd", 0)):
        problems.append(f"n_inner is {values['n_inner']}, groundup's is 4 * n_embd")
    if problems:
        raise UserError(f"{path} cannot be used: {'; '.join(problems)}")
    try:
        cfg = ModelConfig(**{ours: given[theirs] for theirs, ours in names.items()})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    # A classifier's output layer is never the token embedding, whatever its config says.
    return cfg.replace(tie_weights=False) if CLASSIFIER in architectures else cfg


def read_labels(directory: Path) -> list[str]:
    """The names of a classifier's classes, in the order of its scores; none for a language model.

    Raises:
        UserError: the config is missing or damaged.
    """
    values = read_json(directory / CONFIG)
    if CLASSIFIER not in (values.get("architectures") or ()):
        return []
    # transformers leaves its default out: two classes without names.
    names = values.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    try:
        return [str(names[str(index)]) for index in range(len(names))]
    except (KeyError, TypeError):
        raise UserError(
            f"{directory / CONFIG} is damaged: id2label does not number its labels from 0"
        ) from None


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
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "embd_pdrop": cfg.drop_rate,
        "attn_pdrop": cfg.drop_rate,
        "resid_pdrop": cfg.drop_rate,
        "bos_token_id": eot_token,
        "eos_token_id": eot_token,
        "tie_word_embeddings": cfg.tie_weights,
        "qkv_bias": cfg.qkv_bias,
        "dtype": "float32",
        **(classifier if labels else {}),
    }

"""One model directory for every stage, which is at the same time a Hugging Face model directory.

``config.json`` and ``model.safetensors`` are what ``transformers`` reads; ``groundup.json`` holds
what only we know (task, run config, data fingerprint, progress). Nothing is ever unpickled.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer, load_tokenizer
from groundup.weights.card import model_card
from groundup.weights.files import atomic_update, finish_update, read_json, write_json
from groundup.weights.huggingface import (
    CONFIG,
    WEIGHTS,
    TensorFiles,
    hf_config,
    read_model_config,
)
from groundup.weights.names import Row, from_theirs, huggingface_rows, to_theirs

NOTES = "groundup.json"

MODEL_FILES = frozenset(
    {CONFIG, WEIGHTS, NOTES, "generation_config.json", "README.md", "tokenizer.json"}
    | {"tokenizer_config.json", "vocab.json", "merges.txt"}
)
"""All that :func:`save_model` writes by itself."""


@dataclass
class RunNotes:
    """What ``groundup.json`` says about how a model came to be."""

    task: str = "pretrain"
    config: dict[str, Any] = field(default_factory=dict)  # the run's options
    data: dict[str, Any] = field(default_factory=dict)  # where the text came from, its fingerprint
    progress: dict[str, float] = field(default_factory=dict)  # the last record
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> RunNotes:
        """Read them from a model directory; a foreign one (no such file) has none.

        Raises:
            UserError: the file is damaged.
        """
        if not (directory / NOTES).exists():
            return cls(task="unknown")
        values = read_json(directory / NOTES)
        return cls(**{name: values[name] for name in asdict(cls()) if name in values})


def save_model(
    directory: str | Path,
    model: GPTModel,
    tokenizer: Tokenizer,
    notes: RunNotes | None = None,
    extra: Callable[[Path], None] | None = None,
) -> None:
    """Write a model directory, whole or not at all.

    Args:
        directory: made if it is not there; files of the same names are replaced.
        model: the model.
        tokenizer: its tokenizer.
        notes: goes into ``groundup.json`` and the model card.
        extra: writes more files into the folder it is given; they appear together with the rest.

    Raises:
        UserError: the disk is full or cannot be written to; what was there is intact.
    """
    directory = Path(directory)
    notes = notes or RunNotes()
    notes.versions = versions()
    with atomic_update(directory) as staging:
        write_json(staging / CONFIG, hf_config(model.cfg, tokenizer.eot_token))
        write_json(
            staging / "generation_config.json",
            {"bos_token_id": tokenizer.eot_token, "eos_token_id": tokenizer.eot_token},
        )
        state = model.state_dict()
        tensors = {r.theirs: to_theirs(state, r, model.cfg) for r in huggingface_rows(model.cfg)}
        save_tensors(tensors, staging / WEIGHTS)
        tokenizer.save(staging, model_max_length=model.cfg.context_length)
        write_json(staging / NOTES, asdict(notes))
        name = directory.resolve().name
        card = model_card(name, model, notes.data, notes.config, notes.progress)
        (staging / "README.md").write_text(card, encoding="utf-8")
        if extra is not None:
            extra(staging)


def load_directory(
    directory: str | Path,
    device: torch.device | str = "cpu",
    *,
    drop_rate: float | None = None,
) -> tuple[GPTModel, Tokenizer]:
    """Open a model directory; the model is in eval mode.

    Args:
        directory: where it is.
        device: where the weights go.
        drop_rate: another dropout probability than the saved one, to train on.

    Raises:
        UserError: a file is missing or damaged, or the weights do not match the config.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"there is no model directory {str(directory)!r}")
    finish_update(directory)
    cfg = read_model_config(directory)
    if drop_rate is not None:
        cfg = cfg.replace(drop_rate=drop_rate)
    tokenizer = load_tokenizer(directory)
    if tokenizer.vocab_size > cfg.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} tokens, but the config says "
            f"vocab_size {cfg.vocab_size}; one of the two files is from another model"
        )
    tensors = TensorFiles(directory, device)
    return build_model(cfg, tensors, huggingface_rows(cfg), str(directory)), tokenizer


def build_model(
    cfg: ModelConfig, tensors: Mapping[str, Tensor], rows: Iterable[Row], source: str
) -> GPTModel:
    """A model with somebody else's tensors, in fp32 and eval mode.

    It is built without memory (on the meta device), then given the tensors one by one, so that
    loading needs little more memory than the model itself.

    Raises:
        UserError: a tensor is missing, unexpected or misshapen; every one is listed by name.
    """
    with torch.device("meta"):
        model = GPTModel(cfg)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if cfg.tie_weights:
        tensors = _without_tied_head(tensors, source)
    state = from_theirs(tensors, rows, shapes, source)
    if cfg.tie_weights:
        state["out_head.weight"] = state["tok_emb.weight"]
    model.load_state_dict(state, assign=True)
    if cfg.tie_weights:
        model.out_head.weight = model.tok_emb.weight
    return model.requires_grad_(True).eval()


def _without_tied_head(tensors: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    """Leave out a tied output layer that is stored all the same, if it is what it should be."""
    head, embedding = "lm_head.weight", "transformer.wte.weight"
    if head not in tensors or embedding not in tensors:
        return tensors
    if not torch.equal(tensors[head], tensors[embedding]):
        raise UserError(
            f"{source} does not match its config: it is said to be tied, but {head} differs from "
            f"{embedding}"
        )
    return Without(tensors, head)


class Without(Mapping[str, Tensor]):
    """Lazily read tensors but one."""

    def __init__(self, tensors: Mapping[str, Tensor], left_out: str) -> None:
        self.tensors, self.left_out = tensors, left_out

    def __getitem__(self, name: str) -> Tensor:
        if name == self.left_out:
            raise KeyError(name)
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.tensors if name != self.left_out)

    def __len__(self) -> int:
        return len(self.tensors) - 1


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file; a full disk raises ``OSError`` as it does everywhere else."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner may read
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_tensors(path: Path, device: torch.device | str) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.exists():
        raise UserError(f"{path.parent} is not a complete model: {path.name} is missing")
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def versions() -> dict[str, str]:
    """The versions that matter for repeating a run."""
    names = ("groundup", "torch", "tiktoken", "tokenizers", "safetensors", "numpy")
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in names}

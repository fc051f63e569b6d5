"""Hugging Face's files of weights: one file or shards, safetensors or PyTorch's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.errors import UserError, read_error
from groundup.options import fits
from groundup.parsing import read_json
from groundup.weights.architectures import Architecture
from groundup.weights.names import unwrapped
from groundup.weights.tensors import read_torch_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH_WEIGHTS, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

# Causal masks and rotary frequencies, which old checkpoints carry beside the weights.
BUFFERS = re.compile(
    r"(^|\.)(h\.\d+\.attn\.(bias|masked_bias)|layers\.\d+\.self_attn\.rotary_emb\.inv_freq)$"
)


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of a directory's files, each read when it is asked for.

    The files are safetensors or, where there are none, ``pytorch_model.bin``, which is not
    unpickled; one, or shards with an index. Names are those of the model with its head, also where
    the file has the bare model's or a wrapper's; buffers are left out.

    Args:
        directory: where they are.
        architecture: whose names they have.
        device: where the tensors go.

    Raises:
        UserError: a file is missing or damaged, or the index names one outside the directory.
    """

    def __init__(
        self, directory: Path, architecture: Architecture, device: torch.device | str = "cpu"
    ) -> None:
        self.directory, self.device = directory, str(device)
        self._where: dict[str, tuple[Path, str]] = {}  # our name: the file, its name there
        self._pytorch: dict[Path, dict[str, Any]] = {}  # what is open already, mapped into memory
        for path in self._files():
            for name, theirs in unwrapped(self._names(path), str(path)).items():
                if not BUFFERS.search(name):
                    full = name.startswith((architecture.body, "lm_head.", "score."))
                    self._where[name if full else architecture.body + name] = path, theirs

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

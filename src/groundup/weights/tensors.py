"""Safetensors files, written and read whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.errors import UserError, read_error


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file."""
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner may read


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def weights_fingerprint(tensors: Iterable[Tensor]) -> str:
    """A SHA-256 of tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()


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
        raise read_error(path, error) from error

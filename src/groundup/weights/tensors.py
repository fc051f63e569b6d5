"""Files of tensors: safetensors, written and read whole; PyTorch's, read without unpickling."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.errors import UserError, read_error

_OLD = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How files begin that PyTorch before 1.6 wrote, which were no archives and had no checksums."""


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


def read_torch_file(path: Path) -> dict[str, Any]:
    """Read what ``torch.save`` wrote: tensors and plain values, nothing else; lazily where it can.

    Raises:
        UserError: it is missing or damaged, is no such file, needs unpickling, or holds no names.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_OLD))
        old = start == _OLD
        if not old and not start.startswith(b"PK"):
            raise UserError(
                f"{path} is no model: expected a model directory, a GGUF file, or a file that "
                "torch.save wrote (.pth)"
            )
        if not old:  # PyTorch does not look at the archive's checksums
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()
            if wrong is not None:
                raise zipfile.BadZipFile(f"the checksum of {wrong} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=not old)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, and opening it would run code from "
            "the file; save the weights alone with torch.save(model.state_dict(), path)"
        ) from error
    except OSError as error:
        raise read_error(path, error) from error
    except UserError:
        raise
    except Exception as error:  # torch raises whatever its reader and parser stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged: {reason}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a state dict")
    return dict(content)

"""What a run needs to go on exactly where it was saved: optimizer, random numbers, position.

It lies in ``training_state/`` of a checkpoint, as safetensors and JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.files import read_json, write_json
from groundup.snapshot import read_whole
from groundup.weights.tensors import load_tensors, save_tensors

FOLDER, TENSORS, STATE = "training_state", "optimizer.safetensors", "state.json"


def save_training_state(
    directory: Path,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    device: torch.device,
) -> None:
    """Write the state of a run on ``device`` into ``directory/training_state``.

    Args:
        directory: the checkpoint.
        optimizer: whose moments are kept.
        state: the loop's own: plain values.
        device: whose random numbers are kept, besides the CPU's.
    """
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    tensors = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        tensors["rng.mps"] = torch.mps.get_rng_state()
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{key}": value for key, value in moments.items()}
    save_tensors(tensors, folder / TENSORS)
    write_json(folder / STATE, dict(state))


def load_training_state(
    directory: Path, optimizer: torch.optim.Optimizer, device: torch.device, *, verify: bool = True
) -> dict[str, Any]:
    """Put the optimizer and PyTorch's random numbers back; return the loop's own state.

    Call it last before training, since everything random before it is undone by it. A run may
    be resumed on another kind of device, but dropout then draws other numbers.

    Raises:
        UserError: there is no such state, or it does not fit the model.
    """
    folder = directory / FOLDER
    if not (folder / STATE).exists():
        raise UserError(
            f"{directory} has no {FOLDER} to resume from; "
            f"start a new run that begins with its weights"
        )
    state, tensors = read_whole(
        directory,
        lambda: (read_json(folder / STATE), load_tensors(folder / TENSORS, "cpu")),
        verify=verify,
        part=FOLDER,
    )
    try:
        rng = {name: tensors.pop(name) for name in list(tensors) if name.startswith("rng.")}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        groups = optimizer.state_dict()["param_groups"]
        count = sum(len(group["params"]) for group in groups)
        if sorted(moments) != list(range(count)):
            raise ValueError(f"it has moments of {len(moments)} parameters, the model {count}")
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(rng["rng.cpu"])
        if "rng.cuda" in rng and device.type == "cuda":
            torch.cuda.set_rng_state(rng["rng.cuda"], device)
        elif "rng.mps" in rng and device.type == "mps":
            torch.mps.set_rng_state(rng["rng.mps"])
        return _as_today(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} does not fit this model: {error}") from error


def _as_today(state: dict[str, Any]) -> dict[str, Any]:
    """The first version kept the position in the data among the progress, and no best model."""
    progress = dict(state["progress"])
    if "data" in state:
        return state
    position = {name: progress.pop(name) for name in ("epoch", "batch")}
    return {"progress": progress, "data": position, "best": {}}

"""What a run needs to go on exactly where it was saved: optimizer, random numbers, position.

It lies in ``training_state/`` of the model directory, as safetensors and JSON.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.files import read_json, write_json
from groundup.train.trainer import Progress
from groundup.weights.tensors import load_tensors, save_tensors

FOLDER, TENSORS, FACTS = "training_state", "optimizer.safetensors", "state.json"


def save_training_state(
    directory: Path,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    device: torch.device,
) -> None:
    """Write the state of a run on ``device`` into ``directory/training_state``."""
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
    write_json(folder / FACTS, {"progress": asdict(progress)})


def load_training_state(
    directory: Path, optimizer: torch.optim.Optimizer, device: torch.device
) -> Progress:
    """Put the optimizer and PyTorch's random numbers back; return the position.

    Call it last before training, since everything random before it is undone by it. A run may
    be resumed on another kind of device, but dropout then draws other numbers.

    Raises:
        UserError: there is no such state, or it does not fit the model.
    """
    folder = directory / FOLDER
    if not (folder / FACTS).exists():
        raise UserError(
            f"{directory} has no {FOLDER} to resume from; "
            f"start a new run that begins with its weights"
        )
    facts = read_json(folder / FACTS)
    tensors = load_tensors(folder / TENSORS, "cpu")
    try:
        progress = Progress(**facts["progress"])
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
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} does not fit this model: {error}") from error
    return progress

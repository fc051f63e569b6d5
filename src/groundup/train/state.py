"""What a run needs to go on exactly where it was saved: optimizer, random numbers, position.

It lies in ``training_state/`` of a checkpoint, as safetensors and JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.files import read_json, write_json
from groundup.snapshot import read_whole
from groundup.train.parallel import Parallel
from groundup.weights.tensors import load_tensors, save_tensors

FOLDER, TENSORS, STATE = "training_state", "optimizer.safetensors", "state.json"


def training_tensors(
    optimizer: torch.optim.Optimizer, device: torch.device, parallel: Parallel | None = None
) -> dict[str, Tensor]:
    """The optimizer's moments and all processes' random numbers: whole, on the main process.

    All processes call it together. On the others it is empty.

    Args:
        optimizer: whose moments they are.
        device: whose random numbers are kept, besides the CPU's.
        parallel: how the work is shared; unless given, this process is alone.
    """
    parallel = parallel or Parallel(nn.Module())
    tensors: dict[str, Tensor] = {}
    for rank, numbers in enumerate(parallel.world.gathered(_random_numbers(device))):
        tensors |= {f"rng.{name}" + f".{rank}" * (rank > 0): v for name, v in numbers.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            whole = parallel.whole(value)
            if parallel.world.is_main:
                tensors[f"{index}.{key}"] = whole
    return tensors if parallel.world.is_main else {}


def save_training_state(
    directory: Path, tensors: dict[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write the state of a run into ``directory/training_state``.

    Args:
        directory: the checkpoint.
        tensors: see :func:`training_tensors`.
        state: the loop's own: plain values.
    """
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    save_tensors(tensors, folder / TENSORS)
    write_json(folder / STATE, dict(state))


def load_training_state(
    directory: Path,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    parallel: Parallel | None = None,
    *,
    verify: bool = True,
) -> dict[str, Any]:
    """Put the optimizer and PyTorch's random numbers back; return the loop's own state.

    Call it last before training, since everything random before it is undone by it. A run may
    be resumed on another kind of device, or by more processes, but dropout then draws other
    numbers.

    Raises:
        UserError: there is no such state, or it does not fit the model.
    """
    parallel = parallel or Parallel(nn.Module())
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
        groups = optimizer.state_dict()["param_groups"]
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        count = len(trained)
        if sorted(moments) != list(range(count)):
            raise ValueError(f"it has moments of {len(moments)} parameters, the model {count}")
        for index, found in moments.items():
            placed = {key: parallel.placed(found[key], trained[index]) for key in found}
            moments[index] = placed
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        _set_random_numbers(rng, device, parallel.world.rank)
        return _as_today(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} does not fit this model: {error}") from error


def seed_process(seed: int, rank: int) -> None:
    """Let every process draw random numbers of its own (for dropout); the main one's stay."""
    if rank:
        torch.manual_seed((seed + 1_000_003 * rank) % 2**63)


def _random_numbers(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators that a run on ``device`` draws from."""
    numbers = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        numbers["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        numbers["mps"] = torch.mps.get_rng_state()
    return numbers


def _set_random_numbers(saved: Mapping[str, Tensor], device: torch.device, rank: int) -> None:
    """Put a process's generators back; one that the run had not has its own already."""
    end = f".{rank}" * (rank > 0)
    if rank == 0 or f"rng.cpu{end}" in saved:
        torch.set_rng_state(saved[f"rng.cpu{end}"])
    if device.type == "cuda" and f"rng.cuda{end}" in saved:
        torch.cuda.set_rng_state(saved[f"rng.cuda{end}"], device)
    elif device.type == "mps" and f"rng.mps{end}" in saved:
        torch.mps.set_rng_state(saved[f"rng.mps{end}"])


def _as_today(state: dict[str, Any]) -> dict[str, Any]:
    """The first version kept the position in the data among the progress, and no best model."""
    progress = dict(state["progress"])
    if "data" in state:
        return state
    position = {name: progress.pop(name) for name in ("epoch", "batch")}
    return {"progress": progress, "data": position, "best": {}}

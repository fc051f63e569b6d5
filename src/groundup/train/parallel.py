"""How the devices of a run share the work: alone, as replicas (DDP), or in shards (FSDP2).

It is the same loop on all of them. Each process computes its part of a step's examples; what the
processes exchange are gradients, so that all take the step that one alone would have taken.

    alone       one process, one device
    ddp         each process has the whole model and the optimizer's whole state
    fsdp        each has a share of them, and gathers a block's weights while it computes the block;
                in bf16 where products are in bf16, which halves what is sent

Source of the two: PyTorch's ``DistributedDataParallel`` (Li et al. 2020) and ``fully_shard``
(FSDP2; Rajbhandari et al. 2020 for the idea, as ZeRO's third stage).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from groundup import launch
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.planning.devices import free_memory
from groundup.planning.memory import choose_strategy, state_bytes
from groundup.runtime import Precision
from groundup.train.world import World


class Parallel:
    """One process on one device.

    Attributes:
        model: the model itself: it is evaluated, and saved.
        trained: what the loop calls, which is the model, or a wrapper around it.
        world: the processes.
        shares_weights: whether every call of the model needs all processes.
    """

    shares_weights = False

    def __init__(self, model: nn.Module, world: World | None = None) -> None:
        self.model, self.world = model, world or World()
        self.trained: nn.Module = model

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Within it one batch's gradients are computed; it is known which is a step's last."""
        return nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """A number's mean over all processes, ``()``."""
        return self.world.total(value) / self.world.size if self.world.size > 1 else value

    def clip(self, limit: float) -> Tensor:
        """Shorten the gradient to ``limit``, if it is longer; return its norm from before, ``()``.

        The norm is that of the whole model's gradient.
        """
        return self.whole(clip_grad_norm_(self.model.parameters(), limit))

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor whole, however it is kept."""
        return tensor

    def placed(self, tensor: Tensor, like: Tensor) -> Tensor:
        """A whole tensor, kept as ``like`` is."""
        return tensor

    @contextmanager
    def whole_model(self) -> Iterator[Any]:
        """The model with its weights whole, as it is saved by the main process."""
        yield self.model


class Replicas(Parallel):
    """A whole model in each process, which add up their gradients while they compute them: DDP."""

    def __init__(self, model: GPTModel, world: World) -> None:
        super().__init__(model, world)
        self.ddp = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        self.trained = self.ddp
        # After its first backward pass DDP sorts its buckets anew, and then adds up in another
        # order: with three or more processes a resumed run would differ in the last bits. So it is
        # given a first pass here, over no text at all.
        nothing = torch.empty(0, 1, dtype=torch.long, device=next(model.parameters()).device)
        self.ddp(nothing).sum().backward()
        model.zero_grad(set_to_none=True)

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        """Within it one batch's gradients are computed; processes exchange them after the last."""
        return nullcontext() if last else self.ddp.no_sync()


class Shards(Parallel):
    """A share of every tensor in each process; weights are gathered block by block: FSDP2."""

    shares_weights = True

    def __init__(self, model: GPTModel, world: World, precision: Precision = "fp32") -> None:
        super().__init__(model, world)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        self.shell = _without_weights(model)
        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (world.size,))
        policy = MixedPrecisionPolicy()
        if precision == "bf16":
            # As autocast does: embeddings, norms and the residual stream stay fp32, and gradients
            # are added up in fp32. A sample, which is drawn outside of it, finds bf16 weights too.
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
            model.forward = torch.autocast(kind, torch.bfloat16)(model.forward)
        for block in model.trf_blocks:
            parts: Any = [block.att, block.ff] if precision == "bf16" else block
            fully_shard(parts, mesh=mesh, mp_policy=policy)
        # Gradients are dealt out after every batch: kept until a step's last one, they would be
        # whole on each device, for which there may be no room.
        fully_shard(model, mesh=mesh)
        # Each token's loss is a view; nothing is ever done to it in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor whole: gathered by all processes together."""
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def placed(self, tensor: Tensor, like: Tensor) -> Tensor:
        """A whole tensor, of which this process keeps its share; the main process's counts."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor) or tensor.dim() == 0:
            return tensor
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)

    @contextmanager
    def whole_model(self) -> Iterator[Any]:
        """The model with its weights whole, on the main process's CPU; empty on the others."""
        blanks = list(self.shell.parameters())
        for blank, shard in zip(blanks, self.model.parameters(), strict=True):
            full = self.whole(shard.detach())  # by all processes, one tensor at a time
            if self.world.is_main:
                filled = nn.Parameter(full.cpu(), requires_grad=shard.requires_grad)
                torch.utils.swap_tensors(blank, filled)
        yield self.shell
        for blank in blanks:
            if self.world.is_main:
                emptied = nn.Parameter(blank.to("meta"), requires_grad=blank.requires_grad)
                torch.utils.swap_tensors(blank, emptied)


def check_parallel(how: str, processes: int) -> None:
    """Refuse to share work with nobody.

    Raises:
        UserError: shards or replicas are asked for, but there is one process only.
    """
    if processes == 1 and how != "auto":
        raise UserError(
            f"--parallel {how} is for several processes; start them with a launcher: "
            f"{launch.COMMAND} --parallel {how}"
        )


def share_work(
    model: GPTModel, world: World, how: str = "auto", precision: Precision = "fp32"
) -> Parallel:
    """Make a model ready to be trained by these processes; its optimizer is made afterwards.

    Args:
        model: on its device, the same in every process.
        world: the processes.
        how: ``ddp``, ``fsdp``, or ``auto``: replicas if model and optimizer fit into the memory of
            each process's device, else shards.
        precision: of the products: shards of the blocks are gathered in it.
    """
    if world.size == 1:
        return Parallel(model, world)
    if how == "auto":
        fits = world.sum(not _fits(model))[0] == 0
        how = "ddp" if fits else "fsdp"
    return Replicas(model, world) if how == "ddp" else Shards(model, world, precision)


def _fits(model: GPTModel) -> bool:
    """Whether weights, gradients and the optimizer's state have room where the model is."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    device = next(model.parameters()).device
    free = free_memory(device)
    if free is None:
        return True
    if device.type == "cuda":  # where the model lies already
        free += torch.cuda.memory_allocated(device)
    state = state_bytes(model.num_parameters(), trained)
    return choose_strategy(state, free, devices=2) == "ddp"


def _without_weights(model: GPTModel) -> GPTModel:
    """A copy of a model that has its shape and no weights; tied ones stay tied."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, memo)

"""What a training step needs on each device, by the way in which the devices share the work.

Everything is fp32, as training keeps it: 4 bytes for a parameter, 4 for its gradient, 8 for AdamW's
two moments, 16 in all. (ZeRO counts 16 as well, for mixed precision: 2 + 2 + 12; Rajbhandari et
al. 2020, section 3.1. With bf16, training here keeps copies of the matrices for a while besides.)

    alone   one device has all of it
    ddp     each device has all of it, and its own micro-batch
    fsdp    each has a share, and gathers a block's parameters while it computes the block
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from groundup.config import ModelConfig
    from groundup.model.activations import Activations, Kind, Precision

Strategy = Literal["alone", "ddp", "fsdp"]

WEIGHT = GRADIENT = 4
MOMENTS = 8
"""Bytes per parameter in fp32."""

BF16 = 2
"""Bytes of a parameter of a block that FSDP gathers for products in bf16."""

RESERVE = 0.07
"""Share of a device's memory that isn't planned with: the CUDA context, NCCL's buffers, gaps."""

GATHERED_BLOCKS = 2
"""Blocks whose parameters FSDP holds whole at once: the one computed, and the next."""


def state_bytes(parameters: int, trained: int | None = None, devices: int = 1) -> int:
    """Bytes of weights, gradients and moments on each device.

    Args:
        parameters: of the model, a tied matrix once.
        trained: how many of them train (all).
        devices: that share the state, as FSDP's do.
    """
    trained = parameters if trained is None else trained
    return -(-(WEIGHT * parameters + (GRADIENT + MOMENTS) * trained) // devices)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the worst moment of a step.

    Attributes:
        parameters: what the device keeps of them.
        gradients: the same; with FSDP, also of what is whole for a while.
        optimizer: AdamW's moments.
        gathered: parameters that FSDP has whole for a while.
        copies: in bf16, of the blocks' matrices; autocast makes them, and the backward pass needs
            them. FSDP has gathered bf16 and needs none.
        activations: what else the backward pass needs of a micro-batch.
        logits: what the loss takes for a moment.
        late: what the backward pass takes for a moment at its end: tied weights' second gradient.
        together: whether gradients are there during the forward pass: of earlier micro-batches,
            or in DDP's buckets. Else they come as the activations go.
    """

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    copies: int
    activations: int
    logits: int
    late: int
    together: bool

    @property
    def state(self) -> int:
        """What doesn't depend on the batch, and stays."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def of_batch(self) -> int:
        """What comes with the forward pass and goes with the backward pass."""
        return self.copies + self.activations + self.logits

    @property
    def saved(self) -> int:
        """By how much the peak is less than the sum, since gradients come as activations go."""
        if self.together:
            return 0
        return self.gradients + self.of_batch - max(self.of_batch, self.gradients + self.late)

    @property
    def peak(self) -> int:
        """Most bytes at once."""
        return self.state + self.gathered + self.of_batch - self.saved


@dataclass(frozen=True)
class Need:
    """A model in training on some devices, as far as memory goes.

    Attributes:
        cfg: its shape.
        parameters: how many it has.
        block_parameters: how many of them one block has.
        activations: what it keeps for the backward pass.
        strategy: how devices share it.
        devices: how many there are.
        precision: of the matrix products.
        kind: of the devices.
        checkpointing: whether each block's activations are computed once more.
    """

    cfg: ModelConfig
    parameters: int
    block_parameters: int
    activations: Activations
    strategy: Strategy = "alone"
    devices: int = 1
    precision: Precision = "fp32"
    kind: Kind = "cpu"
    checkpointing: bool = False

    @property
    def outside_parameters(self) -> int:
        """Those outside the blocks, which FSDP has whole from the first to the last."""
        return self.parameters - self.cfg.n_layers * self.block_parameters

    @property
    def block_weight(self) -> int:
        """Bytes of a block's parameter while FSDP has it whole."""
        return BF16 if self.precision == "bf16" else WEIGHT

    def at(self, batch_size: int, *, accumulating: bool) -> Memory:
        """What a step needs.

        Args:
            batch_size: texts of a micro-batch.
            accumulating: whether a step has several micro-batches.
        """
        from groundup.model.activations import logits_bytes

        P, N, fsdp = self.parameters, self.devices, self.strategy == "fsdp"
        share = N if fsdp else 1
        gathered, gradients = 0, GRADIENT * P
        if fsdp:
            blocks = min(GATHERED_BLOCKS, self.cfg.n_layers) * self.block_parameters
            gathered = WEIGHT * self.outside_parameters + self.block_weight * blocks
            # A block's gradients are whole until they have been dealt out.
            gradients = GRADIENT * (-(-P // share) + self.outside_parameters + blocks)
        tokens = batch_size * self.cfg.context_length
        made = self.activations.copies(checkpointing=self.checkpointing)
        kept = self.activations.of(batch_size, checkpointing=self.checkpointing) - made
        copies = 0 if fsdp else made  # FSDP gathers them in bf16, once more for the backward pass
        return Memory(
            parameters=-(-WEIGHT * P // share),
            gradients=gradients,
            optimizer=-(-MOMENTS * P // share),
            gathered=gathered,
            copies=copies,
            activations=kept,
            logits=logits_bytes(self.cfg, tokens, self.precision, self.kind),
            late=GRADIENT * self.cfg.vocab_size * self.cfg.emb_dim * self.cfg.tie_weights,
            together=accumulating or self.strategy == "ddp",
        )

    def largest(self, budget: float, most: int) -> int:
        """The largest micro-batch that fits into so many bytes, at most ``most``; 0 is none."""
        if self.at(most, accumulating=False).peak <= budget:
            return most
        return largest(lambda n: self.at(n, accumulating=True).peak <= budget, most)


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to ``most`` that fits, if smaller ones do too; 0 is none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def choose_strategy(state: int, device_memory: float, devices: int) -> Strategy:
    """How several devices share the work by themselves: replicas where the state leaves room.

    Args:
        state: bytes of weights, gradients and moments; see :func:`state_bytes`.
        device_memory: bytes of one device.
        devices: how many there are.
    """
    if devices == 1:
        return "alone"
    return "ddp" if state <= STATE_SHARE * device_memory else "fsdp"


STATE_SHARE = 0.8
"""Of a device's memory, the state may take so much; the rest is for activations."""

"""How long a training takes, what it costs, and what the devices tell each other meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.planning.memory import WEIGHT, Need


def step_flops(need: Need, forward: float, tokens: float) -> float:
    """Floating-point operations of a training on so many tokens, on all devices together.

    Three times those of a forward pass; activation checkpointing computes a fourth.

    Args:
        need: the model in training.
        forward: operations of a forward pass per token (``Costs.forward_flops``).
        tokens: how many.
    """
    return (4 if need.checkpointing else 3) * forward * tokens


def communication(need: Need, micro_batches: int) -> float:
    """Bytes that each device sends in a step.

    - DDP adds up gradients once: a ring all-reduce, ``2 (N - 1) / N`` times their bytes.
    - FSDP gathers the parameters for each micro-batch's forward pass and once more for its
      backward pass, and deals the gradients out after it: ``(N - 1) / N`` times the parameters'
      bytes each. What lies outside the blocks is gathered once, in fp32; the blocks in the
      products' precision.
    """
    N, P = need.devices, need.parameters
    if need.strategy == "ddp":
        return 2 * (N - 1) / N * WEIGHT * P
    if need.strategy == "fsdp":
        outside = need.outside_parameters
        gathered = WEIGHT * outside + 2 * need.block_weight * (P - outside)
        return (N - 1) / N * micro_batches * (gathered + WEIGHT * P)
    return 0.0


@dataclass(frozen=True)
class Work:
    """A training's work, and how fast it is done.

    Attributes:
        need: the model in training.
        forward: operations of a forward pass per token.
        batch_size: texts of a micro-batch.
        micro_batches: per step and device.
        flops: operations per second of one device at its best.
        mfu: the share of them that a training reaches, without communication.
        bandwidth: bytes per second that a device sends; None counts no communication.
    """

    need: Need
    forward: float
    batch_size: int
    micro_batches: int
    flops: float
    mfu: float
    bandwidth: float | None = None

    @property
    def device_tokens(self) -> int:
        """Tokens of a step on each device."""
        return self.micro_batches * self.batch_size * self.need.cfg.context_length

    @property
    def step_tokens(self) -> int:
        """Tokens of a step on all devices."""
        return self.need.devices * self.device_tokens

    @property
    def compute(self) -> float:
        """Seconds of a step that a device computes."""
        return step_flops(self.need, self.forward, self.device_tokens) / (self.flops * self.mfu)

    @property
    def exchange(self) -> float:
        """Seconds of a step that a device sends."""
        sent = communication(self.need, self.micro_batches)
        return sent / self.bandwidth if self.bandwidth else 0.0

    @property
    def fastest(self) -> float:
        """Seconds of a step if all that can be sent during the computation is.

        DDP can send during the last micro-batch's backward pass only, two thirds of its time (three
        quarters where that computes activations again).
        """
        if self.need.strategy != "ddp":
            return max(self.compute, self.exchange)
        backward = (3 / 4 if self.need.checkpointing else 2 / 3) * self.compute
        return self.compute + max(0.0, self.exchange - backward / self.micro_batches)

    @property
    def slowest(self) -> float:
        """Seconds of a step if nothing is sent meanwhile."""
        return self.compute + self.exchange

    def seconds(self, tokens: float) -> float:
        """Of the whole training, at its fastest."""
        return tokens / self.step_tokens * self.fastest

    def most_devices(self) -> float:
        """From how many devices on sending takes longer than computing, with the same global batch.

        DDP: a step's computation is dealt to the devices, its all-reduce stays as it is, nearly
        ``8 P`` bytes. FSDP: each micro-batch gathers again, nearly ``8 P`` bytes in bf16 and
        ``12 P`` in fp32, so that a device needs so many tokens per micro-batch, and the global
        batch has only so many.

        Returns:
            Infinity without a bandwidth.
        """
        if not self.bandwidth:
            return float("inf")
        per_token = step_flops(self.need, self.forward, 1) / (self.flops * self.mfu)
        P = WEIGHT * self.need.parameters / self.bandwidth  # seconds to send all parameters once
        gathered = 2 * self.need.block_weight / WEIGHT
        rounds = 2 if self.need.strategy == "ddp" else 1 + gathered
        return self.step_tokens * per_token / (rounds * P)

    def least_tokens(self) -> float:
        """Tokens per device and exchange for which computing takes as long as sending."""
        return self.step_tokens / self.most_devices()

"""LoRA: train two thin matrices beside each big one, which stays as it is (Hu et al. 2021).

A trained update of a matrix ``W`` has nearly all of its effect in few directions, so it is written
as a product ``B A`` of rank ``r``. That leaves about one parameter in a hundred to train, and an
adapter file of as little. Afterwards the product can be added to ``W``, and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import UserError, did_you_mean
from groundup.model.gpt import GPTModel
from groundup.model.hollow import hollow
from groundup.model.linear import Linear, linear

TARGETS = (
    *("W_query", "W_key", "W_value", "out_proj"),
    *("layers.0", "layers.2"),  # GPT-2's feed-forward network
    *("gate_proj", "up_proj", "down_proj"),  # Llama's
)
"""All linear layers of a Transformer block, of whichever architecture."""


class LoRALinear(nn.Module):
    """A frozen ``nn.Linear`` with a trainable update of low rank (Hu et al. 2021, section 4.1).

    ``y = W x + b + (alpha / r) * B A dropout(x)``

    with ``W (out, in)``, ``A (r, in)`` and ``B (out, r)``. As in the paper's code, ``A`` begins
    Kaiming-uniform with ``a = sqrt(5)`` (uniform within ``1 / sqrt(in)``) and ``B`` at zero, so a
    new update changes nothing; ``alpha / r`` lets one learning rate serve every rank.

    It takes over the layer's own ``weight`` and ``bias``, so in a state dict those keep their
    names: ``….W_query.weight`` is still the base model's matrix, ``….W_query.A`` and
    ``….W_query.B`` stand beside it.

    Args:
        linear: the layer to adapt; its parameters are frozen.
        rank: ``r``, at most the layer's smaller side.
        alpha: strength of the update, relative to the rank.
        dropout: probability of dropping an input of the update while training.

    Raises:
        UserError: an argument is out of its range.
    """

    bias: nn.Parameter | None

    def __init__(
        self, linear: nn.Linear, rank: int = 8, alpha: float = 16, dropout: float = 0.0
    ) -> None:
        super().__init__()
        problems = _problems(rank, alpha, dropout, _max_rank(linear))
        if problems:
            raise UserError("; ".join(problems))
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.rank, self.alpha = rank, alpha
        linear.requires_grad_(False)
        self.weight, self.bias = linear.weight, linear.bias
        # Drawn on the CPU, so that a seed gives the same adapter on every device.
        A = torch.empty(rank, self.in_features, device="cpu")
        self.A = nn.Parameter(nn.init.kaiming_uniform_(A, a=math.sqrt(5)).to(linear.weight))
        self.B = nn.Parameter(linear.weight.new_zeros(self.out_features, rank))
        self.dropout = nn.Dropout(dropout)
        self.train(linear.training)

    @property
    def scaling(self) -> float:
        """What the update is multiplied by: ``alpha / r``."""
        return self.alpha / self.rank

    def forward(self, x: Tensor) -> Tensor:
        """``(…, in) -> (…, out)``."""
        low = F.linear(self.dropout(x), self.A)  # (…, r)
        return linear(x, self.weight, self.bias) + self.scaling * F.linear(low, self.B)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A new plain layer that computes the same, but for dropout: its matrix is ``W + update``.

        It shares nothing with this one, and is trainable.
        """
        with hollow():  # no weights are drawn that would be thrown away
            layer = Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight = nn.Parameter(self.weight + self.scaling * self.B @ self.A)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.clone())
        return layer.train(self.training)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows of this layer."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, rank={self.rank}, alpha={self.alpha}"
        )


def add_lora(
    model: GPTModel,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Sequence[str] = TARGETS,
) -> GPTModel:
    """Freeze a model and put a :class:`LoRALinear` in the place of its blocks' linear layers.

    What the model computes does not change until it is trained, nor does its mode. The output
    layer is frozen but never replaced; who puts a new one there decides whether it is trained.

    Args:
        model: changed in place.
        rank: rank of the updates.
        alpha: their strength, relative to the rank.
        dropout: dropout before them.
        targets: which layers of a block: how their names end; all that there are unless given.

    Returns:
        The model.

    Raises:
        UserError: the model has LoRA already, no layer has such a name, or a number is out of its
            range; the model is as it was.
    """
    if has_lora(model):
        raise UserError("the model has LoRA layers already; merge them first (merge_lora)")
    blocks = {
        name: layer
        for name, layer in model.named_modules()
        if name.startswith("trf_blocks.") and isinstance(layer, nn.Linear)
    }
    there = [t for t in TARGETS if any(name_ends_with(name, [t]) for name in blocks)]
    targets = there if tuple(targets) == TARGETS else targets
    chosen = {name: layer for name, layer in blocks.items() if name_ends_with(name, targets)}
    problems = [
        f"unknown LoRA target {target!r}{did_you_mean(target, there) or ';'} "
        f"there are: {', '.join(there)}"
        for target in targets
        if not any(name_ends_with(name, [target]) for name in blocks)
    ]
    if not targets:
        problems.append(f"no LoRA targets were given; there are: {', '.join(there)}")
    limit = min(map(_max_rank, (chosen or blocks).values()))
    problems += _problems(rank, alpha, dropout, limit)
    if problems:
        raise UserError("; ".join(problems))
    model.requires_grad_(False)
    for name, layer in chosen.items():
        model.set_submodule(name, LoRALinear(layer, rank, alpha, dropout))
    return model


def merge_lora(model: GPTModel) -> GPTModel:
    """Add the updates to the weights and make a plain model of it, trainable as a whole.

    Its modules and the names in its state dict are those from before :func:`add_lora`. A model
    without LoRA stays as it is.
    """
    if has_lora(model):
        for name, layer in lora_layers(model).items():
            model.set_submodule(name, layer.merged())
        model.requires_grad_(True)
    return model


def has_lora(model: nn.Module) -> bool:
    """Whether any layer has an update that is not merged."""
    return bool(lora_layers(model))


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers by name, in the model's order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}


def name_ends_with(name: str, endings: Sequence[str]) -> bool:
    """Whether a dotted name is one of these or ends with one, cut at a dot."""
    return any(f".{name}".endswith(f".{ending}") for ending in endings)


def _max_rank(linear: nn.Linear) -> int:
    """The highest rank that a matrix of this shape can have."""
    return min(linear.in_features, linear.out_features)


def _problems(rank: int, alpha: float, dropout: float, max_rank: int) -> list[str]:
    problems = []
    if not 1 <= rank <= max_rank:
        problems.append(f"the LoRA rank is {rank}; expected 1 to {max_rank} for this model")
    if not 0 < alpha < math.inf:
        problems.append(f"the LoRA alpha is {alpha}; expected a number above 0")
    if not 0 <= dropout < 1:
        problems.append(f"the LoRA dropout is {dropout}; expected 0 <= dropout < 1")
    return problems

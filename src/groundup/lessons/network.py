"""Why deep networks have shortcuts: gradients that vanish, and gradients that don't (chapter 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.model.layers import GELU


class ExampleDeepNeuralNetwork(nn.Module):
    """Five layers one after another, each a matrix and a GELU, with shortcuts or without.

    Args:
        layer_sizes: the widths: of the input, then of each layer's output (six numbers).
        use_shortcut: add a layer's input to its output, where they are equally wide.

    Raises:
        UserError: there are not six sizes.
    """

    def __init__(self, layer_sizes: Sequence[int], use_shortcut: bool) -> None:
        super().__init__()
        if len(layer_sizes) != 6:
            raise UserError(f"there are {len(layer_sizes)} layer_sizes; expected 6, for 5 layers")
        self.use_shortcut = use_shortcut
        sizes = zip(layer_sizes[:-1], layer_sizes[1:], strict=True)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(m, n), GELU()) for m, n in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, first size) -> (B, last size)``."""
        for layer in self.layers:
            out = layer(x)
            x = x + out if self.use_shortcut and x.shape == out.shape else out
        return x


def print_gradients(model: nn.Module, x: Tensor) -> None:
    """Send ``x`` through, ask for 0, and print the mean gradient of each layer's matrix.

    The lower the layer, the longer is the gradient's way back to it.
    """
    output = model(x)
    loss = nn.functional.mse_loss(output, torch.zeros_like(output))
    loss.backward()
    for name, parameter in model.named_parameters():
        if "weight" in name and parameter.grad is not None:
            print(f"{name} has gradient mean of {parameter.grad.abs().mean().item()}")


def find_highest_gradient(model: nn.Module) -> Tensor | None:
    """The largest number in all gradients, a scalar; None before any ``backward()`` (appendix D).

    Clipping makes it smaller: ``torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)``.
    """
    highest = [p.grad.max() for p in model.parameters() if p.grad is not None]
    return torch.stack(highest).max() if highest else None

"""Fewer bytes per weight, for writing texts: linear layers in fp16, 8 bits or 4 bits.

While a text is written, each weight is read once per token, so half the bytes take half the time.
The activations stay fp32 beside fp16 weights; beside smaller ones a few tokens' are rounded to 8
bits, 32 at a time. Layers are replaced as LoRA does it; what
is quantized can be run and measured, not trained. The token embedding, of which one row is read
per token, stays as it is; an output layer that was tied to it gets its own numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from groundup.config import Quantization
from groundup.errors import UserError
from groundup.kernels.products import dequantized, product, quantized_int4, quantized_int8
from groundup.model.gpt import GPTModel
from groundup.model.lora import has_lora


class QuantizedLinear(nn.Module):
    """An ``nn.Linear`` with fewer bytes per weight: ``y = x W^T + b``.

    ``fp16`` rounds to 11 significant bits; ``int8`` each 32 weights of a row to 255 steps as large
    as the largest needs (1.06 bytes per weight), ``int4`` to 16 steps between the lowest and the
    highest (0.63 bytes).

    Args:
        linear: the layer to copy.
        kind: how its matrix is stored.
    """

    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, kind: Quantization) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind = kind
        with torch.no_grad():
            if kind == "fp16":
                weight, scale = linear.weight.half(), None
            else:
                quantized = quantized_int8 if kind == "int8" else quantized_int4
                weight, scale = quantized(linear.weight)
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("scale", scale)
        bias = linear.bias
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())

    def forward(self, x: Tensor) -> Tensor:
        """``(…, in) -> (…, out)``."""
        return product(x, self.weight, self.scale, self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLinear:
        """Go to another device with the model, but not to another dtype: the kernel reads these."""
        device = fn(torch.empty(0, device=self.weight.device)).device
        self._buffers.update(
            {name: None if t is None else t.to(device) for name, t in self._buffers.items()}
        )
        return self

    def dequantized(self) -> Tensor:
        """The matrix ``(out, in)`` that it stands for, in fp32."""
        return dequantized(self.weight, self.scale)[:, : self.in_features]

    def extra_repr(self) -> str:
        """What ``print(model)`` shows of this layer."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.kind}"


@torch.no_grad()
def quantize(model: GPTModel, kind: Quantization) -> GPTModel:
    """Put a :class:`QuantizedLinear` in the place of every linear layer; return the model.

    Args:
        model: changed in place, and in eval mode afterwards.
        kind: ``fp16``, ``int8`` or ``int4`` (the output layer in int8 then).

    Raises:
        UserError: the model is quantized already, has LoRA layers or holds NaN; it is as it was.
    """
    if is_quantized(model):
        raise UserError("the model is quantized already; open it anew to quantize it otherwise")
    if has_lora(model):
        raise UserError("the model has LoRA layers; merge them first (merge_lora)")
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, layer in layers.items():
        if not layer.weight.isfinite().all():
            raise UserError(f"{name} holds numbers that are not finite; the model is damaged")
    # What rounding spoils in the output layer nothing after it can mend; llama.cpp's q4_0 also
    # keeps it in more bits.
    last: Quantization = "int8" if kind == "int4" else kind
    replaced = {
        name: QuantizedLinear(layer, last if name == "out_head" else kind)
        for name, layer in layers.items()
    }
    for name, layer in replaced.items():
        model.set_submodule(name, layer)
    return model.requires_grad_(False).eval()


def count_parameters(model: GPTModel) -> int:
    """How many there are, those too that are kept in fewer bytes (a tied matrix counts once)."""
    layers = [layer for layer in model.modules() if isinstance(layer, QuantizedLinear)]
    if model.cfg.tie_weights:
        layers = [layer for layer in layers if layer is not model.out_head]
    kept = sum(layer.in_features * layer.out_features for layer in layers)
    biases = sum(layer.bias.numel() for layer in layers if layer.bias is not None)
    return model.num_parameters() + kept + biases


def is_quantized(model: nn.Module) -> bool:
    """Whether any layer is."""
    return any(isinstance(module, QuantizedLinear) for module in model.modules())

"""Muon: momentum whose matrices are made orthogonal before they are added; AdamW for the rest.

A matrix's gradient is mostly a few directions; made orthogonal, all directions get the same step
(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). The step is scaled to be as long as
AdamW's usually is, so that one learning rate and one weight decay serve both (Liu et al. 2025,
"Muon is scalable for LLM training", section 2.2).

Source of the formulas: ``torch.optim.Muon``, which always computes in bf16. Where that is slow (a
CPU with AVX2 only needs 70 times as long), this computes in fp32.

Shapes: ``n`` matrices of ``R`` rows and ``C`` columns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.runtime import fast_dtype
from groundup.train.adamw import AdamW, Eager

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic polynomial whose iteration brings singular values near 1 (Jordan et al. 2024)."""

STEPS, EPS = 5, 1e-7
"""Iterations; the least norm that is divided by."""

AT_ONCE = 2**20
"""Numbers of equally shaped matrices that are computed together; larger ones come one by one."""


class Muon(Eager):
    """Muon for some matrices, AdamW for other parameters, as one optimizer.

    Args:
        matrices: a group of 2-dimensional parameters, for Muon.
        others: groups for AdamW.
        lr: learning rate of all.
        betas: AdamW's.
        momentum: Muon's, with Nesterov's look ahead.
        dtype: of Muon's products; the device's fast one unless given.
    """

    def __init__(
        self,
        matrices: dict[str, Any],
        others: Sequence[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype
        nothing = torch.zeros((), requires_grad=True)
        self.adamw = AdamW([nothing], lr=lr, betas=betas, fused=True)
        super().__init__([matrices | {"momentum": momentum}], {"lr": lr, "weight_decay": 0.0})
        for group in others:
            self.add_param_group(self.adamw.defaults | {"lr": lr} | group)
        self._share()

    def _share(self) -> None:
        """AdamW's groups and state are the same objects as here."""
        self.adamw.param_groups, self.adamw.state = self.param_groups[1:], self.state

    def load_state_dict(self, state_dict: Any) -> None:
        """Go on from a state."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change the parameters by their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        lr, momentum = group["lr"], group["momentum"]
        alike: defaultdict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
        for matrix in group["params"]:
            if matrix.grad is not None:
                alike[matrix.shape, matrix.device].append(matrix)
        for (shape, device), matrices in alike.items():
            length = lr * 0.2 * math.sqrt(max(shape))
            dtype = self.dtype or fast_dtype(device)
            for some in _pieces(matrices, max(1, AT_ONCE // shape.numel())):
                updates = [_whole(self._momentum(matrix, momentum)) for matrix in some]
                found = orthogonal(torch.stack(updates), dtype)
                for matrix, update in zip(some, found, strict=True):
                    matrix.mul_(1 - lr * group["weight_decay"])
                    matrix.add_(_share_of(update.to(matrix.dtype), matrix), alpha=-length)
        self.adamw.step()
        return loss

    def _momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        """Add the gradient to the running mean; where that will be after one more such step."""
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


def orthogonal(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring all singular values near 1 by Newton and Schulz's iteration, ``(n, R, C)``.

    They come to lie between some 0.7 and 1.2, which is near enough (Jordan et al. 2024).
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(dtype)
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=EPS)[:, None, None]
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _pieces(matrices: list[Tensor], size: int) -> Iterator[list[Tensor]]:
    return (matrices[i : i + size] for i in range(0, len(matrices), size))


def _whole(tensor: Tensor) -> Tensor:
    """A tensor whole: of one that several processes share (FSDP), all of them gather it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # pyright: ignore


def _share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's share of a tensor that all of them have computed."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)

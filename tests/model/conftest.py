"""What the tests of the model share: a tiny one, a batch, and a watch on its loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.config import IGNORE_INDEX
from groundup.model import loss as fused_loss
from groundup.model.gpt import GPTModel
from tests.conftest import tiny_config


@pytest.fixture
def model() -> GPTModel:
    return GPTModel(tiny_config())


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Ids and targets ``(3, 16)``, some of which do not count."""
    inputs, targets = torch.randint(0, 300, (2, 3, 16))
    targets[0, 5:] = IGNORE_INDEX
    return inputs, targets


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which reduction the loss that keeps no logits was used for, or that it was compiled."""
    used: list[str] = []
    real = fused_loss.linear_cross_entropy

    def counted(
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        reduction: fused_loss.Reduction,
        compiled: bool,
    ) -> Tensor:
        used.append("compiled" if torch.compiler.is_compiling() else reduction)
        return real(features, weight, targets, reduction, compiled)

    monkeypatch.setattr(fused_loss, "linear_cross_entropy", counted)
    return used

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
    """One entry for each use of the loss that keeps no logits: for which reduction."""
    used: list[str] = []
    real = fused_loss.linear_cross_entropy

    def counted(
        features: Tensor, weight: Tensor, targets: Tensor, reduction: fused_loss.Reduction
    ) -> Tensor:
        used.append(reduction)
        return real(features, weight, targets, reduction)

    monkeypatch.setattr(fused_loss, "linear_cross_entropy", counted)
    return used

"""The two drafts before ``custom_collate_fn``: padding alone, then targets (chapter 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.data.batching import pad_right


def custom_collate_draft_1(
    batch: Sequence[list[int]], pad_token_id: int = 50256, device: torch.device | str = "cpu"
) -> Tensor:
    """Pad to the longest row: ids ``(B, T)``."""
    return pad_right(batch, pad_token_id).to(device)


def custom_collate_draft_2(
    batch: Sequence[list[int]], pad_token_id: int = 50256, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """And targets: the same ids moved one on, so the end-of-text token after a row is one too.

    Inputs and targets, each ``(B, T)``. What is left to ``custom_collate_fn``: the padding after
    that token should not be learned.
    """
    targets = [[*row[1:], pad_token_id] for row in batch]
    return custom_collate_draft_1(batch, pad_token_id, device), pad_right(targets, pad_token_id).to(
        device
    )

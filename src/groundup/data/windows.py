"""Sliding windows over token ids: the course's dataset and loader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from groundup.errors import UserError
from groundup.tokenizers import Tokenizer, get_gpt2_tokenizer
from groundup.tokenizers.parts import encode_array


class TokenWindows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of ``max_length`` ids and, as targets, the same windows moved one token on.

    A window begins every ``stride`` tokens. They are views of one tensor of 4 bytes per token, so a
    text is held once however much its windows overlap; what is taken out of it is ``torch.long``.

    Args:
        token_ids: the text, ids ``(N,)`` as an array, a tensor or a list.
        max_length: tokens per window, T.
        stride: tokens from the beginning of one window to that of the next.
        starts: where each document begins ``(D,)``, in order, if batches are to say so.

    Raises:
        UserError: ``max_length`` or ``stride`` is below 1.
    """

    def __init__(
        self,
        token_ids: Sequence[int] | Tensor | np.ndarray,
        max_length: int,
        stride: int,
        *,
        starts: np.ndarray | None = None,
    ) -> None:
        for name, value in (("max_length", max_length), ("stride", stride)):
            if value < 1:
                raise UserError(f"{name} is {value}; expected at least 1")
        self.stride, self.starts = stride, starts
        ids = torch.as_tensor(token_ids, dtype=torch.int32)
        self.num_tokens = len(ids)
        if len(ids) > max_length:
            self.input_ids = ids[:-1].unfold(0, max_length, stride)  # (windows, T)
            self.target_ids = ids[1:].unfold(0, max_length, stride)  # (windows, T)
        else:
            self.input_ids = self.target_ids = ids.new_empty((0, max_length))

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        return self.input_ids[idx].long(), self.target_ids[idx].long()

    def collate(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Windows and their targets as a batch, each ``(B, T)``; and numbers of documents."""
        chosen = torch.tensor(rows)
        batch = self.input_ids[chosen].long(), self.target_ids[chosen].long()
        if self.starts is None:
            return batch
        begins = np.asarray(rows, dtype=np.int64) * self.stride
        return *batch, document_numbers(self.starts, begins, batch[0].shape[1])


def document_numbers(starts: np.ndarray, begins: np.ndarray, length: int) -> Tensor:
    """Which document each token of some windows is of, ``(B, length)``.

    Args:
        starts: where documents begin ``(D,)``, in order.
        begins: where the windows begin ``(B,)``.
        length: tokens of a window.
    """
    places = (begins[:, None] + np.arange(length)).astype(starts.dtype)
    return torch.from_numpy(np.searchsorted(starts, places, side="right"))


class GPTDatasetV1(TokenWindows):
    """The course's dataset: tokenize a text and cut it into :class:`TokenWindows`.

    Raises:
        UserError: the text has fewer than ``max_length + 1`` tokens.
    """

    def __init__(self, txt: str, tokenizer: Tokenizer, max_length: int, stride: int) -> None:
        token_ids = encode_array(tokenizer, txt, allowed_special={"<|endoftext|>"})
        if len(token_ids) <= max_length:
            raise UserError(
                f"the text has {len(token_ids)} tokens; one window needs max_length + 1 = "
                f"{max_length + 1}: use a longer text or a smaller max_length"
            )
        super().__init__(token_ids, max_length, stride)


def create_dataloader_v1(
    txt: str,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
    *,
    tokenizer: Tokenizer | None = None,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The course's loader over a text: batches of ids and targets, each ``(B, max_length)``.

    The tokenizer is GPT-2's unless another is given. Shuffling draws from PyTorch's global random
    generator, so ``torch.manual_seed`` gives the course's order.
    """
    dataset = GPTDatasetV1(txt, tokenizer or get_gpt2_tokenizer(), max_length, stride)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
    )

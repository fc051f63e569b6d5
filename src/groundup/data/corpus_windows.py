"""Windows over a corpus on the disk: read when asked for, so that memory does not grow with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from groundup.data.corpus import Corpus
from groundup.data.windows import document_numbers


class CorpusWindows:
    """:class:`~groundup.data.windows.TokenWindows` over a part of a corpus, read when asked for.

    Args:
        corpus: the corpus.
        begin: the part's first token.
        end: where it ends.
        max_length: tokens per window, T.
        stride: tokens from the beginning of one window to that of the next.
        documents: whether batches say which document each token is of.
    """

    def __init__(
        self,
        corpus: Corpus,
        begin: int,
        end: int,
        max_length: int,
        stride: int,
        *,
        documents: bool = False,
    ) -> None:
        self.corpus, self.begin, self.num_tokens = corpus, begin, end - begin
        self.max_length, self.stride, self.documents = max_length, stride, documents

    def __len__(self) -> int:
        return max(0, (self.num_tokens - 1 - self.max_length) // self.stride + 1)

    def collate(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Windows and their targets as a batch, each ``(B, T)``; and numbers of documents."""
        begins = self.begin + np.asarray(rows, dtype=np.int64) * self.stride
        length = self.max_length + 1
        read = np.stack([self.corpus.read(place, place + length) for place in begins.tolist()])
        ids = torch.from_numpy(read.astype(np.int64))
        batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        if not self.documents:
            return batch
        return *batch, document_numbers(self.corpus.starts, begins, self.max_length)

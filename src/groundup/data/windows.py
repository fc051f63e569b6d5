"""Sliding windows over token ids: the course's dataset and loader, and a loader that can resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from groundup.errors import UserError
from groundup.tokenizers import Tokenizer, get_gpt2_tokenizer


class TokenWindows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of ``max_length`` ids and, as targets, the same windows moved one token on.

    A window begins every ``stride`` tokens. They are views of one tensor, so a text is held once
    however much its windows overlap.

    Args:
        token_ids: the text, ids ``(N,)`` or a list.
        max_length: tokens per window, T.
        stride: tokens from the beginning of one window to that of the next.

    Raises:
        UserError: ``max_length`` or ``stride`` is below 1.
    """

    def __init__(self, token_ids: Sequence[int] | Tensor, max_length: int, stride: int) -> None:
        for name, value in (("max_length", max_length), ("stride", stride)):
            if value < 1:
                raise UserError(f"{name} is {value}; expected at least 1")
        ids = torch.as_tensor(token_ids, dtype=torch.long)
        self.num_tokens = len(ids)
        if len(ids) > max_length:
            self.input_ids = ids[:-1].unfold(0, max_length, stride)  # (windows, T)
            self.target_ids = ids[1:].unfold(0, max_length, stride)  # (windows, T)
        else:
            self.input_ids = self.target_ids = ids.new_empty((0, max_length))

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        return self.input_ids[idx], self.target_ids[idx]


class GPTDatasetV1(TokenWindows):
    """The course's dataset: tokenize a text and cut it into :class:`TokenWindows`.

    Raises:
        UserError: the text has fewer than ``max_length + 1`` tokens.
    """

    def __init__(self, txt: str, tokenizer: Tokenizer, max_length: int, stride: int) -> None:
        token_ids = tokenizer.encode(txt, allowed_special={"<|endoftext|>"})
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


class EpochOrder(Sampler[int]):
    """The order of one epoch: a shuffle that depends on the seed and the epoch's number alone."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.epoch, self.skip = 0, 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return iter(torch.randperm(self.size, generator=generator)[self.skip :].tolist())

    def __len__(self) -> int:
        return self.size


class ResumableLoader:
    """Shuffled batches of which any epoch can begin at any batch.

    ``start(epoch, batch)`` says where the next iteration begins; a run that was saved in the
    middle of an epoch goes on with exactly the batches it had not seen.
    """

    def __init__(self, dataset: TokenWindows, batch_size: int, seed: int) -> None:
        self.order = EpochOrder(len(dataset), seed)
        self.batch_size = batch_size
        # With fewer windows than one batch, the incomplete batch is better than none.
        self.drop_last = len(dataset) >= batch_size
        self.loader = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=self.order,
            drop_last=self.drop_last,
            generator=torch.Generator(),  # so that it leaves the global one alone
        )

    def start(self, epoch: int, batch: int) -> None:
        """Let the next iteration be the given epoch from the given batch on."""
        self.order.epoch, self.order.skip = epoch, batch * self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)


def evenly_spaced_batches(
    dataset: TokenWindows, batch_size: int, max_batches: int | None
) -> list[tuple[Tensor, Tensor]]:
    """Fixed batches for evaluation, spread over the whole dataset if it has more than asked for."""
    wanted = len(dataset) if max_batches is None else min(len(dataset), max_batches * batch_size)
    rows = torch.linspace(0, max(0, len(dataset) - 1), wanted).round().long()
    return [
        (dataset.input_ids[chunk], dataset.target_ids[chunk])
        for chunk in rows.split(batch_size)
        if len(chunk)
    ]

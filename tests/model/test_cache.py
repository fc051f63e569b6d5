from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import UserError
from groundup.model.cache import grown
from groundup.model.gpt import GPTModel
from tests.conftest import tiny_config


@pytest.fixture
def model() -> GPTModel:
    return GPTModel(tiny_config()).eval()


def padded(rows: Sequence[list[int]]) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [299] * (longest - len(row)) for row in rows])


def test_a_cache_grows_up_to_the_context_or_holds_what_is_asked_for(model: GPTModel) -> None:
    cache = model.new_cache(3)
    assert cache.shape == (3, 0)
    model(torch.zeros(3, 5, dtype=torch.long), cache)
    assert cache.layers[1].keys.shape == (3, 4, 16, 8)
    cache = model.new_cache(3, capacity=5)
    assert cache.layers[1].values.shape == (3, 4, 5, 8)
    model(torch.zeros(3, 5, dtype=torch.long), cache)
    with pytest.raises(UserError, match="the cache holds 5 tokens, but got 6"):
        model(torch.zeros(3, 1, dtype=torch.long), cache)


def test_memory_grows_by_doubling_and_no_further_than_it_may() -> None:
    assert [grown(tokens, 0, 1000) for tokens in (1, 64, 65)] == [64, 64, 128]
    assert [grown(tokens, 128, 1000) for tokens in (129, 300, 999)] == [256, 320, 1000]
    assert grown(10, 0, 40) == 40


@pytest.fixture
def uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("uninitialised_memory_is_nan")
def test_rows_that_come_go_and_grow_give_the_logits_of_each_alone(model: GPTModel) -> None:
    cache = model.new_cache(0)
    rows: list[list[int]] = []

    def extend(first: int, *counts: int) -> None:
        """Compute so many further tokens of these rows, and compare with each alone."""
        chosen = rows[first : first + len(counts)]
        lengths, T = [len(row) for row in chosen], max(counts)
        cache.resize(max(len(rows), cache.shape[0]), max(cache.shape[1], max(lengths) + T))
        new = [torch.randint(0, 300, (count,)).tolist() for count in counts]
        logits = model(padded(new), cache.rows(first, lengths, T))
        for row, ids, scores in zip(chosen, new, logits, strict=True):
            row += ids
            expected = model(torch.tensor([row]))[0, -len(ids) :]
            torch.testing.assert_close(scores[: len(ids)], expected, atol=1e-5, rtol=0)

    with torch.no_grad():
        rows += [[], [], []]
        extend(0, 7, 2, 5)
        extend(0, 1, 1, 1)
        extend(1, 3, 1)
        cache.swap_rows(0, 2, 8)
        rows[0], rows[2] = rows[2], rows[0]
        extend(0, 1, 1)
        cache.copy_row(1, 2, 4)
        rows[2] = rows[1][:4]
        extend(0, 2, 1, 6)
        rows.append([])
        extend(3, 4)
        extend(0, 1, 1, 1, 1)
        cache.resize(2, 12)
        del rows[2:]
        extend(0, 2, 1)
    assert [len(row) for row in rows] == [13, 10]


def test_only_rows_of_different_lengths_need_a_mask(
    model: GPTModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, prompts and single texts stay on the kernel's fast path."""
    calls: list[tuple[bool, bool]] = []  # (a mask, is_causal)
    kernel = F.scaled_dot_product_attention

    def spy(*args: Any, **options: Any) -> Tensor:
        calls.append((options["attn_mask"] is not None, options["is_causal"]))
        return kernel(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    idx = torch.zeros(2, 3, dtype=torch.long)
    cache, ragged = model.new_cache(2), model.new_cache(2, capacity=8)
    for run, expected in [
        (lambda: model(idx), (False, True)),
        (lambda: model(idx, cache), (False, True)),
        (lambda: model(idx[:, :1], cache), (False, False)),
        (lambda: model(idx, cache), (True, False)),
        (lambda: model(idx, ragged.rows(0, [0, 0], 3)), (False, True)),
        (lambda: model(idx[:, :1], ragged.rows(0, [2, 3], 1)), (True, False)),
    ]:
        calls.clear()
        run()
        assert calls == [expected] * model.cfg.n_layers

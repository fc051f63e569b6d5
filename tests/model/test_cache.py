from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import UserError
from groundup.model.cache import RaggedCache
from groundup.model.gpt import GPTModel
from tests.conftest import tiny_config


@pytest.fixture
def model() -> GPTModel:
    return GPTModel(tiny_config()).eval()


def padded(rows: Sequence[list[int]]) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [299] * (longest - len(row)) for row in rows])


def test_a_cache_holds_the_context_or_what_is_asked_for(model: GPTModel) -> None:
    assert model.new_cache(3).layers[1].keys.shape == (3, 4, 16, 8)
    cache = model.new_cache(3, capacity=5)
    assert cache.layers[1].values.shape == (3, 4, 5, 8)
    model(torch.zeros(3, 5, dtype=torch.long), cache)
    with pytest.raises(UserError, match="the cache holds 5 tokens, but got 6"):
        model(torch.zeros(3, 1, dtype=torch.long), cache)


@pytest.fixture
def uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("uninitialised_memory_is_nan")
def test_rows_that_come_go_and_grow_give_the_logits_of_each_alone(model: GPTModel) -> None:
    cache = RaggedCache(model.new_cache(3))
    rows: list[list[int]] = []

    def add(*lengths: int) -> None:
        new = [torch.randint(0, 300, (length,)).tolist() for length in lengths]
        logits = model(padded(new), cache.add(lengths))
        for row, scores in zip(new, logits, strict=True):
            torch.testing.assert_close(
                scores[: len(row)], model(torch.tensor([row]))[0], atol=1e-5, rtol=0
            )
        rows.extend(new)

    def step() -> None:
        for row in rows:
            row.append(int(torch.randint(0, 300, ())))
        logits = model(torch.tensor([row[-1:] for row in rows]), cache.step())
        for row, scores in zip(rows, logits, strict=True):
            expected = model(torch.tensor([row]))[0, -1]
            torch.testing.assert_close(scores[0], expected, atol=1e-5, rtol=0)

    def remove(place: int) -> None:
        cache.remove(place)
        rows[place] = rows[-1]
        rows.pop()

    with torch.no_grad():
        add(7, 2, 11)
        step()
        step()
        remove(0)  # the row of 13 tokens takes its place
        step()
        add(1)
        step()
        remove(2)
        step()  # of 16 and 7 tokens: the first is full
        remove(0)
        step()
        add(4, 9)
        step()
    assert cache.lengths == [len(row) for row in rows] == [9, 5, 10]


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
    cache, ragged = model.new_cache(2), RaggedCache(model.new_cache(2))
    for run, expected in [
        (lambda: model(idx), (False, True)),
        (lambda: model(idx, cache), (False, True)),
        (lambda: model(idx[:, :1], cache), (False, False)),
        (lambda: model(idx, cache), (True, False)),
        (lambda: model(idx, ragged.add([2, 3])), (False, True)),
        (lambda: model(idx[:, :1], ragged.step()), (True, False)),
    ]:
        calls.clear()
        run()
        assert calls == [expected] * model.cfg.n_layers

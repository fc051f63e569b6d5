import math
from typing import Any

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from groundup.decoding.config import SamplingConfig
from groundup.decoding.sampling import greedy, keep_top_k, keep_top_p, make_sampler
from groundup.errors import UserError

UNUSED: Any = None  # these warpers do not look at the ids


@pytest.mark.parametrize("k", [1, 5, 50])
def test_top_k_keeps_what_transformers_keeps(k: int) -> None:
    logits = torch.randn(4, 50)
    expected = TopKLogitsWarper(k)(UNUSED, logits)
    assert torch.equal(keep_top_k(logits, k), expected)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999, 1.0])
def test_top_p_keeps_what_transformers_keeps(p: float) -> None:
    logits = 3 * torch.randn(8, 50)
    expected = TopPLogitsWarper(p)(UNUSED, logits)
    assert torch.equal(keep_top_p(logits, p), expected)


def test_temperature_zero_is_greedy() -> None:
    logits = torch.randn(3, 20)
    assert torch.equal(make_sampler(0.0, top_k=5)(logits), greedy(logits))
    assert torch.equal(make_sampler(1e-9)(logits), greedy(logits))  # no overflow


def test_draws_follow_the_probabilities_of_temperature() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]]).expand(20_000, 3)
    for temperature in (0.5, 1.0, 2.0):
        sampler = make_sampler(temperature, generator=torch.Generator().manual_seed(1))
        freq = torch.bincount(sampler(logits), minlength=3) / len(logits)
        expected = torch.softmax(logits[0] / temperature, dim=-1)
        torch.testing.assert_close(freq, expected, atol=0.015, rtol=0)


def test_it_draws_as_the_course_does() -> None:
    """The course's own four lines, on the same global seed."""
    logits = torch.randn(1, 100)
    torch.manual_seed(123)
    top, _ = torch.topk(logits, 25)
    cut = torch.where(logits < top[:, -1], torch.tensor(float("-inf")), logits)
    expected = torch.multinomial(torch.softmax(cut / 1.4, dim=-1), num_samples=1)
    torch.manual_seed(123)
    assert torch.equal(make_sampler(1.4, top_k=25)(logits), expected[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; expected 0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 101}, "top_k is 101; expected 1 to 100"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0; expected 0 < top_p <= 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"top_k": 2.5}, "top_k is 2.5; expected a whole number"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SamplingConfig(**options).check(vocab_size=100)


@pytest.mark.parametrize("options", [{"top_k": 21}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 2.0}])
def test_a_sampler_refuses_senseless_options_too(options: dict) -> None:
    with pytest.raises(UserError, match="top_"):
        make_sampler(1.0, **options)(torch.randn(1, 20))
    with pytest.raises(UserError, match="temperature is -1"):
        make_sampler(-1.0)

import math

import pytest
import torch

from groundup.config import ModelConfig
from groundup.lessons.solutions_04 import (
    accumulate_gradients,
    bits_per_character,
    gradient_vector,
    warmup_then_line,
)
from groundup.model.gpt import GPTModel
from groundup.train.course import calc_loss_batch

SMALL = ModelConfig(
    vocab_size=50, context_length=8, emb_dim=12, n_heads=3, n_layers=2, drop_rate=0.0
)


def test_bits_per_character_of_guessing_among_256_bytes_are_8() -> None:
    assert bits_per_character(math.log(256), tokens=100, characters=100) == pytest.approx(8)
    # Tokens of 4 characters, each of 16 equally likely: 4 bits for 4 characters.
    assert bits_per_character(math.log(16), tokens=25, characters=100) == pytest.approx(1)


def test_gradients_of_unlike_batches_add_up_to_those_of_one() -> None:
    model, ids = GPTModel(SMALL), torch.randint(50, (4, 9))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    whole = calc_loss_batch(inputs, targets, model, "cpu")
    whole.backward()
    expected = gradient_vector(model)
    parts = [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]
    loss = accumulate_gradients(model, parts)
    assert loss == pytest.approx(whole.item())
    torch.testing.assert_close(gradient_vector(model), expected)
    assert expected.any()


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    rate = warmup_then_line(peak=0.1, warmup=4, steps=14)
    rates = [rate(step) for step in range(15)]
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert rates[13] == pytest.approx(0.01)
    assert rates[14] == 0
    falls = [a - b for a, b in zip(rates[4:], rates[5:], strict=False)]
    assert falls == pytest.approx([0.01] * 10)

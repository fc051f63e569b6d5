"""The course's small teaching pieces, with the numbers that the lecture prints."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groundup import UserError
from groundup.lessons.attention import INPUTS, WORDS, PyTorchMultiHeadAttention
from groundup.lessons.collate import custom_collate_draft_1, custom_collate_draft_2
from groundup.lessons.embedding import embedding_as_product, linear_as_embedding
from groundup.lessons.lora import LinearWithLoRA, LoRALayer, replace_linear_with_lora
from groundup.lessons.network import (
    ExampleDeepNeuralNetwork,
    find_highest_gradient,
    print_gradients,
)
from groundup.lessons.softmax import (
    NEXT_WORD_LOGITS,
    NEXT_WORDS,
    print_sampled_tokens,
    softmax_naive,
    softmax_with_temperature,
)
from groundup.lessons.train_model import train_model
from groundup.model.ladder import simple_attention
from groundup.model.lora import LoRALinear
from groundup.tokenizers import BPETokenizer

Print = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("use_shortcut", "expected"),
    [
        (False, [0.00020173587, 0.00012011159, 0.00071520521, 0.00139887353, 0.00504964469]),
        (True, [0.22169792, 0.20694106, 0.32896995, 0.26657325, 1.32585430]),
    ],
)
def test_gradients_vanish_without_shortcuts(
    use_shortcut: bool, expected: list[float], capsys: Print
) -> None:
    torch.manual_seed(123)
    model = ExampleDeepNeuralNetwork([3, 3, 3, 3, 3, 1], use_shortcut)
    print_gradients(model, torch.tensor([[1.0, 0.0, -1.0]]))
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"layers.\d.0.weight has gradient mean of (\S+)", x) for x in lines]
    assert [float(match[1]) for match in found if match] == pytest.approx(expected, rel=1e-5)


def test_a_network_of_other_sizes_is_refused() -> None:
    with pytest.raises(UserError, match="there are 3 layer_sizes; expected 6"):
        ExampleDeepNeuralNetwork([3, 3, 1], True)


def test_the_highest_gradient() -> None:
    model = nn.Linear(2, 1, bias=False)
    assert find_highest_gradient(model) is None
    (model(torch.tensor([[3.0, -5.0]])) * 2).sum().backward()
    assert find_highest_gradient(model) == 6  # not 10: it is no absolute value


def test_draws(capsys: Print) -> None:
    state = torch.get_rng_state()
    probabilities = softmax_with_temperature(NEXT_WORD_LOGITS, 1)
    print_sampled_tokens(probabilities)
    expected = ["73 x closer", "0 x every", "0 x effort", "582 x forward", "2 x inches"]
    expected += ["0 x moves", "0 x pizza", "343 x toward"]
    assert capsys.readouterr().out.splitlines() == expected
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's draws change
    print_sampled_tokens(torch.tensor([0.0, 1.0]), {0: "no", 1: "yes"}, draws=7)
    assert capsys.readouterr().out.splitlines() == ["0 x no", "7 x yes"]
    assert len(NEXT_WORDS) == len(NEXT_WORD_LOGITS) == 9


def test_softmax() -> None:
    x = torch.randn(7)
    torch.testing.assert_close(softmax_naive(x), torch.softmax(x, dim=0))
    assert softmax_naive(x + 100).isnan().any()
    torch.testing.assert_close(
        torch.softmax(x + 100, dim=0), torch.softmax(x, dim=0), atol=1e-5, rtol=0
    )


def test_temperature() -> None:
    cold, hot = (softmax_with_temperature(NEXT_WORD_LOGITS, t) for t in (0.1, 5))
    assert cold.max() > 0.99 and hot.max() < 0.3 and NEXT_WORDS[int(hot.argmax())] == "forward"
    torch.testing.assert_close(cold, torch.softmax(NEXT_WORD_LOGITS / 0.1, dim=0))
    for temperature in (0, -1, math.nan):
        with pytest.raises(UserError, match="temperature is .*; expected a number above 0"):
            softmax_with_temperature(NEXT_WORD_LOGITS, temperature)


def test_an_embedding_is_a_product() -> None:
    layer, ids = nn.Embedding(6, 3), torch.tensor([[2, 3], [5, 1]])
    assert torch.equal(embedding_as_product(ids, layer.weight), layer(ids))
    assert torch.equal(linear_as_embedding(ids, layer.weight), layer(ids))


def test_the_six_words() -> None:
    """The context vectors that the lecture prints of attention without weights."""
    assert len(WORDS) == len(INPUTS) == 6
    found = simple_attention(INPUTS)[:2]
    expected = torch.tensor([[0.4421, 0.5931, 0.5790], [0.4419, 0.6515, 0.5683]])
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)


def test_pytorchs_attention_drops_only_in_training() -> None:
    layer = PyTorchMultiHeadAttention(6, 4, 2, dropout=0.9)
    x = torch.randn(2, 5, 6)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x)) and layer(x).shape == (2, 5, 4)
    with pytest.raises(UserError, match=r"d_out \(5\) must be divisible by num_heads \(2\)"):
        PyTorchMultiHeadAttention(6, 5, 2)


def test_collate_drafts() -> None:
    """As the lecture prints them."""
    batch = [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
    inputs, targets = custom_collate_draft_2(batch)
    assert torch.equal(inputs, custom_collate_draft_1(batch))
    end = 50256
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, end, end, end], [7, 8, 9, end, end]]
    assert targets.tolist() == [[1, 2, 3, 4, end], [6, end, end, end, end], [8, 9, end, end, end]]
    assert batch == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]


def test_lora_is_the_one_that_trains_here() -> None:
    """With ``alpha * rank`` for alpha, and the thin matrices the other way round."""
    linear = nn.Linear(8, 6)
    course = LinearWithLoRA(linear, rank=2, alpha=3.0)
    ours = LoRALinear(linear, rank=2, alpha=3.0 * 2)
    nn.init.normal_(course.lora.B)
    with torch.no_grad():
        ours.A.copy_(course.lora.A.T)
        ours.B.copy_(course.lora.B.T)
    x = torch.randn(5, 8)
    torch.testing.assert_close(ours(x), course(x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(course(x), linear(x), atol=0.1)


def test_a_new_update_adds_nothing() -> None:
    layer = LoRALayer(8, 6, 2, 16)
    assert torch.equal(layer(torch.randn(3, 8)), torch.zeros(3, 6))
    assert layer.A.abs().max() <= 1 / 2**0.5  # Kaiming's bound, of the rank: PyTorch's second axis
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.GELU(), nn.Linear(4, 2)))
    replace_linear_with_lora(model, 1, 2.0)
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(LinearWithLoRA) == kinds.count(LoRALayer) == 2


def test_a_warmup_as_long_as_the_training_is_refused(tokenizer: BPETokenizer) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = [(torch.zeros(1, 1), torch.zeros(1, 1))] * 3
    for steps in (0, 6):
        with pytest.raises(UserError, match=f"warmup_steps is {steps}; expected 1 to 5 of 6"):
            train_model(
                *(model, loader, loader, optimizer, "cpu", 2, 1, 1, "x", tokenizer),
                warmup_steps=steps,
            )


def test_naive_softmax_is_over_the_first_dimension() -> None:
    x = torch.randn(4, 3)
    torch.testing.assert_close(softmax_naive(x), F.softmax(x, dim=0))

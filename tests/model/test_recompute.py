"""Blocks that are computed twice give the same bits, and keep less."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from groundup.model.activations import activation_bytes_of
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.model.recompute import keep_activations, recompute_blocks
from groundup.model.watch import watch
from tests.conftest import tiny_config


def gradients(model: GPTModel, **how: Tensor) -> dict[str, Tensor]:
    """Of a loss, drawn with the same random numbers every time."""
    torch.manual_seed(5)
    idx = torch.randint(0, 300, (3, 16))
    model.zero_grad(set_to_none=True)
    model(idx, targets=idx.roll(-1, 1), **how).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def lora() -> GPTModel:
    model = add_lora(GPTModel(tiny_config(drop_rate=0.2)).init_gpt2(), 2, 4.0, 0.3)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            parameter.data.normal_(std=0.02)
    return model


def frozen() -> GPTModel:
    model = GPTModel(tiny_config(drop_rate=0.2)).init_gpt2().requires_grad_(False)
    model.trf_blocks[-1].requires_grad_(True)
    return model


MODELS: dict[str, Callable[[], GPTModel]] = {
    "plain": lambda: GPTModel(tiny_config(drop_rate=0.2)).init_gpt2(),
    "lora": lora,
    "frozen": frozen,
}


def _counted(inner: Callable[..., Tensor], calls: list[int], *args: Any) -> Tensor:
    calls.append(1)
    return inner(*args)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_the_same_bits(kind: str, bf16: bool) -> None:
    model = MODELS[kind]()
    names = list(model.state_dict())
    documents = torch.arange(16).div(5, rounding_mode="floor").expand(3, 16)
    calls: list[int] = []
    for block in cast(Any, model.trf_blocks):  # no hook, since who looks in has it computed once
        block.att._split_heads = partial(_counted, block.att._split_heads, calls)
    for how in ({}, {"documents": documents}):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            calls.clear()
            expected = gradients(model, **how)
            once = len(calls)
            recompute_blocks(model)
            recompute_blocks(model)  # once is enough
            found = gradients(model, **how)
            assert len(calls) - once > once  # it was computed again
            keep_activations(model)
        assert expected.keys() == found.keys() and expected
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert list(model.state_dict()) == names


def test_a_copy_is_independent() -> None:
    model = MODELS["plain"]()
    recompute_blocks(model)
    double = copy.deepcopy(model)
    expected = gradients(double)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(expected[n], g) for n, g in gradients(double).items())


def test_who_watches_sees_one_call_and_gets_the_same_gradients() -> None:
    model = GPTModel(tiny_config()).init_gpt2()
    recompute_blocks(model)
    idx = torch.randint(0, 300, (2, 16))
    with watch(model, keep=None) as seen:
        loss = model(idx, targets=idx)
    loss.backward()  # when nobody looks any more
    found = {n: p.grad for n, p in model.named_parameters()}
    assert len(seen._calls) == 1 and seen.attention[1].shape == (2, 4, 16, 16)
    keep_activations(model)
    model.zero_grad(set_to_none=True)
    with watch(model):
        model(idx, targets=idx).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad)


def test_what_is_kept_is_counted() -> None:
    """Autograd's own tensors are those of one block; of the others it has what enters them."""
    cfg = tiny_config(n_layers=4)
    model = GPTModel(cfg)
    plain = activation_bytes_of(model, 3, 16, "fp32")
    less = activation_bytes_of(model, 3, 16, "fp32", checkpointing=True)
    recompute_blocks(model)
    assert activation_bytes_of(model, 3, 16, "fp32") == plain  # whatever the model is set to
    one = activation_bytes_of(GPTModel(cfg.replace(n_layers=1)), 3, 16, "fp32")
    assert less == one + 3 * (3 * 16 * cfg.emb_dim * 4) < plain / 2

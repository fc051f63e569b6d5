import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from groundup.errors import UserError
from groundup.model.door import token_loss
from groundup.model.gpt import GPTModel
from groundup.model.linear import Linear
from groundup.model.lora import (
    LoRALinear,
    add_lora,
    has_lora,
    lora_layers,
    merge_lora,
)
from tests.conftest import tiny_config

IDX = torch.arange(12)[None]


def make(**changes: object) -> GPTModel:
    model = GPTModel(tiny_config(**changes)).init_gpt2().eval()
    for p in model.parameters():  # so that biases and norms matter
        p.data += 0.05 * torch.randn_like(p)
    return model


def trained(model: GPTModel) -> GPTModel:
    """As if the updates had been trained."""
    for p in updates(model).values():
        p.data.normal_(0, 0.2)
    return model


def updates(model: GPTModel) -> dict[str, nn.Parameter]:
    """What trains, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_computes_the_formula(bias: bool) -> None:
    linear = nn.Linear(6, 4, bias=bias)
    W, b = linear.weight.clone(), linear.bias.clone() if bias else torch.zeros(4)
    layer = LoRALinear(linear, rank=2, alpha=3)
    layer.B.data.normal_()
    x = torch.randn(2, 5, 6)
    expected = x @ W.T + b + 3 / 2 * x @ (layer.B @ layer.A).T
    torch.testing.assert_close(layer(x), expected)
    plain = layer.merged()
    assert type(plain) is Linear and (plain.bias is not None) == bias
    torch.testing.assert_close(plain(x), expected)
    for p in plain.parameters():  # a new layer: what is done to it is not done to the other
        assert p.requires_grad
        p.data.zero_()
    torch.testing.assert_close(layer(x), expected)
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["A", "B"]


def test_it_begins_as_in_the_papers_code() -> None:
    layer = LoRALinear(nn.Linear(400, 300), rank=50)
    assert layer.A.shape == (50, 400) and layer.B.shape == (300, 50)
    bound = 1 / math.sqrt(400)  # kaiming_uniform_ with a = sqrt(5)
    assert 0.99 * bound < layer.A.abs().max() <= bound
    assert abs(layer.A.std().item() - bound / math.sqrt(3)) < 0.01 * bound
    assert not layer.B.any()


def test_dropout_is_for_training_and_for_the_update_only() -> None:
    layer = LoRALinear(nn.Linear(8, 8), rank=8, dropout=0.5)
    x = torch.randn(1000, 8)
    with torch.no_grad():
        base = layer(x)
        layer.B.normal_()
        dropped = layer.train()(x) - base
        kept = layer.eval()(x) - base
        assert not torch.allclose(dropped, kept)
        # It drops inputs and doubles the others: right on average, over many draws.
        mean = torch.stack([layer.train()(x[:1]) - base[:1] for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, kept[:1], atol=0.25 * kept[:1].abs().max().item(), rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_a_new_update_changes_nothing(training: bool) -> None:
    model = make(drop_rate=0.2).train(training)
    torch.manual_seed(5)
    with torch.no_grad():
        before = model(IDX)
    assert add_lora(model, rank=4) is model
    assert all(module.training == training for module in model.modules())
    torch.manual_seed(5)
    with torch.no_grad():
        assert torch.equal(model(IDX), before)


def test_a_seed_gives_an_adapter() -> None:
    model = make()
    torch.manual_seed(3)
    first = updates(add_lora(copy.deepcopy(model)))
    torch.manual_seed(3)
    again = updates(add_lora(copy.deepcopy(model)))
    other = updates(add_lora(copy.deepcopy(model)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[n], other[n]) for n in first if n.endswith(".A"))


def test_only_the_updates_are_trainable_and_the_old_names_stay() -> None:
    model = make()
    before, count = list(model.state_dict()), model.num_parameters()
    assert not has_lora(model)
    add_lora(model, rank=4)
    assert has_lora(model) and len(lora_layers(model)) == 2 * 6
    assert type(model.out_head) is Linear and model.out_head.weight is model.tok_emb.weight
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable == [f"{name}.{part}" for name in lora_layers(model) for part in "AB"]
    assert trainable[:2] == ["trf_blocks.0.att.W_query.A", "trf_blocks.0.att.W_query.B"]
    assert set(model.state_dict()) == set(before) | set(trainable)
    # Per block four layers of 32 x 32, and two of 32 x 128.
    added = sum(p.numel() for p in updates(model).values())
    assert added == 2 * 4 * (4 * (32 + 32) + 2 * (32 + 128))
    assert model.num_parameters() == count + added
    assert "rank=4, alpha=16" in repr(model)


def test_some_layers_only() -> None:
    model = add_lora(make(), targets=("W_query", "trf_blocks.1.ff.layers.0"))
    assert list(lora_layers(model)) == [
        "trf_blocks.0.att.W_query",
        "trf_blocks.1.att.W_query",
        "trf_blocks.1.ff.layers.0",
    ]


@pytest.mark.parametrize("bias", [True, False])
def test_merging_restores_a_plain_model(bias: bool) -> None:
    model = make(qkv_bias=bias)
    before = model.state_dict()
    copies = {name: tensor.clone() for name, tensor in before.items()}
    kinds = [type(module) for module in model.modules()]
    trained(add_lora(model, rank=4, alpha=8))
    with torch.no_grad():
        expected = model(IDX)
        assert merge_lora(model) is model
        torch.testing.assert_close(model(IDX), expected, atol=1e-5, rtol=0)
    assert not has_lora(model)
    assert [type(module) for module in model.modules()] == kinds
    assert list(model.state_dict()) == list(before)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.modules())
    # Who still holds the old matrices holds the old numbers.
    assert all(torch.equal(before[name], copies[name]) for name in before)
    GPTModel(model.cfg).load_state_dict(model.state_dict())


def test_merging_nothing_changes_nothing() -> None:
    model = make().requires_grad_(False)
    before = model.state_dict()
    merge_lora(model)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("tie", [True, False])
def test_training_moves_the_updates_and_nothing_else(tie: bool) -> None:
    model = add_lora(make(tie_weights=tie), rank=4).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs, targets = IDX[:, :-1], IDX[:, 1:]
    optimizer = torch.optim.AdamW(updates(model).values(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = token_loss(model, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == set(updates(model))


def test_a_new_output_layer_is_trained_beside_them() -> None:
    model = add_lora(make())
    model.out_head = nn.Linear(32, 2, bias=False)
    model(IDX)[:, -1].sum().backward()
    assert model.out_head.weight.grad is not None
    assert model.tok_emb.weight.grad is None
    assert updates(model)["trf_blocks.0.att.W_query.B"].grad is not None


def test_the_updates_alone_can_be_kept_and_given_back() -> None:
    model = trained(add_lora(make(), targets=["out_proj"]))
    kept = {name: tensor.clone() for name, tensor in updates(model).items()}
    assert list(kept) == [f"trf_blocks.{i}.att.out_proj.{part}" for i in (0, 1) for part in "AB"]
    with torch.no_grad():
        expected = model(IDX)
        trained(model)
        model.load_state_dict(kept, strict=False)
        assert torch.equal(model(IDX), expected)


def test_the_cache_works_as_before() -> None:
    model = trained(add_lora(make()))
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(part, cache) for part in IDX.split([5, 1, 6], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(IDX), atol=1e-5, rtol=0)


def test_gpt2s_initialisation_still_finds_the_layers() -> None:
    model = add_lora(GPTModel(tiny_config(emb_dim=128, n_layers=8))).init_gpt2()
    for name, std in (("att.W_query", 0.02), ("att.out_proj", 0.005), ("ff.layers.2", 0.005)):
        layer = lora_layers(model)[f"trf_blocks.3.{name}"]
        assert abs(layer.weight.std().item() / std - 1) < 0.05
        assert layer.bias is not None and not layer.bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "the LoRA rank is 0; expected 1 to 32"),
        ({"rank": 33}, "the LoRA rank is 33; expected 1 to 32"),
        ({"alpha": 0}, "the LoRA alpha is 0; expected a number above 0"),
        ({"alpha": math.nan}, "the LoRA alpha is nan"),
        ({"dropout": 1.0}, "the LoRA dropout is 1.0; expected 0 <= dropout < 1"),
        ({"targets": ()}, "no LoRA targets were given; there are: W_query"),
        (
            {"targets": ["W_qery"]},
            "unknown LoRA target 'W_qery'; did you mean 'W_query'.*there are",
        ),
        ({"targets": ["layers.1"]}, "unknown LoRA target 'layers.1'"),  # that is GELU
        ({"targets": ["out_head"]}, "unknown LoRA target 'out_head'"),
        ({"rank": -1, "targets": ["x"]}, "unknown LoRA target 'x'; there are.*the LoRA rank is -1"),
    ],
)
def test_what_cannot_be_is_refused_and_the_model_is_as_it_was(
    options: dict[str, Any], message: str
) -> None:
    model = make()
    with pytest.raises(UserError, match=message):
        add_lora(model, **options)
    assert not has_lora(model) and all(p.requires_grad for p in model.parameters())


def test_one_update_per_layer() -> None:
    model = add_lora(make())
    with pytest.raises(UserError, match="has LoRA layers already"):
        add_lora(model)
    add_lora(merge_lora(model))


def test_a_layers_rank_is_at_most_its_smaller_side() -> None:
    LoRALinear(nn.Linear(9, 4), rank=4)
    with pytest.raises(UserError, match="the LoRA rank is 5; expected 1 to 4"):
        LoRALinear(nn.Linear(9, 4), rank=5)

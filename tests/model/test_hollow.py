"""A hollow model has shapes and nothing else."""

import torch
from torch import nn

from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.hollow import hollow
from tests.conftest import tiny_config


def test_it_has_the_shapes_and_nothing_is_drawn() -> None:
    real = GPTModel(tiny_config())
    before = torch.get_rng_state()
    with hollow():
        made = to_classifier(GPTModel(tiny_config()), 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert {p.device.type for p in made.parameters()} == {"meta"}
    theirs = {name: p.shape for name, p in to_classifier(real, 3).named_parameters()}
    assert {name: p.shape for name, p in made.named_parameters()} == theirs


def test_afterwards_numbers_are_drawn_again() -> None:
    with hollow():
        nn.init.normal_(tensor=torch.empty(3))
    weight = torch.zeros(3)
    assert nn.init.ones_(weight) is weight and weight.sum() == 3
    assert nn.Linear(2, 2).weight.device.type == "cpu"

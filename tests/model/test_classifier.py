from typing import get_args

import pytest
import torch
from torch import nn

from groundup.config import Train
from groundup.errors import UserError
from groundup.model.classifier import is_classifier, set_trainable, to_classifier
from groundup.model.gpt import GPTModel
from tests.conftest import tiny_config

BLOCK, NORM, HEAD = "trf_blocks.{}.", ("final_norm.",), ("out_head.",)

EXPECTED: dict[Train, tuple[str, ...]] = {
    "head": HEAD,
    "last-block": (BLOCK.format(2), *NORM, *HEAD),
    "last-two-blocks": (BLOCK.format(1), BLOCK.format(2), *NORM, *HEAD),
    "all": ("",),
}


def make(classes: int = 0, **changes: object) -> GPTModel:
    model = GPTModel(tiny_config(n_layers=3, **changes))
    return to_classifier(model, classes) if classes else model


def trainable(model: GPTModel) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_a_new_output_layer() -> None:
    model = make(tie_weights=True)
    embedding = model.tok_emb.weight.clone()
    assert to_classifier(model, 3) is model
    assert model(torch.arange(8)[None]).shape == (1, 8, 3)
    assert model.out_head.bias is None and not model.cfg.tie_weights
    assert 0.01 < model.out_head.weight.std() < 0.03
    assert torch.equal(model.tok_emb.weight, embedding)
    assert is_classifier(model) and not is_classifier(make())


def test_its_place_and_precision_are_the_models() -> None:
    with torch.device("meta"):
        assert to_classifier(GPTModel(tiny_config()), 2).out_head.weight.is_meta
    assert to_classifier(make().double(), 2).out_head.weight.dtype == torch.float64


@pytest.mark.parametrize(("classes", "problem"), [(1, "at least 2"), (300, "vocabulary's size")])
def test_impossible_numbers_of_classes(classes: int, problem: str) -> None:
    with pytest.raises(UserError, match=f"num_classes is {classes}.*{problem}"):
        make(classes)


@pytest.mark.parametrize("train", EXPECTED)
def test_what_trains(train: Train) -> None:
    model = make(2)
    model.requires_grad_(False)  # what was before does not matter
    model.tok_emb.requires_grad_(True)
    assert set_trainable(model, train) is model
    names = {name for name, _ in model.named_parameters()}
    assert trainable(model) == {name for name in names if name.startswith(EXPECTED[train])}


def test_the_courses_biased_head_trains_too() -> None:
    model = make()
    model.out_head = nn.Linear(32, 2)
    assert {"out_head.weight", "out_head.bias"} <= trainable(set_trainable(model, "last-block"))


def test_a_tied_output_layer_trains_only_with_all() -> None:
    model = set_trainable(make(tie_weights=True), "last-block")
    names = {name for name, _ in model.named_parameters()}
    assert trainable(model) == {n for n in names if n.startswith(EXPECTED["last-block"][:2])}
    assert "tok_emb.weight" in trainable(set_trainable(model, "all"))
    with pytest.raises(UserError, match="token embedding as well .* use last-block"):
        set_trainable(model, "head")


def test_more_blocks_than_there_are() -> None:
    model = set_trainable(to_classifier(GPTModel(tiny_config(n_layers=1)), 2), "last-two-blocks")
    assert {name.split(".")[0] for name in trainable(model)} == (
        {"trf_blocks", "final_norm", "out_head"}
    )


@pytest.mark.parametrize("train", ["lora", "last", ""])
def test_unknown_parts(train: Train) -> None:
    choices = ", ".join(name for name in get_args(Train) if name != "lora")
    with pytest.raises(UserError, match=f"train is '{train}'; expected one of {choices}$"):
        set_trainable(make(2), train)

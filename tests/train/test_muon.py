"""Muon is PyTorch's where that is fast, and does what its formula says."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tasks.pretrain import pretrain
from groundup.train import muon
from groundup.train.config import TrainConfig
from groundup.train.interrupt import StopRequest
from groundup.train.muon import Muon, orthogonal
from groundup.train.optim import build_optimizer
from groundup.train.state import FOLDER, TENSORS
from tests.conftest import LAST, TEXT, facts_of, tiny_config

SHAPES = [(8, 8), (8, 8), (8, 24), (24, 8), (24, 8)]
CONFIG = TrainConfig(optimizer="muon", learning_rate=0.02)


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def pull(parameters: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
def test_it_is_pytorchs_in_bf16(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "AT_ONCE", at_once)
    ours, theirs = matrices(), matrices()
    other = nn.Parameter(torch.ones(3))
    how: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1}
    a = Muon(
        {"params": ours, "weight_decay": 0.1}, [{"params": [other]}], lr=0.02, dtype=torch.bfloat16
    )
    b = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **how)
    for step in range(5):
        pull(ours, step)
        pull(theirs, step)
        a.step()
        b.step()
        for x, y in zip(ours, theirs, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


def test_fp32_is_near_it_and_brings_singular_values_near_one() -> None:
    for shape in SHAPES:
        matrix = torch.randn(1, *shape)
        values = torch.linalg.svdvals(orthogonal(matrix)[0])
        assert 0.5 < values.min() and values.max() < 1.3
        # The same singular vectors: U V^T times its transpose has no other direction.
        u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
        assert (u.T @ orthogonal(matrix)[0] @ v.T).fill_diagonal_(0).abs().max() < 1e-3
        half = orthogonal(matrix, torch.bfloat16)
        torch.testing.assert_close(half.float(), orthogonal(matrix), rtol=0.1, atol=0.1)
    assert not orthogonal(torch.zeros(1, 4, 4)).any()  # LoRA's first gradient


def test_the_rest_has_adamw() -> None:
    model = GPTModel(tiny_config()).init_gpt2()
    double = copy.deepcopy(model)
    ours = build_optimizer(model, CONFIG)
    theirs = build_optimizer(double, TrainConfig(learning_rate=0.02))
    assert type(ours) is Muon and isinstance(theirs, torch.optim.AdamW)
    groups = [len(g["params"]) for g in ours.param_groups]
    assert sum(groups) == len(list(model.parameters())) and groups[0] == 2 * 6
    idx = torch.randint(0, 300, (3, 16))
    before = copy.deepcopy(model.state_dict())
    for each, optimizer in ((model, ours), (double, theirs)):
        each(idx, targets=idx).backward()
        optimizer.step()
    theirs_now = double.state_dict()
    for name, value in model.state_dict().items():
        is_muons = name.startswith("trf_blocks.") and value.dim() == 2
        assert torch.equal(value, theirs_now[name]) != is_muons
        assert not torch.equal(value, before[name])
        if is_muons:  # steps as long as AdamW's usual ones, 0.2 to 0.4 of the learning rate
            change = (value - before[name] * (1 - 0.02 * 0.1)).square().mean().sqrt() / 0.02
            assert 0.15 < change < 0.25


def test_only_blocks_matrices_and_only_if_they_train() -> None:
    model = GPTModel(tiny_config()).requires_grad_(False)
    model.out_head.requires_grad_(True)
    with pytest.raises(UserError, match="for the matrices of blocks, and none of them trains"):
        build_optimizer(model, CONFIG)


class After(StopRequest):
    """Is asked to stop when it has been looked at so many times: once in the beginning, and once
    after each step."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        super().__init__()

    @property
    def requested(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.looks -= 1
        return self.looks < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def test_a_run_goes_on_with_it_to_the_bit(tmp_path: Path) -> None:
    shape = {"context_length": 16, "emb_dim": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 300}
    how: dict[str, Any] = {"optimizer": "muon", "batch_size": 4, "sample_tokens": 0, "threads": 1}
    how |= {"precision": "fp32", "lr_schedule": "linear", "warmup_steps": 2, "max_steps": 12}
    quiet: dict[str, Any] = {"say": lambda text: None}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain([TEXT * 20], whole, how, shape, **quiet)
    record = pretrain([TEXT * 20], parts, how, shape, stop=After(5), **quiet)
    assert 1 <= record["step"] < 12
    pretrain([TEXT * 20], parts, resume=True, **quiet)
    for name in ("model.safetensors", f"{FOLDER}/{TENSORS}"):
        ours, theirs = (load_file(out / LAST / name) for out in (parts, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert facts_of(whole).options["optimizer"] == "muon"
    with pytest.raises(UserError, match="would change optimizer 'muon' to 'adamw'"):
        pretrain([TEXT * 20], whole, {"max_steps": 14, "optimizer": "adamw"}, resume=True, **quiet)

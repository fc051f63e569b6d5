"""Activation checkpointing, Muon and compiling work in several processes too."""

from typing import Any

import torch
from torch import Tensor

from groundup.model.gpt import GPTModel
from groundup.model.recompute import recompute_blocks
from groundup.train.compiling import compile_training
from groundup.train.config import TrainConfig
from groundup.train.objective import NextToken
from groundup.train.optim import build_optimizer
from groundup.train.parallel import share_work
from groundup.train.world import World, connect
from tests.conftest import tiny_config
from tests.train.loops import CPU, loader
from tests.train.together import together

CONFIG = TrainConfig(optimizer="muon", learning_rate=0.01)


def trained(world: World, how: str, *, again: bool, compiled: bool = False) -> list[Tensor]:
    """The weights after three steps on four texts that the processes share."""
    torch.manual_seed(1)
    model = GPTModel(
        tiny_config(emb_dim=36, n_layers=1)
    ).init_gpt2()  # rows that don't divide evenly
    if again:
        recompute_blocks(model)
    parallel = share_work(model, world, how)
    if compiled:
        said: list[str] = []
        what = loader(4), NextToken(), CPU, 1, 10, said.append
        asked = compile_training(parallel, *what, asked=True)
        assert asked == ("off" if how == "fsdp" else "on"), said
    optimizer = build_optimizer(model, CONFIG)
    idx = torch.randint(0, 300, (4, 16), generator=torch.Generator().manual_seed(2))
    mine = idx[world.rank :: world.size]
    for _ in range(3):
        optimizer.zero_grad()
        with parallel.micro_step(last=True):
            loss = NextToken().loss(parallel.trained, (mine, mine.roll(-1, 1)))
            (loss * world.size / idx.numel()).backward()
        optimizer.step()
    return [parallel.whole(p.detach()).clone() for p in model.parameters()]


def _in_two() -> None:
    torch.compile = _eagerly
    with connect() as world:
        alone = trained(World(), "auto", again=False)
        for how in ("ddp", "fsdp"):
            plain = trained(world, how, again=False)
            again = trained(world, how, again=True, compiled=False)
            assert all(torch.equal(x, y) for x, y in zip(plain, again, strict=True))
            for x, y in zip(plain, alone, strict=True):
                torch.testing.assert_close(x, y, rtol=0, atol=1e-4)
            compiled = trained(world, how, again=False, compiled=True)
            for x, y in zip(plain, compiled, strict=True):
                torch.testing.assert_close(x, y, rtol=0, atol=1e-4)


_COMPILE = torch.compile


def _eagerly(module: Any) -> Any:
    return _COMPILE(module, backend="eager")


def test_two_processes_give_what_one_gives() -> None:
    together(2, f"{__name__}:_in_two")

"""Activation checkpointing, Muon and compiling work in several processes too."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from groundup.model.gpt import GPTModel
from groundup.model.recompute import recompute_blocks
from groundup.runtime import Precision
from groundup.train.compiling import compile_training
from groundup.train.config import TrainConfig
from groundup.train.muon import Muon
from groundup.train.objective import NextToken
from groundup.train.optim import build_optimizer
from groundup.train.parallel import share_work
from groundup.train.world import World, connect
from tests.conftest import tiny_config
from tests.train.loops import CPU, loader
from tests.train.together import together

CONFIG = TrainConfig(optimizer="muon", learning_rate=0.01)


def trained(
    world: World, how: str, *, again: bool, compiled: bool = False, precision: Precision = "fp32"
) -> list[Tensor]:
    """The weights after three steps on four texts that the processes share."""
    runtime = replace(CPU, precision=precision)
    torch.manual_seed(1)
    model = GPTModel(
        tiny_config(emb_dim=36, n_layers=1)
    ).init_gpt2()  # rows that don't divide evenly
    if again:
        recompute_blocks(model)
    parallel = share_work(model, world, how, precision)
    if compiled:
        said: list[str] = []
        what = loader(4), NextToken(), runtime, 1, 10, said.append
        asked = compile_training(parallel, *what, asked=True)
        assert asked == ("off" if how == "fsdp" else "on"), said
    optimizer = build_optimizer(model, CONFIG)
    assert isinstance(optimizer, Muon)
    optimizer.dtype = torch.float32  # bf16, where that is fast, would make more of a last bit
    idx = torch.randint(0, 300, (4, 16), generator=torch.Generator().manual_seed(2))
    mine = idx[world.rank :: world.size]
    for _ in range(3):
        optimizer.zero_grad()
        with parallel.micro_step(last=True), runtime.autocast():
            loss = NextToken().loss(parallel.trained, (mine, mine.roll(-1, 1)))
            (loss * world.size / idx.numel()).backward()
        optimizer.step()
    return [parallel.whole(p.detach()).clone() for p in model.parameters()]


def _bf16(world: World) -> None:
    """Shards are gathered in bf16, and give what autocast gives; what is kept stays fp32."""
    alone = trained(World(), "auto", again=False, precision="bf16")
    exact = trained(World(), "auto", again=False)
    dtypes: set[tuple[str, torch.dtype]] = set()

    def look(module: nn.Module, given: object) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            dtypes.add((f"{type(module).__name__}.{name}", parameter.dtype))

    with register_module_forward_pre_hook(look):
        ours = trained(world, "fsdp", again=False, precision="bf16")
    again = trained(world, "fsdp", again=True, precision="bf16")
    of_blocks = {name for name, dtype in dtypes if dtype == torch.bfloat16}
    assert of_blocks == {"Linear.weight", "Linear.bias"}, dtypes
    assert {"LayerNorm.scale", "Embedding.weight"} <= {n for n, d in dtypes if d == torch.float32}
    far = max((x - y).abs().max().item() for x, y in zip(alone, exact, strict=True))
    for x, y, z in zip(ours, alone, again, strict=True):
        assert x.dtype == torch.float32 and torch.equal(x, z)
        assert (x - y).abs().max() < far
    assert 0 < far < 0.1


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
        _bf16(world)


_COMPILE = torch.compile


def _eagerly(module: Any) -> Any:
    return _COMPILE(module, backend="eager")


def test_two_processes_give_what_one_gives() -> None:
    together(2, f"{__name__}:_in_two")

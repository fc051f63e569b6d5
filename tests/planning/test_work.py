"""Operations and bytes against the formulas that others use."""

from dataclasses import replace

import pytest

from groundup.config import preset
from groundup.model.activations import activations
from groundup.model.report import costs
from groundup.planning.memory import Need, Strategy
from groundup.planning.work import Work, communication, step_flops
from groundup.runtime import Precision


def need(strategy: Strategy, devices: int, *, checkpointing: bool = False) -> Need:
    cfg = preset("gpt2-xl")
    found = costs(cfg)
    return Need(
        cfg,
        found.unique_parameters,
        found.block_parameters,
        activations(cfg, "bf16", "gpu"),
        strategy,
        devices,
        "bf16",
        "gpu",
        checkpointing,
    )


@pytest.mark.parametrize("name", ["gpt2-small", "gpt2-xl"])
def test_operations_are_nanogpts(name: str) -> None:
    """``estimate_mfu``: ``6 N + 12 L H Q T`` per token, N without positions."""
    cfg = preset(name)
    found = costs(cfg)
    N = found.unique_parameters - cfg.context_length * cfg.emb_dim
    L, H, Q, T = cfg.n_layers, cfg.n_heads, cfg.head_size, cfg.context_length
    assert found.training_flops == pytest.approx(6 * N + 12 * L * H * Q * T, rel=0.001)


def test_checkpointing_computes_a_fourth_forward_pass() -> None:
    plain, twice = need("ddp", 8), need("ddp", 8, checkpointing=True)
    assert step_flops(plain, 10.0, 7) == 3 * 70 and step_flops(twice, 10.0, 7) == 4 * 70


def test_bytes_that_are_sent() -> None:
    P = 1_557_611_200
    assert communication(need("alone", 1), 4) == 0
    assert communication(need("ddp", 8), 4) == pytest.approx(2 * 7 / 8 * 4 * P)
    # ZeRO's third stage sends 3 times the parameters, half more than DDP (section 7.2.2).
    fsdp = need("fsdp", 8)
    whole = communication(replace(fsdp, precision="fp32"), 1)
    assert 2.9 * 7 / 8 * 4 * P < whole < 3 * 7 / 8 * 4 * P  # embeddings are gathered once
    bf16 = communication(fsdp, 1)  # blocks are gathered twice, in half the bytes
    assert whole - bf16 == pytest.approx(7 / 8 * 2 * 2 * (P - fsdp.outside_parameters))
    again = communication(fsdp, 2) - bf16
    assert again == pytest.approx(bf16)  # gathered and dealt out again


def work(strategy: Strategy, devices: int, texts: int, count: int = 1) -> Work:
    forward = costs(preset("gpt2-xl")).forward_flops
    return Work(need(strategy, devices), forward, texts, count, 400e12, 0.4, 50e9)


def test_sending_hides_behind_computing() -> None:
    slow = work("fsdp", 8, 1)
    assert slow.exchange > slow.compute and slow.fastest == slow.exchange
    fast = work("fsdp", 8, 64)
    assert fast.fastest == fast.compute < fast.slowest == fast.compute + fast.exchange
    ddp = work("ddp", 8, 1)  # only the backward pass hides it
    assert ddp.fastest == pytest.approx(ddp.exchange + ddp.compute / 3)
    assert work("ddp", 8, 64, 8).fastest == work("ddp", 8, 64, 8).compute


def test_where_scaling_stops_is_where_both_take_as_long() -> None:
    cases: list[tuple[Strategy, Precision]]
    cases = [("ddp", "bf16"), ("fsdp", "bf16"), ("fsdp", "fp32")]
    for strategy, precision in cases:
        begun = work(strategy, 8, 128)
        begun = replace(begun, need=replace(begun.need, precision=precision))
        stop = begun.most_devices()
        texts = begun.step_tokens / 1024 / stop
        compute = step_flops(begun.need, begun.forward, texts * 1024) / (400e12 * 0.4)
        need_there = replace(work(strategy, round(stop), 1).need, precision=precision)
        sent = communication(need_there, 1) / 50e9
        assert compute == pytest.approx(sent, rel=0.05)
        assert begun.least_tokens() == pytest.approx(texts * 1024)
    assert Work(need("ddp", 8), 1.0, 1, 1, 1e12, 0.4).most_devices() == float("inf")

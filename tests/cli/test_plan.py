"""`groundup plan`."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Run

Fails = Callable[..., str]
DEVICES = ("--devices=8", "--device-memory=80GB", "--flops=400T")


def test_a_plan_says_whether_it_fits_how_long_it_takes_and_what_it_costs(run: Run) -> None:
    result = run(
        *("plan", "--model=gpt2-xl", "--tokens=10B", *DEVICES),
        *("--bandwidth=50GB/s", "--price=2.5", "--batch-sequences=512"),
    )
    assert result.status == 0
    for part in ("1,557,611,200 parameters", "10.3 GFLOP per token", "AdamW's moments", "11.61"):
        assert part in result.out
    assert "It fits: DDP, 8 x " in result.out and "--parallel ddp --batch-size " in result.out
    steps, hours = 18_781, 22.3  # 10**10 / (8 * 5 * 13 * 1,024), and * 1.03e10 / (8 * 1.6e14) s
    assert f"tokens: {steps:,} steps, {hours} hours" in result.out
    assert "178 device hours at 2.5 are 446" in result.out
    assert "sending takes longer than computing from" in result.out


def test_what_does_not_fit_says_why_and_what_would(run: Run) -> None:
    result = run("plan", "--model=gpt2-xl", "--devices=1", "--device-memory=16GB")
    assert result.status == 1
    assert "It doesn't fit: one device" in result.out and "most of it AdamW's moments" in result.out
    assert "FSDP fits from 2 such devices on" in result.out


def test_a_shape_by_flags_and_a_model_directory(run: Run, fails: Fails, model_dir: Path) -> None:
    memory = "--device-memory=1GB"
    out = run("plan", "--emb-dim=64", "--n-heads=4", "--n-layers=2", memory).out
    assert "3,382,080 parameters" in out  # 50257 * 64 + 1024 * 64 + 2 * 49,984 + 128
    out = run("plan", "--model", model_dir, "--context-length=8", memory, "--precision=fp32").out
    assert "8 tokens of context" in out and "copies in bf16" not in out
    assert "did you mean 'gpt2-xl'?" in fails("plan", "--model=gpt2-xxl")
    assert "tokens is '10Z'; expected a size such as 10B" in fails("plan", "--tokens=10Z", memory)
    assert "not divisible by n_heads" in fails("plan", "--n-heads=7", memory)

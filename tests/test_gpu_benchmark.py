"""The benchmark for a GPU, as far as it can be tried without one."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.config import preset
from groundup.model.gpt import GPTModel
from tests.conftest import tiny_config


@pytest.fixture(autouse=True)
def benchmarks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture
def gpu() -> Any:
    return importlib.import_module("gpu")


@pytest.mark.parametrize("name", ["gpu", "gpu_generate"])
def test_without_a_gpu_it_says_so_in_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", [f"{name}.py"])
    with pytest.raises(SystemExit, match="measures on a GPU, and PyTorch sees none here"):
        importlib.import_module(name).main()


def test_every_text_is_written_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("gpu_generate")
    monkeypatch.setattr(module, "NEW", 5)
    model = GPTModel(tiny_config(context_length=128)).eval()
    for way in ({}, {"temperature": 0.8}, {"recorded": False}):
        engine = module.started(model, 3, **way)
        assert len(list(engine.run())) == 3 * 5


def test_everybody_trains_and_is_counted(gpu: Any) -> None:
    shape = tiny_config(vocab_size=301, tie_weights=True, drop_rate=0.0)
    with torch.device("meta"):
        parameters = GPTModel(shape).num_parameters()
    found = gpu.measure_all(shape, 2, 1, 1e9, "cpu", lambda name: "compiled" not in name)
    names = ["groundup", "groundup, activation checkpointing", "nanoGPT", "transformers"]
    assert list(found) == names
    operations = gpu.flops_per_token(shape, parameters)
    for each in found.values():
        mfu = each["tokens_per_second"] * operations / 1e9
        assert each["mfu"] == pytest.approx(mfu, abs=1e-3)


def test_operations_and_peaks_are_those_of_the_sources(gpu: Any) -> None:
    """nanoGPT's count for GPT-2 124M at 1,024 tokens: 6 x 123.65M + 12 x 12 x 768 x 1,024."""
    assert gpu.flops_per_token(preset("gpt2-small"), 124_439_808) == pytest.approx(
        855.2e6, rel=1e-3
    )
    assert gpu.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert gpu.peak_flops("NVIDIA H100 PCIe") == 756e12
    assert gpu.peak_flops("Some other card") is None

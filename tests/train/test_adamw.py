"""Our AdamW is PyTorch's to the bit, and no command loads PyTorch's compiler for nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from groundup.train.adamw import AdamW
from tests.conftest import TEXT


def trained(make: Callable[..., torch.optim.Optimizer], fused: bool) -> list[Tensor]:
    """Weights after some steps, with a group added and a state that went through a dictionary."""
    torch.manual_seed(3)
    model, late = nn.Linear(5, 4), nn.Parameter(torch.randn(3))
    optimizer = make(model.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.1, fused=fused)
    optimizer.add_param_group({"params": [late], "weight_decay": 0.0})
    for _ in range(3):
        loss = model(torch.randn(7, 5)).square().mean() + late.square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
    assert all(p.grad is None for p in model.parameters())
    state = [each["exp_avg_sq"] for each in optimizer.state.values()]
    return [*model.parameters(), late, *state]


@pytest.mark.parametrize("fused", [False, True])
def test_it_is_pytorchs_to_the_bit(fused: bool) -> None:
    ours, theirs = trained(AdamW, fused), trained(torch.optim.AdamW, fused)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_hooks_and_a_closure_are_heard() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer, heard = AdamW([weight]), []
    optimizer.register_step_pre_hook(lambda *_: heard.append("before"))
    optimizer.register_step_post_hook(lambda *_: heard.append("after"))

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2 and heard == ["before", "after"]


def test_of_what_pytorch_wraps_only_one_layer_is_taken_off() -> None:
    """Should it put something else around these methods, that must not be lost unseen."""
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        assert getattr(AdamW, name) is getattr(torch.optim.Optimizer, name).__wrapped__


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_and_writing_leave_the_compiler_out(optimizer: str, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_text(TEXT, encoding="utf-8")
    train = ["pretrain", str(text), "--preset=nano", "--warmup-steps=0", f"--out={out}"]
    train += [f"--optimizer={optimizer}", "--save-freq=2"]
    write = ["generate", str(out), "The", "--max-new-tokens=3"]
    code = f"""
import sys
from groundup.cli import main
main({train!r} + ['--max-steps=3'])
main({train!r} + ['--max-steps=4', '--resume'])
main({write!r})
print('LOADED', 'torch._dynamo' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "LOADED False" in done.stdout, done.stdout + done.stderr

"""The feed-forward network's two switches: its inner width and its activation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.model.layers import FeedForward
from groundup.model.lora import TARGETS, add_lora, lora_layers
from groundup.model.report import costs, flops_per_token
from groundup.weights.lora import load_adapter, save_adapter
from tests.conftest import Run, facts_of, small, tiny_config


def test_the_exact_gelu_is_the_formula_and_not_the_tanh_one() -> None:
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    exact = FeedForward(tiny_config(feed_forward="gelu_exact")).layers[1](x)
    formula = torch.tensor(
        [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    ).double()
    torch.testing.assert_close(exact, formula, atol=1e-6, rtol=0)
    assert 1e-4 < (FeedForward(tiny_config()).layers[1](x) - exact).abs().max() < 1e-3


@pytest.mark.parametrize("hidden_dim", [20, 200])
def test_the_inner_width_is_counted(hidden_dim: int) -> None:
    cfg = tiny_config(hidden_dim=hidden_dim)
    model = GPTModel(cfg)
    assert model.get_parameter("trf_blocks.0.ff.layers.0.weight").shape == (hidden_dim, 32)
    assert costs(cfg).unique_parameters == model.num_parameters()
    usual = tiny_config()
    fewer = cfg.n_layers * 2 * 2 * 32 * (128 - hidden_dim)
    assert flops_per_token(usual) - flops_per_token(cfg) == fewer
    assert cfg.replace(emb_dim=64).feed_forward_dim == hidden_dim
    assert usual.replace(emb_dim=64).feed_forward_dim == 256


@pytest.mark.parametrize("targets", [TARGETS, ("ff.layers.0", "ff.layers.2")])
def test_adapters_of_a_narrow_one(tmp_path: Path, targets: tuple[str, ...]) -> None:
    cfg = tiny_config(hidden_dim=20)
    model = add_lora(GPTModel(cfg), rank=2, targets=targets)
    for layer in lora_layers(model).values():
        layer.B.data.normal_()
    save_adapter(tmp_path, model, "base")
    again = GPTModel(cfg)
    again.load_state_dict(
        {n: t for n, t in model.state_dict().items() if n[-2:] not in (".A", ".B")}
    )
    idx = torch.arange(9)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_adapter(tmp_path, again).eval()(idx), model.eval()(idx))


@pytest.mark.parametrize(
    "change",
    [{"feed_forward": "relu"}, {"hidden_dim": 0}, {"hidden_dim": "x"}, {"tie_weights": "é"}],
)
def test_values_that_make_no_sense(change: dict) -> None:
    with pytest.raises(UserError, match=f"{next(iter(change))} is "):
        ModelConfig.of(change)


def test_a_run_keeps_them(run: Run, fails: object, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = small("--hidden-dim=40", "--feed-forward=gelu_exact", "--max-steps=2")
    assert run("pretrain", text_file, "--out", out, *options).status == 0
    shape = facts_of(out).shape
    assert (shape["hidden_dim"], shape["feed_forward"]) == (40, "gelu_exact")
    shown = run("inspect", out).out
    assert "feed_forward=gelu_exact" in shown and "hidden_dim=40" in shown
    assert "hidden_dim" not in run("inspect", "gpt2-small").out
    resumed = run("pretrain", "--out", out, "--resume", "--max-steps=3", "--hidden-dim=50")
    assert resumed.status == 2 and "would change hidden_dim 40 to 50" in resumed.err
    assert run("pretrain", "--out", out, "--resume", "--max-steps=3").status == 0

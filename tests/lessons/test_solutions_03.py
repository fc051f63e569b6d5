import pytest
import torch
from torch import nn

from groundup.config import PRESETS, ModelConfig
from groundup.lessons.solutions_03 import RMSNorm, count_by_hand, set_dropout
from groundup.model.gpt import GPTModel

SMALL = ModelConfig(vocab_size=50, context_length=8, emb_dim=12, n_heads=3, n_layers=2)


@pytest.mark.parametrize(
    "cfg",
    [
        *(PRESETS[name] for name in ("nano", "course-124m", "gpt2-medium")),
        *(SMALL, SMALL.replace(qkv_bias=True), SMALL.replace(tie_weights=True)),
    ],
)
def test_parameters_counted_by_hand_are_those_that_there_are(cfg: ModelConfig) -> None:
    with torch.device("meta"):
        assert count_by_hand(cfg) == GPTModel(cfg).num_parameters()


def test_each_dropout_gets_its_own_rate() -> None:
    model = GPTModel(SMALL)
    set_dropout(model, embedding=0.1, attention=0.2, shortcut=0.3)
    rates = {n: m.p for n, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert rates == {
        "drop_emb": 0.1,
        "trf_blocks.0.att.dropout": 0.2,
        "trf_blocks.0.drop_shortcut": 0.3,
        "trf_blocks.1.att.dropout": 0.2,
        "trf_blocks.1.drop_shortcut": 0.3,
    }


def test_rms_norm_is_pytorchs() -> None:
    x, norm = torch.randn(2, 4, 12) * 5 + 1, RMSNorm(12)
    theirs = nn.RMSNorm(12, eps=1e-5)
    with torch.no_grad():
        norm.scale.normal_()
        theirs.weight.copy_(norm.scale)
    torch.testing.assert_close(norm(x), theirs(x))

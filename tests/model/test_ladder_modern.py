"""Each rung from GPT-2 to Llama computes what the model's own part computes."""

from functools import partial

import pytest
import torch

from groundup.config import ModelConfig
from groundup.model.attention import MultiHeadAttention
from groundup.model.ladder_modern import (
    GroupedQueryAttention,
    RMSNormSpelledOut,
    SwiGLUSpelledOut,
    rotary_embedding,
    rotary_embedding_of_neighbours,
)
from groundup.model.layers import RMSNorm, SwiGLU
from groundup.model.rotary import rotate, turns
from tests.conftest import tiny_config

ROPE = partial(tiny_config, rope=True)


def test_rms_norm_is_its_rung() -> None:
    rung, ours = RMSNormSpelledOut(12, 1e-3), RMSNorm(12, eps=1e-3)
    torch.nn.init.normal_(rung.scale)
    ours.load_state_dict(rung.state_dict())
    x = 0.05 * torch.randn(2, 5, 12)  # so small that eps matters
    torch.testing.assert_close(ours(x), rung(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("theta", [10000.0, 77.0])
def test_rotation_is_its_rung(theta: float) -> None:
    x = torch.randn(2, 3, 40, 8)
    cfg = ROPE(n_heads=4, emb_dim=32, rope_theta=theta)
    ours = rotate(x, turns(torch.arange(40), cfg))
    torch.testing.assert_close(ours, rotary_embedding(x, theta), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.norm(dim=-1), x.norm(dim=-1), atol=1e-5, rtol=0)
    rows = turns(torch.arange(40).expand(2, 40), cfg)  # each row with its own positions
    torch.testing.assert_close(rotate(x, rows), ours)


def test_either_pairing_is_the_other_with_its_columns_in_another_order() -> None:
    x = torch.randn(2, 3, 20, 8)
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])  # each pair of halves as neighbours
    torch.testing.assert_close(
        rotary_embedding_of_neighbours(x[..., order]),
        rotary_embedding(x)[..., order],
        atol=1e-5,
        rtol=0,
    )
    assert not torch.allclose(rotary_embedding_of_neighbours(x), rotary_embedding(x), atol=1e-2)


def test_scores_depend_on_the_distance_alone() -> None:
    cfg = ROPE(n_heads=4, emb_dim=32)
    q, k = torch.randn(2, 1, 1, 1, 8)
    scores = [
        (rotate(q, turns(torch.tensor([t + 3]), cfg)) * rotate(k, turns(torch.tensor([t]), cfg)))
        .sum()
        .item()
        for t in (0, 1, 50, 400)
    ]
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-4)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_query_attention_is_its_rung(kv_heads: int, qk_norm: bool) -> None:
    rung = GroupedQueryAttention(24, 4, kv_heads, 8, qk_norm=qk_norm)
    ours = MultiHeadAttention(
        *(24, 24, 16, 0.0, 4),
        num_kv_heads=kv_heads,
        head_dim=8,
        out_bias=False,
        qk_norm=RMSNorm if qk_norm else None,
    )
    for name, parameter in rung.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter)
    ours.load_state_dict(rung.state_dict())
    x = torch.randn(2, 16, 24)
    turn = turns(torch.arange(16), ROPE(emb_dim=32, n_heads=4))
    torch.testing.assert_close(ours(x, turn=turn), rung(x), atol=1e-5, rtol=0)


def test_swiglu_is_its_rung() -> None:
    cfg = ModelConfig(emb_dim=12, n_heads=2, hidden_dim=20, feed_forward="swiglu", mlp_bias=False)
    rung, ours = SwiGLUSpelledOut(12, 20), SwiGLU(cfg)
    ours.load_state_dict(rung.state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), rung(x), atol=1e-6, rtol=1e-5)

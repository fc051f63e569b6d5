import math

import torch

from groundup.model.layers import GELU, FeedForward, LayerNorm, TransformerBlock
from tests.conftest import tiny_config


def test_layer_norm_is_its_formula() -> None:
    norm = LayerNorm(8)
    norm.scale.data, norm.shift.data = torch.randn(8), torch.randn(8)
    x = torch.randn(2, 3, 8) * 5 + 1
    mean = x.mean(-1, keepdim=True)
    var = x.var(-1, keepdim=True, unbiased=False)
    expected = norm.scale * (x - mean) / torch.sqrt(var + 1e-5) + norm.shift
    torch.testing.assert_close(norm(x), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(norm.formula(x), expected, atol=1e-6, rtol=0)
    assert sorted(norm.state_dict()) == ["scale", "shift"]


def test_gelu_is_its_formula() -> None:
    x = torch.linspace(-6, 6, 101)
    expected = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(GELU()(x), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(GELU().formula(x), expected, atol=1e-6, rtol=0)


def test_block_and_feed_forward_keep_the_shape_and_the_courses_names() -> None:
    cfg = tiny_config(qkv_bias=False)
    assert sorted(FeedForward(cfg).state_dict()) == [
        "layers.0.bias",
        "layers.0.weight",
        "layers.2.bias",
        "layers.2.weight",
    ]
    block = TransformerBlock(dict(cfg))
    assert block(torch.randn(2, 5, cfg.emb_dim)).shape == (2, 5, cfg.emb_dim)
    assert {name.split(".")[0] for name in block.state_dict()} == {"att", "ff", "norm1", "norm2"}
    assert isinstance(block.drop_shortcut, torch.nn.Dropout)

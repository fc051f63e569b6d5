import pytest
import torch
from torch.nn import functional as F

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.attention import SHORT, MultiHeadAttention, attend_explicitly
from groundup.model.cache import KVCache


def test_parameter_names_and_shapes_are_the_courses() -> None:
    attention = MultiHeadAttention(768, 768, 1024, 0.0, 12, qkv_bias=True)
    assert {name: tuple(p.shape) for name, p in attention.state_dict().items()} == {
        **{f"{n}.weight": (768, 768) for n in ("W_query", "W_key", "W_value", "out_proj")},
        **{f"{n}.bias": (768,) for n in ("W_query", "W_key", "W_value", "out_proj")},
    }
    plain = MultiHeadAttention(768, 768, 1024, 0.0, 12)
    assert sorted(plain.state_dict()) == [
        "W_key.weight",
        "W_query.weight",
        "W_value.weight",
        "out_proj.bias",
        "out_proj.weight",
    ]


def test_d_out_must_be_divisible_by_num_heads() -> None:
    with pytest.raises(UserError, match=r"d_out \(10\) must be divisible by num_heads \(3\)"):
        MultiHeadAttention(10, 10, 8, 0.0, 3)


def test_a_stored_mask_is_ignored_and_any_other_key_is_not() -> None:
    attention = MultiHeadAttention(8, 8, 4, 0.0, 2)
    state = attention.state_dict()
    assert "mask" not in state
    attention.load_state_dict({**state, "mask": torch.ones(4, 4)})
    with pytest.raises(RuntimeError, match="masked"):
        attention.load_state_dict({**state, "masked": torch.ones(4, 4)})


@pytest.mark.parametrize("chunks", [[6], [1] * 6, [3, 3], [2, 1, 3]])
def test_any_way_of_feeding_the_cache_gives_the_uncached_result(chunks: list[int]) -> None:
    cfg = ModelConfig(context_length=8, emb_dim=16, n_heads=4, n_layers=1)
    attention = MultiHeadAttention(16, 16, 8, 0.0, 4).eval()
    x = torch.randn(2, 6, 16)
    cache = KVCache(cfg, batch_size=2).layers[0]
    parts = [attention(part, cache) for part in x.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), attention(x), atol=1e-6, rtol=0)


def test_more_tokens_than_the_context_are_refused_also_through_the_cache() -> None:
    cfg = ModelConfig(context_length=4, emb_dim=8, n_heads=2, n_layers=1)
    attention = MultiHeadAttention(8, 8, 4, 0.0, 2)
    with pytest.raises(UserError, match="5 tokens, but the model's context_length is 4"):
        attention(torch.randn(1, 5, 8))
    cache = KVCache(cfg).layers[0]
    attention(torch.randn(1, 3, 8), cache)
    with pytest.raises(UserError, match="5 tokens, but the model's context_length is 4"):
        attention(torch.randn(1, 2, 8), cache)


def test_dropout_acts_in_training_only() -> None:
    attention = MultiHeadAttention(16, 16, 8, 0.5, 4)
    x = torch.randn(1, 8, 16)
    assert not torch.allclose(attention(x), attention(x))
    attention.eval()
    torch.testing.assert_close(attention(x), attention(x), atol=0, rtol=0)


def test_attention_spelled_out_is_the_kernels() -> None:
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 3, 7, 4, requires_grad=True) for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    found = attend_explicitly(q, k, v)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (found, expected)]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs)
    dropped = attend_explicitly(q, k, v, dropout=torch.nn.Dropout(0.5))
    assert not torch.allclose(dropped, expected) and dropped.isfinite().all()


def test_only_short_texts_in_bf16_go_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def spy(*args: torch.Tensor, **options: object) -> torch.Tensor:
        lengths.append(args[0].shape[-2])
        return args[0]

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    attention = MultiHeadAttention(8, 8, SHORT + 1, 0.0, 2)
    for length in (5, SHORT + 1):
        x = torch.randn(1, length, 8)
        attention(x)
        with torch.autocast("cpu", torch.bfloat16):
            attention(x)
    assert lengths == [5, SHORT + 1, SHORT + 1]

from typing import Any

import pytest
import torch
from torch import nn

from groundup.errors import UserError
from groundup.model.attention import MultiHeadAttention
from groundup.model.ladder import (
    CausalAttention,
    MultiHeadAttentionSpelledOut,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
    simple_attention,
)

# The course's six tokens, "Your journey starts with one step".
X = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)


def close(actual: torch.Tensor, expected: list, atol: float = 1e-4) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), atol=atol, rtol=0)


def test_simple_attention_gives_the_lectures_context_vector() -> None:
    close(simple_attention(X)[1], [0.4419, 0.6515, 0.5683])


def test_self_attention_v1_gives_the_lectures_numbers() -> None:
    torch.manual_seed(123)
    close(
        SelfAttention_v1(3, 2)(X),
        [
            [0.2996, 0.8053],
            [0.3061, 0.8210],
            [0.3058, 0.8203],
            [0.2948, 0.7939],
            [0.2927, 0.7891],
            [0.2990, 0.8040],
        ],
    )


def test_self_attention_v2_gives_the_lectures_numbers() -> None:
    torch.manual_seed(789)
    close(
        SelfAttention_v2(3, 2)(X),
        [
            [-0.0739, 0.0713],
            [-0.0748, 0.0703],
            [-0.0749, 0.0702],
            [-0.0760, 0.0685],
            [-0.0763, 0.0679],
            [-0.0754, 0.0693],
        ],
    )


def test_v2_with_v1s_weights_computes_the_same() -> None:
    v1, v2 = SelfAttention_v1(3, 2), SelfAttention_v2(3, 2)
    for name in ("W_query", "W_key", "W_value"):
        getattr(v1, name).data = getattr(v2, name).weight.data.T
    torch.testing.assert_close(v1(X), v2(X), atol=1e-6, rtol=0)


def test_causal_attention_gives_the_lectures_numbers() -> None:
    torch.manual_seed(123)
    batch = torch.stack((X, X))
    out = CausalAttention(3, 2, 6, 0.0)(batch)
    assert out.shape == (2, 6, 2)
    close(out[0, :2], [[-0.4519, 0.2216], [-0.5874, 0.0058]])


def test_wrapper_gives_the_lectures_numbers() -> None:
    torch.manual_seed(123)
    out = MultiHeadAttentionWrapper(3, 2, 6, 0.0, num_heads=2)(torch.stack((X, X)))
    assert out.shape == (2, 6, 4)
    close(out[0, 0], [-0.4519, 0.2216, 0.4772, 0.1063])


@pytest.mark.parametrize("kind", [MultiHeadAttentionSpelledOut, MultiHeadAttention])
def test_multi_head_attention_gives_the_lectures_numbers(kind: type) -> None:
    torch.manual_seed(123)
    out = kind(3, 2, 6, 0.0, num_heads=2)(torch.stack((X, X)))
    assert out.shape == (2, 6, 2)
    close(out[1, :3], [[0.3190, 0.4858], [0.2943, 0.3897], [0.2856, 0.3593]])


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_heads_side_by_side_compute_what_the_real_attention_projects(qkv_bias: bool) -> None:
    heads, head_dim, d_in, T = 4, 8, 24, 10
    real = MultiHeadAttention(d_in, heads * head_dim, T, 0.0, heads, qkv_bias)
    ladder = MultiHeadAttentionWrapper(d_in, head_dim, T, 0.0, heads, qkv_bias)
    for i, head in enumerate(ladder.heads):
        for name in ("W_query", "W_key", "W_value"):
            rows = slice(i * head_dim, (i + 1) * head_dim)
            getattr(head, name).weight.data = getattr(real, name).weight.data[rows]
            if qkv_bias:
                getattr(head, name).bias.data = getattr(real, name).bias.data[rows]
    x = torch.randn(3, T, d_in)
    torch.testing.assert_close(real.out_proj(ladder(x)), real(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("T", [10, 7, 1])
def test_the_last_rung_computes_what_the_real_attention_computes(qkv_bias: bool, T: int) -> None:
    real = MultiHeadAttention(24, 32, 10, 0.0, 4, qkv_bias)
    rung = MultiHeadAttentionSpelledOut(24, 32, 10, 0.0, 4, qkv_bias)
    rung.load_state_dict(real.state_dict())
    real.load_state_dict(rung.state_dict())
    x = torch.randn(3, T, 24, requires_grad=True)
    expected, found = real(x), rung(x)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    weight = torch.randn_like(expected)
    theirs = torch.autograd.grad((expected * weight).sum(), [x, *real.parameters()])
    ours = torch.autograd.grad((found * weight).sum(), [x, *rung.parameters()])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_last_rung_drops_weights_in_training_only() -> None:
    rung = MultiHeadAttentionSpelledOut(3, 2, 6, 0.5, 2)
    assert not torch.equal(rung(X[None]), rung(X[None]))
    rung.eval()
    assert torch.equal(rung(X[None]), rung(X[None]))


def test_the_last_rung_needs_as_many_columns_for_each_head() -> None:
    with pytest.raises(UserError, match=r"d_out \(10\) must be divisible by num_heads \(3\)"):
        MultiHeadAttentionSpelledOut(10, 10, 8, 0.0, 3)


@pytest.mark.parametrize(
    "rung", [CausalAttention, MultiHeadAttentionWrapper, MultiHeadAttentionSpelledOut]
)
def test_no_token_sees_a_later_one(rung: type) -> None:
    more: dict[str, Any] = {} if rung is CausalAttention else {"num_heads": 2}
    attention = rung(3, 2, 6, 0.0, **more)
    changed = X.clone()
    changed[4:] = 9.0
    before, after = attention(X[None]), attention(changed[None])
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize(
    "attention", [CausalAttention(3, 2, 6, 0.0), MultiHeadAttentionSpelledOut(3, 2, 6, 0.0, 2)]
)
def test_a_rung_loads_the_courses_checkpoint_with_its_mask(attention: nn.Module) -> None:
    state = attention.state_dict()
    assert "mask" not in state
    attention.load_state_dict({**state, "mask": torch.ones(6, 6)})


def test_too_many_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="7 tokens, but context_length is 6"):
        CausalAttention(3, 2, 6, 0.0)(torch.randn(1, 7, 3))
    with pytest.raises(UserError, match="7 tokens, but context_length is 6"):
        MultiHeadAttentionSpelledOut(3, 2, 6, 0.0, 2)(torch.randn(1, 7, 3))

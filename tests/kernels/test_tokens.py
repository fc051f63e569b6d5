"""Norms and rotations of a few tokens are PyTorch's, and left to it where they must be."""

import shutil
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from groundup.config import ModelConfig, Quantization
from groundup.kernels import tokens
from groundup.model import attention, layers, rotary
from groundup.model.attention import attend
from groundup.model.gpt import GPTModel
from groundup.model.layers import RMSNorm
from groundup.model.quantized import quantize
from groundup.model.rotary import rotate, turns

pytestmark = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler"
)
EXACT = {torch.float32: 1e-6, torch.bfloat16: 2**-8}
"""How far off the nearest number of a kind can be."""

CONFIG = ModelConfig(emb_dim=48, n_heads=2, head_dim=24, rope=True)


@torch.no_grad()
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("shape", [(1, 1, 48), (3, 2, 5, 17), (2, 1)])
def test_a_norm_is_its_formula(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, norm = (torch.randn(shape) * 3).to(dtype), RMSNorm(shape[-1], eps=1e-6).to(dtype)
    norm.scale.copy_(torch.randn(shape[-1]))
    assert tokens.is_small(x)
    expected = F.rms_norm(x.double(), shape[-1:], norm.scale.double(), 1e-6)
    torch.testing.assert_close(norm(x).double(), expected, rtol=EXACT[dtype], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_a_rotation_is_pytorchs_to_the_bit(
    own: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = torch.tensor([[4, 5, 6], [0, 1, 2]]) if own else torch.arange(7, 10)
    turn = turns(places[..., :count], CONFIG)
    x = torch.randn(2, count, 2, 24).transpose(1, 2)  # as attention has it
    ours = rotate(x, turn)
    half, half_turn = x.bfloat16(), turn.bfloat16()
    ours_of_half = rotate(half, half_turn)
    monkeypatch.setattr(rotary, "is_small", lambda x: False)
    assert torch.equal(ours, rotate(x, turn)) and ours.shape == x.shape
    nearest = rotate(half.float(), half_turn.float()).bfloat16()
    assert torch.equal(ours_of_half, nearest), "rounded once, at the end"


@pytest.mark.parametrize("why", ["gradients", "autocast", "dtype", "layout", "size", "kernel"])
def test_what_it_is_not_for_is_left_to_pytorch(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    norm = RMSNorm(8)
    x = torch.randn(2, 1, 8)
    monkeypatch.setattr(layers, "rms_norm", lambda *_: pytest.fail("the kernel was called"))
    with torch.set_grad_enabled(why == "gradients"):
        if why == "dtype":
            x = x.double()
        elif why == "layout":
            x = torch.randn(8, 2).T
        elif why == "size":
            x = torch.randn(tokens.SMALL // 8 + 1, 8)
        elif why == "kernel":
            monkeypatch.setattr(tokens, "library", lambda: None)
        with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
            out = norm(x)
    assert out.dtype == x.dtype and out.requires_grad == (why == "gradients")
    torch.testing.assert_close(out, nn.RMSNorm(8, eps=norm.eps, dtype=x.dtype)(x))


MASKS = {
    "none": lambda B, S: None,
    "one for all": lambda B, S: (torch.arange(S) % 3 < 2)[None],
    "rows": lambda B, S: torch.arange(S) <= torch.randint(0, S, (B,))[:, None, None, None],
}


@torch.no_grad()
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 4, 64), (6, 2, 24), (3, 1, 40)])
@pytest.mark.parametrize(("rows", "seen"), [(1, 1), (1, 300), (3, 40)])
def test_attention_is_pytorchs(
    mask: str, heads: int, kv_heads: int, size: int, rows: int, seen: int, dtype: torch.dtype
) -> None:
    q = torch.randn(rows, 1, heads, size).transpose(1, 2).to(dtype)
    memory = torch.randn(2, rows + 1, kv_heads, seen + 7, size).to(dtype)  # more than is in use
    k, v = memory[:, :rows, :, :seen]
    visible = MASKS[mask](rows, seen)
    assert tokens.is_small(q.transpose(1, 2)) and tokens.is_laid_out(q, k, v, visible)
    out = attend(q, k, v, visible, nn.Dropout(0.5).eval())
    plain = (each.double() for each in (q, k, v))
    expected = F.scaled_dot_product_attention(*plain, attn_mask=visible, enable_gqa=True)
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=max(1e-5, EXACT[dtype]))
    alone = attend(q[:1], k[:1], v[:1], visible if mask != "rows" else visible[:1], nn.Dropout(0))
    assert torch.equal(out[:1], alone)


@torch.no_grad()
@pytest.mark.parametrize("count", [2, 5, attention.ONE_BY_ONE])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("before", [0, 30])
@pytest.mark.parametrize("differ", [False, True])
def test_each_of_a_few_tokens_is_attended_to_as_if_alone(
    count: int, rows: int, before: int, differ: bool
) -> None:
    q = torch.randn(rows, count, 6, 24).transpose(1, 2)
    k, v = torch.randn(2, rows, 2, before + count, 24)
    causal = torch.ones(count, before + count, dtype=torch.bool).tril(before)  # (T, S)
    mask = None if before == 0 else causal
    if differ:  # rows of different lengths, as in a batch
        hidden = torch.arange(before + count) < torch.arange(rows)[:, None, None, None]
        hidden[..., 0] = False
        mask = causal & ~hidden  # (B, 1, T, S)
    out = attend(q, k, v, mask, nn.Dropout(0))
    wanted = F.scaled_dot_product_attention(
        q, k, v, attn_mask=causal if mask is None else mask, enable_gqa=True
    )
    torch.testing.assert_close(out, wanted, atol=2e-6, rtol=1e-5)
    for t in range(count):
        seen = causal[t : t + 1] if mask is None else mask[..., t : t + 1, :]
        query = q.transpose(1, 2)[:, t : t + 1].contiguous().transpose(1, 2)  # as if it came alone
        alone = attend(query, k, v, seen, nn.Dropout(0))
        assert torch.equal(out[:, :, t : t + 1], alone)


@torch.no_grad()
def test_what_is_hidden_leaves_no_trace() -> None:
    """A row in a batch is padded; its numbers are those that it has alone."""
    q = torch.randn(1, 1, 2, 32).transpose(1, 2)
    k, v = torch.randn(2, 1, 2, 50, 32)
    alone = attend(q, k[:, :, :20], v[:, :, :20], None, nn.Dropout(0))
    padded = attend(q, k, v, torch.arange(50)[None, None, None] < 20, nn.Dropout(0))
    assert torch.equal(alone, padded)


@torch.no_grad()
def test_other_attention_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "attend_one", lambda *_: pytest.fail("the kernel was called"))
    q = k = torch.randn(1, 2, 1, 8)
    attend(q, k, k, None, nn.Dropout(0.5).train())
    by_head = torch.ones(1, 2, 1, 1, dtype=torch.bool)
    attend(q, k, k, by_head, nn.Dropout(0))
    many = torch.randn(1, 2, attention.ONE_BY_ONE + 1, 8)
    attend(many, many, many, None, nn.Dropout(0))
    attend(q, many, many, torch.ones(1, 1, dtype=torch.bool), nn.Dropout(0))  # to be broadcast


@torch.no_grad()
def test_a_mapped_norm_is_the_norm() -> None:
    norm, x = RMSNorm(8), torch.randn(3, 2, 8)
    torch.testing.assert_close(torch.func.vmap(norm)(x), norm(x))


WIDE = ModelConfig(vocab_size=600, context_length=16, emb_dim=512, n_heads=8, n_layers=1)
"""Its matrices are large enough for the kernels."""


@pytest.mark.parametrize("kind", [None, "int8"])
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_a_traced_model_is_the_model(kind: Quantization | None) -> None:
    """As TensorBoard's add_graph traces it; what a tracer doesn't see would be a constant."""
    model = GPTModel(WIDE).eval()
    if kind is not None:
        quantize(model, kind)
    ids, others = torch.randint(0, 600, (2, 1, 3))
    traced: Any = torch.jit.trace(model, (ids,))
    torch.testing.assert_close(traced(others), model(others), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_who_counts_operations_sees_them_all() -> None:
    model, ids = GPTModel(WIDE).eval(), torch.randint(0, 600, (1, 1))
    counted = []
    for each in (ids, ids.repeat(20, 1)):  # for one row the kernels would compute it
        with FlopCounterMode(display=False) as counter:
            model(each)
        counted.append(counter.get_total_flops())
    assert counted[1] == 20 * counted[0] > 0

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from groundup.config import IGNORE_INDEX
from groundup.model import logits as in_pieces
from groundup.model import loss as fused_loss
from groundup.model.door import evaluating, token_loss
from groundup.model.gpt import GPTModel
from groundup.model.loss import linear_cross_entropy
from tests.conftest import tiny_config
from tests.peaks import peak_bytes


def tensors(n: int = 37, v: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    features = torch.randn(n, 8, requires_grad=True)
    weight = torch.randn(v, 8, requires_grad=True)
    targets = torch.randint(0, v, (n,))
    targets[::5] = -100
    return features, weight, targets


@pytest.mark.parametrize("chunk", [1, 120, 10_000])
@pytest.mark.parametrize("cached", [1, 130, 10_000])
def test_the_fused_loss_and_its_gradients_are_pytorchs(
    monkeypatch: pytest.MonkeyPatch, chunk: int, cached: int
) -> None:
    monkeypatch.setattr(in_pieces, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(in_pieces, "CACHED_LOGITS", cached)
    features, weight, targets = tensors()
    expected = F.cross_entropy(features @ weight.T, targets, reduction="sum")
    grads = torch.autograd.grad(expected / 7, (features, weight))
    loss = linear_cross_entropy(features, weight, targets)
    torch.testing.assert_close(loss, expected)
    (loss / 7).backward()
    torch.testing.assert_close(features.grad, grads[0])
    torch.testing.assert_close(weight.grad, grads[1])


@pytest.mark.parametrize("chunk", [1, 120, 10_000])
@pytest.mark.parametrize("cached", [1, 130, 10_000])
def test_each_tokens_loss_is_pytorchs_and_so_are_gradients_under_any_weights(
    monkeypatch: pytest.MonkeyPatch, chunk: int, cached: int
) -> None:
    monkeypatch.setattr(in_pieces, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(in_pieces, "CACHED_LOGITS", cached)
    features, weight, targets = tensors()
    factors = torch.randn(len(targets))
    expected = F.cross_entropy(features @ weight.T, targets, reduction="none")
    grads = torch.autograd.grad(expected @ factors, (features, weight))
    loss = linear_cross_entropy(features, weight, targets, "none")
    torch.testing.assert_close(loss, expected)
    for _ in range(2):  # unlike the sum's, its backward pass works again
        ours = torch.autograd.grad(loss @ factors, (features, weight), retain_graph=True)
        torch.testing.assert_close(ours, grads)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "way", ["_loss_and_gradient_", "_loss_and_gradient_at_once_", "_to_be_compiled_", "compiled"]
)
def test_each_devices_way_through_the_logits_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, way: str, bf16: bool
) -> None:
    """A GPU's, and what a compiler makes of it, on a CPU; also for targets that don't count."""
    compute: Any = (
        in_pieces._made_by_the_compiler() if way == "compiled" else getattr(in_pieces, way)
    )
    monkeypatch.setattr(fused_loss, "loss_and_gradient_of", lambda logits, compiled: compute)
    monkeypatch.setattr(fused_loss, "_void", lambda goals: (goals == IGNORE_INDEX)[:, None])
    monkeypatch.setattr(in_pieces, "CHUNK_LOGITS", 640)
    features, weight, targets = tensors()
    targets[3], targets[-1] = IGNORE_INDEX, IGNORE_INDEX
    expected = F.cross_entropy(
        features @ weight.T, targets, reduction="sum", ignore_index=IGNORE_INDEX
    )
    grads = torch.autograd.grad(expected, (features, weight))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = linear_cross_entropy(features, weight, targets, compiled=True)
    ours = torch.autograd.grad(loss, (features, weight))
    near = 0.02 if bf16 else 1e-5
    torch.testing.assert_close(loss, expected, rtol=near, atol=near)
    torch.testing.assert_close(ours, grads, rtol=near, atol=near)
    assert not ours[0][3].any() and not ours[0][-1].any()


@pytest.mark.parametrize(
    ("kind", "compiled", "rows"),
    [("cpu", False, 1311), ("cuda", False, 2560), ("cuda", True, 8192)],
)
def test_a_gpus_pieces_are_larger_and_even(kind: str, compiled: bool, rows: int) -> None:
    found = list(in_pieces.pieces(32 * 1024, 50_304, kind, compiled))
    assert found[0] == slice(0, rows) and found[-1].stop >= 32 * 1024 > found[-1].start


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_gpus_products_have_even_sides_and_give_the_same(
    monkeypatch: pytest.MonkeyPatch, reduction: fused_loss.Reduction
) -> None:
    rows = in_pieces._rows
    sides: list[set[int]] = []

    class Watched(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if func in (Tensor.matmul, torch.mm):
                sides.append({*args[0].shape, *args[1].shape})
            return func(*args, **(kwargs or {}))

    features, weight, targets = tensors()
    found = []
    for device, side in (("cpu", len(weight)), ("cuda", 64)):
        monkeypatch.setattr(in_pieces, "_rows", lambda v, _, dtype, d=device: rows(v, d, dtype))
        monkeypatch.setattr(in_pieces, "CHUNK_LOGITS", 640)
        sides.clear()
        with Watched():
            loss = linear_cross_entropy(features, weight, targets, reduction)
            found.append([loss, *torch.autograd.grad(loss.square().sum(), (features, weight))])
        assert len(sides) >= 3 and all(side in each for each in sides)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize(("vocab_size", "apart"), [(65, 65), (1025, 1088)])
def test_a_cpus_rows_of_logits_begin_where_products_like_it(
    reduction: fused_loss.Reduction, vocab_size: int, apart: int
) -> None:
    found: list[int] = []

    class Watched(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if func is torch.mm:
                found.append(kwargs["out"].stride(0))
            return func(*args, **(kwargs or {}))

    features, weight, targets = tensors(v=vocab_size)
    with Watched():
        loss = linear_cross_entropy(features, weight, targets, reduction)
    assert found == [apart]
    expected = F.cross_entropy(features @ weight.T, targets, reduction=reduction)
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss.square().sum(), (features, weight))
    theirs = torch.autograd.grad(expected.square().sum(), (features, weight))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_one_piece_of_logits_is_in_memory_at_a_time(
    reduction: fused_loss.Reduction, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, v, piece = 400, 2048, 100 * 2048
    monkeypatch.setattr(in_pieces, "CHUNK_LOGITS", piece)
    monkeypatch.setattr(in_pieces, "CACHED_LOGITS", piece // 20)
    features, weight, targets = tensors(n, v)
    loss = lambda: linear_cross_entropy(features, weight, targets, reduction)  # noqa: E731
    peak = peak_bytes(lambda: loss().sum().backward())
    assert 4 * piece < peak < 1.6 * 4 * piece


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("vocab_size", [300, 1301])  # without rows of zeros and with
def test_under_autocast_it_is_as_close_as_the_plain_way(
    reduction: fused_loss.Reduction, vocab_size: int
) -> None:
    features, weight, targets = tensors(200, vocab_size)
    factors = torch.tensor(1.0) if reduction == "sum" else torch.randn(200)
    exact = F.cross_entropy(features @ weight.T, targets, reduction=reduction)
    exact_grad = torch.autograd.grad((exact * factors).sum(), weight)[0]
    errors = []
    for fused in (False, True):
        weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            if fused:
                loss = linear_cross_entropy(features, weight, targets, reduction)
            else:
                logits = F.linear(features, weight).float()
                loss = F.cross_entropy(logits, targets, reduction=reduction)
        (loss * factors).sum().backward()
        assert weight.grad is not None and loss.dtype == weight.grad.dtype == torch.float32
        torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0.05)
        errors.append((weight.grad - exact_grad).norm().item())
    assert errors[1] <= 1.5 * errors[0]


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradients_only_for_those_who_want_them(reduction: fused_loss.Reduction) -> None:
    features, weight, targets = tensors()
    linear_cross_entropy(features.detach(), weight, targets, reduction).sum().backward()
    assert features.grad is None and weight.grad is not None
    weight.grad = None
    linear_cross_entropy(features, weight.detach(), targets, reduction).sum().backward()
    assert weight.grad is None and features.grad is not None
    with torch.no_grad():
        assert not linear_cross_entropy(features, weight, targets, reduction).requires_grad


def test_a_second_backward_is_an_error_and_never_a_wrong_gradient() -> None:
    loss = linear_cross_entropy(*tensors())
    (2 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_no_valid_target_is_no_loss_and_no_gradient(reduction: fused_loss.Reduction) -> None:
    features, weight, targets = tensors()
    loss = linear_cross_entropy(features, weight, targets.fill_(-100), reduction)
    loss.sum().backward()
    assert not loss.any() and weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize("tie", [True, False])
def test_the_models_loss_and_gradients_are_those_of_its_logits(tie: bool) -> None:
    model = GPTModel(tiny_config(tie_weights=tie))
    x, y = torch.randint(0, 300, (2, 3, 16))

    class Opaque(nn.Module):
        """Hides that it is a GPTModel, so the plain way is taken."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, idx: Tensor) -> Tensor:
            return self.inner(idx)

    plain = token_loss(Opaque(), x, y)
    expected = torch.autograd.grad(plain, list(model.parameters()))
    loss = token_loss(model, x, y)
    torch.testing.assert_close(loss, plain)
    for ours, theirs in zip(
        torch.autograd.grad(loss, list(model.parameters())), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode_even_after_an_error(training: bool) -> None:
    model = GPTModel(tiny_config()).train(training)
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert model.training == training and torch.is_grad_enabled()

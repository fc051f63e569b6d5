"""What GPTModel.forward can be asked: at=, targets=, documents=, hidden=."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from groundup import GPTModel, add_lora, to_classifier
from groundup.errors import UserError
from groundup.model import logits
from groundup.model import loss as fused_loss
from groundup.model.lora import LoRALinear
from tests.conftest import tiny_config

B, T, V = 3, 16, 300


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True))


def assert_all_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        largest = max(1.0, other.abs().max().item())  # sums of many round by their size
        torch.testing.assert_close(one, other, atol=1e-5 * largest, rtol=1e-5)


@pytest.mark.parametrize("shape", ["(B,)", "(B, K)"])
def test_scores_at_chosen_positions_are_those_of_all(
    shape: str, model: GPTModel, batch: tuple[Tensor, Tensor]
) -> None:
    places = [2, -1, 0] if shape == "(B,)" else [[2, -1], [0, 15], [-16, 3]]
    whole = model(batch[0])
    expected = torch.stack([row[place] for row, place in zip(whole, places, strict=True)])
    found = model(batch[0], at=torch.tensor(places))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_hidden_states_are_what_the_output_layer_reads(
    model: GPTModel, batch: tuple[Tensor, Tensor]
) -> None:
    hidden = model(batch[0], hidden=True)
    assert hidden.shape == (B, T, 32)
    assert torch.equal(model.out_head(hidden), model(batch[0]))
    at = torch.tensor([4, -1, 0])
    assert torch.equal(model(batch[0], at=at, hidden=True), hidden[torch.arange(B), at])


def with_bias(model: GPTModel) -> None:
    model.out_head = nn.Linear(32, V)


def with_lora(model: GPTModel) -> None:
    add_lora(model, rank=2)
    model.out_head = LoRALinear(model.out_head, rank=2)  # pyright: ignore[reportAttributeAccessIssue]
    nn.init.normal_(model.get_parameter("out_head.B"))


def with_a_hook(model: GPTModel) -> None:
    def halve(module: nn.Module, args: object, scores: Tensor) -> Tensor:
        return scores / 2

    model.out_head.register_forward_hook(halve)


def with_a_hook_before(model: GPTModel) -> None:
    model.out_head.register_forward_pre_hook(lambda module, args: (args[0] / 2,))


def unchanged(model: GPTModel) -> None:
    pass


HEADS = [unchanged, with_bias, with_lora, with_a_hook, with_a_hook_before]


@pytest.mark.parametrize("change", HEADS)
@pytest.mark.parametrize("masked", [True, False])
def test_each_tokens_loss_is_pytorchs_and_its_gradient_under_any_weights(
    change: Callable[[GPTModel], None],
    masked: bool,
    model: GPTModel,
    batch: tuple[Tensor, Tensor],
    fused: list[str],
) -> None:
    change(model)
    model.requires_grad_(True)
    inputs, targets = batch
    targets = targets if masked else targets.clamp(min=0)
    weights = torch.randn(B, T)
    logits = model(inputs).float()
    expected = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    grads = gradients((weights * expected).sum(), model)
    found = model(inputs, targets=targets, reduction="none")
    assert found.shape == (B, T)
    torch.testing.assert_close(found, expected)
    assert_all_close(gradients((weights * found).sum(), model), grads)
    total = model(inputs, targets=targets)
    torch.testing.assert_close(total, expected.sum())
    assert_all_close(gradients(total, model), gradients(expected.sum(), model))
    assert fused == (["none", "sum"] if change is unchanged else [])


def test_a_classifier_is_asked_where_each_text_ends(batch: tuple[Tensor, Tensor]) -> None:
    model = to_classifier(GPTModel(tiny_config()), 3)
    ends, classes = torch.tensor([4, -1, 9]), torch.tensor([2, 0, 1])
    expected = F.cross_entropy(model(batch[0])[torch.arange(B), ends], classes, reduction="none")
    found = model(batch[0], at=ends, targets=classes, reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model(batch[0], at=ends, targets=classes), expected.sum())


def test_documents_are_read_as_if_each_stood_alone(model: GPTModel) -> None:
    lengths = [[5, 1, 10], [16], [3, 13]]
    documents = torch.stack(
        [
            torch.repeat_interleave(torch.arange(len(row)) * 7 % 3, torch.tensor(row))
            for row in lengths
        ]
    )
    inputs = torch.randint(0, V, (B, T))
    logits = model(inputs, documents=documents)
    for row, parts in enumerate(lengths):
        alone = [model(text[None])[0] for text in inputs[row].split(parts)]
        torch.testing.assert_close(logits[row], torch.cat(alone), atol=1e-5, rtol=0)
    assert not torch.allclose(logits[0, 5:], model(inputs)[0, 5:], atol=1e-3)
    # And with everything else that can be asked.
    targets, at = torch.randint(0, V, (B,)), torch.tensor([-1, 4, 3])
    found = model(inputs, documents=documents, at=at, targets=targets)
    expected = F.cross_entropy(logits[torch.arange(B), at], targets, reduction="sum")
    torch.testing.assert_close(found, expected)


def test_a_cache_and_documents_exclude_each_other(model: GPTModel) -> None:
    idx = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(UserError, match="give a cache or documents: a cache holds one document"):
        model(idx, model.new_cache(), documents=idx)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor has which is computed within it."""

    numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return out


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("bf16", [True, False])
def test_the_logits_of_a_batch_never_exist(
    reduction: fused_loss.Reduction, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits, "CHUNK_LOGITS", 4 * V)
    model = GPTModel(tiny_config(emb_dim=8, n_heads=2))
    inputs, targets = torch.randint(0, V, (2, B, T))

    def largest(loss: Callable[[], Tensor]) -> int:
        with Largest() as mode:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                total = loss().sum()
            total.backward()
        return mode.numel

    assert largest(lambda: model(inputs, targets=targets, reduction=reduction)) == 8 * V
    assert largest(lambda: F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())) == (
        B * T * V
    )

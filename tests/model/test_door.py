from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from groundup import GPTModel, calc_loss_batch, generate_text_simple
from groundup.model.door import context_length, device_of, evaluating, new_cache, scores, token_loss
from tests.conftest import tiny_config

B, T, V = 3, 16, 300


class Negated(GPTModel):
    """A student's subclass, whose ``forward`` knows ids only."""

    def forward(self, in_idx: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -super().forward(in_idx)


class Tempered(GPTModel):
    """A subclass that passes on whatever it is asked, and changes what comes back."""

    def forward(self, in_idx: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(in_idx, *args, **kwargs) / 2


class ReadsSomePlaces(GPTModel):
    """A subclass that takes one more argument of those there are."""

    def forward(self, in_idx: Tensor, at: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -super().forward(in_idx, at=at)


class Students(nn.Module):
    """A model that has nothing of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.rnn = nn.Embedding(V, 32), nn.GRU(32, 32, batch_first=True)
        self.out = nn.Linear(32, V)

    def forward(self, idx: Tensor) -> Tensor:
        return self.out(self.rnn(self.emb(idx))[0])


KINDS: dict[str, Callable[[], nn.Module]] = {
    "GPTModel": lambda: GPTModel(tiny_config()),
    "subclass, ids only": lambda: Negated(tiny_config()),
    "subclass, ids and places": lambda: ReadsSomePlaces(tiny_config()),
    "subclass, passes on": lambda: Tempered(tiny_config()),
    "student's own": Students,
}


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def assert_all_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


# Any module trains and generates what it computes


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_computes_is_what_is_trained(kind: str, batch: tuple[Tensor, Tensor]) -> None:
    model = KINDS[kind]()
    inputs, targets = batch

    def own_loss() -> Tensor:
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    before = own_loss()
    loss = calc_loss_batch(inputs, targets, model, "cpu")
    torch.testing.assert_close(loss, before, atol=1e-5, rtol=0)
    assert_all_close(gradients(loss, model), gradients(own_loss(), model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        calc_loss_batch(inputs, targets, model, "cpu").backward()
        optimizer.step()
    assert own_loss() < 0.9 * before


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_computes_is_what_is_generated(kind: str) -> None:
    model = KINDS[kind]().eval()
    prompt = torch.randint(0, V, (2, 3))
    out = generate_text_simple(model, prompt, max_new_tokens=6, context_size=16)
    assert torch.equal(out[:, :3], prompt)
    with torch.no_grad():
        assert torch.equal(out[:, 3:], model(out[:, :-1]).argmax(dim=-1)[:, 2:])


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_losses_at_chosen_positions(kind: str, batch: tuple[Tensor, Tensor]) -> None:
    model, (inputs, _) = KINDS[kind](), batch
    whole = model(inputs)
    assert torch.equal(scores(model, inputs), whole)
    for at in (torch.tensor([2, -1, 0]), torch.tensor([[2, -1], [0, 15], [-16, 3]])):
        expected = torch.stack([row[places] for row, places in zip(whole, at, strict=True)])
        found = scores(model, inputs, at=at)
        assert found.shape == (*at.shape, V)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        targets = torch.randint(0, V, at.shape)
        expected = F.cross_entropy(expected.flatten(0, -2), targets.flatten(), reduction="none")
        each = token_loss(model, inputs, targets, at=at, reduction="none")
        assert each.shape == at.shape
        torch.testing.assert_close(each.flatten(), expected)
        torch.testing.assert_close(token_loss(model, inputs, targets, at=at), expected.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_each_tokens_loss_is_that_of_the_models_own_scores(
    kind: str, batch: tuple[Tensor, Tensor]
) -> None:
    model, (inputs, targets) = KINDS[kind](), batch
    expected = F.cross_entropy(model(inputs).transpose(1, 2), targets, reduction="none")
    torch.testing.assert_close(token_loss(model, inputs, targets, reduction="none"), expected)
    assert (expected[0, 5:] == 0).all()


def test_only_who_takes_a_cache_gets_one() -> None:
    plain, negated = GPTModel(tiny_config()), Negated(tiny_config())
    for model in (Students(), negated, ReadsSomePlaces(tiny_config())):
        assert new_cache(model) is None
    for model in (plain, Tempered(tiny_config()), nn.DataParallel(plain)):
        cache = new_cache(model, 2, capacity=5)
        assert cache is not None and cache.layers[0].keys.shape == (2, 4, 5, 8)
    assert [context_length(m) for m in (Students(), negated, nn.DataParallel(plain))] == [
        *(None, 16, 16)
    ]
    assert device_of(Students().to("meta")).type == "meta"


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode(model: GPTModel, training: bool) -> None:
    model.train(training)
    with evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
    assert model.training == training and torch.is_grad_enabled()


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_see_every_call(kind: str, batch: tuple[Tensor, Tensor]) -> None:
    model, (inputs, targets) = KINDS[kind](), batch
    parts = ("rnn",) if kind == "student's own" else ("trf_blocks.0", "trf_blocks.1", "final_norm")
    calls: dict[str, int] = dict.fromkeys(["", *parts], 0)

    def count(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    for name in calls:
        model.get_submodule(name).register_forward_hook(count(name))
    calc_loss_batch(inputs, targets, model, "cpu")
    assert set(calls.values()) == {1}
    calc_loss_batch(inputs, torch.tensor([5, 0, 2]), model, "cpu")  # a classifier's
    assert set(calls.values()) == {2}
    generate_text_simple(model, inputs[:, :4], max_new_tokens=7, context_size=16)
    assert set(calls.values()) == {2 + 7}


# Compiled and wrapped models


@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_model_trains_through_the_same_loss(
    in_place: bool, model: GPTModel, batch: tuple[Tensor, Tensor], fused: list[str]
) -> None:
    expected = calc_loss_batch(*batch, model, "cpu")
    grads = gradients(expected, model)
    assert fused == ["sum"]
    graphs: list[int] = []
    aot = torch._dynamo.lookup_backend("aot_eager")

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(len(graph.graph.nodes))
        return aot(graph, inputs)

    if in_place:
        model.compile(backend=backend)
        compiled: Any = model
    else:
        compiled = torch.compile(model, backend=backend)
    loss = calc_loss_batch(*batch, compiled, "cpu")
    torch.testing.assert_close(loss, expected)
    assert_all_close(gradients(loss, model), grads)
    assert fused == ["sum", "sum"]
    assert sum(graphs) > 30  # the blocks, and not just some line of them


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_model_wrapped_by_ddp_trains_through_the_same_loss(
    model: GPTModel, batch: tuple[Tensor, Tensor], fused: list[str]
) -> None:
    expected = calc_loss_batch(*batch, model, "cpu")
    grads = gradients(expected, model)
    wrapped = DistributedDataParallel(model)
    loss = calc_loss_batch(*batch, wrapped, "cpu")
    loss.backward()  # DDP's hooks run
    torch.testing.assert_close(loss, expected)
    assert_all_close([p.grad for p in model.parameters() if p.grad is not None], grads)
    assert fused == ["sum", "sum"]
    out = generate_text_simple(wrapped, batch[0][:, :3], max_new_tokens=2, context_size=16)
    assert out.shape == (B, 5)

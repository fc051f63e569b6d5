import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.data.batching import Batch, LoaderBatches
from groundup.train.parallel import Parallel
from groundup.train.world import World, dealt
from tests.train.loops import Log, Saved, build


class Host:
    """Counts what makes the host wait for a device: numbers and lists that are made of tensors."""

    LISTS = (Tensor.tolist, Tensor.numpy, Tensor.cpu)
    NUMBERS = (
        torch.ops.aten._local_scalar_dense.default,  # item(), int(), float(), bool()
        torch.ops.aten.nonzero.default,
        torch.ops.aten.equal.default,
    )

    def __init__(self) -> None:
        self.waits: list[str] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        waits, lists, numbers = self.waits, self.LISTS, self.NUMBERS

        class Above(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
                if func in lists:
                    waits.append(func.__name__)
                return func(*args, **(kwargs or {}))

        class Below(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
                if func in numbers:
                    waits.append(str(func))
                return func(*args, **(kwargs or {}))

        with Above(), Below():
            yield


def test_what_waits_is_noticed() -> None:
    host, x = Host(), torch.tensor([1.5])
    with host.watched():
        _ = x.item(), int(x), float(x), bool(x), x.tolist(), x.nonzero(), torch.equal(x, x)
        _ = x + 1, x.sum(), x.detach()
    assert len(host.waits) == 7


class Squares:
    """An objective that knows its counts without looking into tensors."""

    def __init__(self) -> None:
        self.counted: list[Batch] = []

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch[0]).square().sum()

    def count(self, batch: Batch) -> int:
        self.counted.append(batch)
        return len(batch[0])

    def tokens(self, batch: Batch) -> int:
        self.counted.append(batch)
        return len(batch[0])


def test_the_host_waits_for_the_device_once_per_step() -> None:
    """An objective counts on the CPU, where the data are; the loop itself reads one tensor."""
    host, log, objective = Host(), Log(), Squares()
    batches = [(torch.randn(2, 4),) for _ in range(12)]
    trainer = build(
        nn.Linear(4, 1),
        data=LoaderBatches(batches),
        objective=objective,
        grad_accum_steps=4,
        grad_clip=1.0,
        schedule=lambda step: 0.01,
        checkpoints=Saved(),
        listeners=[log],
    )
    with host.watched():
        trainer.fit()
    assert len(log.steps) == 3
    assert host.waits == ["tolist"] * 3
    assert {id(batch) for batch in objective.counted} == {id(batch) for batch in batches}


class Two(World):
    """Two processes that do the same, of which this is one."""

    size = 2

    def __init__(self, asked: list[object]) -> None:
        self.asked = asked

    def sum(self, *values: int) -> list[int]:
        self.asked.append(("sum", *values))
        return [2 * value for value in values]

    def total(self, tensor: Tensor) -> Tensor:
        self.asked.append("total")
        return 2 * tensor


class Notes(Parallel):
    """Notes what it is asked."""

    def __init__(self, model: nn.Module) -> None:
        self.asked: list[object] = []
        super().__init__(model, Two(self.asked))

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        self.asked.append("last" if last else "not the last")
        yield
        self.asked.append("done")

    def clip(self, limit: float) -> Tensor:
        self.asked.append(("clip", limit))
        return super().clip(limit)


def test_the_loop_asks_for_sums_micro_steps_and_clipping() -> None:
    model = nn.Linear(4, 1)
    parallel = Notes(model)

    class Noted(Squares):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            parallel.asked.append("loss")
            value = super().loss(model, batch)
            value.register_hook(lambda gradient: parallel.asked.append("backward"))
            return value

    batches = [(torch.randn(2, 4),) for _ in range(3)]
    expected = sum(model(x).square().sum().item() for (x,) in batches[:2]) / 4
    log = Log()
    more = {"objective": Noted(), "grad_accum_steps": 2, "parallel": parallel, "listeners": [log]}
    build(model, data=LoaderBatches(batches), steps=2, grad_clip=0.5, **more).fit()
    batch = ["loss", "backward", "done"]
    go_on = ("sum", False)  # whether anybody was asked to stop
    counts, clipped = ("sum", 4, 4, 4), [("clip", 0.5), "total", go_on]
    assert parallel.asked == [
        *[go_on, counts, "not the last", *batch, "last", *batch, *clipped],
        *[("sum", 2, 2, 2), "last", *batch, *clipped],  # where the epoch ends
    ]
    assert [record["tokens_seen"] for record in log.steps] == [8, 12]  # of both processes
    assert log.steps[0]["loss"] == pytest.approx(expected, rel=1e-5)
    parallel.asked.clear()
    build(model, data=LoaderBatches(batches), steps=1, parallel=parallel, objective=Squares()).fit()
    assert ("clip", math.inf) in parallel.asked


def test_all_stop_when_one_of_them_is_asked_to() -> None:
    model, log = nn.Linear(4, 1), Log()
    parallel = Notes(model)
    asked = iter([False, False, True])
    parallel.world.any = lambda value: next(asked)  # pyright: ignore[reportAttributeAccessIssue]
    data = LoaderBatches([(torch.randn(2, 4),) for _ in range(9)])
    build(model, data=data, parallel=parallel, objective=Squares(), listeners=[log]).fit()
    assert len(log.steps) == 2


def test_one_process_changes_nothing() -> None:
    model = nn.Linear(4, 1)
    parallel = Parallel(model)
    world = parallel.world
    assert parallel.trained is model and world.is_main and world.sum(7, 8) == [7, 8]
    assert (world.any(True), world.any(False), world.agreed("x")) == (True, False, "x")
    assert world.gathered(3) == [3] and dealt([1, 2, 3], world, 0) == [1, 2, 3]
    loss = torch.tensor(2.0)
    assert parallel.mean(loss) is loss
    model.weight.grad = torch.tensor([[3.0, 0, 0, 4.0]])
    with parallel.micro_step(last=False):
        pass
    assert parallel.clip(math.inf).item() == 5 and model.weight.grad.norm() == 5
    assert parallel.clip(1.0).item() == 5
    assert model.weight.grad.norm().item() == pytest.approx(1, rel=1e-4)

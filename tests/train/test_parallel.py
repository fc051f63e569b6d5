import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.data.batching import Batch, LoaderBatches
from groundup.model.gpt import GPTModel
from groundup.train.parallel import Parallel
from tests.conftest import Run, tiny_config
from tests.train.loops import Log, Saved, build, evaluations


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


class Notes(Parallel):
    """Two processes of which this is one; notes what it is asked."""

    def __init__(self, is_main: bool = True) -> None:
        self.is_main = is_main
        self.asked: list[object] = []

    def sum(self, value: int) -> int:
        self.asked.append(("sum", value))
        return 2 * value

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        self.asked.append("last" if last else "not the last")
        yield
        self.asked.append("done")

    def clip(self, model: nn.Module, limit: float) -> Tensor:
        self.asked.append(("clip", limit))
        return super().clip(model, limit)


def test_the_loop_asks_for_sums_micro_steps_and_clipping() -> None:
    parallel = Notes()

    class Noted(Squares):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            parallel.asked.append("loss")
            value = super().loss(model, batch)
            value.register_hook(lambda gradient: parallel.asked.append("backward"))
            return value

    model = nn.Linear(4, 1)
    batches = [(torch.randn(2, 4),) for _ in range(3)]
    expected = sum(model(x).square().sum().item() for (x,) in batches[:2]) / (2 * 4)
    log = Log()
    more = {"objective": Noted(), "grad_accum_steps": 2, "parallel": parallel, "listeners": [log]}
    build(model, data=LoaderBatches(batches), steps=2, grad_clip=0.5, **more).fit()
    batch = ["loss", "backward", "done"]
    assert parallel.asked == [
        *[("sum", 4), "not the last", *batch, "last", *batch, ("clip", 0.5)],
        *[("sum", 2), "last", *batch, ("clip", 0.5)],  # where the epoch ends
    ]
    assert log.steps[0]["loss"] == pytest.approx(expected, rel=1e-5)
    parallel.asked.clear()
    build(model, data=LoaderBatches(batches), steps=1, parallel=parallel, objective=Squares()).fit()
    assert parallel.asked[-1] == ("clip", math.inf)


def test_only_the_main_process_tells_its_listeners() -> None:
    for is_main in (True, False):
        log = Log()
        trainer = build(
            GPTModel(tiny_config()),
            parallel=Notes(is_main),
            listeners=[log],
            **evaluations(3.0, 2.0, 1.0),
        )
        trainer.fit()
        assert trainer.progress.step == trainer.best.step == 3
        heard = (len(log.steps), len(log.evaluations), log.epochs)
        assert heard == ((3, 3, [1]) if is_main else (0, 0, []))


def test_one_of_several_processes_is_told_before_anything_is_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run("demo", "--out", tmp_path / "run")
    assert result.status == 2 and "2 processes" in result.err and "torchrun" in result.err
    assert not list(tmp_path.iterdir())


def test_one_process_changes_nothing() -> None:
    parallel, model = Parallel(), nn.Linear(4, 1)
    assert parallel.is_main and parallel.sum(7) == 7
    model.weight.grad = torch.tensor([[3.0, 0, 0, 4.0]])
    with parallel.micro_step(last=False):
        pass
    assert parallel.clip(model, math.inf).item() == 5 and model.weight.grad.norm() == 5
    assert parallel.clip(model, 1.0).item() == 5
    assert model.weight.grad.norm().item() == pytest.approx(1, rel=1e-4)

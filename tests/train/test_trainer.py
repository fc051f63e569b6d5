import math
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.config import IGNORE_INDEX
from groundup.data.batching import Batch, LoaderBatches
from groundup.errors import TrainingFailed
from groundup.model.door import token_loss
from groundup.model.gpt import GPTModel
from groundup.runtime import Runtime
from groundup.train.best import Best
from groundup.train.objective import NextToken
from groundup.train.trainer import Listener, Progress, Record
from tests.conftest import tiny_config
from tests.train.loops import Log, Saved, build, evaluations, loader


def test_a_tiny_model_overfits_one_batch() -> None:
    model = GPTModel(tiny_config()).init_gpt2()
    log = Log()
    build(model, steps=150, data=loader(4, windows=4), listeners=[log]).fit()
    assert log.steps[-1]["loss"] < 0.05


def test_four_batches_of_one_are_one_batch_of_four() -> None:
    start = GPTModel(tiny_config()).init_gpt2().state_dict()
    results = []
    for size, accumulate in ((4, 1), (1, 4)):
        model = GPTModel(tiny_config())
        model.load_state_dict(start)
        build(model, size, grad_accum_steps=accumulate, grad_clip=1.0).fit()
        results.append(model.state_dict())
    for name in start:
        torch.testing.assert_close(results[0][name], results[1][name], atol=2e-5, rtol=0)


def test_every_valid_target_weighs_the_same_in_a_step() -> None:
    """A batch with few valid targets must not count as much as a full one."""
    inputs = torch.randint(0, 300, (2, 16))
    targets = torch.randint(0, 300, (2, 16))
    targets[0, 2:] = IGNORE_INDEX
    model = GPTModel(tiny_config())
    expected = token_loss(model, inputs, targets).item() / 18
    batches = [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]
    record = build(model, data=LoaderBatches(batches), grad_accum_steps=2, steps=1).fit()
    assert record["loss"] == pytest.approx(expected, rel=1e-5)
    assert record["tokens_seen"] == 18 and record["examples_seen"] == 2


def test_a_step_without_any_target_is_no_division_by_zero() -> None:
    inputs = torch.randint(0, 300, (2, 16))
    batches = [(inputs, torch.full_like(inputs, IGNORE_INDEX))]
    record = build(GPTModel(tiny_config()), data=LoaderBatches(batches), steps=1).fit()
    assert record["loss"] == 0 and record["grad_norm"] == 0 and record["tokens_seen"] == 0


def test_events_come_in_order_and_epochs_are_counted() -> None:
    log = Log()
    trainer = build(
        GPTModel(tiny_config()),
        steps=7,
        listeners=[log],
        evaluate=lambda: {"val_loss": 1.0},
        eval_due=lambda step: step in (1, 4),
    )
    trainer.fit()
    assert [r["step"] for r in log.steps] == list(range(1, 8))
    assert [r["step"] for r in log.evaluations] == [1, 4]
    assert log.epochs == [1, 2]  # 12 windows in batches of 4: 3 steps per epoch
    assert log.steps[3]["epoch"] == pytest.approx(4 / 3, abs=1e-3)
    assert log.steps[-1]["tokens_seen"] == 7 * 4 * 16
    assert log.steps[-1]["examples_seen"] == 7 * 4


def test_a_step_does_not_cross_an_epochs_end() -> None:
    log = Log()
    build(GPTModel(tiny_config()), steps=4, grad_accum_steps=2, listeners=[log]).fit()
    assert [r["examples_seen"] for r in log.steps] == [8, 12, 20, 24]
    assert [r["epoch"] for r in log.steps] == [0.666667, 1, 1.666667, 2]


def test_saving_happens_on_time_and_at_the_end() -> None:
    saved = Saved()
    build(GPTModel(tiny_config()), steps=5, checkpoints=saved, save_freq=2).fit()
    assert saved.steps == [2, 4, 5]
    assert saved.best == []
    assert [r["step"] for r in saved.records] == saved.steps
    kept = ("epoch", "batch", "batches")
    assert [{name: s["data"][name] for name in kept} for s in saved.states] == [
        {"epoch": 0, "batch": 2, "batches": 3},
        {"epoch": 1, "batch": 1, "batches": 3},
        {"epoch": 1, "batch": 2, "batches": 3},
    ]


def test_saving_by_the_clock_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    start, results = GPTModel(tiny_config(drop_rate=0.1)).state_dict(), []
    clock = SimpleNamespace(perf_counter=iter(range(1000)).__next__)  # a step takes 3 seconds
    monkeypatch.setattr("groundup.train.trainer.time", clock)
    for minutes, expected in ((None, [9]), (0.1, [2, 4, 6, 8, 9]), (0.2, [4, 8, 9])):
        torch.manual_seed(1)
        model, saved, log = GPTModel(tiny_config(drop_rate=0.1)), Saved(), Log()
        model.load_state_dict(start)
        options: dict[str, Any] = {"save_minutes": minutes, "checkpoints": saved}
        build(model, steps=9, listeners=[log], **options).fit()
        assert saved.steps == expected
        timed = ("seconds", "tokens_per_second")
        steps = [{n: v for n, v in r.items() if n not in timed} for r in log.steps]
        results.append((steps, model.state_dict()))
    for steps, state in results[1:]:
        assert steps == results[0][0]
        assert all(torch.equal(state[name], results[0][1][name]) for name in state)


class NotFinite(NextToken):
    """A loss that is not finite, or whose gradient is not, from some step on."""

    def __init__(self, where: str, step: int) -> None:
        self.where, self.finite = where, step - 1

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        value = super().loss(model, batch)
        self.finite -= 1
        if self.finite >= 0:
            return value
        return value * math.inf if self.where == "loss" else (value - value.detach()) * math.inf


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_the_first_nonfinite_number_stops_the_run_before_the_weights_change(where: str) -> None:
    model = GPTModel(tiny_config())
    before = {name: p.clone() for name, p in model.state_dict().items()}
    saved = Saved()
    trainer = build(model, objective=NotFinite(where, 1), checkpoints=saved)
    with pytest.raises(TrainingFailed, match=r"step 1: loss .* learning rate 0.01, gradient norm"):
        trainer.fit()
    assert saved.steps == saved.best == []
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_a_failure_says_what_is_saved() -> None:
    saved = Saved()
    trainer = build(GPTModel(tiny_config()), objective=NotFinite("loss", 2), checkpoints=saved)
    with pytest.raises(TrainingFailed, match="step 2: .* nothing had been saved yet"):
        trainer.fit()
    trainer = build(
        GPTModel(tiny_config()),
        steps=9,
        objective=NotFinite("loss", 4),
        checkpoints=saved,
        save_freq=2,
    )
    with pytest.raises(TrainingFailed, match="step 4: .* the checkpoint of step 2 is kept"):
        trainer.fit()
    assert saved.steps == [2]


def test_a_request_to_stop_ends_after_the_step_and_saves() -> None:
    saved = Saved()

    class Stopper(Listener):
        def on_step(self, record: Record) -> None:
            if record["step"] == 2:
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    trainer = build(GPTModel(tiny_config()), steps=9, listeners=[Stopper()], checkpoints=saved)
    trainer.fit()
    assert saved.steps == [2]
    assert trainer.stop.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_insists() -> None:
    class Impatient(Listener):
        def on_step(self, record: Record) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(GPTModel(tiny_config()), listeners=[Impatient()]).fit()


class Spy(NextToken):
    """Remembers the batches."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.seen.append(batch[0])
        return super().loss(model, batch)


def test_a_run_goes_on_where_its_state_says() -> None:
    whole, first, second = Spy(), Spy(), Spy()
    torch.manual_seed(3)
    straight = GPTModel(tiny_config())
    build(straight, steps=5, objective=whole).fit()
    torch.manual_seed(3)
    model, saved = GPTModel(tiny_config()), Saved()
    before = build(model, steps=2, objective=first, checkpoints=saved)
    before.fit()
    state = saved.states[-1]
    data = loader(4)
    data.load_state_dict(state["data"])
    log = Log()
    build(
        model,
        steps=5,
        optimizer=before.optimizer,
        data=data,
        objective=second,
        progress=Progress(**state["progress"]),
        best=Best(**state["best"]),
        listeners=[log],
    ).fit()
    seen = first.seen + second.seen
    assert len(first.seen) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole.seen, seen, strict=True))
    assert all(map(torch.equal, straight.parameters(), model.parameters()))
    assert [r["step"] for r in log.steps] == [3, 4, 5] and log.steps[-1]["tokens_seen"] == 5 * 64


def test_clipping_limits_the_gradient() -> None:
    log = Log()
    trainer = build(GPTModel(tiny_config()), steps=1, grad_clip=1e-3, listeners=[log])
    trainer.fit()
    total = torch.nn.utils.get_total_norm([p.grad for p in trainer.model.parameters()])  # pyright: ignore
    assert total.item() == pytest.approx(1e-3, rel=1e-3)
    assert log.steps[0]["grad_norm"] > 1e-3  # the norm before clipping


def test_bf16_keeps_fp32_parameters_and_learns() -> None:
    model = GPTModel(tiny_config()).init_gpt2()
    log = Log()
    trainer = build(model, steps=60, data=loader(4, windows=4), listeners=[log])
    trainer.runtime = Runtime(torch.device("cpu"), "bf16", "a test")
    trainer.fit()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert log.steps[-1]["loss"] < log.steps[0]["loss"] / 4


def test_patience_ends_the_run_and_saves() -> None:
    saved = Saved()
    measured = evaluations(3.0, 2.0, 2.5, 2.0, 1.0)
    trainer = build(GPTModel(tiny_config()), steps=9, patience=2, checkpoints=saved, **measured)
    trainer.fit()
    assert (saved.best, saved.steps) == ([1, 2], [4])
    assert saved.states[-1]["best"] == {"step": 2, "score": [-2.0], "waited": 2}
    # It is over as well for whoever goes on with it, and not for one who has more patience.
    more = {"progress": trainer.progress, "best": trainer.best}
    assert build(GPTModel(tiny_config()), steps=9, patience=2, **more).fit() == {}
    measured = evaluations(2.1)
    again = build(GPTModel(tiny_config()), steps=9, patience=3, **more, **measured)
    assert again.fit()["step"] == 5


def test_without_patience_a_run_goes_to_its_end() -> None:
    saved = Saved()
    measured = evaluations(1.0, 2.0, 3.0, 0.5, 5.0)
    build(GPTModel(tiny_config()), steps=5, checkpoints=saved, **measured).fit()
    assert (saved.best, saved.steps) == ([1, 4], [5])


def test_speed_counts_data_and_training_but_no_padding_no_evaluation_no_saving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def take(seconds: float) -> None:
        nonlocal now
        now += seconds

    class SlowData(LoaderBatches):
        def next(self, count: int) -> list[Batch]:
            take(1)
            return super().next(count)

    class SlowLoss(NextToken):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            take(3)
            return super().loss(model, batch)

    class SlowSave(Saved):
        def save(self, state: dict[str, Any], record: Record, *, best: bool, due: bool) -> None:
            take(1000)

    def slow_evaluation() -> Record:
        take(100)
        return {"val_loss": 1.0}

    monkeypatch.setattr("groundup.train.trainer.time", SimpleNamespace(perf_counter=lambda: now))
    inputs = torch.randint(0, 300, (2, 16))
    targets = inputs.clone()
    targets[1, 8:] = IGNORE_INDEX
    log = Log()
    trainer = build(
        GPTModel(tiny_config()),
        data=SlowData([(inputs, targets)]),
        objective=SlowLoss(),
        evaluate=slow_evaluation,
        eval_due=lambda step: True,
        checkpoints=SlowSave(),
        save_freq=1,
        listeners=[log],
    )
    trainer.fit()
    assert [r["tokens_per_second"] for r in log.steps] == [24 / 4] * 3
    assert [r["tokens_seen"] for r in log.steps] == [24, 48, 72]
    assert [r["seconds"] for r in log.steps] == [4, 1108, 2212]  # of the run, with everything

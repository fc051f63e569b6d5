import math
import os
import signal
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from groundup.config import IGNORE_INDEX
from groundup.data.windows import ResumableLoader, TokenWindows
from groundup.errors import TrainingFailed
from groundup.model.gpt import GPTModel
from groundup.runtime import Runtime
from groundup.train.config import TrainConfig
from groundup.train.losses import next_token_loss
from groundup.train.optim import build_optimizer
from groundup.train.trainer import Listener, Progress, Record, Trainer
from tests.conftest import tiny_config

CPU = Runtime(torch.device("cpu"), "fp32", "a test")


def loader(batch_size: int, seed: int = 1, windows: int = 12) -> ResumableLoader:
    ids = torch.randint(0, 300, (windows * 16 + 1,), generator=torch.Generator().manual_seed(9))
    return ResumableLoader(TokenWindows(ids, 16, 16), batch_size, seed)


def build(model: nn.Module, batch_size: int = 4, steps: int = 3, **more: object) -> Trainer:
    optimizer = build_optimizer(model, TrainConfig(learning_rate=1e-2, weight_decay=0.0))
    settings: dict = {"loader": loader(batch_size), "total_steps": steps} | more
    return Trainer(model=model, optimizer=optimizer, runtime=CPU, **settings)


class Log(Listener):
    def __init__(self) -> None:
        self.steps: list[Record] = []
        self.evaluations: list[Record] = []
        self.epochs: list[int] = []

    def on_step(self, record: Record) -> None:
        self.steps.append(record)

    def on_evaluate(self, record: Record) -> None:
        self.evaluations.append(record)

    def on_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def test_a_tiny_model_overfits_one_batch() -> None:
    model = GPTModel(tiny_config()).init_gpt2()
    log = Log()
    build(model, steps=150, loader=loader(4, windows=4), listeners=[log]).fit()
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
    trainer = build(
        model,
        loader=[(inputs[:1], targets[:1]), (inputs[1:], targets[1:])],
        grad_accum_steps=2,
        steps=1,
    )
    loss, _ = trainer._forward_backward(list(trainer.loader))
    assert loss == pytest.approx(next_token_loss(model, inputs, targets).item() / 18, rel=1e-5)


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


def test_saving_happens_on_time_and_at_the_end() -> None:
    saved: list[int] = []
    trainer = build(
        GPTModel(tiny_config()), steps=5, save=lambda p, r: saved.append(p.step), save_freq=2
    )
    trainer.fit()
    assert saved == [2, 4, 5]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_the_first_nonfinite_number_stops_the_run_before_the_weights_change(where: str) -> None:
    model = GPTModel(tiny_config())
    before = {name: p.clone() for name, p in model.state_dict().items()}
    saved: list[int] = []

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        value = next_token_loss(model, inputs, targets)
        return value * math.inf if where == "loss" else (value - value.detach()) * math.inf

    trainer = build(model, loss_fn=loss, save=lambda p, r: saved.append(p.step))
    with pytest.raises(TrainingFailed, match=r"step 1: loss .* learning rate 0.01, gradient norm"):
        trainer.fit()
    assert saved == []
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_a_request_to_stop_ends_after_the_step_and_saves() -> None:
    saved: list[int] = []

    class Stopper(Listener):
        def on_step(self, record: Record) -> None:
            if record["step"] == 2:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    trainer = build(
        GPTModel(tiny_config()),
        steps=9,
        listeners=[Stopper()],
        save=lambda p, r: saved.append(p.step),
    )
    trainer.fit()
    assert saved == [2]
    assert trainer.stop.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_insists() -> None:
    class Impatient(Listener):
        def on_step(self, record: Record) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(GPTModel(tiny_config()), listeners=[Impatient()]).fit()


def test_a_run_goes_on_where_progress_says() -> None:
    seen: list[Tensor] = []

    class Spy:
        def __init__(self, inner: ResumableLoader) -> None:
            self.inner, self.start = inner, inner.start

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in self.inner:
                seen.append(batch[0])
                yield batch

        def __len__(self) -> int:
            return len(self.inner)

    build(GPTModel(tiny_config()), steps=5, loader=Spy(loader(4))).fit()
    whole, seen[:] = list(seen), []
    progress = Progress(step=2, epoch=0, batch=2)
    build(GPTModel(tiny_config()), steps=5, loader=Spy(loader(4)), progress=progress).fit()
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], seen, strict=True))


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
    trainer = build(model, steps=60, loader=loader(4, windows=4), listeners=[log])
    trainer.runtime = Runtime(torch.device("cpu"), "bf16", "a test")
    trainer.fit()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert log.steps[-1]["loss"] < log.steps[0]["loss"] / 4

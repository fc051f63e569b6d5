"""The course's training functions: thin calls of the one loop, returning the course's values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from groundup.data.batching import Batch, LoaderBatches
from groundup.decoding.engine import generate_text_simple, text_to_token_ids, token_ids_to_text
from groundup.model.door import evaluating, known_context_length, scores, token_loss
from groundup.output import show
from groundup.runtime import Runtime
from groundup.tokenizers import Tokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.objective import NextToken, mean_loss, to_device
from groundup.train.parallel import Parallel
from groundup.train.trainer import Listener, Plan, Record, Trainer


class CourseObjective(NextToken):
    """The course's batches: ids ``(B, T)`` with targets ``(B, T)``, or with classes ``(B,)``.

    A class is read at the last position, whatever the padding; its tokens count padding too.
    """

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The summed loss of next tokens or of classes; the targets' shape tells which."""
        inputs, targets = batch
        at = _last(inputs) if targets.dim() == 1 else None
        return token_loss(model, inputs, targets, at=at)

    def tokens(self, batch: Batch) -> int:
        """All tokens of the inputs."""
        return batch[0].numel()


def _last(inputs: Tensor) -> Tensor:
    """The last position of each row: ids ``(B, T)`` to ``(B,)``."""
    return torch.full((len(inputs),), -1, device=inputs.device)


def calc_loss_batch(
    input_batch: Tensor, target_batch: Tensor, model: nn.Module, device: torch.device | str
) -> Tensor:
    """Cross-entropy of one batch: a scalar that ``backward()`` can be called on.

    Targets ``(B, T)`` are next tokens (chapters 5 and 7 of the course) and give the loss per token;
    targets ``(B,)`` are classes (chapter 6), read at the last position, and give it per text.
    """
    objective, batch = CourseObjective(), to_device((input_batch, target_batch), device)
    return objective.loss(model, batch) / max(1, objective.count(batch))


def calc_loss_loader(
    data_loader: Iterable[Batch],
    model: nn.Module,
    device: torch.device | str,
    num_batches: int | None = None,
) -> float:
    """Loss per token over the first ``num_batches`` batches (all by default); NaN if there is none.

    Every token weighs the same. (The course averages over batches, which differs only if the
    last batch is a smaller one.) As in the course, the model's mode is the caller's business.
    """
    return mean_loss(model, data_loader, device, CourseObjective(), max_batches=num_batches)


def calc_accuracy_loader(
    data_loader: Iterable[Batch],
    model: nn.Module,
    device: torch.device | str,
    num_batches: int | None = None,
) -> float:
    """Share of right predictions at the last position; NaN if there is no batch.

    Over the first ``num_batches`` batches (all by default), in eval mode.
    """
    right, count = 0, 0
    with evaluating(model):
        for batch in islice(data_loader, num_batches):
            inputs, classes = to_device(batch, device)
            logits = scores(model, inputs, at=_last(inputs))
            right += int((logits.argmax(dim=-1) == classes).sum())
            count += len(classes)
    return right / count if count else float("nan")


def evaluate_model(
    model: nn.Module,
    train_loader: Iterable[Batch],
    val_loader: Iterable[Batch],
    device: torch.device | str,
    eval_iter: int | None,
) -> tuple[float, float]:
    """Training and validation loss over ``eval_iter`` batches each, in eval mode."""
    with evaluating(model):
        train_loss = calc_loss_loader(train_loader, model, device, num_batches=eval_iter)
        val_loss = calc_loss_loader(val_loader, model, device, num_batches=eval_iter)
    return train_loss, val_loss


def generate_and_print_sample(
    model: nn.Module, tokenizer: Tokenizer, device: torch.device | str, start_context: str
) -> None:
    """Print 50 greedy tokens after ``start_context``, on one line."""
    context_size = known_context_length(model)
    idx = text_to_token_ids(start_context, tokenizer).to(device)
    with evaluating(model):
        idx = generate_text_simple(model, idx, max_new_tokens=50, context_size=context_size)
    show(token_ids_to_text(idx, tokenizer).replace("\n", " "))


def _print_losses(record: Record, count: str = "Step") -> None:
    """Print an evaluation as the course does, which counts steps from 0."""
    show(
        f"Ep {math.ceil(record['epoch'])} ({count} {int(record['step']) - 1:06d}): "
        f"Train loss {record['train_loss']:.3f}, Val loss {record['val_loss']:.3f}"
    )


class CourseLog(Listener):
    """Prints and collects what the course's ``train_model_simple`` prints and returns.

    Args:
        model: what is trained.
        tokenizer: its tokenizer, for the samples.
        device: where the model is.
        start: what the samples continue.
        count: what the course calls a step.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        device: torch.device | str,
        start: str,
        count: str = "Step",
    ) -> None:
        self.model, self.tokenizer, self.device, self.start = model, tokenizer, device, start
        self.count = count
        self.train_losses: list[float] = []
        self.val_losses: list[float] = []
        self.tokens_seen: list[int] = []
        self.learning_rates: list[float] = []

    def on_step(self, record: Record) -> None:
        """Collect the learning rate."""
        self.learning_rates.append(record["learning_rate"])

    def on_evaluate(self, record: Record) -> None:
        """Collect and print the losses."""
        self.train_losses.append(record["train_loss"])
        self.val_losses.append(record["val_loss"])
        self.tokens_seen.append(int(record["tokens_seen"]))
        _print_losses(record, self.count)

    def on_epoch(self, epoch: int) -> None:
        """Print a sample."""
        generate_and_print_sample(self.model, self.tokenizer, self.device, self.start)


def train_model_simple(
    model: nn.Module,
    train_loader: Iterable[Batch],
    val_loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Tokenizer,
) -> tuple[list[float], list[float], list[int]]:
    """Pretrain as the course does: fp32, a constant learning rate, no clipping.

    It evaluates after steps 1, 1 + ``eval_freq``, … and prints a sample after each epoch.

    Returns:
        Training losses, validation losses, and tokens seen, one of each per evaluation.
    """
    log = CourseLog(model, tokenizer, device, start_context)
    train_as_the_course(
        model, train_loader, val_loader, optimizer, device, num_epochs, eval_freq, eval_iter, log
    )
    return log.train_losses, log.val_losses, log.tokens_seen


class _ClassifierLog(Listener):
    """Prints and collects what the course's ``train_classifier_simple`` prints and returns."""

    def __init__(self, measure_accuracy: Callable[[], tuple[float, float]]) -> None:
        self.measure_accuracy = measure_accuracy
        self.train_losses: list[float] = []
        self.val_losses: list[float] = []
        self.train_accs: list[float] = []
        self.val_accs: list[float] = []
        self.examples_seen = 0

    def on_step(self, record: Record) -> None:
        self.examples_seen = int(record["examples_seen"])

    def on_evaluate(self, record: Record) -> None:
        self.train_losses.append(record["train_loss"])
        self.val_losses.append(record["val_loss"])
        _print_losses(record)

    def on_epoch(self, epoch: int) -> None:
        train, val = self.measure_accuracy()
        self.train_accs.append(train)
        self.val_accs.append(val)
        show(f"Training accuracy: {train:.2%} | Validation accuracy: {val:.2%}")


def train_classifier_simple(
    model: nn.Module,
    train_loader: Iterable[Batch],
    val_loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
) -> tuple[list[float], list[float], list[float], list[float], int]:
    """Train a classifier as the course does: fp32, a constant learning rate, no clipping.

    The loaders give ids ``(B, T)`` and classes ``(B,)``; the last position is read. It evaluates
    after steps 1, 1 + ``eval_freq``, …, and measures the accuracy after each epoch.

    Returns:
        Training and validation losses, one of each per evaluation; training and validation
        accuracies, one of each per epoch; the number of examples seen.
    """

    def accuracies() -> tuple[float, float]:
        train = calc_accuracy_loader(train_loader, model, device, num_batches=eval_iter)
        return train, calc_accuracy_loader(val_loader, model, device, num_batches=eval_iter)

    log = _ClassifierLog(accuracies)
    train_as_the_course(
        model, train_loader, val_loader, optimizer, device, num_epochs, eval_freq, eval_iter, log
    )
    return log.train_losses, log.val_losses, log.train_accs, log.val_accs, log.examples_seen


def train_as_the_course(
    model: nn.Module,
    train_loader: Iterable[Batch],
    val_loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
    log: Listener,
    *,
    schedule: Callable[[int], float] | None = None,
    parallel: Parallel | None = None,
    grad_clip: float = 0.0,
) -> None:
    """Run the loop with the course's settings; say so if it was interrupted.

    Args:
        model: what is trained, on ``device``.
        train_loader: batches to learn from.
        val_loader: batches to validate on.
        optimizer: steps the model.
        device: where.
        num_epochs: how often all batches are seen.
        eval_freq: steps from one evaluation to the next.
        eval_iter: batches of each loader in an evaluation.
        log: hears of every step and evaluation.
        schedule: learning rate of a step, 0 the first; the optimizer's own if there is none.
        parallel: what clips gradients.
        grad_clip: to which norm.
    """

    def evaluate() -> Record:
        train_loss, val_loss = evaluate_model(model, train_loader, val_loader, device, eval_iter)
        return {"train_loss": train_loss, "val_loss": val_loss}

    def say_stopping(text: str) -> None:  # nothing is saved here, other than in a run of ours
        show("\nstopping after this step (once more to stop at once)")

    data, stop = LoaderBatches(train_loader), StopRequest(say_stopping)
    steps = num_epochs * len(data)
    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        data=data,
        runtime=Runtime(torch.device(device), "fp32", "as in the course"),
        plan=Plan(
            steps,
            schedule,
            grad_clip=grad_clip,
            eval_due=lambda step: (step - 1) % eval_freq == 0,
        ),
        objective=CourseObjective(),
        evaluate=evaluate,
        listeners=[log],
        parallel=parallel,
        stop=stop,
    )
    trainer.fit()
    done = trainer.progress.step
    if stop.requested and done < steps:
        show(f"interrupted: the model has learned for {done:,} of {steps:,} steps")

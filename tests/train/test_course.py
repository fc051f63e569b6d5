import math
import signal
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from groundup.data.windows import create_dataloader_v1
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.train.course import (
    calc_accuracy_loader,
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    generate_and_print_sample,
    train_classifier_simple,
    train_model_simple,
)
from tests.conftest import TEXT, tiny_config


def loaders(tokenizer: BPETokenizer) -> tuple:
    options = {"batch_size": 2, "max_length": 16, "stride": 16, "tokenizer": tokenizer}
    train = create_dataloader_v1(TEXT * 6, **options)
    val = create_dataloader_v1(TEXT * 2, **options, shuffle=False, drop_last=False)
    return train, val


def test_loss_of_a_batch_is_pytorchs_cross_entropy() -> None:
    model = GPTModel(tiny_config())
    x, y = torch.randint(0, 300, (2, 2, 16))
    loss = calc_loss_batch(x, y, model, "cpu")
    expected = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert model.tok_emb.weight.grad is not None


def test_loss_of_a_loader_weighs_every_token_the_same(tokenizer: BPETokenizer) -> None:
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)).eval()
    _, val = loaders(tokenizer)
    batches = list(val)
    inputs, targets = (torch.cat([b[i] for b in batches]) for i in (0, 1))
    whole = calc_loss_batch(inputs, targets, model, "cpu").item()
    assert calc_loss_loader(val, model, "cpu") == pytest.approx(whole, rel=1e-5)
    first = calc_loss_batch(batches[0][0], batches[0][1], model, "cpu").item()
    assert calc_loss_loader(val, model, "cpu", num_batches=1) == pytest.approx(first, rel=1e-5)
    assert calc_loss_loader(val, model, "cpu", num_batches=99) == pytest.approx(whole, rel=1e-5)
    assert calc_loss_loader([], model, "cpu") != calc_loss_loader([], model, "cpu")  # NaN


def test_evaluation_is_in_eval_mode_and_restores_the_mode(tokenizer: BPETokenizer) -> None:
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size, drop_rate=0.5))
    _, val = loaders(tokenizer)
    first = evaluate_model(model, val, val, "cpu", 2)
    assert first == evaluate_model(model, val, val, "cpu", 2)
    assert model.training


def course_training(model, train, val, optimizer, epochs, eval_freq, eval_iter) -> tuple:
    """The course's own loop, as a reference: plain PyTorch, evaluated as it evaluates."""
    train_losses, val_losses, seen, tokens, step = [], [], [], 0, -1
    for _ in range(epochs):
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
            optimizer.step()
            tokens += x.numel()
            step += 1
            if step % eval_freq == 0:
                model.eval()
                for loader, losses in ((train, train_losses), (val, val_losses)):
                    total, count = 0.0, min(eval_iter, len(loader))
                    for i, (a, b) in enumerate(loader):
                        if i >= count:
                            break
                        with torch.no_grad():
                            total += F.cross_entropy(model(a).flatten(0, 1), b.flatten()).item()
                    losses.append(total / count)
                model.train()
                seen.append(tokens)
    return train_losses, val_losses, seen


def test_train_model_simple_gives_the_courses_numbers(
    tokenizer: BPETokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same seed, same numbers: dropout, shuffling and evaluation draw in the course's order."""
    results = []
    for trainer in ("course", "ours"):
        torch.manual_seed(123)
        model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size, drop_rate=0.1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
        train, val = loaders(tokenizer)
        torch.manual_seed(123)
        if trainer == "course":
            results.append(course_training(model, train, val, optimizer, 2, 3, 2))
        else:
            results.append(
                train_model_simple(
                    model, train, val, optimizer, "cpu", 2, 3, 2, "The fox", tokenizer
                )
            )
    for theirs, ours in zip(*results, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Ep 1 (Step 000000): Train loss ")
    assert sum(line.startswith("Ep ") for line in lines) == len(results[1][0])
    assert sum(line.startswith("The fox") for line in lines) == 2  # one sample per epoch


def test_a_sample_is_one_line(tokenizer: BPETokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size))
    generate_and_print_sample(model, tokenizer, "cpu", "The\nfox")
    assert capsys.readouterr().out.count("\n") == 1
    assert model.training


# Chapter 6: the targets are classes (B,), and the last position is read.


def classifier(drop_rate: float = 0.1) -> GPTModel:
    model = GPTModel(tiny_config(drop_rate=drop_rate))
    model.out_head = nn.Linear(32, 2)
    return model


def labelled_batches(count: int, batch_size: int, *, shuffle: bool = False) -> DataLoader:
    """Texts of tokens below 150 are of class 0, the others of class 1."""
    classes = torch.arange(count) % 2
    inputs = torch.randint(0, 150, (count, 9)) + 150 * classes[:, None]
    return DataLoader(TensorDataset(inputs, classes), batch_size, shuffle=shuffle)


def course_loss_batch(inputs: Tensor, classes: Tensor, model: nn.Module) -> Tensor:
    return F.cross_entropy(model(inputs)[:, -1, :], classes)


def course_loss_loader(loader: DataLoader, model: nn.Module, num_batches: int) -> float:
    num_batches = min(num_batches, len(loader))
    total = 0.0
    for i, (inputs, classes) in enumerate(loader):
        if i < num_batches:
            total += course_loss_batch(inputs, classes, model).item()
        else:
            break
    return total / num_batches


def course_accuracy_loader(loader: DataLoader, model: nn.Module, num_batches: int) -> float:
    model.eval()
    correct, num_examples = 0, 0
    num_batches = min(num_batches, len(loader))
    for i, (inputs, classes) in enumerate(loader):
        if i < num_batches:
            with torch.no_grad():
                logits = model(inputs)[:, -1, :]
            num_examples += logits.argmax(dim=-1).shape[0]
            correct += (logits.argmax(dim=-1) == classes).sum().item()
        else:
            break
    return correct / num_examples


def course_classifier_training(model, train, val, optimizer, epochs, eval_freq, eval_iter) -> tuple:
    """The course's own loop, as a reference."""
    train_losses, val_losses, train_accs, val_accs = [], [], [], []
    examples_seen, global_step = 0, -1
    for _ in range(epochs):
        model.train()
        for inputs, classes in train:
            optimizer.zero_grad()
            course_loss_batch(inputs, classes, model).backward()
            optimizer.step()
            examples_seen += inputs.shape[0]
            global_step += 1
            if global_step % eval_freq == 0:
                model.eval()
                with torch.no_grad():
                    train_losses.append(course_loss_loader(train, model, eval_iter))
                    val_losses.append(course_loss_loader(val, model, eval_iter))
                model.train()
        train_accs.append(course_accuracy_loader(train, model, eval_iter))
        val_accs.append(course_accuracy_loader(val, model, eval_iter))
    return train_losses, val_losses, train_accs, val_accs, examples_seen


def test_loss_of_a_batch_of_classes() -> None:
    model = classifier(0.0)
    inputs, classes = next(iter(labelled_batches(6, 6)))
    loss = calc_loss_batch(inputs, classes, model, "cpu")
    torch.testing.assert_close(loss, course_loss_batch(inputs, classes, model))
    loss.backward()
    assert model.out_head.bias.grad is not None and model.tok_emb.weight.grad is not None


class Wrapped(nn.Module):
    """A model that is no GPTModel."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)


@pytest.mark.parametrize("wrap", [Wrapped, lambda model: model])
def test_loss_and_accuracy_of_a_loader_of_classes(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model, loader = wrap(classifier(0.5)).eval(), labelled_batches(20, 4)
    for count in (1, 2, 5, 99):
        expected = course_loss_loader(loader, model, count)
        assert calc_loss_loader(loader, model, "cpu", count) == pytest.approx(expected, rel=1e-5)
        expected = course_accuracy_loader(loader, model, count)
        assert calc_accuracy_loader(loader, model.train(), "cpu", count) == expected
        assert model.training  # as it was, and no dropout meanwhile
        model.eval()
    assert calc_accuracy_loader(loader, model, "cpu") == course_accuracy_loader(loader, model, 5)
    assert math.isnan(calc_accuracy_loader([], model, "cpu"))


def test_train_classifier_simple_gives_the_courses_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Same seed, same numbers: dropout, shuffling and evaluation draw in the course's order."""
    results = []
    for trainer in ("course", "ours"):
        torch.manual_seed(123)
        model = classifier()
        model.trf_blocks[:1].requires_grad_(False)  # the course freezes most of the model
        before = [p.clone() for p in model.trf_blocks[:1].parameters()]
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
        train = labelled_batches(22, 4, shuffle=True)
        val = labelled_batches(8, 4)
        torch.manual_seed(123)
        if trainer == "course":
            found = course_classifier_training(model, train, val, optimizer, 3, 4, 2)
        else:
            found = train_classifier_simple(model, train, val, optimizer, "cpu", 3, 4, 2)
        results.append(found)
        assert all(map(torch.equal, before, model.trf_blocks[:1].parameters()))
    for theirs, ours in zip(*results, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    train_losses, val_losses, train_accs, val_accs, examples_seen = results[1]
    assert len(train_losses) == len(val_losses) == 5 and len(train_accs) == len(val_accs) == 3
    assert examples_seen == 66 and train_losses[-1] < train_losses[0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"Ep 1 (Step 000000): Train loss {train_losses[0]:.3f}, Val loss {val_losses[0]:.3f}"
    )
    assert lines[2] == (
        f"Training accuracy: {train_accs[0]:.2%} | Validation accuracy: {val_accs[0]:.2%}"
    )
    assert len(lines) == 5 + 3


# A run that is interrupted says so: in a notebook it would look finished.


def ctrl_c_at(model: nn.Module, step: int) -> None:
    """Let Ctrl-C be pressed while the model computes its training step of this number."""
    left = step

    def hook(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal left
        left -= module.training
        if left == 0 and module.training:
            signal.raise_signal(signal.SIGINT)

    model.register_forward_hook(hook)


def train_of(kind: str, tokenizer: BPETokenizer, interrupted_at: int) -> tuple[tuple, int]:
    """Train for two epochs; return what the course's function returns, and the steps of them."""
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size))
    train, val = loaders(tokenizer)
    if kind == "classifier":
        model, train, val = classifier(), labelled_batches(12, 4), labelled_batches(8, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ctrl_c_at(model, interrupted_at)
    if kind == "classifier":
        found = train_classifier_simple(model, train, val, optimizer, "cpu", 2, 1, 1)
    else:
        found = train_model_simple(
            model, train, val, optimizer, "cpu", 2, 1, 1, "The fox", tokenizer
        )
    return found, 2 * len(train)


@pytest.mark.parametrize("kind", ["model", "classifier"])
def test_an_interrupted_training_says_how_far_it_came(
    tokenizer: BPETokenizer, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    before = signal.getsignal(signal.SIGINT)
    (train_losses, val_losses, *_), steps = train_of(kind, tokenizer, interrupted_at=2)
    assert len(train_losses) == len(val_losses) == 2 < steps
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"interrupted: the model has learned for 2 of {steps} steps"
    assert lines.count("stopping after this step (once more to stop at once)") == 1
    assert "saving" not in "".join(lines)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("kind", ["model", "classifier"])
@pytest.mark.parametrize("last", [True, False])
def test_a_training_that_was_finished_was_not_interrupted(
    tokenizer: BPETokenizer, capsys: pytest.CaptureFixture[str], kind: str, last: bool
) -> None:
    steps = 2 * len(labelled_batches(12, 4) if kind == "classifier" else loaders(tokenizer)[0])
    (train_losses, *_), planned = train_of(kind, tokenizer, steps if last else 0)
    assert len(train_losses) == steps == planned
    assert "interrupted" not in capsys.readouterr().out

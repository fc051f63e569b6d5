import pytest
import torch
from torch.nn import functional as F

from groundup.data.windows import create_dataloader_v1
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.train.course import (
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    generate_and_print_sample,
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

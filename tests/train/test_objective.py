import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.config import IGNORE_INDEX
from groundup.model.classifier import to_classifier
from groundup.model.door import scores
from groundup.model.gpt import GPTModel
from groundup.train.course import CourseObjective
from groundup.train.objective import ClassOfText, NextToken, mean_loss, to_device
from tests.conftest import tiny_config


def test_every_token_weighs_the_same_in_an_evaluation() -> None:
    model = GPTModel(tiny_config()).eval()
    x, y = torch.randint(0, 300, (2, 3, 16))
    y[0, 1:] = IGNORE_INDEX
    parts = [(x[:1], y[:1]), (x[1:], y[1:])]
    expected = F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    assert mean_loss(model, parts, "cpu") == pytest.approx(expected, rel=1e-5)
    assert NextToken().count((x, y)) == NextToken().tokens((x, y)) == 33
    first = F.cross_entropy(model(x[:1]).flatten(0, 1), y[:1].flatten()).item()
    assert mean_loss(model, parts, "cpu", max_batches=1) == pytest.approx(first, rel=1e-5)
    nothing = mean_loss(model, [], "cpu")
    assert nothing != nothing


def texts_of_a_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Ids ``(B, T)``, the position where each row is read, and its class."""
    return torch.randint(0, 300, (4, 6)), torch.tensor([3, 0, 5, 2]), torch.tensor([2, 0, 1, 2])


def test_scores_are_those_where_the_texts_end() -> None:
    model = to_classifier(GPTModel(tiny_config()), 3)
    inputs, ends, _ = texts_of_a_batch()
    everywhere = model(inputs)
    expected = torch.stack([everywhere[row, end] for row, end in enumerate(ends)])
    torch.testing.assert_close(scores(model, inputs, at=ends), expected)
    model.out_head = nn.Linear(32, 3)  # as in the course
    torch.testing.assert_close(scores(model, inputs, at=ends)[1], model(inputs)[1, 0])


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.5]])
def test_the_loss_of_classes_is_pytorchs(weights: list[float] | None) -> None:
    model = to_classifier(GPTModel(tiny_config()), 3)
    inputs, ends, labels = batch = texts_of_a_batch()
    class_weights = torch.tensor(weights) if weights else None
    logits = torch.stack([model(inputs)[row, end] for row, end in enumerate(ends)])
    expected = F.cross_entropy(logits, labels, weight=class_weights, reduction="sum")
    loss = ClassOfText(class_weights).loss(model, batch)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, list(model.parameters())),
        torch.autograd.grad(expected, list(model.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    # PyTorch's mean divides by the weights' sum; over a whole split, that is the number of texts.
    total = len(labels) if class_weights is None else class_weights[labels].sum()
    mean = F.cross_entropy(logits, labels, weight=class_weights)
    torch.testing.assert_close(loss / total, mean)
    assert mean_loss(model, [batch], "cpu", ClassOfText()) == pytest.approx(
        F.cross_entropy(logits, labels).item()
    )


def test_texts_are_counted_whole_and_tokens_without_padding() -> None:
    batch = texts_of_a_batch()
    assert ClassOfText().count(batch) == 4
    assert ClassOfText().tokens(batch) == 4 + 1 + 6 + 3


def test_the_courses_tokens_count_padding_too() -> None:
    inputs = torch.randint(0, 300, (2, 6))
    targets = inputs.clone()
    targets[:, 3:] = IGNORE_INDEX
    course = CourseObjective()
    assert (course.count((inputs, targets)), course.tokens((inputs, targets))) == (6, 12)
    classes = torch.tensor([1, 0])
    assert (course.count((inputs, classes)), course.tokens((inputs, classes))) == (2, 12)


def test_a_batch_of_any_number_of_tensors_is_moved() -> None:
    batch = tuple(torch.randint(0, 9, (2, n)) for n in (1, 2, 3))
    moved = to_device(batch, "meta")
    assert [t.device.type for t in moved] == ["meta"] * 3
    assert [t.shape for t in moved] == [t.shape for t in batch]

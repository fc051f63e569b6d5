import pytest
import torch

from groundup.errors import UserError
from groundup.lessons.solutions_05 import discourage, keep_min_p, share_of

LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]]))


def test_pizza_is_rare_unless_it_is_hot() -> None:
    assert share_of("pizza", 5) == pytest.approx(0.0430, abs=1e-4)  # the lecture's number
    assert share_of("forward", 1) == pytest.approx(0.5721, abs=1e-4)  # its bar chart's
    assert share_of("pizza", 0.1) < 1e-30
    with pytest.raises(UserError, match="pasta"):
        share_of("pasta", 1)


def test_min_p_keeps_more_where_the_model_is_less_sure() -> None:
    kept = keep_min_p(LOGITS, 0.2).isfinite()
    assert kept.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert torch.equal(keep_min_p(LOGITS, 0.0), LOGITS)
    assert keep_min_p(LOGITS, 1.0).isfinite().sum(dim=-1).tolist() == [1, 1]


def test_what_was_said_is_less_likely_whatever_its_sign() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.0]])
    lowered = discourage(logits, torch.tensor([[0, 1, 0]]), 2.0)  # 0 twice: lowered once
    assert lowered.tolist() == [[1.0, -4.0, 1.0, 0.0]]
    assert torch.equal(discourage(logits, torch.tensor([[0, 1]]), 1.0), logits)
    assert logits.tolist() == [[2.0, -2.0, 1.0, 0.0]]  # the caller's own stay

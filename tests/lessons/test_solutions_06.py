import pytest
import torch

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.lessons.solutions_06 import influences, last_real_tokens, threshold_for
from groundup.model.gpt import GPTModel

SMALL = ModelConfig(
    vocab_size=50, context_length=8, emb_dim=12, n_heads=3, n_layers=2, drop_rate=0.0
)
PAD = 49


def test_the_last_real_token_is_found_whatever_comes_before() -> None:
    inputs = torch.tensor([[1, 2, PAD, PAD], [1, PAD, 3, PAD], [1, 2, 3, 4], [PAD] * 4])
    assert last_real_tokens(inputs, PAD).tolist() == [1, 2, 3, 0]


def test_what_is_read_there_does_not_depend_on_the_padding() -> None:
    torch.manual_seed(1)
    model = GPTModel(SMALL).eval()
    short = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[5, 6, 7, PAD, PAD]])
    ends = last_real_tokens(padded, PAD)
    torch.testing.assert_close(model(padded, at=ends), model(short)[:, -1])
    assert not torch.allclose(model(padded)[:, -1], model(short)[:, -1], atol=1e-3)


def test_the_threshold_lets_the_wanted_share_of_ham_through() -> None:
    probas = torch.tensor([0.9, 0.1, 0.6, 0.3, 0.8, 0.95])
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    for share, lost, caught in ((0.0, 0, 1), (0.25, 1, 2), (0.5, 2, 2)):
        called = probas >= threshold_for(probas, labels, share)
        assert int((called & (labels == 0)).sum()) == lost
        assert int((called & (labels == 1)).sum()) == caught
    sure = torch.tensor([1.0, 0.5])  # ham that the model is quite sure of
    assert not (sure >= threshold_for(sure, torch.tensor([0, 1]), 0.0)).any()
    with pytest.raises(UserError, match="false_alarms is 1"):
        threshold_for(probas, labels, 1)
    with pytest.raises(UserError, match="0 messages"):
        threshold_for(probas[4:], labels[4:], 0.1)


def test_the_word_that_decides_comes_first() -> None:
    found = influences("call me a winner", lambda text: 0.9 if "winner" in text else 0.2)
    assert found[0] == ("winner", pytest.approx(0.7))
    assert [word for word, _ in found] == ["winner", "call", "me", "a"]

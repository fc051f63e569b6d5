import pytest
import torch

from groundup.lessons.solutions_01 import (
    characters_per_token,
    sinusoidal_positions,
    spell,
    unknown_words,
)
from groundup.tokenizers import get_gpt2_tokenizer

KNOWN = "low low low low low lower lower newest newest newest widest widest"


def test_a_made_up_word_is_spelled_as_in_the_lecture() -> None:
    spelled = spell(get_gpt2_tokenizer(), "Akwirw ier")
    assert [token_id for token_id, _ in spelled] == [33901, 86, 343, 86, 220, 959]
    assert [piece for _, piece in spelled] == ["Ak", "w", "ir", "w", " ", "ier"]


def test_unknown_words_are_counted() -> None:
    assert unknown_words(KNOWN, "the lower, the newest") == {"the": 2, ",": 1}
    assert not unknown_words(KNOWN, "newest low")


def test_merges_make_tokens_longer() -> None:
    assert characters_per_token(KNOWN, "lower and newer", 256) == 1
    assert characters_per_token(KNOWN, "lower lowest", 270) > 1.5


def test_sinusoidal_positions_are_those_of_the_paper() -> None:
    positions = sinusoidal_positions(20, 8)
    assert positions.shape == (20, 8)
    for t, i in ((0, 0), (3, 1), (19, 3)):
        angle = torch.tensor(t / 10000 ** (2 * i / 8))
        assert positions[t, 2 * i] == pytest.approx(angle.sin().item(), abs=1e-6)
        assert positions[t, 2 * i + 1] == pytest.approx(angle.cos().item(), abs=1e-6)


def test_their_products_depend_on_the_distance_alone() -> None:
    products = sinusoidal_positions(50, 32) @ sinusoidal_positions(50, 32).T
    for distance in (0, 1, 7):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=0)
    assert products[0, 0] > products[0, 1] > products[0, 3]

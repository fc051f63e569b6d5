import torch

from groundup.lessons.attention import INPUTS
from groundup.lessons.solutions_02 import local_mask, v1_from_v2, without_head
from groundup.model.attention import MultiHeadAttention
from groundup.model.ladder import SelfAttention_v2


def test_v1_with_v2s_weights_gives_v2s_numbers() -> None:
    torch.manual_seed(789)
    v2 = SelfAttention_v2(3, 2)
    v1 = v1_from_v2(v2)
    torch.testing.assert_close(v1(INPUTS), v2(INPUTS))
    assert v1.W_query.shape == (3, 2)
    with torch.no_grad():
        v1.W_query.zero_()
    assert v2.W_query.weight.any()  # a copy, no view


def test_a_local_mask_sees_the_last_few_tokens() -> None:
    assert local_mask(4, 2).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]


def test_a_window_as_long_as_the_text_is_causal_attention() -> None:
    torch.manual_seed(1)
    attention, x = MultiHeadAttention(8, 8, 10, 0.0, 2), torch.randn(2, 10, 8)
    torch.testing.assert_close(attention(x, mask=local_mask(10, 10)), attention(x))
    local = attention(x, mask=local_mask(10, 3))
    assert torch.allclose(local[:, :3], attention(x)[:, :3], atol=1e-6)
    assert not torch.allclose(local[:, 3:], attention(x)[:, 3:], atol=1e-3)
    x[:, 0] += 1  # out of sight from token 3 on
    torch.testing.assert_close(attention(x, mask=local_mask(10, 3))[:, 3:], local[:, 3:])


def test_a_head_is_silenced_as_if_its_columns_were_not_projected() -> None:
    torch.manual_seed(1)
    attention, x = MultiHeadAttention(8, 8, 10, 0.0, 2), torch.randn(2, 10, 8)
    before = attention(x)
    silenced = without_head(attention, x, 1)
    assert torch.equal(attention(x), before)
    with torch.no_grad():
        attention.out_proj.weight[:, 4:] = 0  # head 1 is columns 4 to 7
    torch.testing.assert_close(silenced, attention(x))
    assert not torch.allclose(silenced, before, atol=1e-3)

import pytest

from groundup.config import ModelConfig
from groundup.data.instructions import custom_collate_fn
from groundup.lessons.lora import replace_linear_with_lora
from groundup.lessons.solutions_07 import in_order, lora_parameters, mask_prompts
from groundup.model.gpt import GPTModel

SMALL = ModelConfig(vocab_size=50, context_length=8, emb_dim=12, n_heads=3, n_layers=2)


def test_only_responses_are_learned_their_first_token_included() -> None:
    rows = [[1, 2, 3, 14, 15], [5, 16]]  # prompts 1 2 3 and 5
    inputs, targets = custom_collate_fn(rows, pad_token_id=49)
    masked = mask_prompts(targets, [3, 1])
    assert inputs.tolist() == [[1, 2, 3, 14, 15], [5, 16, 49, 49, 49]]
    assert masked.tolist() == [[-100, -100, 14, 15, 49], [16, 49, -100, -100, -100]]
    assert targets[0, 0] == 2  # the caller's own stay


@pytest.mark.parametrize("rank", [1, 4])
def test_loras_parameters_counted_are_those_that_come(rank: int) -> None:
    model = GPTModel(SMALL)
    counted, before = lora_parameters(model, rank), sum(p.numel() for p in model.parameters())
    replace_linear_with_lora(model, rank, alpha=1.0)
    assert sum(p.numel() for p in model.parameters()) - before == counted


def test_words_in_another_order_count_less() -> None:
    assert in_order("The cat saw the dog.", "the cat, saw the dog") == 100
    assert in_order("the cat saw the dog", "the dog saw the cat") == 60
    assert in_order("the cat", "a dog") == 0 == in_order("the cat", "")
    assert in_order("", "") == 100
    assert in_order("a b c d", "a x c") == round(100 * 4 / 7)

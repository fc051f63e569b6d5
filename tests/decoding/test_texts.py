from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.decoding.config import SamplingConfig
from groundup.decoding.texts import Completion, TextStream, generate_batch
from groundup.errors import UserError
from groundup.model.cache import KVCache
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from tests.conftest import tiny_config

CONTEXT = 48


@pytest.fixture
def model(tokenizer: BPETokenizer) -> GPTModel:
    """Weights so large that the likeliest token is no close call and texts do not repeat."""
    cfg = tiny_config(vocab_size=tokenizer.vocab_size, context_length=CONTEXT, tie_weights=False)
    model = GPTModel(cfg).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture
def prompts() -> list[list[int]]:
    lengths = [5, 1, 17, 30, 2, 9, 24, 9, 40, 3, 12]
    return [torch.randint(0, 256, (length,)).tolist() for length in lengths]


def alone(
    model: GPTModel,
    tokenizer: BPETokenizer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    stop: Sequence[str] = (),
) -> list[Completion]:
    """What each prompt gets by itself, without moving the window on."""
    texts = []
    for index, prompt in enumerate(prompts):
        prompt = prompt[-CONTEXT:]
        room = CONTEXT - len(prompt) + 1
        own = SamplingConfig(max_new_tokens=min(config.max_new_tokens, room))
        stream = TextStream(model, tokenizer, prompt, own, stop=stop)
        text = "".join(stream)
        assert stream.finish_reason is not None
        texts.append(Completion(index, text, stream.token_ids, stream.finish_reason))
    return texts


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
def test_a_batch_writes_what_each_prompt_gets_alone(
    model: GPTModel, tokenizer: BPETokenizer, prompts: list[list[int]], batch_size: int
) -> None:
    config = SamplingConfig(max_new_tokens=20)
    free = alone(model, tokenizer, prompts, config)
    # Some texts meet a stop string, others the end: a token that they wrote is made that.
    stop = [free[2].text[3:5]]
    end, was_end = free[4].token_ids[8], tokenizer.eot_token
    head = model.out_head.weight.data
    head[[end, was_end]] = head[[was_end, end]]
    expected = alone(model, tokenizer, prompts, config, stop)
    reasons = {completion.finish_reason for completion in expected}
    assert reasons == {"stop", "end_of_text", "length"}
    found = generate_batch(model, tokenizer, prompts, config, stop=stop, batch_size=batch_size)
    assert sorted(found, key=lambda completion: completion.index) == expected


def test_a_text_ends_when_the_context_is_full_and_a_long_prompt_loses_its_beginning(
    model: GPTModel, tokenizer: BPETokenizer
) -> None:
    prompts = [torch.randint(0, 256, (length,)).tolist() for length in (46, 48, 30, 60, 70, 80)]
    config = SamplingConfig(max_new_tokens=10)
    found = {c.index: c for c in generate_batch(model, tokenizer, prompts, config)}
    assert [len(found[index].token_ids) for index in range(6)] == [3, 1, 10, 1, 1, 1]
    assert [found[index] for index in range(6)] == alone(model, tokenizer, prompts, config)
    assert {completion.finish_reason for completion in found.values()} == {"length"}


class Counted(GPTModel):
    """Notes the shape of what it is given."""

    shapes: list[tuple[int, ...]]

    def forward(self, in_idx: Tensor, cache: KVCache | None = None, **asked: Any) -> Tensor:
        self.shapes.append(tuple(in_idx.shape))
        return super().forward(in_idx, cache, **asked)


def test_ended_texts_are_computed_no_more_and_their_places_are_taken(
    tokenizer: BPETokenizer,
) -> None:
    model = Counted(tiny_config(vocab_size=tokenizer.vocab_size)).eval()
    model.shapes = []
    prompts = [[length] * length for length in (15, 2, 14, 3)]
    config = SamplingConfig(max_new_tokens=4)
    found = [c.index for c in generate_batch(model, tokenizer, prompts, config, batch_size=2)]
    # The longest two begin; there is room for 2 and 3 tokens after them.
    assert found == [0, 2, 3, 1]
    assert model.shapes == [(2, 15), (2, 1), (1, 3), (2, 1), (1, 2), (2, 1), (2, 1), (1, 1)]


def test_texts_are_drawn_repeatably_from_a_seed(model: GPTModel, tokenizer: BPETokenizer) -> None:
    prompts = [[5], [5, 6], [5]]

    def texts(temperature: float, top_k: int | None = None, seed: int | None = None) -> list[str]:
        config = SamplingConfig(20, temperature, top_k, seed=seed)
        found = generate_batch(model, tokenizer, prompts, config)
        return [c.text for c in sorted(found, key=lambda c: c.index)]

    before = torch.get_rng_state()
    drawn = texts(1.5, seed=3)
    assert drawn == texts(1.5, seed=3)
    assert drawn != texts(1.5, seed=4)
    assert drawn[0] != drawn[2]
    assert texts(1.5, top_k=1, seed=3) == texts(0.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_prompts_give_no_texts(model: GPTModel, tokenizer: BPETokenizer) -> None:
    assert list(generate_batch(model, tokenizer, [], SamplingConfig())) == []


def test_what_makes_no_sense_is_refused_at_once(model: GPTModel, tokenizer: BPETokenizer) -> None:
    good = SamplingConfig()
    with pytest.raises(UserError, match=r"prompts without a token: 1, 3 \(counted from 0\)"):
        generate_batch(model, tokenizer, [[1], [], [2], []], good)
    with pytest.raises(UserError, match="stop string is empty"):
        generate_batch(model, tokenizer, [[1]], good, stop=[""])
    with pytest.raises(UserError, match="batch_size is 0; expected at least 1"):
        generate_batch(model, tokenizer, [[1]], good, batch_size=0)
    with pytest.raises(UserError, match="max_new_tokens is 0"):
        generate_batch(model, tokenizer, [[1]], SamplingConfig(max_new_tokens=0))
    model.final_norm.scale.data[0] = float("nan")
    with pytest.raises(UserError, match="not numbers"):
        next(generate_batch(model, tokenizer, [[1]], good))

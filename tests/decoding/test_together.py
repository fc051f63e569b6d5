"""A text is the same whoever shares the batch, and what is cached is what would be computed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from groundup.config import ModelConfig
from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import Engine
from groundup.decoding.sequence import Sequence
from groundup.decoding.texts import TextStream, generate_batch
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from tests.conftest import ARCHITECTURES


def lively(architecture: str, context: int = 32) -> GPTModel:
    """Weights so large that the likeliest token is no close call and texts do not repeat."""
    torch.manual_seed(7)
    cfg = ModelConfig.of(ARCHITECTURES[architecture]).replace(context_length=context)
    model = GPTModel(cfg).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


MODELS = {name: lively(name) for name in ARCHITECTURES}


class Recorded(Engine):
    """Keeps the scores that each token was chosen by."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # pyright: ignore
        self.scores: dict[int, list[torch.Tensor]] = {}

    def _choose(self, rows, logits):  # pyright: ignore
        for row, scores in zip(rows, logits, strict=True):
            self.scores.setdefault(id(row), []).append(scores.clone())
        return super()._choose(rows, logits)


def check_against_uncached(model: GPTModel, row: Sequence, scores: list[torch.Tensor]) -> None:
    """Each token's scores are those of the window before it, computed alone and at once."""
    context, start = model.cfg.context_length, 0
    for place, found in enumerate(scores, start=row.prompt_length):
        if place - start > context:
            start = place - (context if place == row.prompt_length else row.keep or context)
        with torch.no_grad():
            expected = model(torch.tensor([row.ids[start:place]]))[0, -1]
        assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@settings(max_examples=8, deadline=None, phases=(Phase.generate,))
@given(data=st.data())
def test_rows_that_come_and_go_write_what_each_writes_alone(
    architecture: str, data: st.DataObject
) -> None:
    model, draw = MODELS[architecture], data.draw
    made = []
    for index in range(draw(st.integers(1, 5))):
        config = SamplingConfig(
            max_new_tokens=draw(st.integers(1, 18)),
            temperature=draw(st.sampled_from([0.0, 0.8])),
            top_k=draw(st.sampled_from([None, 40])),
            seed=draw(st.integers(0, 3)),
        )
        prompt = [7] * draw(st.sampled_from([0, 20])) + draw(
            st.lists(st.integers(0, 299), min_size=1, max_size=12)
        )
        policy = draw(st.sampled_from([("end", None), ("slide", None), ("slide", 16)]))
        made.append((prompt, config, {"index": index, "on_full": policy[0], "keep": policy[1]}))

    def begin(engine: Engine, i: int) -> Sequence:
        prompt, config, options = made[i]
        return engine.add(Sequence(prompt, config, **options))

    alone = []
    for i in range(len(made)):
        engine = Engine(model, max_batch=1)
        alone.append(begin(engine, i).ids)
        list(engine.run())
    engine = Recorded(model, max_batch=draw(st.integers(1, 4)), chunk=draw(st.integers(3, 40)))
    rows = []
    for i in draw(st.permutations(range(len(made)))):
        rows.append((i, begin(engine, i)))
        for _ in range(draw(st.integers(0, 8))):
            engine.step()
    list(engine.run())
    for i, row in rows:
        assert row.ids == alone[i] and row.finish_reason == "length"
        check_against_uncached(model, row, engine.scores[id(row)])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_s_texts_do_not_depend_on_its_size(
    tokenizer: BPETokenizer, temperature: float
) -> None:
    model = MODELS["llama"]
    prompts = [torch.randint(0, 256, (1 + 3 * n % 14,)).tolist() for n in range(18)]
    config = SamplingConfig(max_new_tokens=12, temperature=temperature, seed=5)

    def texts(size: int) -> list[str]:
        found = generate_batch(model, tokenizer, prompts, config, batch_size=size)
        return [c.text for c in sorted(found, key=lambda c: c.index)]

    expected = texts(1)
    assert texts(16) == texts(3) == expected
    assert "".join(TextStream(model, tokenizer, prompts[0], config, on_full="end")) == expected[0]
    some = [11, 4]
    found = generate_batch(model, tokenizer, [prompts[i] for i in some], config, indices=some)
    assert {some[c.index]: c.text for c in found} == {i: expected[i] for i in some}
    if temperature:
        assert len({tuple(text) for text in expected}) == 18


class Counted(GPTModel):
    """Counts the tokens that it computes."""

    count = 0

    def forward(self, in_idx, *args, **options):  # pyright: ignore
        self.count += in_idx.numel()
        return super().forward(in_idx, *args, **options)


def test_samples_share_their_prompt_s_cache_and_are_those_of_each_alone() -> None:
    model = Counted(MODELS["gpt2"].cfg).eval()
    model.load_state_dict(MODELS["gpt2"].state_dict())
    prompt = torch.randint(0, 300, (20,)).tolist()
    config = SamplingConfig(max_new_tokens=5, temperature=1.0, seed=1)
    expected = []
    for index in range(4):
        engine = Engine(model)
        expected.append(engine.add(Sequence(prompt, config, index=index)).ids)
        list(engine.run())
    engine, model.count = Engine(model), 0
    rows = [engine.add(Sequence(prompt, config, index=index)) for index in range(4)]
    list(engine.run())
    assert [row.ids for row in rows] == expected and len({tuple(ids) for ids in expected}) == 4
    assert model.count == 20 + 3 * 1 + 4 * 4  # the prompt once; its last token for each
    assert engine.cache is not None and engine.cache.shape == (4, 24)


def test_the_cache_is_as_large_as_it_needs_to_be() -> None:
    model = lively("gpt2", context=1000)
    engine = Engine(model, max_batch=8)
    for n in range(3):
        engine.add(Sequence([n] * 5, SamplingConfig(max_new_tokens=200)))
    engine.step()
    assert engine.cache is not None and engine.cache.shape == (3, 64)
    engine.add(Sequence([9] * 300, SamplingConfig(max_new_tokens=10)))
    engine.step()
    assert engine.cache.shape == (4, 309)
    list(engine.run())
    assert engine.cache.shape == (4, 309)


def test_adapters_are_switched_between_calls_and_an_unknown_one_is_refused() -> None:
    model, names = lively("gpt2"), []
    head = model.out_head.weight.data.clone()

    def use(name: str | None) -> None:
        names.append(name)
        model.out_head.weight.data = -head if name == "upside down" else head.clone()

    engine = Engine(model, use_adapter=use)
    config = SamplingConfig(max_new_tokens=6)
    rows = [engine.add(Sequence([5, 6], config, adapter=n)) for n in (None, "upside down", None)]
    list(engine.run())
    assert rows[0].ids == rows[2].ids != rows[1].ids and len(names) > 2
    model.out_head.weight.data = -head
    alone = Engine(model)
    expected = alone.add(Sequence([5, 6], config))
    list(alone.run())
    assert rows[1].ids == expected.ids
    with pytest.raises(UserError, match="no adapter 'x'"):
        alone.add(Sequence([5], config, adapter="x"))


def test_a_slot_that_comes_may_take_the_place_of_one_that_goes() -> None:
    """Under a tight budget, two are admitted at once, the second too long for an idle slot."""
    model, texts = lively("gpt2", context=64), []
    engine = Engine(model, max_batch=4, max_tokens=60)
    for waiting in ([(3, 8)] * 2, [(4, 8), (8, 23)], [(5, 30)], [(2, 4)] * 3):
        for length, most in waiting:
            prompt = torch.randint(0, 300, (length,)).tolist()
            texts.append(engine.add(Sequence(prompt, SamplingConfig(max_new_tokens=most))))
        list(engine.run())
        assert engine.cache is not None
    for text in texts:
        alone = Engine(model).add(Sequence(text.ids[: text.prompt_length], text.config))
        engine = Engine(model)
        engine.add(alone)
        list(engine.run())
        assert alone.ids == text.ids

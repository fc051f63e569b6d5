"""Guesses save calls of the model, and never change a text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from groundup.config import ModelConfig, Quantization
from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import Engine
from groundup.decoding.guessing import FIRST, LONGEST_REST, WITH_GUESSES, Guesser
from groundup.decoding.sequence import Sequence
from groundup.model.gpt import GPTModel
from groundup.model.quantized import quantize
from tests.conftest import ARCHITECTURES

ABC = [1, 2, 3, 4, 5]


def repetitive(architecture: str, context: int = 96) -> GPTModel:
    """Its greedy texts soon go in circles, as those of small models do.

    It is as wide as real ones, a multiple of 32: of a tensor's numbers PyTorch's SiLU computes
    those that don't fill two registers with another exponential function than the rest.
    """
    torch.manual_seed(3)
    cfg = ModelConfig.of(ARCHITECTURES[architecture]).replace(context_length=context, hidden_dim=64)
    return GPTModel(cfg).init_gpt2().eval()


def lively(architecture: str) -> GPTModel:
    """It writes what it likes, so guesses are wrong."""
    model = repetitive(architecture)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


MODELS = {name: [repetitive(name), lively(name)] for name in ARCHITECTURES}


def write(model: GPTModel, made: list[Sequence], late: int = 0, **options: int) -> tuple[int, int]:
    """Write them all, the last so many coming later; say how often the model was called."""
    calls, rows = 0, 0

    def count(_: object, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal calls, rows
        calls, rows = calls + 1, max(rows, args[0].shape[1] if calls else 0)

    hook = model.register_forward_pre_hook(count)  # pyright: ignore[reportArgumentType]
    engine = Engine(model, **options)  # pyright: ignore[reportArgumentType]
    for row in made[: len(made) - late]:
        engine.add(row)
    for row in made[len(made) - late :]:
        engine.step()
        engine.add(row)
    for _ in engine.run():
        pass
    hook.remove()
    return calls, rows


def test_a_guess_is_what_came_after_the_same_tokens() -> None:
    assert Guesser().guess([*ABC, 9, 1, 2, 3], 2) == [4, 5]
    assert Guesser().guess([*ABC, 9, 1, 2, 3, 7, 1, 2, 3], 9) == [7, 1, 2], "the last time"
    assert Guesser().guess([*ABC, 9, 2, 1, 3], 9) == []
    assert Guesser().guess([5, 5, 5, 5], 9) == [5] * FIRST, "round and round"
    assert Guesser().guess([7, 8] * 3, 9) == ([7, 8] * FIRST)[:FIRST]
    assert Guesser().guess([1, 2], 9) == []


def test_who_guesses_wrong_rests_longer_and_longer() -> None:
    guesser, ids, tries = Guesser(), ABC * 4, []
    for token in range(400):
        ids += [ABC[token % 5]]
        if guess := guesser.guess(ids, 8):
            tries.append(token)
            guesser.learn(0, len(guess))
    rests = [b - a - 1 for a, b in zip(tries, tries[1:], strict=False)]
    assert rests[:4] == [1, 2, 4, 8] and max(rests) == LONGEST_REST


def test_who_guesses_right_guesses_more() -> None:
    guesser, ids = Guesser(), ABC * 9
    sizes = []
    for _ in range(3):
        guess = guesser.guess(ids, 99)
        sizes.append(len(guess))
        guesser.learn(len(guess), len(guess))
    assert sizes == [FIRST, 2 * FIRST + 1, 4 * FIRST + 3]
    guesser.learn(1, 7)
    assert len(guesser.guess(ids, 99)) == FIRST


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lively", [False, True])
@settings(max_examples=5, deadline=None, phases=(Phase.generate,))
@given(data=st.data())
def test_the_text_is_the_same(architecture: str, lively: bool, data: st.DataObject) -> None:
    model, draw = MODELS[architecture][lively], data.draw
    rows = []
    for index in range(draw(st.integers(1, 3))):
        prompt = draw(st.lists(st.integers(0, 299), min_size=1, max_size=4)) * draw(
            st.integers(1, 9)
        )
        options = {
            "max_new_tokens": draw(st.integers(1, 80)),
            "temperature": draw(st.sampled_from([0.0, 0.0, 0.7])),
            "repetition_penalty": draw(st.sampled_from([1.0, 1.2])),
            "seed": draw(st.integers(0, 3)),
        }
        policy = draw(st.sampled_from([("end", None), ("slide", None), ("slide", 40)]))
        rows.append((prompt, options, {"index": index, "on_full": policy[0], "keep": policy[1]}))
    late = draw(st.integers(0, len(rows) - 1))
    texts = []
    for guess in (True, False):
        made = [
            Sequence(prompt, SamplingConfig(guess=guess, **options), logprobs=2, **rest)
            for prompt, options, rest in rows
        ]
        write(model, made, late)
        texts.append(made)
    for one, other in zip(*texts, strict=True):
        assert one.ids == other.ids and one.finish_reason == other.finish_reason
        for a, b in zip(one.logprobs, other.logprobs, strict=True):
            assert a.token_id == b.token_id and abs(a.logprob - b.logprob) < 1e-4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_guessed_tokens_have_the_bits_that_they_have_alone(
    architecture: str, kind: Quantization
) -> None:
    """Where activations are rounded to 8 bits, a last bit would soon be another text."""
    model = quantize(lively(architecture), kind)
    ids = torch.randint(0, 300, (1, 24 + WITH_GUESSES), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        caches = [model.new_cache(), model.new_cache()]
        for cache in caches:
            model(ids[:, :24], cache)
        together = model(ids[:, 24:], caches[0])
        alone = [model(ids[:, t : t + 1], caches[1]) for t in range(24, ids.shape[1])]
    assert torch.equal(together, torch.cat(alone, dim=1))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_text_of_a_quantized_model_is_the_same(
    architecture: str, kind: Quantization, temperature: float
) -> None:
    for model in (repetitive(architecture), lively(architecture)):
        quantize(model, kind)
        for seed in range(3):
            made = []
            for guess in (True, False):
                config = SamplingConfig(80, temperature=temperature, seed=seed, guess=guess)
                made.append(Sequence(ABC[: 2 + seed] * 3, config))
                write(model, made[-1:])
            assert made[0].ids == made[1].ids


@pytest.mark.parametrize("kind", [None, "int8"])
def test_a_text_in_circles_takes_fewer_calls(kind: str | None) -> None:
    model = repetitive("llama")
    if kind is not None:
        quantize(model, kind)  # pyright: ignore[reportArgumentType]
    made = {g: Sequence(ABC, SamplingConfig(max_new_tokens=60, guess=g)) for g in (True, False)}
    calls, rows = write(model, [made[True]])
    assert write(model, [made[False]]) == (60, 1)
    assert made[True].ids == made[False].ids
    assert calls < 30 and 4 <= rows <= 8


def test_a_guess_leaves_room_for_the_fullest_of_the_batch() -> None:
    """All rows of a call are padded alike, and none may come out longer than the context."""
    model = repetitive("gpt2")
    context = model.cfg.context_length
    config = SamplingConfig(max_new_tokens=50)
    full = Sequence([*range(40, 40 + context - 20)], config, on_full="slide", keep=context)
    circles = Sequence(ABC * 3, config, on_full="slide")
    write(model, [full, circles])
    for row in (full, circles):
        alone = Sequence(
            row.ids[: row.prompt_length],
            SamplingConfig(max_new_tokens=50, guess=False),
            on_full="slide",
            keep=row.keep,
        )
        write(model, [alone])
        assert alone.ids == row.ids


def test_other_precisions_and_other_models_get_one_token_at_a_time() -> None:
    class Own(GPTModel):
        def forward(self, *args, **options):  # pyright: ignore
            return super().forward(*args, **options)

    own = Own(repetitive("llama").cfg).init_gpt2().eval()
    for model in (own, repetitive("llama").bfloat16()):
        calls, rows = write(model, [Sequence(ABC, SamplingConfig(max_new_tokens=40))])
        assert (calls, rows) == (40, 1)


def test_weights_that_change_amid_a_guess_are_read_anew() -> None:
    model = repetitive("llama")
    engine = Engine(model)
    row = engine.add(Sequence(ABC, SamplingConfig(max_new_tokens=70)))
    while not row.ahead:
        engine.step()
    engine.forget()
    assert not row.ahead and not row.guessed
    engine.step()
    before, written = list(row.ids), len(row.ids)
    for _ in engine.run():
        pass
    alone = Sequence(before[: len(ABC)], SamplingConfig(max_new_tokens=70, guess=False))
    write(model, [alone])
    assert alone.ids == row.ids and len(row.ids) > written


def test_who_is_stopped_amid_a_guess_leaves_a_cache_that_others_go_on_from() -> None:
    model = repetitive("gpt2")
    engine = Engine(model, max_batch=1)
    row = engine.add(Sequence(ABC * 4, SamplingConfig(max_new_tokens=70)))
    while not row.ahead:
        engine.step()
    engine.abort(row)
    after = engine.add(Sequence(row.ids, SamplingConfig(max_new_tokens=30)))
    for _ in engine.run():
        pass
    alone = Sequence(row.ids, SamplingConfig(max_new_tokens=30, guess=False))
    write(model, [alone])
    assert after.ids == alone.ids

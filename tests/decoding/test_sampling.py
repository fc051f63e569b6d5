import math
from typing import Any

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.logits_process import SequenceBiasLogitsProcessor

from groundup.decoding.config import FARTHEST, SamplingConfig
from groundup.decoding.sampling import (
    Sampler,
    add_bias,
    choose,
    draw,
    greedy,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    make_sampler,
    penalise_frequency,
    penalise_repetition,
    sampler_of,
)
from groundup.errors import UserError

UNUSED: Any = None  # these warpers do not look at the ids


@pytest.mark.parametrize("k", [1, 5, 50])
def test_top_k_keeps_what_transformers_keeps(k: int) -> None:
    logits = torch.randn(4, 50)
    expected = TopKLogitsWarper(k)(UNUSED, logits)
    assert torch.equal(keep_top_k(logits, k), expected)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999, 1.0])
def test_top_p_keeps_what_transformers_keeps(p: float) -> None:
    logits = 3 * torch.randn(8, 50)
    expected = TopPLogitsWarper(p)(UNUSED, logits)
    assert torch.equal(keep_top_p(logits, p), expected)


def test_the_farthest_options_still_draw() -> None:
    logits = 100 * torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    leasts: list[dict[str, Any]] = [{"top_p": 1e-300}, {"min_p": 1.0}, {"top_k": 1}]
    for temperature in (1e-300, 1e-6, 1.0):
        for least in leasts:
            drawn = make_sampler(temperature, **least)(logits)
            assert torch.equal(drawn, logits.argmax(dim=-1)), (temperature, least)
    scores, far = logits[0], SamplingConfig(logit_bias={"3": FARTHEST, "4": -FARTHEST})
    far.check(vocab_size=50)
    for penalty in (1 / FARTHEST, FARTHEST):
        changed = penalise_repetition(scores, range(50), penalty)
        changed = penalise_frequency(changed, [3] * 10_000, penalty * FARTHEST, FARTHEST)
        changed = add_bias(changed, far.logit_bias or {})
        assert torch.softmax(changed / 1e-6, dim=-1).isfinite().all()


@pytest.mark.parametrize("p", [0.0, 0.01, 0.2, 1.0])
def test_min_p_keeps_what_transformers_keeps(p: float) -> None:
    logits = 3 * torch.randn(8, 50)
    assert torch.equal(keep_min_p(logits, p), MinPLogitsWarper(p)(UNUSED, logits))
    warped = make_sampler(2.0, min_p=p, generator=torch.Generator().manual_seed(1))(logits)
    allowed = MinPLogitsWarper(p)(UNUSED, logits / 2.0).isfinite()
    assert allowed[torch.arange(8), warped].all()


@pytest.mark.parametrize("penalty", [0.8, 1.3])
def test_repetition_is_penalised_as_transformers_does(penalty: float) -> None:
    logits, ids = 3 * torch.randn(50), [3, 7, 7, 49, 3]
    known: Any = torch.tensor([ids])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(known, logits[None].clone())
    assert torch.equal(penalise_repetition(logits, ids, penalty), expected[0])


def test_biases_are_added_as_transformers_does() -> None:
    logits = torch.randn(50)
    bias: Any = [[[7], -100.0], [[3], 2.5]]
    known: Any = torch.tensor([[1]])
    expected = SequenceBiasLogitsProcessor(bias)(known, logits[None].clone())
    assert torch.equal(add_bias(logits, {"7": -100.0, "3": 2.5}), expected[0])


def test_frequency_counts_how_often_a_token_was_written() -> None:
    logits = torch.zeros(4)
    assert penalise_frequency(logits, [1, 3, 1], 0.5).tolist() == [0.0, -1.0, 0.0, -0.5]
    assert penalise_frequency(logits, [], 0.5).tolist() == [0.0] * 4
    once = penalise_frequency(logits, [1, 3, 1], 0.5, presence=2.0)
    assert once.tolist() == [0.0, -3.0, 0.0, -2.5]


def test_temperature_zero_is_greedy() -> None:
    logits = torch.randn(3, 20)
    assert torch.equal(make_sampler(0.0, top_k=5)(logits), greedy(logits))
    assert torch.equal(make_sampler(1e-9)(logits), greedy(logits))  # no overflow


def test_draws_follow_the_probabilities_of_temperature() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]]).expand(20_000, 3)
    for temperature in (0.5, 1.0, 2.0):
        sampler = make_sampler(temperature, generator=torch.Generator().manual_seed(1))
        freq = torch.bincount(sampler(logits), minlength=3) / len(logits)
        expected = torch.softmax(logits[0] / temperature, dim=-1)
        torch.testing.assert_close(freq, expected, atol=0.015, rtol=0)


def test_a_draw_follows_the_probabilities() -> None:
    probs = torch.tensor([[0.0, 0.1, 0.0, 0.6, 0.3, 0.0]])
    u = torch.rand(100_000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = draw(probs.expand(100_000, -1), u)
    share = drawn.bincount(minlength=6) / len(drawn)
    torch.testing.assert_close(share, probs[0], atol=0.01, rtol=0)
    assert not share[[0, 2, 5]].any()


def test_a_draw_with_a_generator_takes_one_number() -> None:
    one, other = (torch.Generator().manual_seed(2) for _ in range(2))
    make_sampler(1.0, generator=one)(torch.zeros(1, 1000))
    torch.rand(1, generator=other, dtype=torch.float64)
    assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_the_ends_of_the_line_have_a_probability(u: float) -> None:
    for few in (3, 50_257):  # in fp32 so many add up to a little less or more than 1
        probs = torch.zeros(2, few)
        probs[:, 1:-1] = torch.rand_like(probs[:, 1:-1]).softmax(dim=-1)
        drawn = draw(probs, torch.full((2, 1), u, dtype=torch.float64))
        assert probs[[0, 1], drawn].all(), drawn


def test_a_texts_sampler_draws_anew_for_each_of_several_rows() -> None:
    sampler, alone = (sampler_of(SamplingConfig(temperature=1.0, seed=4)) for _ in range(2))
    drawn = sampler(torch.zeros(50, 1000)).tolist()
    assert drawn == [int(alone(torch.zeros(1, 1000))) for _ in range(50)]
    assert len(set(drawn)) > 30


def test_samplers_choose_together_what_each_chooses_alone() -> None:
    """Of the same options or not, greedy and a course's sampler between them; several times."""
    wide = SamplingConfig(temperature=1.3, seed=5)
    narrow = SamplingConfig(temperature=0.7, top_k=40, top_p=0.9, min_p=0.01, seed=5)

    def samplers() -> list[Sampler]:
        texts = [sampler_of(c, i) for c in (wide, narrow) for i in range(3)]
        shared = make_sampler(0.9, generator=torch.Generator().manual_seed(3))
        return [texts[0], greedy, *texts[1:4], shared, *texts[4:]]

    together, alone = samplers(), samplers()
    for step in range(20):
        logits = 3 * torch.randn(8, 2000, generator=torch.Generator().manual_seed(step))
        expected = [int(one(logits[i : i + 1])) for i, one in enumerate(alone)]
        assert choose(together, logits) == expected


def test_nothing_is_drawn_by_what_is_no_number() -> None:
    sampler = make_sampler(1.0, generator=torch.Generator())
    with pytest.raises(UserError, match="not numbers"):
        sampler(torch.tensor([[1.0, math.inf]]))


def test_without_a_seed_the_global_generator_repeats_a_text() -> None:
    probs, drawn = torch.zeros(1, 1000), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        one, other = (sampler_of(SamplingConfig(temperature=1.0), i) for i in range(2))
        drawn.append([int(sampler(probs)) for sampler in (one, other) for _ in range(4)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][:4] != drawn[0][4:]


def test_it_draws_as_the_course_does() -> None:
    """The course's own four lines, on the same global seed."""
    logits = torch.randn(1, 100)
    torch.manual_seed(123)
    top, _ = torch.topk(logits, 25)
    cut = torch.where(logits < top[:, -1], torch.tensor(float("-inf")), logits)
    expected = torch.multinomial(torch.softmax(cut / 1.4, dim=-1), num_samples=1)
    torch.manual_seed(123)
    assert torch.equal(make_sampler(1.4, top_k=25)(logits), expected[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; expected 0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 101}, "top_k is 101; expected 1 to 100"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0; expected 0 < top_p <= 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"top_k": 2.5}, "top_k is 2.5; expected a whole number"),
        ({"min_p": 1.5}, "min_p is 1.5; expected 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; expected more than 0"),
        ({"frequency_penalty": math.nan}, "frequency_penalty is nan"),
        ({"presence_penalty": math.inf}, "presence_penalty is inf"),
        ({"logit_bias": {"100": 1.0}}, "logit_bias has '100'; expected ids, 0 to 99"),
        ({"logit_bias": {"x": 1.0}}, "logit_bias has 'x'"),
        ({"logit_bias": {"5": math.inf}}, "logit_bias of 5 is inf"),
        ({"logit_bias": {str(i): 1.0 for i in range(101)}}, "logit_bias has 101 ids"),
        # Beyond what fp32 holds these make scores of no number.
        ({"logit_bias": {"5": 1e39}}, "logit_bias of 5 is 1e"),
        ({"frequency_penalty": -1e300}, "frequency_penalty is -1e"),
        ({"presence_penalty": 1e300}, "presence_penalty is 1e"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty is 1e"),
        ({"repetition_penalty": 1e300}, "repetition_penalty is 1e"),
        ({"temperature": 1e300}, "temperature is 1e"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SamplingConfig(**options).check(vocab_size=100)


@pytest.mark.parametrize(
    "options", [{"top_k": 21}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 2.0}, {"min_p": 2.0}]
)
def test_a_sampler_refuses_senseless_options_too(options: dict) -> None:
    with pytest.raises(UserError, match="top_|min_p"):
        make_sampler(1.0, **options)(torch.randn(1, 20))
    with pytest.raises(UserError, match="temperature is -1"):
        make_sampler(-1.0)

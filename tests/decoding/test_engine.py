import contextlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import (
    Engine,
    generate,
    generate_text_simple,
    text_to_token_ids,
    token_ids_to_text,
)
from groundup.decoding.sampling import penalise_repetition
from groundup.decoding.sequence import Sequence
from groundup.decoding.texts import TextStream, generate_batch
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from tests.conftest import tiny_config


class Plain(nn.Module):
    """A student's own model: it takes only ids."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, idx: Tensor) -> Tensor:
        return self.inner(idx)


class Scripted(GPTModel):
    """Writes a given sequence of ids after the prompt, whatever the weights."""

    def __init__(self, script: list[int], prompt_length: int, vocab_size: int) -> None:
        super().__init__(tiny_config(vocab_size=vocab_size, context_length=64))
        self.script, self.prompt_length, self.vocab = script, prompt_length, vocab_size

    def forward(self, in_idx: Tensor, cache=None, *, at=None) -> Tensor:  # pyright: ignore
        seen = (cache.length if cache else 0) + in_idx.shape[1]
        scores = torch.zeros(1, self.vocab)
        scores[0, self.script[seen - self.prompt_length]] = 1.0
        return scores


@pytest.fixture
def model() -> GPTModel:
    return GPTModel(tiny_config()).init_gpt2().eval()


def course_greedy(model: nn.Module, idx: Tensor, new: int, context_size: int) -> Tensor:
    """The course's loop."""
    for _ in range(new):
        with torch.no_grad():
            logits = model(idx[:, -context_size:])[:, -1, :]
        idx = torch.cat((idx, logits.argmax(dim=-1, keepdim=True)), dim=1)
    return idx


@pytest.mark.parametrize("prompt", [1, 5, 16, 20])
@pytest.mark.parametrize("context_size", [16, 9])
def test_greedy_is_the_courses_loop_also_beyond_the_context(
    model: GPTModel, prompt: int, context_size: int
) -> None:
    idx = torch.randint(0, 300, (2, prompt))
    expected = course_greedy(model, idx, 24, context_size)
    assert torch.equal(generate_text_simple(model, idx, 24, context_size), expected)
    assert torch.equal(generate_text_simple(Plain(model), idx, 24, context_size), expected)


def test_sampling_is_the_courses_loop_on_the_same_seed(model: GPTModel) -> None:
    idx = torch.randint(0, 300, (1, 4))
    torch.manual_seed(123)
    expected = idx
    for _ in range(10):
        with torch.no_grad():
            logits = model(expected)[:, -1]
        top, _ = torch.topk(logits, 25)
        logits = torch.where(logits < top[:, -1], torch.tensor(float("-inf")), logits)
        probs = torch.softmax(logits / 1.4, dim=-1)
        expected = torch.cat((expected, torch.multinomial(probs, num_samples=1)), dim=1)
    torch.manual_seed(123)
    assert torch.equal(generate(model, idx, 10, 16, temperature=1.4, top_k=25), expected)


def test_generation_stops_before_the_end_token() -> None:
    model = Scripted([7, 8, 9, 10], prompt_length=2, vocab_size=20)
    idx = torch.tensor([[1, 2]])
    assert generate(model, idx, 4, 64, eos_id=9).tolist() == [[1, 2, 7, 8]]
    assert generate(model, idx, 4, 64, eos_id=7).tolist() == [[1, 2]]
    assert generate(model, idx, 4, 64).tolist() == [[1, 2, 7, 8, 9, 10]]


def test_in_a_batch_ended_rows_are_filled_until_all_have_ended(model: GPTModel) -> None:
    idx = torch.randint(0, 300, (4, 3))
    free = generate(model, idx, 8, 16)
    eos = int(free[0, 4])
    out = generate(model, idx, 8, 16, eos_id=eos)
    for row, unbound in zip(out[:, 3:].tolist(), free[:, 3:].tolist(), strict=True):
        cut = unbound.index(eos) if eos in unbound else len(row)
        assert row[:cut] == unbound[: min(cut, len(row))]
        assert set(row[cut:]) <= {eos}


def test_a_smaller_window_is_kept_when_the_context_is_full(model: GPTModel) -> None:
    idx = torch.randint(0, 300, (1, 14))
    engine = Engine(model, context=16)
    sequence = Sequence(idx[0].tolist(), SamplingConfig(26), on_full="slide", keep=6)
    engine.add(sequence)
    out, step = idx, 0
    for step, written in enumerate(engine.run()):
        # At 17 tokens only the last 6 stay; they fill up to 16 again.
        length = out.shape[1]
        window = length if length <= 16 else 6 + (length - 17) % 11
        with torch.no_grad():
            expected = model(out[:, -window:])[:, -1].argmax(-1)
        assert written.token_id == int(expected), step
        out = torch.cat([out, expected[:, None]], dim=1)
    assert step == 25


def test_an_empty_prompt_and_broken_weights_are_refused(model: GPTModel) -> None:
    with pytest.raises(UserError, match="prompt is empty"):
        generate(model, torch.zeros(1, 0, dtype=torch.long), 1, 16)
    model.final_norm.scale.data[0] = float("nan")
    with pytest.raises(UserError, match="not numbers"):
        generate(model, torch.tensor([[1]]), 1, 16)


def test_text_helpers_are_inverse(tokenizer: BPETokenizer) -> None:
    ids = text_to_token_ids("The fox<|endoftext|>", tokenizer)
    assert ids.shape[0] == 1 and ids[0, -1] == tokenizer.eot_token
    assert token_ids_to_text(ids, tokenizer) == "The fox<|endoftext|>"


def stream(tokenizer: BPETokenizer, text: str, stop: list[str], *, end: bool = False) -> TextStream:
    """A stream of a model that writes ``text``."""
    ids = tokenizer.encode(text) + ([tokenizer.eot_token or 0] if end else [])
    config = SamplingConfig(max_new_tokens=len(ids))
    script = Scripted(ids + [0], 1, tokenizer.vocab_size)
    script.pos_emb = nn.Embedding(4096, 1)
    object.__setattr__(script, "cfg", script.cfg.replace(context_length=4096))
    return TextStream(script, tokenizer, [1], config, stop=stop)


@pytest.mark.parametrize(
    ("text", "stop", "expected", "reason"),
    [
        ("The quick fox", [], "The quick fox", "length"),
        ("The quick fox", ["quick"], "The ", "stop"),
        ("The quick fox", ["fox", "quick"], "The ", "stop"),
        ("The quick fo", ["fox"], "The quick fo", "length"),
        ("aab", ["ab"], "a", "stop"),
        ("bca", ["bca", "c"], "b", "stop"),
        ("bca", ["bc", "c"], "", "stop"),
        ("日本語🙂", ["語"], "日本", "stop"),
    ],
)
def test_stop_strings(
    tokenizer: BPETokenizer, text: str, stop: list[str], expected: str, reason: str
) -> None:
    pieces = stream(tokenizer, text, stop)
    assert "".join(pieces) == expected
    assert pieces.finish_reason == reason


@settings(deadline=None)
@given(st.text("abc🙂", max_size=20), st.lists(st.text("abc🙂", min_size=1, max_size=3)))
def test_a_stream_is_the_text_up_to_the_first_stop_string(text: str, stop: list[str]) -> None:
    tokenizer = BPETokenizer.train("abc🙂", 260)
    # The stop string that is complete first cuts the text, where it begins.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    pieces = list(stream(tokenizer, text, stop, end=True))
    assert "".join(pieces) == text[: min(ends)[1] if ends else len(text)]
    assert "�" not in "".join(pieces)


def test_the_end_of_text_token_ends_the_stream(tokenizer: BPETokenizer) -> None:
    pieces = stream(tokenizer, "The fox", [], end=True)
    assert "".join(pieces) == "The fox"
    assert pieces.finish_reason == "end_of_text"
    assert tokenizer.decode(pieces.token_ids) == "The fox"


def test_an_empty_stop_string_is_refused(tokenizer: BPETokenizer) -> None:
    with pytest.raises(UserError, match="stop string is empty"):
        stream(tokenizer, "x", [""])


def test_a_seed_repeats_a_text_and_leaves_the_global_generator_alone(
    tokenizer: BPETokenizer,
) -> None:
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)).eval()
    config = SamplingConfig(max_new_tokens=20, temperature=1.0, seed=3)
    before = torch.get_rng_state()
    first = "".join(TextStream(model, tokenizer, [5], config))
    assert first == "".join(TextStream(model, tokenizer, [5], config))
    assert torch.equal(torch.get_rng_state(), before)


def padded_model(vocab_size: int, padding: int = 20) -> GPTModel:
    """Its vocabulary is larger than the tokenizer's; what no token stands for scores highest."""
    cfg = tiny_config(vocab_size=vocab_size + padding, tie_weights=False)
    model = GPTModel(cfg).init_gpt2().eval()
    model.get_parameter("final_norm.shift").data.fill_(1.0)
    model.out_head.weight.data[vocab_size:] = 9.0
    return model


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ids_that_the_tokenizer_does_not_know_are_never_chosen(
    tokenizer: BPETokenizer, temperature: float
) -> None:
    size = tokenizer.vocab_size
    model = padded_model(size)
    prompt = tokenizer.encode("The fox")
    assert (model(torch.tensor([prompt])).argmax(dim=-1) >= size).all()
    config = SamplingConfig(max_new_tokens=30, temperature=temperature, seed=1)
    stream = TextStream(model, tokenizer, prompt, config)
    text = "".join(stream)
    assert text == tokenizer.decode(stream.token_ids) and 0 < len(stream.token_ids) <= 30
    batch = list(generate_batch(model, tokenizer, [prompt, prompt[:1]], config))
    assert all(max(done.token_ids) < size for done in batch)
    if temperature == 0.0:
        scores = model(torch.tensor([prompt]))[0, -1, :size]
        first = next(done for done in batch if done.index == 0).token_ids
        assert stream.token_ids[0] == int(scores.argmax()) == first[0]
    top = SamplingConfig(temperature=1.0, top_k=size + 1)
    with pytest.raises(UserError, match=f"expected 1 to {size}, the size of the vocabulary"):
        TextStream(model, tokenizer, prompt, top)
    # Without a tokenizer, as in the course, every id counts.
    assert generate(model, torch.tensor([prompt]), 1, 16)[0, -1] >= size


def test_logprobs_are_those_of_the_scores_and_penalties_change_the_choice(
    tokenizer: BPETokenizer,
) -> None:
    model = padded_model(tokenizer.vocab_size)
    prompt = tokenizer.encode("The")

    def write(**options: Any) -> Sequence:
        engine = Engine(model, tokenizer)
        config = SamplingConfig(max_new_tokens=8, **options)
        text = engine.add(Sequence(prompt, config, logprobs=3))
        list(engine.run())
        return text

    plain = write()
    with torch.no_grad():
        every = model(torch.tensor([plain.ids]))[0, :, : tokenizer.vocab_size].log_softmax(-1)
    for place, found in enumerate(plain.logprobs, start=len(prompt)):
        expected = every[place - 1].topk(3)
        assert [token for token, _ in found.top] == expected.indices.tolist()
        assert found.token_id == plain.ids[place] == found.top[0][0]
        values = [found.logprob, *(value for _, value in found.top)]
        torch.testing.assert_close(values, [float(expected.values[0]), *expected.values.tolist()])
    assert len(plain.logprobs) == 8
    first = plain.token_ids[0]
    banned = write(logit_bias={str(first): -100.0})
    assert first not in banned.token_ids and banned.logprobs[0].top == plain.logprobs[0].top
    wanted = write(logit_bias={"65": 100.0})
    assert wanted.token_ids == [65] * 8
    varied = write(repetition_penalty=1.5)
    for place in range(len(prompt), len(varied.ids)):
        before = varied.ids[:place]
        with torch.no_grad():
            scores = model(torch.tensor([before]))[0, -1, : tokenizer.vocab_size]
        assert varied.ids[place] == int(penalise_repetition(scores, before, 1.5).argmax())
    counted = write(logit_bias={"65": 100.0, "66": 99.0}, frequency_penalty=2.0)
    assert sorted(counted.token_ids) == [65] * 4 + [66] * 4
    varied = write(logit_bias={"65": 100.0, "66": 99.0, "67": 99.0}, presence_penalty=2.0)
    assert set(varied.token_ids[:3]) == {65, 66, 67} and set(varied.token_ids[3:]) == {65}


def test_a_prompt_without_room_and_a_batch_of_none_are_refused(model: GPTModel) -> None:
    engine = Engine(model)
    with pytest.raises(UserError, match="the prompt has 17 tokens, but the model's context is 16"):
        engine.add(Sequence([1] * 17, SamplingConfig()))
    whole = engine.add(Sequence([1] * 16, SamplingConfig()))
    assert len(list(engine.run())) == 1 and whole.finish_reason == "length"
    with pytest.raises(UserError, match="the prompt is empty"):
        Sequence([], SamplingConfig())
    for new in (0, -3):
        assert torch.equal(generate(model, torch.tensor([[1]]), new, 16), torch.tensor([[1]]))
    with pytest.raises(UserError, match="the batch size is 0"):
        Engine(model, max_batch=0)
    with pytest.raises(UserError, match="the context is 0 tokens"):
        generate(model, torch.tensor([[1]]), 3, 0)
    with pytest.raises(UserError, match="no pos_emb, which says how many tokens"):
        Engine(Plain(model))


def test_with_other_weights_everything_is_computed_anew(model: GPTModel) -> None:
    engine = Engine(model)
    prompt = torch.randint(0, 300, (12,)).tolist()
    for changed in (False, True):
        if changed:
            model.tok_emb.weight.data += 0.1 * torch.randn_like(model.tok_emb.weight)
            engine.forget()
        text = engine.add(Sequence(prompt, SamplingConfig(max_new_tokens=3)))
        list(engine.run())
        assert text.ids == generate(model, torch.tensor([prompt]), 3, 16)[0].tolist()


def test_an_interrupted_step_loses_nothing(model: GPTModel) -> None:
    expected = generate(model, torch.tensor([[1, 2, 3]]), 9, 16)[0].tolist()
    engine = Engine(model)
    text = engine.add(Sequence([1, 2, 3], SamplingConfig(max_new_tokens=9)))
    head = model.out_head.forward
    calls = 0

    def interrupted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise KeyboardInterrupt
        return head(x)

    model.out_head.forward = interrupted  # pyright: ignore
    while len(engine):
        with contextlib.suppress(KeyboardInterrupt):
            engine.step()
    assert text.ids == expected


def test_the_cache_has_the_model_s_precision(model: GPTModel) -> None:
    full = Engine(model)
    full.add(Sequence([1, 2, 3], SamplingConfig(max_new_tokens=6)))
    list(full.run())
    engine = Engine(model.to(torch.bfloat16))
    text = engine.add(Sequence([1, 2, 3], SamplingConfig(max_new_tokens=6), logprobs=1))
    list(engine.run())
    assert engine.cache is not None and engine.cache.layers[0].keys.dtype == torch.bfloat16
    # Rounded to 8 bits, scores are within a hundredth or so of what a call at once gives.
    with torch.no_grad():
        at_once = model(torch.tensor([text.ids]))[0].float().log_softmax(-1)
    for place, found in enumerate(text.logprobs, start=3):
        assert found.logprob == pytest.approx(float(at_once[place - 1, found.token_id]), abs=0.05)

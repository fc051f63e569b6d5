import math
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from groundup.config import IGNORE_INDEX
from groundup.errors import UserError
from groundup.evaluate.perplexity import SlidingWindows, evaluate_text, sliding_windows
from groundup.evaluate.perplexity_config import PerplexityConfig
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.weights.load import load_model
from tests.conftest import TEXT, tiny_config

LONG = TEXT * 4


@pytest.fixture
def model(tokenizer: BPETokenizer) -> GPTModel:
    """Random weights that are far from indifferent."""
    torch.manual_seed(1)
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)).init_gpt2().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def without_eot() -> BPETokenizer:
    return BPETokenizer.train(TEXT * 3, 300, special_tokens=())


def the_guides_loss(directory: Path, ids: list[int], max_length: int, stride: int) -> float:
    """The loop of transformers' guide "Perplexity of fixed-length models"."""
    model = GPT2LMHeadModel.from_pretrained(directory).eval()
    input_all = torch.tensor([ids])
    nll_sum, n_tokens, prev_end_loc = 0.0, 0, 0
    for begin_loc in range(0, len(ids), stride):
        end_loc = min(begin_loc + max_length, len(ids))
        trg_len = end_loc - prev_end_loc
        input_ids = input_all[:, begin_loc:end_loc]
        target_ids = input_ids.clone()
        target_ids[:, :-trg_len] = -100
        with torch.no_grad():
            neg_log_likelihood = model(input_ids, labels=target_ids).loss
        num_valid_tokens = int((target_ids != -100).sum())
        num_loss_tokens = num_valid_tokens - (1 if begin_loc == 0 else 0)
        nll_sum += float(neg_log_likelihood) * num_loss_tokens
        n_tokens += num_loss_tokens
        prev_end_loc = end_loc
        if end_loc == len(ids):
            break
    return nll_sum / n_tokens


@pytest.mark.parametrize("stride", [1, 5, 8, 15])
def test_as_in_the_guide_of_transformers(model_dir: Path, stride: int) -> None:
    model, tokenizer = load_model(model_dir)
    assert tokenizer.eot_token is not None
    ids = [tokenizer.eot_token, *tokenizer.encode(LONG)]
    # The guide's 16 tokens are 15 to read and the last one's successor; ours are 16 to read.
    theirs = the_guides_loss(model_dir, ids, max_length=16, stride=stride)
    options = PerplexityConfig(context_length=15, stride=stride, batch_size=3)
    ours = evaluate_text(model, tokenizer, [LONG], options)
    assert ours.loss == pytest.approx(theirs, abs=1e-5)
    assert ours.tokens == len(ids) - 1


def token_by_token(model: GPTModel, ids: list[int]) -> float:
    """The log2 of the probability of the ids after the first, each from all before it."""
    total = 0.0
    for n in range(1, len(ids)):
        with torch.no_grad():
            scores = model(torch.tensor([ids[:n]]))[0, -1].double()
        total += math.log2(scores.softmax(-1)[ids[n]].item())
    return total


def test_bits_per_byte_of_a_short_text(model: GPTModel, tokenizer: BPETokenizer) -> None:
    text = "after the café 🙂"
    ids = tokenizer.encode(text)
    assert len(ids) <= model.cfg.context_length and tokenizer.eot_token is not None
    score = evaluate_text(model, tokenizer, [text])
    bits = -token_by_token(model, [tokenizer.eot_token, *ids])
    assert (score.tokens, score.bytes, score.characters) == (len(ids), 20, 16)
    assert score.bits_per_byte == pytest.approx(bits / 20, rel=1e-5)
    assert score.perplexity == pytest.approx(2 ** (bits / len(ids)), rel=1e-5)


def test_a_stride_of_one_gives_every_token_the_whole_context(
    model: GPTModel, tokenizer: BPETokenizer
) -> None:
    ids = [tokenizer.eot_token or 0, *tokenizer.encode(TEXT)]
    assert len(ids) > 40
    bits = 0.0
    for n in range(1, len(ids)):
        with torch.no_grad():
            scores = model(torch.tensor([ids[max(0, n - 16) : n]]))[0, -1].double()
        bits -= math.log2(scores.softmax(-1)[ids[n]].item())
    score = evaluate_text(model, tokenizer, [TEXT], PerplexityConfig(stride=1))
    assert score.bits_per_byte == pytest.approx(bits / len(TEXT.encode()), rel=1e-5)


def test_a_stride_of_the_context_is_plain_windows(model: GPTModel, tokenizer: BPETokenizer) -> None:
    score = evaluate_text(model, tokenizer, [LONG], PerplexityConfig(stride=16))
    ids = torch.tensor([tokenizer.eot_token or 0, *tokenizer.encode(LONG)])
    total = 0.0
    for inputs, targets in zip(ids[:-1].split(16), ids[1:].split(16), strict=True):
        with torch.no_grad():
            logits = model(inputs[None])[0]
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    assert score.loss == pytest.approx(total / (len(ids) - 1), rel=1e-5)


def test_the_default_stride_is_half_a_window(model: GPTModel, tokenizer: BPETokenizer) -> None:
    score = evaluate_text(model, tokenizer, [LONG])
    assert (score.context_length, score.stride, score.precision) == (16, 8, "fp32")
    assert score == evaluate_text(model, tokenizer, [LONG], PerplexityConfig(stride=8))
    short = PerplexityConfig(context_length=1)
    assert evaluate_text(model, tokenizer, [LONG], short).stride == 1


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_change_nothing(model: GPTModel, tokenizer: BPETokenizer, batch_size: int) -> None:
    documents = [LONG, "fox", TEXT, "the quick brown"]
    expected = evaluate_text(model, tokenizer, documents).loss
    options = PerplexityConfig(batch_size=batch_size)
    assert evaluate_text(model, tokenizer, documents, options).loss == pytest.approx(expected)


def test_documents_are_no_context_for_each_other(model: GPTModel, tokenizer: BPETokenizer) -> None:
    first, second = (evaluate_text(model, tokenizer, [text]) for text in (LONG, "the quick 🙂"))
    both = evaluate_text(model, tokenizer, [LONG, "the quick 🙂"])
    assert both.documents == 2
    assert both.tokens == first.tokens + second.tokens
    assert both.bytes == first.bytes + second.bytes
    total = first.loss * first.tokens + second.loss * second.tokens
    assert both.loss * both.tokens == pytest.approx(total, rel=1e-6)


def test_without_end_of_text_the_first_token_is_only_read(without_eot: BPETokenizer) -> None:
    model = GPTModel(tiny_config(vocab_size=without_eot.vocab_size)).init_gpt2().eval()
    text = "🙂 brown"
    ids = without_eot.encode(text)
    assert without_eot.token_bytes(ids[0]) == b"\xf0"  # a byte, but no character, is left out
    score = evaluate_text(model, without_eot, [text])
    assert not score.after_end_of_text
    assert score.tokens == len(ids) - 1
    assert (score.bytes, score.characters) == (len(text.encode()) - 1, len(text))
    bits = -token_by_token(model, ids)
    assert score.bits_per_byte == pytest.approx(bits / score.bytes, rel=1e-5)


@pytest.mark.parametrize("window", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 30])
def test_every_token_is_predicted_once_with_the_context_that_is_promised(
    count: int, window: int
) -> None:
    for stride in range(1, window + 1):
        predicted: list[int] = []
        for begin, done, end in sliding_windows(count, window, stride):
            assert begin <= done < end <= begin + window
            assert begin == 0 or done - begin == window - stride
            predicted += range(done, end)
        assert predicted == list(range(count))


def test_a_batch_has_the_windows_as_rows(tokenizer: BPETokenizer) -> None:
    eot, ids = tokenizer.eot_token, tokenizer.encode("dogs")
    assert len(ids) == 3 and eot is not None
    windows = SlidingWindows(["dogs"], tokenizer, 2, 1)
    inputs, targets = windows.collate([0, 1])
    assert inputs.tolist() == [[eot, ids[0]], [ids[0], ids[1]]]
    assert targets.tolist() == [[ids[0], ids[1]], [IGNORE_INDEX, ids[2]]]


def test_shorter_windows_are_padded(tokenizer: BPETokenizer) -> None:
    eot, (a, b, c) = tokenizer.eot_token, tokenizer.encode("dogs")
    windows = SlidingWindows(["dogs", ""], tokenizer, 2, 2)
    inputs, targets = windows.collate([1, 0])
    assert inputs.tolist() == [[b, 0], [eot, a]]
    assert targets.tolist() == [[c, IGNORE_INDEX], [a, b]]


def test_dropout_is_off_and_the_model_is_left_as_it_was(tokenizer: BPETokenizer) -> None:
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size, drop_rate=0.5)).train()
    score = evaluate_text(model, tokenizer, [TEXT])
    assert model.training
    assert score == evaluate_text(model.eval(), tokenizer, [TEXT])


def test_bf16_is_near_fp32(model: GPTModel, tokenizer: BPETokenizer) -> None:
    exact = evaluate_text(model, tokenizer, [TEXT])
    rough = evaluate_text(model, tokenizer, [TEXT], PerplexityConfig(precision="bf16"))
    assert rough.precision == "bf16" and rough.loss != exact.loss
    assert rough.loss == pytest.approx(exact.loss, rel=0.02)


def test_a_perplexity_beyond_all_numbers_is_infinite_and_none_in_json(
    model: GPTModel, tokenizer: BPETokenizer
) -> None:
    model.final_norm.scale.data *= 1e5
    score = evaluate_text(model, tokenizer, [TEXT])
    assert score.loss > 1000 and score.perplexity == math.inf
    assert score.as_dict()["perplexity"] is None


def test_scores_that_are_no_numbers_are_refused(model: GPTModel, tokenizer: BPETokenizer) -> None:
    model.get_parameter("final_norm.shift").data[0] = math.nan
    with pytest.raises(UserError, match="the loss is nan: the model's weights are damaged"):
        evaluate_text(model, tokenizer, [TEXT])


def test_one_token_is_predicted_from_end_of_text_or_not_at_all(
    model: GPTModel, tokenizer: BPETokenizer, without_eot: BPETokenizer
) -> None:
    assert evaluate_text(model, tokenizer, ["a"]).tokens == 1
    with pytest.raises(UserError, match="no token to predict.*no end-of-text"):
        evaluate_text(model, without_eot, ["a"])
    for nothing in ([], [""]):
        with pytest.raises(UserError, match="no token to predict: the text is empty"):
            evaluate_text(model, tokenizer, nothing)


def test_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        PerplexityConfig(context_length=0, stride=-1, batch_size=0)
    for problem in ("context_length is 0", "stride is -1", "batch_size is 0"):
        assert f"{problem}; expected at least 1" in str(error.value)


def test_lengths_must_fit_the_model() -> None:
    with pytest.raises(UserError, match="context_length is 17; expected 1 to 16"):
        PerplexityConfig(context_length=17).window_and_stride(16)
    with pytest.raises(UserError, match="stride is 17; expected 1 to 16"):
        PerplexityConfig(stride=17).window_and_stride(16)
    with pytest.raises(UserError, match="stride is 5; expected 1 to 4"):
        PerplexityConfig(context_length=4, stride=5).window_and_stride(16)


def test_batches_have_so_many_tokens_that_threads_need_not_wait() -> None:
    assert [PerplexityConfig().windows_at_once(n) for n in (16, 1024, 10_000)] == [256, 8, 8]
    assert PerplexityConfig(batch_size=3).windows_at_once(16) == 3

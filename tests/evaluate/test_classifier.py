from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.data.labelled_tokens import LabelledTokens
from groundup.errors import UserError
from groundup.evaluate.classifier import Classifier, class_scores, classify_review, probabilities
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from tests.conftest import TEXT, tiny_config
from tests.labelled import TEXTS, make_classifier, probabilities_of, save_classifier


@pytest.fixture
def model(tokenizer: BPETokenizer) -> GPTModel:
    return make_classifier(tokenizer, context_length=128)


def test_padding_never_changes_a_prediction(model: GPTModel, tokenizer: BPETokenizer) -> None:
    """0, 5 or 100 pad tokens, alone or in a batch: the same to 1e-5."""
    tokens = LabelledTokens.encode(TEXTS, [0] * len(TEXTS), tokenizer, max_length=128)
    with torch.no_grad():
        plain = [model(torch.tensor([ids]))[0, -1].softmax(-1) for ids in tokens.ids]
    expected = torch.stack(plain)
    assert expected.std(dim=0).min() > 0.01  # the texts do differ
    together = probabilities(model, tokens)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(probabilities(model, tokens, 2), expected, atol=1e-5, rtol=0)
    for pads in (0, 5, 100):
        for row, ids in enumerate(tokens.ids):
            # Another text in the batch is longer by so many tokens.
            other = [[3] * (len(ids) + pads)] if pads else []
            batch = LabelledTokens([ids, *other], [0] * (1 + len(other)), tokens.pad_token)
            assert batch.collate(range(len(batch.ids)))[0].shape[1] == len(ids) + pads
            found = probabilities(model, batch)[0]
            torch.testing.assert_close(found, expected[row], atol=1e-5, rtol=0)


def test_what_pads_does_not_matter(model: GPTModel) -> None:
    rows = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    one, other = (class_scores(model, LabelledTokens(rows, [0, 0, 0], pad)) for pad in (0, 299))
    assert torch.equal(one, other)


def test_the_courses_position_is_the_last_one(model: GPTModel, tokenizer: BPETokenizer) -> None:
    labels, eot = ["ham", "spam"], tokenizer.eot_token or 0
    classifier = Classifier(model, tokenizer, labels, 20, read_padded=True)
    found = classifier.predict(TEXTS)
    for text, prediction in zip(TEXTS, found, strict=True):
        ids = tokenizer.encode(text)[:20]
        padded = torch.tensor([ids + [eot] * (20 - len(ids))])
        with torch.no_grad():
            expected = model(padded)[0, -1].softmax(-1)
        assert list(prediction.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    by_last_token = Classifier(model, tokenizer, labels, 20).predict(TEXTS)
    assert by_last_token[0].probability != pytest.approx(found[0].probability, abs=1e-3)


def test_long_texts_are_cut_off(model: GPTModel, tokenizer: BPETokenizer) -> None:
    classifier = Classifier(model, tokenizer, ["ham", "spam"], 4)
    long, short = tokenizer.encode(TEXT), tokenizer.decode(tokenizer.encode(TEXT)[:4])
    assert len(long) > 4 and tokenizer.encode(short) == long[:4]
    one, other = classifier.predict([TEXT, short])
    assert one.probability == pytest.approx(other.probability, abs=1e-6)
    assert classifier.encode([TEXT, short, "x"]).truncated == 1


def test_a_prediction(model: GPTModel, tokenizer: BPETokenizer) -> None:
    labels = ["ham", "spam"]
    found = Classifier(model, tokenizer, labels, 16).predict(text for text in TEXTS)
    assert len(found) == len(TEXTS)
    for prediction in found:
        assert list(prediction.probabilities) == labels
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
        assert prediction.probability == max(prediction.probabilities.values())
        assert prediction.probabilities[prediction.label] == prediction.probability
    model.out_head.weight.data.neg_()  # which turns the order of the scores around
    other = Classifier(model, tokenizer, labels, 16).predict(TEXTS)
    assert all(a.label != b.label for a, b in zip(found, other, strict=True))
    assert Classifier(model, tokenizer, labels, 16).predict([]) == []


def test_more_texts_than_a_batch(model: GPTModel, tokenizer: BPETokenizer) -> None:
    """They come back in the order they came in, whatever their length."""
    texts = [word * (1 + number % 7) for number in range(15) for word in TEXTS]
    classifier = Classifier(model, tokenizer, ["ham", "spam"], 16)
    alone = [classifier.predict([text])[0].probability for text in texts]
    together = [prediction.probability for prediction in classifier.predict(texts)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_models_mode_is_restored(tokenizer: BPETokenizer) -> None:
    model = make_classifier(tokenizer, drop_rate=0.5).train()
    classifier = Classifier(model, tokenizer, ["ham", "spam"], 16)
    assert classifier.predict(TEXTS) == classifier.predict(TEXTS)  # no dropout
    assert model.training


def test_loading_what_was_saved(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    save_classifier(tmp_path / "a", tokenizer, ["ham", "spam", "eggs & Spam"], max_length=9)
    classifier = Classifier.load(tmp_path / "a")
    assert classifier.labels == ["ham", "spam", "eggs & Spam"]
    assert (classifier.max_length, classifier.read_padded) == (9, False)
    save_classifier(tmp_path / "b", tokenizer, padded=True, max_length=None)
    classifier = Classifier.load(tmp_path / "b")
    assert (classifier.max_length, classifier.read_padded) == (16, True)
    save_classifier(tmp_path / "c", tokenizer, max_length=999)
    assert Classifier.load(tmp_path / "c").max_length == 16  # the model's context
    assert probabilities_of(tmp_path / "c").shape == (5, 2)


def test_what_is_no_classifier(tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(UserError, match="is a language model, not a classifier.*classify train"):
        Classifier.load(model_dir)
    with pytest.raises(UserError, match="there is no model directory"):
        Classifier.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a complete model: config.json is missing"):
        Classifier.load(tmp_path / "empty")


def test_empty_texts(model: GPTModel, tokenizer: BPETokenizer) -> None:
    with pytest.raises(UserError, match=r"empty text \(2\)"):
        Classifier(model, tokenizer, ["ham", "spam"], 16).predict(["a", "", "b"])


def course_classify_review(text, model, tokenizer, device, max_length, pad_token_id) -> str:
    """The course's function, as a reference."""
    model.eval()
    input_ids = tokenizer.encode(text)
    supported = model.pos_emb.weight.shape[0]
    input_ids = input_ids[: min(max_length, supported)]
    input_ids += [pad_token_id] * (max_length - len(input_ids))
    input_tensor = torch.tensor(input_ids, device=device).unsqueeze(0)
    with torch.no_grad():
        logits = model(input_tensor)[:, -1, :]
    return "spam" if torch.argmax(logits, dim=-1).item() == 1 else "not spam"


@pytest.mark.parametrize("max_length", [6, 120])
def test_classify_review_says_what_the_courses_says(
    model: GPTModel, tokenizer: BPETokenizer, max_length: int
) -> None:
    model.out_head = nn.Linear(32, 2)
    texts = [f"{word} {number}" for number in range(6) for word in TEXTS]
    pads = {"max_length": max_length, "pad_token_id": 7}
    with torch.no_grad():  # the class in the middle of what is found is the border
        ends = [tokenizer.encode(text)[:max_length] for text in texts]
        rows = torch.tensor([ids + [7] * (max_length - len(ids)) for ids in ends])
        margins = model(rows)[:, -1] @ torch.tensor([-1.0, 1.0])
        model.out_head.bias[1] -= margins.median() + 1e-4
    found = [classify_review(text, model, tokenizer, "cpu", **pads) for text in texts]
    assert found == [
        course_classify_review(text, model, tokenizer, "cpu", **pads) for text in texts
    ]
    assert set(found) == {"spam", "not spam"}


def test_classify_review_without_a_length(model: GPTModel, tokenizer: BPETokenizer) -> None:
    for text in TEXTS:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(text)]))[0, -1]
        expected = "spam" if logits[1] > logits[0] else "not spam"
        assert classify_review(text, model, tokenizer, "cpu") == expected
        assert classify_review(text, model.train(), tokenizer, "cpu") == expected
        assert model.training
    with pytest.raises(UserError, match="max_length is 0; expected at least 1"):
        classify_review("a", model, tokenizer, "cpu", max_length=0)
    with pytest.raises(UserError, match="nothing to classify"):
        classify_review("", model, tokenizer, "cpu", max_length=4)


def test_classify_review_of_a_text_beyond_the_context(tokenizer: BPETokenizer) -> None:
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)).eval()
    model.out_head = nn.Linear(32, 2)
    assert classify_review(TEXT * 9, model, tokenizer, "cpu", max_length=999) in (
        "spam",
        "not spam",
    )

"""A classifier's directory is a Hugging Face model directory, and the other way round."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    pipeline,
)

from groundup.errors import UserError
from groundup.evaluate.classifier import Classifier
from groundup.facts import Data, Facts, Reading
from groundup.model.gpt import GPTModel
from groundup.tasks.assistant import Assistant
from groundup.tasks.model import open_model
from groundup.tokenizers import BPETokenizer
from groundup.weights.card import model_card
from groundup.weights.checkpoint import save_model
from groundup.weights.export import Format, export
from groundup.weights.load import expect_language_model, load_model, read_facts
from tests.conftest import TEXT, tiny_config, unvouched
from tests.labelled import TEXTS, make_classifier, perturbed, probabilities_of

Fails = Callable[..., str]

LABELS = {2: ["not spam", "spam"], 3: ["ham", "spam", "eggs|Ünïcode <b>"]}


def in_a_pipeline(directory: Path, texts: list[str] = TEXTS, **options: Any) -> Tensor:
    """What transformers says, ``(texts, classes)``, the classes in our order."""
    classify: Any = pipeline("text-classification", str(directory), device="cpu")
    found = classify(texts, truncation=True, top_k=None, **options)
    labels = list(classify.model.config.id2label.values())
    scores = [{entry["label"]: entry["score"] for entry in row} for row in found]
    return torch.tensor([[row[label] for label in labels] for row in scores])


def course_head(model: GPTModel, classes: int) -> None:
    """As in the course: an output layer with a bias, put there by hand."""
    model.out_head = nn.Linear(32, classes)
    model.out_head.bias.data = torch.linspace(-1, 1, classes)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("head", ["ours", "course"])
@pytest.mark.parametrize("tie", [True, False])
def test_transformers_opens_the_directory(
    tmp_path: Path, tokenizer: BPETokenizer, classes: int, head: str, tie: bool
) -> None:
    if head == "ours":
        model = make_classifier(tokenizer, classes, tie_weights=tie, qkv_bias=False)
    else:
        cfg = tiny_config(vocab_size=tokenizer.vocab_size, tie_weights=tie)
        model = perturbed(GPTModel(cfg).init_gpt2())
        course_head(model, classes)
    save_model(tmp_path, model, tokenizer, Facts(task="classify", labels=LABELS[classes]))
    loader: Any = GPT2ForSequenceClassification
    theirs, info = loader.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is type(theirs)
    ids = [tokenizer.encode(text)[:16] for text in TEXTS]
    for row in ids:
        with torch.no_grad():
            ours, other = model(torch.tensor([row]))[:, -1], theirs(torch.tensor([row])).logits
        torch.testing.assert_close(ours, other, atol=2e-5, rtol=0)
    assert list(theirs.config.id2label.values()) == LABELS[classes]
    ours = probabilities_of(tmp_path)
    assert ours.std(dim=0).min() > 0.005
    torch.testing.assert_close(in_a_pipeline(tmp_path), ours, atol=1e-5, rtol=0)
    torch.testing.assert_close(in_a_pipeline(tmp_path, batch_size=4), ours, atol=1e-5, rtol=0)


def test_long_texts_are_cut_off_alike(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    for max_length in (5, None):
        out = tmp_path / str(max_length)
        facts = Facts(task="classify", reading=Reading(max_length))
        save_model(out, make_classifier(tokenizer), tokenizer, facts)
        theirs = in_a_pipeline(out, [TEXT, *TEXTS], batch_size=4)
        torch.testing.assert_close(theirs, probabilities_of(out, [TEXT, *TEXTS]), atol=1e-5, rtol=0)
        assert AutoTokenizer.from_pretrained(out).model_max_length == (max_length or 16)


def test_texts_that_spell_a_special_token_are_read_alike(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    """It is a word as any other: neither the end of the text nor padding."""
    texts = ["<|endoftext|>", "The<|endoftext|> fox", "fox <|endoftext|>", "<|endoftext|>" * 2]
    save_model(tmp_path, make_classifier(tokenizer), tokenizer, Facts(task="classify"))
    ours = probabilities_of(tmp_path, texts)
    torch.testing.assert_close(in_a_pipeline(tmp_path, texts), ours, atol=1e-5, rtol=0)
    batched = in_a_pipeline(tmp_path, texts, batch_size=4)
    torch.testing.assert_close(batched, ours, atol=1e-5, rtol=0)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text("utf-8").replace("split_special_tokens", "x"), "utf-8")
    assert not torch.allclose(in_a_pipeline(tmp_path, texts), ours, atol=1e-3)


@pytest.mark.parametrize("named", [False, True])
def test_a_directory_of_transformers(tmp_path: Path, tokenizer: BPETokenizer, named: bool) -> None:
    """Two classes without names, whose config does not mention them, or three with names."""
    shape: dict[str, Any] = {"vocab_size": 300, "n_positions": 16, "n_embd": 32, "n_layer": 2}
    if named:
        shape |= {"id2label": dict(enumerate(LABELS[3])), "num_labels": 3}
    config = GPT2Config(**shape, n_head=4, pad_token_id=tokenizer.eot_token)
    theirs = GPT2ForSequenceClassification(config).eval()
    for p in theirs.parameters():
        p.data += 0.1 * torch.randn_like(p)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path, model_max_length=16)
    labels = LABELS[3] if named else ["LABEL_0", "LABEL_1"]
    classifier = Classifier.load(tmp_path)
    assert classifier.labels == labels
    assert (classifier.max_length, classifier.read_padded) == (16, False)
    ours = probabilities_of(tmp_path)
    torch.testing.assert_close(ours, in_a_pipeline(tmp_path), atol=1e-5, rtol=0)

    save_model(tmp_path / "again", classifier.model, classifier.tokenizer, Facts(labels=labels))
    torch.testing.assert_close(probabilities_of(tmp_path / "again"), ours, atol=1e-6, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_there_and_back(tmp_path: Path, tokenizer: BPETokenizer, bias: bool) -> None:
    model = make_classifier(tokenizer, 3, drop_rate=0.25)
    if bias:
        course_head(model, 3)
    save_model(tmp_path, model, tokenizer, Facts(labels=LABELS[3]))
    again, tokens = load_model(tmp_path)
    assert again.facts is not None
    assert (again.facts.kind, again.facts.labels) == ("classifier", LABELS[3])
    assert tokens.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.cfg == model.cfg.replace(tie_weights=False)
    assert not again.training and all(p.requires_grad for p in again.parameters())
    assert again.out_head.bias is None
    state, before = again.state_dict(), model.state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed == ({"final_norm.shift"} if bias else set())
    idx = torch.arange(9)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(idx), model(idx), atol=2e-5, rtol=0)


def test_a_bias_that_nothing_can_stand_for(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model = make_classifier(tokenizer)
    course_head(model, 2)
    model.out_head.weight.data.zero_()
    with pytest.raises(UserError, match="has a bias.*build it with bias=False"):
        save_model(tmp_path / "model", model, tokenizer)
    assert not (tmp_path / "model" / "config.json").exists()


def test_labels_without_names_or_of_another_number(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    save_model(tmp_path / "a", make_classifier(tokenizer, 3), tokenizer)
    assert Classifier.load(tmp_path / "a").labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    facts = Facts(labels=["ham", "spam"])
    with pytest.raises(UserError, match="has 3 classes, but 2 labels were given: ham, spam"):
        save_model(tmp_path / "b", make_classifier(tokenizer, 3), tokenizer, facts)
    assert not (tmp_path / "b" / "config.json").exists()


@pytest.mark.parametrize("id2label", [{"1": "a", "2": "b"}, ["a", "b"], None, {"0": "a"}])
def test_damaged_labels(tmp_path: Path, tokenizer: BPETokenizer, id2label: object) -> None:
    save_model(tmp_path, make_classifier(tokenizer), tokenizer)
    values = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (unvouched(tmp_path) / "config.json").write_text(
        json.dumps(values | {"id2label": id2label}), "utf-8"
    )
    with pytest.raises(UserError, match="id2label does not number|needs at least 2"):
        Classifier.load(tmp_path)


@pytest.mark.parametrize("source", ["ours", "theirs"])
def test_a_classifier_is_no_language_model(
    fails: Fails, tmp_path: Path, tokenizer: BPETokenizer, source: str
) -> None:
    save_model(tmp_path, make_classifier(tokenizer), tokenizer, Facts(labels=LABELS[2]))
    if source == "theirs":
        (tmp_path / "groundup.json").unlink()  # its config says so too
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    sentence = (
        f"{tmp_path} is a classifier (not spam, spam), not a language model; "
        f"use `groundup classify predict {tmp_path} TEXT`"
    )
    assert fails("generate", tmp_path, "The") == sentence
    assert fails("evaluate", tmp_path, tmp_path / "text.txt") == sentence
    for open_it in (
        lambda: expect_language_model(read_facts(tmp_path), tmp_path),
        lambda: Assistant.load(tmp_path, style="alpaca"),
        lambda: open_model(tmp_path, {}),
    ):
        with pytest.raises(UserError) as error:
            open_it()
        assert str(error.value) == sentence


@pytest.mark.parametrize("to", ["hf", "gguf", "course"])
def test_the_other_formats(tmp_path: Path, tokenizer: BPETokenizer, to: Format) -> None:
    """They are for language models, all but Hugging Face's."""
    model, out = make_classifier(tokenizer), tmp_path / "out"
    if to == "hf":
        export(model, tokenizer, to, out, facts=Facts(labels=LABELS[2]))
        assert Classifier.load(out).labels == LABELS[2]
        return
    with pytest.raises(UserError, match="classifier"):
        export(model, tokenizer, to, out)
    assert not out.exists() or not any(out.iterdir())


def test_the_card(tokenizer: BPETokenizer) -> None:
    model = make_classifier(tokenizer, 3)
    facts = Facts(data=Data("a|b.csv"), progress={"val_accuracy": 0.97}, labels=LABELS[3])
    card = model_card("m", model, facts)
    assert "pipeline_tag: text-classification" in card and "AutoModelForCausalLM" not in card
    assert "| classes | ham, spam, eggs\\|Ünïcode &lt;b&gt; |" in card
    assert "| training text | a\\|b.csv |" in card
    assert "| validation accuracy | 0.9700 |" in card and "position" not in card
    padded = Reading(12, padded=True)
    assert "padded to 12 tokens" in model_card("m", model, Facts(labels=LABELS[3], reading=padded))
    assert "padded" not in model_card("m", model, Facts(reading=padded))

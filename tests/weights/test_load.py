"""Adapters are opened onto their base model, whatever that is and whoever trained them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.errors import UserError
from groundup.evaluate.classifier import Classifier
from groundup.facts import NAME, Base, Data, Facts, Reading
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.tokenizers import BPETokenizer
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model, read_facts
from groundup.weights.torch_files import save_course_file
from tests.conftest import Run, tiny_config
from tests.labelled import perturbed, probabilities_of

Fails = Callable[..., str]

IDX = torch.arange(9)[None]


def scores(model: GPTModel) -> torch.Tensor:
    with torch.no_grad():
        return model(IDX)


def trained(model: GPTModel) -> GPTModel:
    """As if what trains had been trained."""
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn_like(p)
    return model.eval()


def adapted(
    folder: Path, tokenizer: BPETokenizer, *, classes: int = 0, facts: Facts | None = None
) -> Path:
    """A run with LoRA: ``base``, and ``run`` with its ``adapter``; without facts, as PEFT's."""
    base = perturbed(GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)))
    save_model(folder / "base", base, tokenizer)
    model = add_lora(base, rank=2)
    if classes:
        to_classifier(model, classes)
    kept = facts or Facts(task="classify" if classes else "instruct")
    kept.base = Base(str(folder / "base"))
    save_model(folder / "run", trained(model), tokenizer, kept)
    adapter = folder / "run" / "adapter"
    if facts is None:
        (adapter / NAME).unlink()
    return adapter


def test_the_heads_of_a_state_dict_are_those_it_was_trained_with(tmp_path: Path) -> None:
    """The course's file does not say them, and 64 columns per head would be a wrong guess."""
    cfg = tiny_config(vocab_size=50257, emb_dim=64, n_heads=4, n_layers=1, tie_weights=False)
    base = perturbed(GPTModel(cfg))
    save_course_file(base, tmp_path / "base.pth")
    tokenizer = load_model(tmp_path / "base.pth")[1]
    facts = Facts(task="instruct", base=Base(str(tmp_path / "base.pth"), n_heads=4))
    save_model(tmp_path / "run", trained(add_lora(base, rank=2)), tokenizer, facts)
    again, _ = load_model(tmp_path / "run" / "adapter")
    assert again.cfg.n_heads == 4
    assert torch.equal(scores(again), scores(load_model(tmp_path / "run")[0]))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifiers_adapter_without_facts(
    fails: Fails, tmp_path: Path, tokenizer: BPETokenizer, classes: int
) -> None:
    """As PEFT saves it: how many classes there are is in the weights, their names are nowhere."""
    adapter = adapted(tmp_path, tokenizer, classes=classes)
    names = [f"LABEL_{index}" for index in range(classes)]
    assert read_facts(adapter).labels == names == Classifier.load(adapter).labels
    assert "adapter is a classifier (LABEL_0, LABEL_1" in fails("generate", adapter, "The")
    model = load_model(adapter)[0]
    assert model.out_head.out_features == classes and model.facts == read_facts(adapter)


@pytest.mark.parametrize("noted", [False, True])
def test_a_language_models_adapter_is_no_classifier(
    tmp_path: Path, tokenizer: BPETokenizer, noted: bool
) -> None:
    adapter = adapted(tmp_path, tokenizer, facts=Facts(task="instruct") if noted else None)
    assert read_facts(adapter).labels == []
    assert load_model(adapter)[0].out_head.out_features == tokenizer.vocab_size
    with pytest.raises(UserError, match="is a language model, not a classifier"):
        Classifier.load(adapter)


def test_a_classifiers_adapter_is_exported_merged(
    run: Run, fails: Fails, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    facts = Facts(
        task="classify", data=Data(sha256="f"), labels=["ham", "spam"], reading=Reading(5)
    )
    adapter = adapted(tmp_path, tokenizer, classes=2, facts=facts)
    assert run("export", adapter, "--to=hf", "--out", tmp_path / "hf").status == 0
    assert not (tmp_path / "hf" / "adapter").exists()
    (tmp_path / "base").rename(tmp_path / "elsewhere")  # nothing of it is needed any more
    classifier = Classifier.load(tmp_path / "hf")
    assert (classifier.labels, classifier.max_length) == (["ham", "spam"], 5)
    written = read_facts(tmp_path / "hf")
    assert (written.task, written.data) == ("classify", Data(sha256="f"))
    (tmp_path / "elsewhere").rename(tmp_path / "base")
    expected = probabilities_of(adapter)
    assert expected.std(dim=0).min() > 0.001
    assert torch.equal(probabilities_of(tmp_path / "hf"), expected)
    for to in ("gguf", "course"):
        message = fails("export", adapter, f"--to={to}", "--out", tmp_path / to)
        assert f"{to} is a format for language models, and this is a classifier" in message
        assert not (tmp_path / to).exists()


@pytest.mark.parametrize("to", ["hf", "course"])
def test_a_language_models_adapter_is_exported_merged(
    run: Run, tmp_path: Path, tokenizer: BPETokenizer, to: str
) -> None:
    adapter = adapted(tmp_path, tokenizer, facts=Facts(task="instruct", prompt_style="phi3"))
    out = tmp_path / ("hf" if to == "hf" else "m.pth")
    assert run("export", adapter, f"--to={to}", "--out", out).status == 0
    if to == "hf":
        again = load_model(out)[0]
        assert read_facts(out).prompt_style == "phi3"
    else:
        again = load_model(out, n_heads=4, tokenizer=str(tmp_path / "base"))[0]
    assert torch.equal(scores(again), scores(load_model(adapter)[0]))
    assert not torch.allclose(scores(again), scores(load_model(tmp_path / "base")[0]), atol=0.01)


def test_a_classifier_is_exported(
    run: Run, fails: Fails, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    adapter = adapted(tmp_path, tokenizer, classes=3)  # its labels are in its config alone
    run_folder = adapter.parent
    (run_folder / NAME).unlink()
    assert run("export", run_folder, "--to=hf", "--out", tmp_path / "hf").status == 0
    assert Classifier.load(tmp_path / "hf").labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert torch.equal(probabilities_of(tmp_path / "hf"), probabilities_of(run_folder))
    message = fails("export", run_folder, "--to=gguf", "--out", tmp_path / "x")
    assert "gguf is a format for language models, and this is a classifier; use hf" in message
    message = fails("export", run_folder, "--to=hf", "--out", tmp_path / "x", "--n-heads=4")
    assert "leave them out" in message

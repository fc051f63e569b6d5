"""What transformers 5 saves, in all its ways, opens with the same ids and the same logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    pipeline,
)

from groundup.config import ModelConfig
from groundup.evaluate.classifier import Classifier
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer, Tokenizer
from groundup.weights.checkpoint import save_model
from groundup.weights.hf_config import hf_config
from groundup.weights.load import load_model
from tests.conftest import TEXT, tiny_config
from tests.labelled import perturbed

IDX = torch.arange(12)[None]

Save = Callable[[Any, Path], object]


def as_trainer(model: Any, out: Path) -> None:
    arguments = TrainingArguments(output_dir=str(out), report_to=[], use_cpu=True)
    Trainer(model, arguments).save_model()


def half(model: Any, out: Path) -> None:
    nn.Module.to(model, torch.float16)
    model.save_pretrained(out)
    model.float()


def merged(model: Any, out: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True, r=2
    )
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    adapted.merge_and_unload().save_pretrained(out)


WAYS: dict[str, Save] = {
    "whole": lambda model, out: model.save_pretrained(out),
    "half": half,
    "bfloat16": lambda model, out: model.to(torch.bfloat16).save_pretrained(out),
    "sharded": lambda model, out: model.save_pretrained(out, max_shard_size="40KB"),
    "trainer": as_trainer,
    "body": lambda model, out: model.transformer.save_pretrained(out),
    "resized": lambda model, out: (
        model.resize_token_embeddings(model.config.vocab_size + 28, mean_resizing=False),
        model.save_pretrained(out),
    ),
    "merged": merged,
}


@pytest.mark.parametrize("way", [*WAYS])
def test_a_language_model(model_dir: Path, tmp_path: Path, way: str) -> None:
    theirs: Any = AutoModelForCausalLM.from_pretrained(model_dir)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    out = tmp_path / "out"
    WAYS[way](theirs, out)
    tokenizer.save_pretrained(out)
    ours, tokens = load_model(out)
    assert tokens.encode(TEXT) == tokenizer(TEXT)["input_ids"]
    with torch.no_grad():
        expected = nn.Module.to(theirs, torch.float32).eval()(IDX).logits
        torch.testing.assert_close(ours(IDX), expected, atol=1e-5, rtol=0)


def test_a_classifier(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    cfg = tiny_config(vocab_size=tokenizer.vocab_size)
    tokenizer.save(tmp_path / "language")
    save_model(tmp_path / "language", perturbed(GPTModel(cfg)), tokenizer)
    theirs: Any = GPT2ForSequenceClassification.from_pretrained(
        tmp_path / "language", num_labels=3, pad_token_id=tokenizer.eot_token
    )
    theirs.score.weight.data.normal_()
    theirs.save_pretrained(tmp_path / "out")
    saved = AutoTokenizer.from_pretrained(tmp_path / "language")
    saved.pad_token = saved.eos_token
    saved.save_pretrained(tmp_path / "out")
    classify: Any = pipeline("text-classification", str(tmp_path / "out"), top_k=None)
    found = Classifier.load(tmp_path / "out").predict(["The quick brown"])[0]
    expected = {row["label"]: row["score"] for row in classify(["The quick brown"])[0]}
    assert found.probabilities == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", None])
@pytest.mark.parametrize("inner", [None, 40, 128])
def test_activations_and_inner_widths_both_ways(
    tmp_path: Path, tokenizer: BPETokenizer, activation: str | None, inner: int | None
) -> None:
    """Theirs opened here, and saved again opened there."""
    shape: dict[str, Any] = {"vocab_size": 300, "n_positions": 16, "n_embd": 32, "n_layer": 2}
    shape |= {"n_head": 4, "n_inner": inner, "bos_token_id": 299, "eos_token_id": 299}
    shape |= {"activation_function": activation} if activation else {}
    theirs = GPT2LMHeadModel(GPT2Config(**shape)).eval()
    for p in theirs.parameters():
        p.data += 0.3 * torch.randn_like(p)  # so that the two GELUs differ visibly
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    ours, tokens = load_model(tmp_path / "theirs")
    assert ours.cfg.hidden_dim == (inner if inner == 40 else None)
    assert ours.cfg.feed_forward == ("gelu_exact" if activation == "gelu" else "gelu")
    save_model(tmp_path / "again", ours, tokens)
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    with torch.no_grad():
        expected = theirs(IDX).logits
        torch.testing.assert_close(ours(IDX), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again(IDX).logits, expected, atol=1e-5, rtol=1e-5)
        other = "gelu" if ours.cfg.feed_forward == "gelu_exact" else "gelu_exact"
        wrong = GPTModel(ours.cfg.replace(feed_forward=other)).eval()
        wrong.load_state_dict(ours.state_dict())
        assert not torch.allclose(wrong(IDX), expected, atol=1e-4, rtol=1e-4)


def test_what_is_written_stays_as_it_was_where_nothing_is_special() -> None:
    values = hf_config(ModelConfig(), 50256)
    assert (values["activation_function"], values["n_inner"]) == ("gelu_new", None)


def check_ids(directory: Path, texts: list[str]) -> Tokenizer:
    theirs = AutoTokenizer.from_pretrained(directory)
    ours = load_model(directory)[1]
    for text in texts:
        assert ours.encode(text) == theirs(text)["input_ids"], text
        assert ours.decode(ours.encode(text)) == text == theirs.decode(theirs(text)["input_ids"])
    return ours


def test_added_words_and_special_tokens_beyond_the_vocabulary(model_dir: Path, tmp_path: Path):
    theirs: Any = AutoModelForCausalLM.from_pretrained(model_dir)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.add_tokens(["<new>", "brown fox"])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path / "out")
    theirs.save_pretrained(tmp_path / "out")  # as many do: not made larger
    assert load_model(tmp_path / "out")[1].vocab_size == theirs.config.vocab_size == 300
    theirs.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    theirs.save_pretrained(tmp_path / "out")
    texts = ["The quick brown fox", "a<new> b <new>", "brown foxes<new>", "plain"]
    ours = check_ids(tmp_path / "out", texts)
    assert ours.vocab_size == 303 and ours.encode("brown fox") == [301]
    assert list(ours.special_tokens) == ["<|endoftext|>", "[PAD]"]
    ours.save(tmp_path / "out")
    again = check_ids(tmp_path / "out", texts)
    assert again.vocabulary == ours.vocabulary


def test_vocab_json_and_merges_txt_without_tokenizer_json(model_dir: Path, tmp_path: Path) -> None:
    expected = load_model(model_dir)[1]
    (model_dir / "tokenizer.json").unlink()
    for config in (None, '{"tokenizer_class": "GPT2Tokenizer", "pad_token": "<|endoftext|>"}'):
        (model_dir / "tokenizer_config.json").unlink(missing_ok=True)
        if config:
            (model_dir / "tokenizer_config.json").write_text(config, "utf-8")
        ours = check_ids(model_dir, [TEXT, "The quick"])
        assert ours.vocabulary == expected.vocabulary
    (model_dir / "merges.txt").write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match=r"vocab\.json.*not a pair"):
        load_model(model_dir)

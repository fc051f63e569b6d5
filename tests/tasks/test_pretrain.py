import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.config import ModelConfig
from groundup.data.tokens import encode_documents
from groundup.errors import TrainingFailed, UserError
from groundup.options import read_recipe
from groundup.tasks.config import PretrainConfig
from groundup.tasks.pretrain import pretrain
from groundup.tokenizers import BPETokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.tracking import read_metrics
from groundup.train.trainer import Trainer
from groundup.weights.load import load_model
from tests.conftest import LAST, TEXT, facts_of, unvouched

SHAPE = {
    "vocab_size": 300,
    "context_length": 16,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.1,
}
DOCS = [TEXT * 20, TEXT * 20]


def options(**changes: Any) -> PretrainConfig:
    base: dict[str, Any] = {"batch_size": 4, "max_steps": 12, "eval_freq": 5, "save_freq": 100}
    return PretrainConfig(**(base | {"sample_tokens": 0, "precision": "fp32"} | changes))


def quiet(text: str) -> None:
    """Say nothing."""


def test_a_batch_of_more_than_there_is_makes_an_epoch_one_step_and_that_is_said(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    config = options(max_steps=None, epochs=2, batch_size=100_000_000)
    pretrain(DOCS, tmp_path / "run", config, SHAPE, say=said.append)
    assert len([r for r in read_metrics(tmp_path / "run") if "val_loss" not in r]) == 2
    (note,) = [line for line in said if "a single step" in line]
    assert note.startswith("note: there are ") and "than the 100,000,000 of a batch" in note


def test_a_run_leaves_a_model_that_learned(tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "run"
    config = options(max_steps=80, learning_rate=1e-2, eval_freq=20)
    record = pretrain(DOCS, out, config, SHAPE, description="two texts", say=said.append)
    assert record["val_loss"] < 2.5 < read_metrics(out)[0]["loss"]
    model, tokenizer = load_model(out)
    assert model.cfg.emb_dim == 32 and tokenizer.vocab_size == model.cfg.vocab_size
    notes = facts_of(out)
    assert notes.data.description == "two texts"
    assert notes.progress["val_loss"] == record["val_loss"] and notes.progress["step"] == 80
    assert notes.options["max_steps"] == 80 and notes.shape["emb_dim"] == 32
    assert {p.name for p in (out / "plots").iterdir()} == (
        {"loss.png", "learning_rate.png", "grad_norm.png"}
    )
    assert any("training a BPE of 300 tokens" in line for line in said)
    evaluated = [r["step"] for r in read_metrics(out) if "val_loss" in r]
    assert evaluated == [1, 20, 40, 60, 80]


@pytest.mark.parametrize("stop_at", [3, 12])
def test_a_resumed_run_is_the_same_as_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Bit for bit: weights, optimizer, random numbers, measurements."""
    config, stop, broken = options(max_steps=20), StopRequest(), tmp_path / "broken"
    pretrain(DOCS, tmp_path / "whole", config, SHAPE, say=quiet)

    class Interrupted(Trainer):
        """Is asked to stop during one step, as by Ctrl-C."""

        def _set_learning_rate(self) -> float:
            if self.progress.step + 1 == stop_at:
                stop.request()
            return super()._set_learning_rate()

    monkeypatch.setattr("groundup.tasks.run.Trainer", Interrupted)
    pretrain(DOCS, broken, config, SHAPE, say=quiet, stop=stop)
    assert facts_of(broken / LAST).progress["step"] == stop_at
    pretrain(DOCS, broken, config, SHAPE, say=quiet, resume=True)

    for name in (
        "checkpoints/last/model.safetensors",
        "checkpoints/last/training_state/optimizer.safetensors",
    ):
        a, b = load_file(tmp_path / "whole" / name), load_file(broken / name)
        assert sorted(a) == sorted(b)
        assert all(torch.equal(a[key], b[key]) for key in a), name
    times = ("seconds", "tokens_per_second")
    whole, resumed = (
        [{k: v for k, v in r.items() if k not in times} for r in read_metrics(d)]
        for d in (tmp_path / "whole", broken)
    )
    assert whole == resumed


def test_a_run_that_is_over_says_so(tmp_path: Path) -> None:
    done = pretrain(DOCS, tmp_path / "run", options(), SHAPE, say=quiet)
    with pytest.raises(UserError, match="has done its 12 steps already; give more"):
        pretrain(DOCS, tmp_path / "run", options(max_steps=11), SHAPE, say=quiet, resume=True)
    said: list[str] = []
    again = pretrain(DOCS, tmp_path / "run", options(), SHAPE, say=said.append, resume=True)
    assert again == done and any("has done its 12 steps already" in text for text in said)


def test_resuming_on_another_text_is_refused(tmp_path: Path) -> None:
    pretrain(DOCS, tmp_path / "run", options(), SHAPE, say=quiet)
    with pytest.raises(UserError, match="was trained on another text"):
        pretrain(DOCS[:1], tmp_path / "run", options(max_steps=30), SHAPE, say=quiet, resume=True)


def test_going_on_from_a_models_weights(tmp_path: Path) -> None:
    pretrain(DOCS, tmp_path / "first", options(), SHAPE, say=quiet)
    again = options(init_from=str(tmp_path / "first"), learning_rate=1e-9, weight_decay=0.0)
    pretrain(DOCS, tmp_path / "second", again, {"context_length": 8}, say=quiet)
    (a, tokens_a), (b, tokens_b) = load_model(tmp_path / "first"), load_model(tmp_path / "second")
    assert a.cfg == b.cfg and tokens_a.encode(TEXT) == tokens_b.encode(TEXT)
    torch.testing.assert_close(a.tok_emb.weight, b.tok_emb.weight, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="emb_dim is 64, but the model has 32"):
        pretrain(DOCS, tmp_path / "third", again, {"emb_dim": 64}, say=quiet)
    with pytest.raises(UserError, match="context_length is 17, the model's is 16"):
        pretrain(DOCS, tmp_path / "third", again, {"context_length": 17}, say=quiet)


def test_documents_are_separated_by_the_end_token(tokenizer: BPETokenizer) -> None:
    ids = encode_documents(["The fox", "A dog"], tokenizer)
    assert ids.tolist() == [
        *tokenizer.encode("The fox"),
        tokenizer.eot_token,
        *tokenizer.encode("A dog"),
    ]
    literal = encode_documents(["a<|endoftext|>b"], tokenizer)
    assert tokenizer.eot_token not in literal


def test_short_texts_say_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        pretrain([TEXT], tmp_path / "a", options(), SHAPE | {"context_length": 512}, say=quiet)
    message = str(error.value)
    assert "the training split has" in message and "context_length + 1 = 513" in message
    assert "--context-length" in message
    with pytest.raises(UserError, match="the validation split has .*--train-ratio 1"):
        pretrain([TEXT], tmp_path / "a", options(), SHAPE | {"context_length": 40}, say=quiet)
    assert not (tmp_path / "a").exists()
    record = pretrain([TEXT], tmp_path / "a", options(train_ratio=1.0), SHAPE, say=quiet)
    assert "val_loss" not in record and (tmp_path / "a" / "plots" / "loss.png").exists()


def test_training_that_diverges_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    pretrain(DOCS, tmp_path / "run", options(save_freq=3), SHAPE, say=quiet)
    models = [tmp_path / "run" / "model.safetensors", tmp_path / "run" / LAST / "model.safetensors"]
    before = [model.read_bytes() for model in models]
    state = unvouched(tmp_path / "run" / LAST) / "training_state" / "optimizer.safetensors"
    tensors = load_file(state)
    tensors["0.exp_avg"].fill_(float("nan"))
    save_file(tensors, state)
    with pytest.raises(TrainingFailed, match="step 14: loss nan"):
        pretrain(DOCS, tmp_path / "run", options(max_steps=40), SHAPE, say=quiet, resume=True)
    assert [model.read_bytes() for model in models] == before
    load_model(tmp_path / "run")


def test_the_courses_recipe_is_the_courses_setting() -> None:
    values = read_recipe("pretrain", "course", PretrainConfig, ModelConfig)
    expected = {
        "preset": "course-124m",
        "tokenizer": "gpt2",
        "context_length": 256,
        "batch_size": 2,
        "learning_rate": 5e-4,
        "weight_decay": 0.1,
        "seed": 123,
        "epochs": 10,
    }
    assert {name: values[name] for name in expected} == expected


@pytest.mark.usefixtures("all_cores")
def test_two_steps_of_the_courses_pretraining(tmp_path: Path, data_dir: Path) -> None:
    values = read_recipe("pretrain", "course", PretrainConfig, ModelConfig)
    shape = {"context_length": values.pop("context_length")}
    values |= {"max_steps": 2, "sample_tokens": 0, "eval_freq": 2}
    config = PretrainConfig(**values)
    text = (data_dir / "the-verdict.txt").read_text(encoding="utf-8")
    record = pretrain([text], tmp_path / "run", config, shape, say=quiet)
    losses = [r["loss"] for r in read_metrics(tmp_path / "run") if "running_loss" not in r]
    assert 10.5 < losses[0] < 11.5  # ln(50257) = 10.82
    assert losses[1] < losses[0] and record["val_loss"] < losses[0]
    notes = facts_of(tmp_path / "run")
    # The lecture's figures for its split.
    assert (notes.data.train_tokens or 0) > 4608 and (notes.data.val_tokens or 0) > 512
    config_json = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert config_json["n_positions"] == 256 and not config_json["tie_word_embeddings"]


def test_a_text_of_its_own_validates(tmp_path: Path) -> None:
    said: list[str] = []
    val, out = ["the quick brown fox " * 60], tmp_path / "run"
    how: dict[str, Any] = {"validation": val, "say": said.append}
    pretrain(DOCS, out, options(), SHAPE, **how)
    _, tokenizer = load_model(out)
    data = facts_of(out).data
    assert data.train_tokens == len(encode_documents(DOCS, tokenizer))  # all of them
    assert data.val_tokens == len(tokenizer.encode(val[0]))
    pretrain(DOCS, out, options(max_steps=20), SHAPE, **how, resume=True)
    for other in ([], ["another text " * 60]):
        with pytest.raises(UserError, match="was trained on another text"):
            more = {"validation": other, "say": quiet, "resume": True}
            pretrain(DOCS, out, options(max_steps=30), SHAPE, **more)
    with pytest.raises(UserError, match="the validation split has .* smaller --context-length$"):
        pretrain(DOCS, tmp_path / "b", options(validation="x"), SHAPE, validation=["x"], say=quiet)
    with pytest.raises(UserError, match="validates on val.txt, which was not read"):
        pretrain(DOCS, tmp_path / "b", options(validation="val.txt"), SHAPE, say=quiet)


def test_tokens_in_no_window_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    how: dict[str, Any] = {"say": said.append}
    pretrain(DOCS, tmp_path / "a", options(max_steps=1), SHAPE, **how)
    assert not [line for line in said if "in no window" in line]
    pretrain(DOCS, tmp_path / "b", options(max_steps=1, stride=32), SHAPE, **how)
    (note,) = [line for line in said if "in no window" in line]
    assert "tokens to train on (50%)" in note and "one of 16 tokens every 32" in note


def test_a_shape_that_nobody_opens_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    said: list[str] = []
    changes = {"preset": "modern-nano", "qkv_bias": True}
    with pytest.raises(UserError, match="the nearest is Qwen3, but this one has a bias in only"):
        pretrain(["a text"], tmp_path / "out", changes, say=said.append)
    assert not said and not (tmp_path / "out").exists()

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from groundup.config import ModelConfig, Train
from groundup.data.batching import Batch
from groundup.data.classification import LabelledTexts, balance, class_weights
from groundup.errors import UserError
from groundup.evaluate.classifier import Classifier, class_scores, probabilities
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import has_lora
from groundup.options import read_recipe
from groundup.tasks.classify import Trained, train_classifier
from groundup.tasks.config import ClassifyConfig
from groundup.tasks.splits import split_for
from groundup.tokenizers import BPETokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.objective import ClassOfText
from groundup.train.tracking import is_evaluation, read_metrics
from groundup.train.trainer import Record, Trainer
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model
from tests.conftest import LAST, facts_of
from tests.labelled import SHAPE, labelled, options, perturbed, probabilities_of

DATA = labelled()


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the training; the tests that ask for `pictures` get them."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("groundup.tasks.run.plot_run", lambda out: [])
        monkeypatch.setattr("groundup.tasks.run.write_page", lambda out: None)
        monkeypatch.setattr("groundup.tasks.classify.write_report", lambda reports, out: None)


@pytest.fixture
def pictures() -> None:
    """Let plots and reports be written."""


@pytest.fixture
def base(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    """A language model to begin from."""
    model = GPTModel(ModelConfig(**SHAPE, qkv_bias=True, tie_weights=True)).init_gpt2()
    save_model(tmp_path / "base", perturbed(model), tokenizer)
    return tmp_path / "base"


def train(out: Path, data: LabelledTexts = DATA, **more: Any) -> Trained:
    """Train with these options; without a model, a new one of ``SHAPE``."""
    kept: dict[str, Any] = {"say": lambda text: None}
    kept |= {n: more.pop(n) for n in ("resume", "stop", "overwrite", "say") if n in more}
    shape = more.pop("shape", None)
    config = options(**more)
    if shape is None:
        shape = {} if config.model else SHAPE
    return train_classifier(data, out, config, shape, **kept)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return sorted(ours) == sorted(theirs) and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_run_leaves_a_classifier_that_learned(tmp_path: Path, pictures: None) -> None:
    labels = ("news", "ham", "spam")
    data, out, said = labelled(60, labels), tmp_path / "run", []
    shape = SHAPE | {"n_layers": 1}
    found = train(out, data, shape=shape, batch_size=8, epochs=5, eval_freq=30, say=said.append)
    assert [report.title for report in found.reports] == ["balanced test split", "test split"]
    assert all(report.accuracy > 0.9 for report in found.reports)
    test = split_for(data, options()).test
    counts = Counter(test.labels)
    assert [c.support for c in found.reports[1].classes] == [counts[x] for x in sorted(labels)]
    assert {c.support for c in found.reports[0].classes} == {min(counts.values())}

    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "ham", "1": "news", "2": "spam"}
    classifier = Classifier.load(out)
    assert classifier.labels == ["ham", "news", "spam"]
    called = [prediction.label for prediction in classifier.predict(test.texts)]
    right = sum(a == b for a, b in zip(called, test.labels, strict=True)) / len(called)
    assert right == pytest.approx(found.reports[1].accuracy)

    assert {path.name for path in (out / "plots").iterdir()} == (
        {"loss.png", "accuracy.png", "learning_rate.png", "grad_norm.png"}
    )
    assert {path.name for path in (out / "report").iterdir()} == (
        {"report.json", "report.md", "confusion-test-split.png"}
        | {"confusion-balanced-test-split.png", "predictions.jsonl"}
    )
    assert "  train         102: 34 ham, 34 news, 34 spam" in "\n".join(said)


def test_what_is_measured_while_it_runs(tmp_path: Path) -> None:
    found = train(tmp_path / "run", epochs=2, eval_freq=6)
    records = read_metrics(tmp_path / "run")
    evaluations = [r for r in records if is_evaluation(r)]
    assert [r["step"] for r in evaluations] == [1, 6, 12, 18, 24, 28]
    names = {"running_loss", "val_loss", "train_accuracy", "val_accuracy", "examples_seen"}
    assert all(names <= set(r) for r in evaluations)
    assert [r["examples_seen"] for r in records if not is_evaluation(r)][:3] == [4, 8, 12]
    assert found.record["examples_seen"] == 2 * 54
    notes = facts_of(tmp_path / "run")
    assert notes.task == "classify" and notes.labels == ["ham", "spam"]
    best = max(evaluations, key=lambda r: (r["val_accuracy"], -r["val_loss"]))
    assert notes.progress["val_accuracy"] == best["val_accuracy"]
    assert notes.progress["step"] == best["step"]
    assert notes.data.train_examples == 54 and notes.shape["vocab_size"] == 300
    # The saved model measures the same on the validation split.
    validation = split_for(DATA, options()).validation
    called = Classifier.load(tmp_path / "run").predict(validation.texts)
    right = [p.label == label for p, label in zip(called, validation.labels, strict=True)]
    assert sum(right) / len(right) == pytest.approx(best["val_accuracy"])
    pairs = zip(called, validation.labels, strict=True)
    losses = [-torch.tensor(p.probabilities[label]).log() for p, label in pairs]
    assert torch.stack(losses).mean().item() == pytest.approx(best["val_loss"], abs=1e-4)


PARTS: dict[Train, tuple[str, ...]] = {
    "head": ("out_head",),
    "last-block": ("trf_blocks.1.", "final_norm", "out_head"),
    "last-two-blocks": ("trf_blocks.", "final_norm", "out_head"),
    "all": ("",),
}
LORA = [f"att.{name}.weight" for name in ("W_query", "W_key", "W_value", "out_proj")]
LORA += ["ff.layers.0.weight", "ff.layers.2.weight"]


@pytest.mark.parametrize("part", [*PARTS, "lora"])
def test_just_the_right_parameters_change(tmp_path: Path, base: Path, part: Train) -> None:
    said: list[str] = []
    train(tmp_path / "run", model=str(base), train=part, say=said.append)
    before, _ = load_model(base)
    torch.manual_seed(123)
    state = to_classifier(before, 2).state_dict()  # the output layer that the run began with
    after = load_model(tmp_path / "run")[0].state_dict()
    changed = {name for name in state if not torch.equal(state[name], after[name])}
    if part == "lora":
        expected = {n for n in state if any(n.endswith(layer) for layer in LORA)}
        expected |= {"out_head.weight"}
        trained = sum(2 * (sum(state[n].shape)) for n in expected if n.startswith("trf")) + 64
    else:
        expected = {name for name in state if name.startswith(PARTS[part])}
        trained = sum(state[name].numel() for name in expected)
    # A bias of the keys moves all scores of a softmax alike: it has no gradient but noise.
    ignored = {name for name in state if name.endswith("W_key.bias")}
    assert changed - ignored == expected - ignored
    if part != "lora":
        assert f"of which {trained:,} train" in "\n".join(said)


def test_lora_is_saved_merged_and_alone(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[nn.Module] = []

    class Watched(Trainer):
        def fit(self) -> Record:
            trained.append(self.model)
            return super().fit()

    monkeypatch.setattr("groundup.tasks.run.Trainer", Watched)
    out = tmp_path / "run"
    lora: dict[str, Any] = {"lora_rank": 3, "lora_alpha": 9.0, "lora_dropout": 0.1}
    found = train(out, model=str(base), train="lora", **lora)
    assert has_lora(trained[0])
    tokens = Classifier.load(out).encode(DATA.texts)
    assert isinstance(trained[0], GPTModel)
    expected = probabilities(trained[0], tokens)
    assert expected.std(dim=0).min() > 0.01
    for source in (out / LAST, out / LAST / "adapter"):
        assert not has_lora(Classifier.load(source).model)
        ours = probabilities_of(source, DATA.texts)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    ours = probabilities(found.classifier.model, tokens)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    alone = Classifier.load(out / "adapter")
    assert alone.labels == ["ham", "spam"] and alone.max_length == Classifier.load(out).max_length
    small = sum(t.numel() for t in load_file(out / "adapter/adapter_model.safetensors").values())
    assert small < sum(t.numel() for t in weights(out).values()) / 2

    shutil.rmtree(base)
    with pytest.raises(UserError, match=r"adapter adapts the model .*base, which cannot be opened"):
        Classifier.load(out / "adapter")
    assert Classifier.load(out).predict(["a"])


@pytest.mark.parametrize(
    ("changes", "stop_at"),
    [
        ({"train": "last-block"}, 5),
        ({"train": "lora", "lora_dropout": 0.1}, 17),
        ({"train": "all", "position": "last-padded", "balance": "weights"}, 14),
        ({"train": "last-two-blocks", "token_dropout": 0.3}, 7),
        ({"train": "head", "grad_accum_steps": 3}, 2),
    ],
)
def test_a_resumed_run_is_the_same_as_an_unbroken_one(
    tmp_path: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    stop_at: int,
) -> None:
    """Bit for bit, within an epoch and between two: weights, optimizer, measurements."""
    changes |= {"model": str(base), "epochs": 2, "eval_freq": 4}
    shape, stop = {"drop_rate": 0.1}, StopRequest()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finished = train(whole, shape=shape, **changes)

    class Interrupted(Trainer):
        """Is asked to stop during one step, as by Ctrl-C."""

        def _set_learning_rate(self) -> float:
            if self.progress.step + 1 == stop_at:
                stop.request()
            return super()._set_learning_rate()

    with monkeypatch.context() as patch:
        patch.setattr("groundup.tasks.run.Trainer", Interrupted)
        train(broken, shape=shape, stop=stop, **changes)
    assert facts_of(broken / LAST).progress["step"] == stop_at
    resumed = train(broken, shape={}, resume=True, **changes)

    for name in (
        "checkpoints/last/model.safetensors",
        "checkpoints/last/training_state/optimizer.safetensors",
    ):
        assert same(load_file(whole / name), load_file(broken / name)), name
    if changes["train"] == "lora":
        name = "adapter/adapter_model.safetensors"
        assert same(load_file(whole / name), load_file(broken / name))
    times = ("seconds", "tokens_per_second")
    a, b = (
        [{k: v for k, v in r.items() if k not in times} for r in read_metrics(d)]
        for d in (whole, broken)
    )
    assert a == b
    assert resumed.reports == finished.reports


@pytest.mark.parametrize("place", ["run.plot_run", "classify.write_report"])
def test_a_run_that_was_killed_after_its_last_save_gets_its_report(
    tmp_path: Path, pictures: None, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    class Killed(BaseException):
        """Nothing catches it."""

    def kill(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(f"groundup.tasks.{place}", kill)
        train(tmp_path, max_steps=2)
    assert not (tmp_path / "report").exists()
    again = train(tmp_path, resume=True, max_steps=2)
    assert again.record["step"] == 2 and again.reports
    assert (tmp_path / "report" / "report.md").exists()
    assert (tmp_path / "plots" / "accuracy.png").exists()


def test_only_the_same_run_can_be_resumed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(out)
    with pytest.raises(UserError, match="would change balance 'undersample' to 'none'"):
        train(out, resume=True, balance="none")
    with pytest.raises(UserError, match="would change max_length [0-9]+ to 5"):
        train(out, resume=True, max_length=5)
    with pytest.raises(UserError, match="was trained on another text"):
        train(out, labelled(41), resume=True)
    assert train(out, resume=True).record["step"] == 14
    other = LabelledTexts(DATA.texts, DATA.labels[::-1], DATA.rows, "toy")
    with pytest.raises(UserError, match="was trained on another text"):
        train(out, other, resume=True)
    assert train(out, resume=True, epochs=2).record["step"] == 28


UNEQUAL = LabelledTexts(
    *(column[:60] + column[61:120:2] for column in (labelled(60).texts, labelled(60).labels)),
    rows=list(range(90)),
    source="toy",
)
"""30 ham, 60 spam."""


@pytest.mark.parametrize("way", ["undersample", "weights", "none"])
def test_unequal_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    seen: list[torch.Tensor | None] = []

    class Watched(ClassOfText):
        def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
            seen.append(self.weights)
            return super().loss(model, batch)

    monkeypatch.setattr("groundup.tasks.classify.ClassOfText", Watched)
    said: list[str] = []
    found = train(tmp_path / "run", UNEQUAL, balance=way, max_steps=2, say=said.append)
    plain = split_for(UNEQUAL, options(balance="none"))
    counts = Counter(plain.train.labels)
    assert 2 * counts["ham"] < 1.5 * counts["spam"]
    if way == "undersample":
        counts["spam"] = counts["ham"]
    assert facts_of(tmp_path / "run").data.train_examples == counts.total()
    assert f": {counts['ham']} ham, {counts['spam']} spam\n" in said[0]
    if way == "weights":
        expected = class_weights(plain.train.labels, ["ham", "spam"])
        assert expected[0] > 1 > expected[1]
        assert all(w is not None and w.tolist() == pytest.approx(expected) for w in seen)
    else:
        assert set(seen) == {None}
    counts = {report.title: report.count for report in found.reports}
    even = len(balance(plain.test).texts)
    assert counts == {"balanced test split": even, "test split": len(plain.test.texts)}


def test_an_even_test_split_is_reported_once(tmp_path: Path) -> None:
    found = train(tmp_path / "run", stratify=True, max_steps=1)
    assert [report.title for report in found.reports] == ["test split"]


def test_stratified_splits() -> None:
    splits = split_for(UNEQUAL, options(stratify=True, balance="none"))
    for part, ham, spam in ((splits.train, 21, 42), (splits.validation, 3, 6)):
        assert Counter(part.labels) == {"ham": ham, "spam": spam}


def test_repeated_texts_are_told(tmp_path: Path) -> None:
    texts, labels = DATA.texts + DATA.texts[:7], DATA.labels + DATA.labels[:6] + ["ham"]
    assert DATA.labels[6] == "ham"
    labels[-2] = "ham"  # where it was spam
    said: list[str] = []
    train(tmp_path / "a", LabelledTexts(texts, labels, list(range(87)), "toy"), say=said.append)
    assert said[0].startswith("texts: 87 in toy, 7 of them repeated\nnote: 1 repeated texts")
    train(tmp_path / "b", say=said.append)
    assert "texts: 80 in toy\n" in "\n".join(said)


def test_without_validation_or_test_split(tmp_path: Path, pictures: None) -> None:
    out = tmp_path / "run"
    found = train(out, train_ratio=1.0, val_ratio=0.0)
    assert found.reports == [] and not (out / "report").exists()
    assert "val_loss" not in found.record and found.record["running_loss"] > 0
    assert (out / "plots" / "loss.png").exists() and not (out / "plots" / "accuracy.png").exists()
    assert facts_of(out).data.train_examples == 80


def test_evaluations_can_be_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def spy(model, tokens, **more):
        sizes.append(len(tokens.ids))
        return class_scores(model, tokens, **more)

    monkeypatch.setattr("groundup.tasks.classify.class_scores", spy)
    train(tmp_path / "a", val_ratio=0.2, max_steps=1)
    assert sizes == [14, 14]  # as many of the training texts as there are to validate
    train(tmp_path / "b", val_ratio=0.2, max_steps=1, eval_iter=2)
    assert sizes[2:] == [8, 8]


def test_the_length_of_texts(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    data = LabelledTexts(
        [*DATA.texts, "word " * 99], [*DATA.labels, "ham"], [*DATA.rows, 81], "toy"
    )
    said: list[str] = []
    train(tmp_path / "a", data, train_ratio=1.0, val_ratio=0.0, balance="none", say=said.append)
    assert "texts: at most 32 tokens; 1 of those" in "\n".join(said)  # the context
    notes = facts_of(tmp_path / "a")
    assert notes.options["max_length"] == 32 and notes.data.truncated == 1
    train(tmp_path / "b", max_length=3, say=said.append)
    assert Classifier.load(tmp_path / "b").max_length == 3
    assert (
        json.loads((tmp_path / "b/tokenizer_config.json").read_text("utf-8"))["model_max_length"]
        == 3
    )
    train(tmp_path / "c", train_ratio=1.0, val_ratio=0.0, balance="none")
    tokens = load_model(tmp_path / "c")[1]
    longest = max(len(tokens.encode(text)) for text in DATA.texts)
    assert facts_of(tmp_path / "c").options["max_length"] == longest < 32


def test_the_courses_position(tmp_path: Path) -> None:
    found = train(tmp_path / "run", position="last-padded", max_length=24, max_steps=3)
    records = [r for r in read_metrics(tmp_path / "run") if not is_evaluation(r)]
    assert [r["tokens_seen"] for r in records] == [4 * 24, 8 * 24, 12 * 24]
    classifier = Classifier.load(tmp_path / "run")
    assert classifier.read_padded and classifier.max_length == 24
    assert found.classifier.read_padded
    assert "transformers` reads" in (tmp_path / "run" / "README.md").read_text("utf-8")


def test_overwriting_leaves_nothing_of_the_earlier_run(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "run"
    train(out, model=str(base), train="lora", max_steps=1)
    assert (out / "adapter").is_dir()
    with pytest.raises(UserError, match="exists; use --resume"):
        train(out, max_steps=1)
    train(out, max_steps=1, overwrite=True)
    assert not (out / "adapter").exists()
    assert Classifier.load(out).model.cfg.qkv_bias


def test_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / name, seed=seed, max_steps=3)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert same(a, b) and not same(a, c)


ONE_CLASS_IS_RARE = LabelledTexts(
    [*DATA.texts, "z"], [*DATA.labels, "eggs"], [*DATA.rows, 81], "toy"
)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"train": "last-block"}, "--train last-block keeps most of a model .* --model"),
    ({"train": "lora"}, "--train lora keeps most of a model"),
    ({"max_length": 33}, "max_length is 33, but the model's context_length is 32"),
    ({"warmup_steps": 14}, "warmup_steps is 14, but the run has only 14 steps"),
    ({"data": ONE_CLASS_IS_RARE, "stratify": True}, "too few .* 3 splits .*: 'eggs' has 1;"),
    ({"data": DATA.select(range(2))}, "too few different texts"),
    ({"data": LabelledTexts(["", *DATA.texts[1:]], DATA.labels, DATA.rows, "toy")}, "empty text"),
    ({"device": "cuda:99"}, "cuda"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_trained(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_models_shape_stays(tmp_path: Path, base: Path) -> None:
    for shape, message in (
        ({"emb_dim": 64}, "emb_dim is 64, but the model has 32"),
        ({"context_length": 16}, "leave context_length out, and give max_length"),
    ):
        with pytest.raises(UserError, match=message):
            train(tmp_path / "run", model=str(base), shape=shape)
    with pytest.raises(UserError, match="the LoRA rank is 33; expected 1 to 32"):
        train(tmp_path / "run", model=str(base), train="lora", lora_rank=33)
    assert not (tmp_path / "run").exists()
    train(tmp_path / "run", model=str(base), shape={"drop_rate": 0.3}, max_steps=1)
    assert load_model(tmp_path / "run")[0].cfg.drop_rate == 0.3


def test_the_courses_recipe_is_the_courses_setting() -> None:
    values = read_recipe("classify", "course", ClassifyConfig, ModelConfig)
    expected = {
        "model": "gpt2",
        "drop_rate": 0.0,
        "train": "last-block",
        "position": "last-padded",
        "balance": "undersample",
        "batch_size": 8,
        "epochs": 5,
        "learning_rate": 5e-5,
        "lr_schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.1,
        "decay": "all",
        "beta2": 0.999,
        "grad_clip": 0.0,
        "seed": 123,
        "eval_freq": 50,
    }
    assert {name: values[name] for name in expected} == expected


def test_the_validation_loss_is_weighted_as_the_training_loss_is(tmp_path: Path) -> None:
    data = labelled().select([*range(80), *range(0, 80, 2)])  # every ham twice
    found = train(tmp_path / "run", data, balance="weights", max_steps=3, stratify=True)
    splits = split_for(data, options(balance="weights", stratify=True))
    weight = torch.tensor(class_weights(splits.train.labels, ["ham", "spam"]))
    assert weight[0] < 1 < weight[1]
    classes = torch.tensor([int(label == "spam") for label in splits.validation.labels])
    logits = class_scores(found.classifier.model, found.classifier.encode(splits.validation.texts))
    picked = -logits.log_softmax(-1)[range(len(classes)), classes] * weight[classes]
    assert found.record["val_loss"] == pytest.approx(picked.mean().item(), abs=1e-5)


def test_texts_that_are_cut_are_warned_of(tmp_path: Path) -> None:
    said: list[str] = []
    train(tmp_path / "run", max_length=3, say=said.append)
    (warning,) = [line for line in said if line.startswith("warning")]
    assert (
        "91% of the texts to train on are cut off after 3 tokens; 4 are then the same as one of an"
        in warning
    )
    assert "a larger --max-length, or a model with a longer context, would read more" in warning


def test_texts_that_are_the_same_once_they_are_cut_are_refused(tmp_path: Path) -> None:
    texts = [f"{'the same beginning ' * 3}{i}" for i in range(60)]
    data = LabelledTexts(texts, ["ham", "spam"] * 30, list(range(1, 61)), "texts.csv")
    with pytest.raises(UserError, match="40 of 40 texts to train on are the same as one of anoth"):
        train(tmp_path / "run", data, max_length=4)
    assert not (tmp_path / "run").exists()

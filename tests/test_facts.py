"""What ``groundup.json`` says: of this version, damaged, and as the first version wrote it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.evaluate.classifier import Classifier
from groundup.facts import NAME, VERSION, Base, Data, Facts, Reading, Schedule
from groundup.model.lora import add_lora
from groundup.tasks.assistant import Assistant
from groundup.tasks.config import ClassifyConfig, InstructConfig, PretrainConfig
from groundup.tokenizers import BPETokenizer
from groundup.train.tracking import read_metrics
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model, read_facts, read_shape
from tests.conftest import Run
from tests.labelled import make_classifier, save_classifier

Fails = Callable[..., str]

FIRST = Path(__file__).parent / "weights" / "data" / "v1"
"""What the first version wrote, and what it was trained on."""

FACTS = Facts(
    kind="classifier",
    task="classify",
    options={"learning_rate": 1e-3, "max_length": 12, "model": None, "balance": "weights"},
    shape={"vocab_size": 300, "tie_weights": True, "drop_rate": 0.1},
    data=Data("24 texts", ["a.csv", "-"], "5f", 619, 66, 16, 2, {"a": 0.75, "b": 0.25}),
    schedule=Schedule(100, 5),
    progress={"step": 100, "val_loss": 0.25, "seconds": 1.0},
    labels=["ham", "eggs & späm"],
    reading=Reading(12, padded=True),
    prompt_style="alpaca",
    base=Base("runs/base", 4, "6a"),
    processes=2,
    versions={"torch": "2.13.0"},
    digests={"config.json": "6a"},
)
"""Nothing in it is as it would be if nothing were said."""


def written(directory: Path) -> dict[str, Any]:
    return json.loads((directory / NAME).read_text("utf-8"))


def edit(directory: Path, **changes: Any) -> None:
    values = written(directory) | changes
    values.pop("sha256", None)  # of what it was
    (directory / NAME).write_text(json.dumps(values), "utf-8")


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = (Facts, FACTS), (Data, FACTS.data), (Schedule, FACTS.schedule), (Base, FACTS.base)
    for cls, said in (*parts, (Reading, FACTS.reading)):
        silent = cls()
        for field in dataclasses.fields(cls):
            assert getattr(said, field.name) != getattr(silent, field.name), field.name
    for facts in (FACTS, Facts()):
        facts.write(tmp_path)
        assert Facts.read(tmp_path) == facts
        assert written(tmp_path)["version"] == VERSION == 2
    assert Facts.read(tmp_path / "nowhere") is None


def test_options_are_given_back_typed() -> None:
    options = {"learning_rate": 0.5, "max_length": 12, "of_another_version": 1}
    config = Facts(options=options).options_of(ClassifyConfig)
    assert config == ClassifyConfig(learning_rate=0.5, max_length=12)


def test_what_a_later_groundup_may_add_is_left_out(tmp_path: Path) -> None:
    FACTS.write(tmp_path)
    edit(tmp_path, colour="red", data=written(tmp_path)["data"] | {"colour": "red"})
    assert Facts.read(tmp_path) == FACTS


def test_a_newer_version_is_refused_by_its_number(fails: Fails, model_dir: Path) -> None:
    edit(model_dir, version=VERSION + 1)
    sentence = f"{model_dir / NAME} is of version 3; this groundup reads up to version 2: update"
    for opens in (load_model, read_facts, Facts.read):
        with pytest.raises(UserError) as error:
            opens(model_dir)
        assert str(error.value) == f"{sentence} groundup"
    assert fails("generate", model_dir, "The") == f"{sentence} groundup"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": "2"}, "version is '2'"),
        ({"version": None}, "version is None"),
        ({"version": 0}, "version is 0"),
        ({"version": True}, "version is True"),
        ({"kind": "poem"}, "kind is 'poem'"),
        ({"kind": ["classifier"]}, "kind is"),
        ({"task": 5}, "task is 5"),
        ({"options": []}, r"options is \[\]"),
        ({"shape": None}, "shape is None"),
        ({"data": "book.txt"}, "data is 'book.txt'"),
        ({"data": {"files": "book.txt"}}, "files is 'book.txt'"),
        ({"data": {"files": ["book.txt", 1]}}, r"files is \['book.txt', 1\]"),
        ({"data": {"train_tokens": "9"}}, "train_tokens is '9'"),
        ({"schedule": {"total_steps": 1.5}}, "total_steps is 1.5"),
        ({"schedule": {"total_steps": True}}, "total_steps is True"),
        ({"progress": {"step": "one"}}, "progress is {'step': 'one'}"),
        ({"progress": {"step": None}}, "progress is {'step': None}"),
        ({"labels": "ham"}, "labels is 'ham'"),
        ({"labels": [0, 1]}, r"labels is \[0, 1\]"),
        ({"reading": {"padded": 1}}, "padded is 1"),
        ({"prompt_style": 3}, "prompt_style is 3"),
        ({"base": None}, "base is None"),
        ({"versions": {"torch": 2}}, "versions is {'torch': 2}"),
    ],
)
def test_damaged_values_are_one_sentence(
    fails: Fails, model_dir: Path, changes: dict[str, Any], named: str
) -> None:
    edit(model_dir, **changes)
    with pytest.raises(UserError, match=rf"{NAME} is damaged: {named}"):
        load_model(model_dir)
    assert f"{model_dir / NAME} is damaged: " in fails("generate", model_dir, "The")


@pytest.mark.parametrize(
    ("name", "value"),
    [("config", [1]), ("data", "x"), ("progress", None), ("labels", 2), ("task", 5)],
)
def test_damaged_values_of_the_first_version(tmp_path: Path, name: str, value: Any) -> None:
    shutil.copytree(FIRST / "language", tmp_path / "language")
    edit(tmp_path / "language", **{name: value})
    with pytest.raises(UserError, match=f"{NAME} is damaged"):
        load_model(tmp_path / "language")


@pytest.mark.parametrize("text", ["", "{", "[]", "\0"])
def test_what_is_no_json(model_dir: Path, text: str) -> None:
    (model_dir / NAME).write_text(text, "utf-8")
    with pytest.raises(UserError, match=NAME):
        load_model(model_dir)


def test_a_directory_says_what_it_is(
    model_dir: Path, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    model, _ = load_model(model_dir)
    assert written(model_dir)["kind"] == "language model"
    save_model(tmp_path / "run", add_lora(model), tokenizer, Facts(base=Base(str(model_dir))))
    assert written(tmp_path / "run")["kind"] == "language model"  # with the adapter merged
    assert written(tmp_path / "run" / "adapter")["kind"] == "adapter"
    assert read_facts(tmp_path / "run" / "adapter").kind == "adapter"

    spam = save_classifier(tmp_path / "spam", tokenizer)
    assert written(spam)["kind"] == "classifier" and read_facts(spam).is_classifier
    head = add_lora(make_classifier(tokenizer))
    head.out_head.requires_grad_(True)
    facts = Facts(labels=["ham", "spam"], base=Base(str(model_dir)))
    save_model(tmp_path / "lora", head, tokenizer, facts)
    assert written(tmp_path / "lora")["kind"] == "classifier"
    adapter = read_facts(tmp_path / "lora" / "adapter")
    assert written(tmp_path / "lora" / "adapter")["kind"] == adapter.kind == "adapter"
    assert adapter.is_classifier and adapter.labels == ["ham", "spam"]


def test_a_model_has_its_facts_and_they_go_where_it_goes(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    spam = save_classifier(tmp_path / "spam", tokenizer, max_length=9)
    model, tokens = load_model(spam)
    facts = model.facts
    assert facts is not None and facts == read_facts(spam) and facts.reading == Reading(9)
    save_model(tmp_path / "again", model, tokens)
    assert read_facts(tmp_path / "again") == facts


# What the first version wrote


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it was written: the adapter names its base by a path that is seen from here."""
    folder = tmp_path / "v1"
    shutil.copytree(FIRST, folder)
    monkeypatch.chdir(folder)
    return folder


def test_the_first_versions_language_model(run: Run, first: Path) -> None:
    model, _ = load_model("language")
    facts = model.facts
    assert facts is not None and facts == read_facts("language")
    assert (facts.kind, facts.task, facts.labels) == ("language model", "pretrain", [])
    assert facts.prompt_style is None and facts.base.source == ""
    options = facts.options_of(PretrainConfig)
    assert (options.max_steps, options.learning_rate, options.eval_freq) == (4, 0.01, 2)
    assert facts.shape.items() <= dict(model.cfg).items()
    assert model.cfg == read_shape("language")[0]
    assert (facts.schedule.total_steps, facts.schedule.warmup_steps) == (4, 0)
    assert facts.data.files == ["text.txt"] and facts.data.description.startswith("1 document")
    assert (facts.data.train_tokens, facts.data.val_tokens) == (619, 66)
    assert facts.progress["step"] == 4
    assert facts.progress["running_loss"] == 5.494435548782349  # then called train_loss
    text = run("generate", "language", "The quick", "--max-new-tokens", 12).out
    assert text == "The quickdowowowowowowowowowowow\n"


def test_the_first_versions_classifier(run: Run, first: Path) -> None:
    classifier, facts = Classifier.load("classifier"), read_facts("classifier")
    assert classifier.labels == facts.labels == ["ham", "spam"]
    assert (classifier.max_length, classifier.read_padded) == (12, False)
    assert (facts.kind, facts.task) == ("classifier", "classify")
    options = facts.options_of(ClassifyConfig)
    assert (options.data, options.max_length, options.balance) == ("spam.csv", 12, "weights")
    assert (facts.data.train_examples, facts.data.truncated) == (16, 0)
    said = run("classify", "predict", "classifier", "win a prize now 9").out
    assert said.startswith("spam  51.13%")
    edit(first / "classifier", config=written(first / "classifier")["config"] | PADDED)
    classifier = Classifier.load("classifier")
    assert (classifier.max_length, classifier.read_padded) == (7, True)


PADDED = {"position": "last-padded", "max_length": 7}


def test_the_first_versions_assistant(run: Run, first: Path) -> None:
    for source, kind in (("adapter", "language model"), ("adapter/adapter", "adapter")):
        facts = read_facts(source)
        assert (facts.kind, facts.task, facts.prompt_style) == (kind, "instruct", "plain")
        options = facts.options_of(InstructConfig)
        assert (options.data, options.model, options.max_length) == ("tasks.json", "language", 16)
        assert facts.base == Base("language", 2, written(first / source)["data"]["frozen_sha256"])
        assert facts.data.train_examples == 17
        assert Assistant.load(source).style.name == "plain"
        text = run("generate", source, "The quick", "--max-new-tokens", 12).out
        assert text == "The quickdowowowowowowowowowowow\n"


RESUMED = [
    (
        ("pretrain", "--out=language"),
        [5.4156646728515625, 5.419745922088623],
        5.392718315124512,
    ),
    (
        ("classify", "train", "--out=classifier"),
        [0.7126814126968384, 0.6815023422241211],
        0.7091765403747559,
    ),
    (
        ("instruct", "train", "--out=adapter"),
        [5.52929162979126, 5.423598289489746],
        5.441447448730469,
    ),
]
"""A command, and the losses that the first version recorded when it went on with its own run."""


@pytest.mark.parametrize(
    ("command", "losses", "val_loss"), RESUMED, ids=["language", "classifier", "adapter"]
)
def test_the_first_versions_runs_go_on_as_they_would_have(
    run: Run, first: Path, command: tuple[str, ...], losses: list[float], val_loss: float
) -> None:
    out = first / command[-1].removeprefix("--out=")
    before = read_metrics(out)
    steps = int(before[-1]["step"]) + 2
    result = run(*command, "--resume", f"--max-steps={steps}")
    assert result.status == 0, result.err
    records = read_metrics(out)
    assert records[: len(before)] == before
    *new, last = records[len(before) :]
    assert [record["step"] for record in (*new, last)] == [steps - 1, steps, steps]
    # Other CPUs round otherwise.
    assert [record["loss"] for record in new] == pytest.approx(losses, rel=1e-4)
    assert last["val_loss"] == pytest.approx(val_loss, rel=1e-4)

    assert not (out / "training_state").exists()
    assert (out / "checkpoints" / "last" / "training_state" / "state.json").exists()
    kept = read_facts(out, "last")
    assert written(out / "checkpoints" / "last")["version"] == VERSION
    assert kept.progress["step"] == steps == kept.schedule.total_steps
    model, _ = load_model(out, checkpoint="last")
    assert dict(model.cfg) == kept.shape
    again = run(*command, "--resume", f"--max-steps={steps + 1}")
    assert again.status == 0, again.err  # from its new place it goes on as well
    assert read_metrics(out)[-1]["step"] == steps + 1

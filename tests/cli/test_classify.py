"""`groundup classify`: what it accepts and prints, and every mistake that it answers."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.data import lines, predictions, tables
from groundup.data.classification import LabelledTexts, read_labelled
from groundup.evaluate.classifier import Classifier
from groundup.model.gpt import GPTModel
from groundup.tasks.classify import train_classifier
from groundup.tasks.config import ClassifyConfig
from groundup.tasks.splits import split_for
from groundup.tokenizers import BPETokenizer
from groundup.train.tracking import read_metrics
from groundup.train.trainer import Trainer
from tests.conftest import Run, facts_of, tiny_config, unvouched
from tests.labelled import SHAPE, TEXTS, labelled, options, save_classifier, write_csv

Fails = Callable[..., str]

NEW = [f"--{name.replace('_', '-')}={value}" for name, value in SHAPE.items()]
NEW.append("--balance=undersample")
QUICK = "--batch-size=8 --epochs=1 --precision=fp32 --learning-rate=1e-2".split()


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the training; the tests that ask for `pictures` get them."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("groundup.tasks.run.plot_run", lambda out: [])
        monkeypatch.setattr("groundup.tasks.classify.write_report", lambda reports, out: None)


@pytest.fixture
def pictures() -> None:
    """Let plots and reports be written."""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A file of 80 labelled texts."""
    return write_csv(tmp_path / "toy.csv", labelled())


@pytest.fixture
def spam(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    """A saved classifier that was not trained."""
    return save_classifier(tmp_path / "spam", tokenizer)


def columns(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# train


def test_a_run_reports_and_says_what_to_try_next(
    run: Run, tmp_path: Path, toy: Path, pictures: None
) -> None:
    out = tmp_path / "run"
    result = run("classify", "train", "--data", toy, "--out", out, *NEW, *QUICK)
    assert result.status == 0, result.err
    for expected in (
        "no --model: a small new GPT",
        f"texts: 80 in {toy}",
        "train          54: 27 ham, 27 spam",
        "step 7/7, epoch 1.00: train",
        "accuracy",
        f"plot:   {out}/plots/accuracy.png",
        f"report: {out}/report/report.md",
        f"groundup classify predict {out}",
        f"groundup classify evaluate {out}",
    ):
        assert expected in result.err, expected
    assert result.out.startswith("balanced test split: ")
    assert "\ntest split: 16 texts, accuracy" in result.out
    assert ["class", "precision", "recall", "F1", "texts"] in columns(result.out)
    assert ["is", "\\", "called", "ham", "spam"] in columns(result.out)
    for name in ("plots/accuracy.png", "report/confusion-test-split.png"):
        assert (out / name).exists()


def test_without_a_split_nothing_is_announced_that_is_not_there(
    run: Run, tmp_path: Path, toy: Path, pictures: None
) -> None:
    out = tmp_path / "run"
    shares = ["--train-ratio=1", "--val-ratio=0"]
    result = run("classify", "train", "--data", toy, "--out", out, *NEW, *QUICK, *shares)
    assert result.status == 0, result.err
    assert f"plot:   {out}/plots/loss.png" in result.err
    assert "accuracy.png" not in result.err and "report.md" not in result.err
    message = run("classify", "evaluate", out).err
    assert "the test split is empty: the run gave it no share" in message


def test_the_real_data(run: Run, tmp_path: Path, data_dir: Path) -> None:
    out, file = tmp_path / "spam", data_dir / "SMSSpamCollection"
    quick = ["--epochs=2", "--precision=fp32", "--vocab-size=600", "--balance=undersample"]
    result = run("classify", "train", "--data", file, "--out", out, *quick)
    assert result.status == 0, result.err
    assert f"texts: 5,574 in {file}, 414 of them repeated" in result.err
    accuracy = float(result.out.split("accuracy ")[1].split("%")[0])
    assert result.out.startswith("balanced test split: ") and accuracy > 85
    splits = split_for(read_labelled(file), ClassifyConfig())
    a, b, c = (
        {text.strip() for text in part.texts}
        for part in (splits.train, splits.validation, splits.test)
    )
    assert not (a & b or a & c or b & c)
    again = run("classify", "evaluate", out)
    assert again.out.splitlines()[0] == result.out.splitlines()[0]


def test_recipe_file_and_flags(run: Run, tmp_path: Path, toy: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        "[training]\nbatch_size = 4\nlearning_rate = 3e-3\nstratify = true\n", "utf-8"
    )
    more = ["--max-steps=2", "--batch-size=3", f"--config={config}", *NEW]
    result = run("classify", "train", "--data", toy, "--out", tmp_path / "run", *more)
    assert result.status == 0, result.err
    saved = facts_of(tmp_path / "run").options
    assert saved["batch_size"] == 3  # the flag
    assert saved["learning_rate"] == 3e-3 and saved["stratify"] is True  # the file
    assert saved["min_learning_rate"] == 1e-4 and saved["preset"] == "nano"  # the recipe
    assert saved["val_ratio"] == 0.1  # the default


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        (["--preset=nano"], {"context_length": 64, "n_layers": 2}),
        (["--tokenizer=gpt2", "--emb-dim=8"], {"context_length": 128, "n_layers": 1}),
    ],
)
def test_the_recipe_gives_way_to_what_is_asked_for(
    run: Run, tmp_path: Path, toy: Path, asked: list[str], shape: dict[str, int]
) -> None:
    out = tmp_path / "run"
    result = run("classify", "train", "--data", toy, "--out", out, "--max-steps=1", *asked)
    assert result.status == 0, result.err
    saved = facts_of(out)
    assert shape.items() <= saved.shape.items() and saved.options["balance"] == "weights"


def test_a_run_of_another_task_is_not_resumed(fails: Fails, model_dir: Path, spam: Path) -> None:
    for task in ("pretrain", "instruct train"):
        message = fails(*task.split(), "--out", spam, "--resume")
        assert "holds a run of another task (classify); choose another --out" in message


def test_lora_goes_on_only_on_the_same_base(
    run: Run, fails: Fails, tmp_path: Path, toy: Path, model_dir: Path
) -> None:
    out = tmp_path / "run"
    begin = ["classify", "train", "--data", toy, "--model", model_dir, "--train=lora", *QUICK]
    assert run(*begin, "--out", out).status == 0
    weights = load_file(unvouched(model_dir) / "model.safetensors")
    weights["transformer.wpe.weight"] += 1
    save_file(weights, model_dir / "model.safetensors", metadata={"format": "pt"})
    message = fails("classify", "train", "--out", out, "--resume", "--epochs=2")
    assert f"the model {model_dir} has changed since this run began on it" in message


def test_lora_on_a_pth_keeps_its_heads(run: Run, tmp_path: Path, toy: Path) -> None:
    """Its file does not say how many; 64 wide, a guess would be one."""
    model = GPTModel(tiny_config(vocab_size=50257, emb_dim=64, n_heads=4))
    torch.save(model.state_dict(), tmp_path / "base.pth")
    out = tmp_path / "run"
    begin = ["classify", "train", "--data", toy, "--model", tmp_path / "base.pth", "--n-heads=4"]
    begun = run(*begin, "--train=lora", *QUICK, "--out", out)
    assert begun.status == 0, begun.err
    assert run("classify", "train", "--out", out, "--resume", "--epochs=2").status == 0
    assert json.loads((out / "config.json").read_text("utf-8"))["n_head"] == 4


def test_the_splits_of_changed_data_are_not_trusted(
    run: Run, fails: Fails, tmp_path: Path, toy: Path
) -> None:
    out = tmp_path / "run"
    assert run("classify", "train", "--data", toy, "--out", out, *NEW, *QUICK).status == 0
    with toy.open("a", encoding="utf-8") as file:
        file.write("ham,one more text\n")
    assert f"{toy} has changed since {out} was trained on it" in fails("classify", "evaluate", out)
    told = run("classify", "evaluate", out, "--data", toy, "--split=test")
    assert told.status == 0 and "is not what" in told.err


@pytest.mark.parametrize("part", ["last-block", "lora", "all"])
def test_resume_needs_no_options_again(
    run: Run,
    tmp_path: Path,
    toy: Path,
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    """Also where the new output layer is not tied to the embedding, as the base model's is."""
    begin = ["classify", "train", "--data", toy, f"--train={part}", *QUICK]
    begin += ["--model", model_dir, "--drop-rate=0.1"] if part != "all" else NEW
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(*begin, "--out", whole).status == 0

    class Interrupted(Trainer):
        def _set_learning_rate(self) -> float:
            if self.progress.step == 2:
                self.stop.request()
            return super()._set_learning_rate()

    with monkeypatch.context() as patch:
        patch.setattr("groundup.tasks.run.Trainer", Interrupted)
        stopped = run(*begin, "--out", broken)
    assert stopped.status == 130
    assert f"classify train --out {broken} --resume" in stopped.err
    resumed = run("classify", "train", "--out", broken, "--resume")
    assert resumed.status == 0, resumed.err
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert read_metrics(broken)[-1]["step"] == 7


NOT_TRAINED: list[tuple[list[str], str]] = [
    ([], "no data was given; name a file, or one of .*sms-spam"),
    (["--data=nowhere.csv"], "there is no file 'nowhere.csv'"),
    (["--data={toy}", "--train=last-block"], "--train last-block keeps most .* name it with --mo"),
    (["--data={toy}", "--train=last"], "last"),
    (["--data={toy}", "--max-length=33", *NEW], "max_length is 33.* context_length is 32"),
    (["--data={toy}", "--warmup-steps=14", *NEW], "warmup_steps is 14.*only 7 steps"),
    (["--data={toy}", "--train-ratio=0.95"], "train_ratio 0.95 and val_ratio 0.1 are more"),
    (["--data={toy}", "--text-column=tex"], "no column 'tex' .* did you mean 'text'"),
    (["--data={toy}", "--recipe=smal"], "unknown recipe 'smal'; did you mean 'small'"),
    (["--data={toy}", "--lora-rank=4"], "no effect here: --lora-rank .for --train lora.; leave"),
    (["--data={toy}", "--model={model}", "--preset=nano"], "--preset .--model brings its own."),
    (["--data={toy}", "--model={model}", "--emb-dim=64"], "emb_dim is 64, but the model has 32"),
    (["--data={toy}", "--model={spam}"], r"is a classifier \(ham, spam\), not a language model"),
    (["--data={toy}", "--model=nowhere"], "there is no model directory 'nowhere'"),
]


@pytest.mark.parametrize(("flags", "message"), NOT_TRAINED)
def test_options_that_make_no_sense(
    fails: Fails,
    tmp_path: Path,
    toy: Path,
    model_dir: Path,
    spam: Path,
    flags: list[str],
    message: str,
) -> None:
    paths = {"toy": toy, "model": model_dir, "spam": spam}
    before = sorted(tmp_path.rglob("*"))
    said = fails(
        *("classify", "train", "--out", tmp_path / "run", *QUICK),
        *(flag.format(**paths) for flag in flags),
    )
    assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("one-class.csv", b"label,text\nham,a\nham,b\n", "all 2 labels .* are 'ham'; .* two classes"),
    ("empty-texts.csv", b"label,text\nham,a\nspam,\nham, \n", "an empty text in lines 3, 4"),
    ("no-label.csv", b"label,text\nham,a\n,b\nspam,c\n", "no label in line 3"),
    (
        "nan.jsonl",
        b'{"label": NaN, "text": "a"}\n{"label": "x", "text": "b"}\n{"label": "y", "text": "c"}\n',
        "no label in line 1",
    ),
    ("one-column.csv", b"text\na\nb\nc\n", "only the column 'text'; expected a text and a label"),
    ("separator.csv", b"label;text\nham;a\nspam;b\nham;c\n", "give --separator semicolon"),
    (
        "latin.csv",
        "label,text\nham,a\nspam,Grüße\n".encode("latin1"),
        "not UTF-8 in line 3 .*WINDOWS-1252",
    ),
    ("empty.csv", b"", "is empty"),
    ("few.csv", b"label,text\nham,a\nspam,b\n", "too few different texts"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_bad_files(fails: Fails, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    said = fails("classify", "train", "--data", tmp_path / name, "--out", tmp_path / "run", *NEW)
    assert re.search(message, said), said
    assert not (tmp_path / "run").exists()


def test_a_class_that_is_too_small_for_the_splits(fails: Fails, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", labelled())
    file.write_text(file.read_text("utf-8") + "eggs,only once\n", "utf-8")
    arguments = ("classify", "train", "--data", file, "--out", tmp_path / "run", *NEW, *QUICK)
    for option in ("--stratify", "--no-stratify"):
        said = fails(*arguments, option)
        assert "each of 3 splits needs one: 'eggs' has 1; add examples of them, leave" in said
    assert not (tmp_path / "run").exists()


# evaluate


def test_evaluate_on_the_runs_own_test_split(
    run: Run, tmp_path: Path, toy: Path, pictures: None
) -> None:
    out = tmp_path / "run"
    data = read_labelled(toy)
    config = options(data=str(toy), seed=9, learning_rate=1e-4)
    found = train_classifier(data, out, config, SHAPE, say=lambda text: None)
    result = run("classify", "evaluate", out, "--out", tmp_path / "report")
    assert result.status == 0, result.err
    for report in found.reports:
        line = f"{report.title}: {report.count:,} texts, accuracy {report.accuracy:.2%}"
        assert line in result.out
    assert [report.title for report in found.reports] == ["balanced test split", "test split"]
    wrong = found.reports[1].mistakes
    assert wrong and "the most confident mistakes:" in result.out
    assert f"row {wrong[0].row}, {wrong[0].label}, called {wrong[0].predicted}" in result.out
    facts = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))["reports"]
    assert [fact["accuracy"] for fact in facts] == [report.accuracy for report in found.reports]
    assert result.err == f"report: {tmp_path / 'report' / 'report.md'}\n"

    splits = split_for(data, config)
    counts = {"train": len(splits.train), "validation": len(splits.validation), "all": 80}
    for split, count in counts.items():
        first = run("classify", "evaluate", out, "--split", split).out.splitlines()[0]
        name = "all texts" if split == "all" else f"{split} split"
        assert first.startswith(f"{name}: {count} texts, accuracy")
    other = run("classify", "evaluate", out, "--data", toy).out
    assert other.startswith("all texts: 80 texts")


def test_labels_are_shown_as_they_are(run: Run, tmp_path: Path, tokenizer: BPETokenizer) -> None:
    labels = ["[/red]", "[bold]ham"]
    model = save_classifier(tmp_path / "model", tokenizer, labels)
    data = labelled(10)
    names = {"ham": labels[0], "spam": labels[1]}
    data = LabelledTexts(data.texts, [names[x] for x in data.labels], data.rows, "toy")
    result = run("classify", "evaluate", model, "--data", write_csv(tmp_path / "a.csv", data))
    assert result.status == 0, result.err
    assert ["is", "\\", "called", *labels] in columns(result.out)
    assert [row[0] for row in columns(result.out) if len(row) == 5][1:3] == labels


def test_what_cannot_be_evaluated(
    fails: Fails, tmp_path: Path, spam: Path, model_dir: Path, toy: Path
) -> None:
    file = tmp_path / "other.jsonl"
    rows = [{"text": "a", "label": "ham"}, {"text": "b", "label": "eggs"}]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert fails("classify", "evaluate", spam, "--data", file) == (
        f"{file} has labels that the model does not know: 'eggs' (row 2); it knows ham, spam"
    )
    said = fails("classify", "evaluate", model_dir, "--data", toy)
    assert "is a language model, not a classifier" in said
    (tmp_path / "there").mkdir()
    said = fails("classify", "evaluate", spam, "--data", toy, "--out", tmp_path / "there")
    assert said.endswith("there exists; choose another --out")
    (spam / "groundup.json").unlink()
    said = fails("classify", "evaluate", spam)
    assert said.endswith("does not say what it was trained on; name texts with --data")


# predict


def test_a_text(run: Run, spam: Path) -> None:
    for text in TEXTS:
        expected = Classifier.load(spam).predict([text])[0]
        result = run("classify", "predict", spam, text)
        assert result.out == f"{expected.label}  {expected.probability:.2%}\n"
        assert result.err == ""


def test_the_next_best_of_several_classes(
    run: Run, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    model = save_classifier(tmp_path / "model", tokenizer, ["a", "b", "c"])
    result = run("classify", "predict", model, "call now")
    found = Classifier.load(model).predict(["call now"])[0].probabilities
    ranked = sorted(found, key=lambda label: -found[label])
    assert [line.split()[0] for line in (result.out + result.err).splitlines()] == ranked


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


def test_lines_of_stdin(run: Run, spam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, ("\r\n\n".join(TEXTS) + "\n  \n").encode())
    result = run("classify", "predict", spam, "-")
    assert result.status == 0, result.err
    expected = Classifier.load(spam).predict(TEXTS)
    assert result.out.splitlines() == [
        f"{p.label}\t{p.probability:.4f}\t{text}" for p, text in zip(expected, TEXTS, strict=True)
    ]


def test_stdin_that_is_not_utf8(fails: Fails, spam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"fine\nGr\xfc\xdfe\n")
    assert "stdin: not UTF-8" in (said := fails("classify", "predict", spam, "-"))
    assert "line 2" in said


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("to_file", [True, False])
def test_the_rows_of_a_file(run: Run, tmp_path: Path, spam: Path, kind: str, to_file: bool) -> None:
    file, out = tmp_path / f"new.{kind}", tmp_path / "done" / f"out.{kind}"
    frame = pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS})
    if kind == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
    result = run("classify", "predict", spam, "--file", file, *(["--out", out] if to_file else []))
    assert result.status == 0, result.err
    text = out.read_text("utf-8") if to_file else result.out
    if to_file:
        assert result.out == "" and result.err == f"5 texts: {out}\n"
    source = io.StringIO(text)
    if kind == "jsonl":
        back = pd.read_json(source, lines=True)
    else:
        back = pd.read_csv(source, sep="\t" if kind == "tsv" else ",")
    assert list(back.columns) == ["id", "text", "label", "probability"]
    expected = Classifier.load(spam).predict(TEXTS)
    assert back["id"].tolist() == list(range(5)) and back["text"].tolist() == TEXTS
    assert back["label"].tolist() == [p.label for p in expected]
    assert back["probability"].tolist() == pytest.approx(
        [p.probability for p in expected], abs=2e-6
    )


def test_a_file_is_never_read_whole(
    run: Run, tmp_path: Path, spam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are written long before the last ones are read."""
    events: list[str] = []
    parse, written = lines.json_lines, predictions.RowWriter.write

    def read(*args: Any) -> Any:
        for row in parse(*args):
            events.append("read")
            yield row

    def write(self: Any, *args: Any) -> None:
        events.append("written")
        written(self, *args)

    monkeypatch.setattr(tables, "json_lines", read)
    monkeypatch.setattr(tables, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(predictions.RowWriter, "write", write)
    file = tmp_path / "new.jsonl"
    file.write_text("".join(json.dumps({"text": f"call {n}"}) + "\n" for n in range(1100)), "utf-8")
    result = run("classify", "predict", spam, "--file", file, "--out", tmp_path / "out.jsonl")
    assert result.status == 0, result.err
    assert events.count("read") == events.count("written") == 1100
    ahead = most = 0
    for event in events:
        ahead += 1 if event == "read" else -1
        most = max(most, ahead)
    assert most == 256
    assert len((tmp_path / "out.jsonl").read_text("utf-8").splitlines()) == 1100


def test_what_cannot_be_predicted(
    fails: Fails, tmp_path: Path, spam: Path, model_dir: Path, toy: Path
) -> None:
    predict = ("classify", "predict")
    assert fails(*predict, spam) == 'give one of a text, "-" for stdin, and --file FILE'
    assert "give one of a text" in fails(*predict, spam, "a", "--file", toy)
    said = fails(*predict, spam, "a", "--out", tmp_path / "x")
    assert said == "--out, --text-column and --separator are for --file; leave them out"
    assert "nothing to classify in an empty text" in fails(*predict, spam, "")
    assert "is a language model, not a classifier" in fails(*predict, model_dir, "a")
    assert "there is no model directory" in fails(*predict, tmp_path / "nowhere", "a")
    said = fails(*predict, spam, "--file", toy, "--out", toy)
    assert said == f"{toy} exists; choose another --out"
    assert "there is no file" in fails(*predict, spam, "--file", tmp_path / "nowhere")
    said = fails(*predict, spam, "--file", toy, "--text-column", "txt")
    assert "no column 'txt'" in said and "did you mean 'text'" in said


def test_a_bad_row_leaves_no_half_written_file(fails: Fails, tmp_path: Path, spam: Path) -> None:
    file, out = tmp_path / "new.csv", tmp_path / "out.csv"
    rows = [f"{n},call {n}" for n in range(700)]
    rows[600] = "600,"
    file.write_text("id,text\n" + "\n".join(rows), "utf-8")
    said = fails("classify", "predict", spam, "--file", file, "--out", out)
    assert "an empty text in line 602" in said
    assert {path.name for path in tmp_path.iterdir()} == {"spam", "new.csv"}


# a classifier's directory and the other commands


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "{model}", "The"],
        ["pretrain", "{text}", "--init-from={model}", "--out={out}"],
    ],
)
def test_commands_for_language_models(
    fails: Fails, tmp_path: Path, spam: Path, text_file: Path, command: list[str]
) -> None:
    paths = {"model": spam, "text": text_file, "out": tmp_path / "out"}
    said = fails(*(word.format(**paths) for word in command))
    assert f"{spam} is a classifier (ham, spam), not a language model" in said
    assert f"groundup classify predict {spam}" in said
    assert not (tmp_path / "out").exists()


def test_inspect_shows_the_classifiers_output_layer(run: Run, spam: Path) -> None:
    result = run("inspect", spam)
    assert result.status == 0, result.err
    head = next(row for row in columns(result.out) if row[:1] == ["out_head"])
    assert head[-2:] == ["1x16x2", "64"]
    count = sum(p.numel() for p in Classifier.load(spam).model.parameters())
    assert f"unique {count:,}" in result.out and "ham, spam" in result.out

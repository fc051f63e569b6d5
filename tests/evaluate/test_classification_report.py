import json
from pathlib import Path

import numpy as np
import pytest

from groundup.data.classification import LabelledTexts
from groundup.errors import UserError
from groundup.evaluate.classification_report import (
    PREDICTIONS,
    Report,
    class_numbers,
    evaluate_classifier,
    markdown,
    write_report,
)
from groundup.evaluate.classifier import Classifier
from groundup.evaluate.metrics import accuracy, class_scores, confusion_matrix
from groundup.files import JsonLines
from groundup.tokenizers import BPETokenizer
from tests.conftest import TEXT
from tests.labelled import labelled, make_classifier

NASTY = "a | b\nc <script>alert(1)</script> ![x](http://x/y.png) \\| `|` $x$ 日本"


@pytest.fixture
def classifier(tokenizer: BPETokenizer) -> Classifier:
    return Classifier(make_classifier(tokenizer), tokenizer, ["ham", "spam"], 16)


def with_nasty_texts() -> LabelledTexts:
    data = labelled(20)
    texts = [f"{NASTY} {number}" for number in range(8)] + data.texts
    return LabelledTexts(texts, ["ham", "spam"] * 24, list(range(101, 149)), "toy")


def test_the_figures_are_those_of_the_predictions(classifier: Classifier) -> None:
    data = labelled(30)
    report = evaluate_classifier(classifier, data, "all texts", show=7)
    found = classifier.predict(data.texts)
    called = [classifier.labels.index(prediction.label) for prediction in found]
    matrix = confusion_matrix(class_numbers(data, classifier.labels), called, 2)
    assert report.matrix == matrix.tolist() and report.count == 60
    assert report.accuracy == accuracy(matrix)
    assert report.classes == class_scores(matrix, classifier.labels)

    wrong = [
        (prediction.probability, row, text, label, prediction.label)
        for prediction, row, text, label in zip(
            found, data.rows, data.texts, data.labels, strict=True
        )
        if prediction.label != label
    ]
    wrong.sort(key=lambda mistake: -mistake[0])
    assert len(report.mistakes) == 7 < len(wrong)
    for mistake, (probability, row, text, label, predicted) in zip(
        report.mistakes, wrong, strict=False
    ):
        assert mistake.probability == pytest.approx(probability, abs=1e-5)
        assert (mistake.row, mistake.text) == (row, text)
        assert (mistake.label, mistake.predicted) == (label, predicted)


def test_cut_off_texts_are_counted(classifier: Classifier) -> None:
    data = LabelledTexts([TEXT, "a", TEXT + TEXT], ["ham", "spam", "ham"], [1, 2, 3], "toy")
    report = evaluate_classifier(classifier, data, "all texts")
    assert report.truncated == 2
    assert "2 were longer than the model reads" in markdown(report)


def test_labels_that_the_model_does_not_know(classifier: Classifier) -> None:
    texts = ["a", "b", "c", "d"]
    data = LabelledTexts(texts, ["ham", "Spam", "eggs", "Spam"], [2, 3, 4, 9], "new.csv")
    with pytest.raises(UserError) as error:
        evaluate_classifier(classifier, data, "all texts")
    assert str(error.value) == (
        "new.csv has labels that the model does not know: 'Spam' (row 9), 'eggs' (row 4); "
        "did you mean 'spam'? it knows ham, spam"
    )


def test_the_files(tmp_path: Path, classifier: Classifier) -> None:
    data = with_nasty_texts()
    reports = [
        evaluate_classifier(classifier, data, "test split"),
        evaluate_classifier(classifier, data.select(range(9)), "balanced test split"),
    ]
    write_report(reports, tmp_path / "report")
    pictures = {"confusion-test-split.png", "confusion-balanced-test-split.png"}
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"report.json", "report.md", "predictions.jsonl"} | pictures
    for name in pictures:
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
    facts = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))["reports"]
    assert [fact["title"] for fact in facts] == ["test split", "balanced test split"]
    assert facts[0]["count"] == 48 and facts[0]["matrix"] == reports[0].matrix
    assert facts[0]["classes"][1]["f1"] == reports[0].classes[1].f1
    assert facts[0]["mistakes"][0]["text"] == reports[0].mistakes[0].text
    assert "called" not in facts[0]
    called = JsonLines(tmp_path / "report" / PREDICTIONS).read()
    assert [(row["row"], row["text"], row["label"]) for row in called] == list(
        zip(data.rows, data.texts, data.labels, strict=True)
    )
    found = [list(p.probabilities.values()) for p in classifier.predict(data.texts)]
    for row, expected in zip(called, found, strict=True):
        assert row["probabilities"] == pytest.approx(expected, abs=1e-5)
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert text.count("## ") == 2
    assert all(f"]({name})" in text for name in pictures)


def test_no_text_breaks_the_table(classifier: Classifier) -> None:
    data = with_nasty_texts()
    report = evaluate_classifier(classifier, data.select(range(8)), "all texts")
    assert report.mistakes
    text = markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("| 1")]
    assert len(rows) == len(report.mistakes)
    for row in rows:
        plain = row.replace("\\\\", "")  # an escaped backslash escapes nothing
        assert plain.replace("\\|", "").count("|") == 6
        assert "<" not in row and "&lt;script&gt;" in row
        assert "\\[x\\]" in row and "\\`" in row and "日本" in row


def test_labels_of_any_kind_can_be_drawn(tmp_path: Path) -> None:
    labels = ["$a_{$", "a|b", "<b>", "%"]
    matrix = np.arange(16).reshape(4, 4)
    scores = class_scores(matrix, labels)
    report = Report("all texts", labels, matrix.tolist(), 0.5, scores, [], 0)
    write_report([report], tmp_path)
    assert "| a\\|b | " in markdown(report)
    assert "confident mistakes" not in markdown(report)

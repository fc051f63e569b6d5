"""The classifier page's numbers, by a plain computation, and the page itself in a browser."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Locator, Page

from groundup.data.classification import LabelledTexts
from groundup.evaluate.classification_report import (
    PREDICTIONS,
    evaluate_classifier,
    write_report,
)
from groundup.evaluate.classifier import Classifier
from groundup.serve.models import Served
from groundup.serve.page import classifier as classifying
from groundup.tokenizers import BPETokenizer
from groundup.weights.load import load_model
from tests.browser import check_width, complaints_of
from tests.labelled import labelled, save_classifier
from tests.serve.conftest import asked_page, client_of, refused_page
from tests.serve.page.runs import EVIL, listening
from tests.xray.test_browser import percent, widths

TEXT = "You win a prize, call now"
LABELS = ("ham<b>", "spam")


@pytest.fixture(params=[False, True], ids=["last token", "padded"])
def padded(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def served(tmp_path: Path, tokenizer: BPETokenizer, padded: bool) -> Iterator[Served]:
    yield from serving(tmp_path / "spam", tokenizer, padded=padded)


def serving(directory: Path, tokenizer: BPETokenizer, **how: Any) -> Iterator[Served]:
    """A classifier with what it did on a test."""
    torch.manual_seed(5)
    save_classifier(directory, tokenizer, LABELS, **how)
    data = labelled(15)
    names = [LABELS[name == "spam"] for name in data.labels]
    texts = [f"{text} {EVIL}" if i % 7 == 0 else text for i, text in enumerate(data.texts)]
    data = LabelledTexts(texts, names, data.rows, "toy")
    report = evaluate_classifier(Classifier.load(directory), data, "test split")
    write_report([report], directory / "report")
    model, _ = load_model(directory)
    found = Served.of("spam", model, tokenizer, directory=directory)
    yield found
    found.runner.close()


asked, refused = partial(asked_page, model="spam"), partial(refused_page, model="spam")


def plainly(served: Served, ids: list[int]) -> list[float]:
    """The logarithm of the classes' odds for a text alone, read where its training read it."""
    eot = served.tokenizer.eot_token or 0
    idx = torch.tensor([ids + [eot] * (16 - len(ids) if served.facts.reading.padded else 0)])
    with torch.no_grad():
        found = served.model(idx)[0, -1].double().softmax(-1)
    return (found / (1 - found)).log().tolist()


def test_without_each_token_by_a_plain_computation(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifying, "AT_ONCE", 3)
    ids = served.tokenizer.encode(TEXT)[:16]
    told = asked(client_of(served), "classify", text=TEXT)
    assert told["tokens"] == ids and told["labels"] == list(LABELS)
    assert told["cut"] == len(served.tokenizer.encode(TEXT)) - len(ids)
    assert told["odds"] == pytest.approx(plainly(served, ids), abs=1e-5)
    assert len(told["without"]) == len(ids)
    for i, row in enumerate(told["without"]):
        assert row == pytest.approx(plainly(served, ids[:i] + ids[i + 1 :]), abs=1e-5)


def test_edges_of_texts(served: Served) -> None:
    client = client_of(served)
    told = asked(client, "classify", text="a")
    assert told["without"] == [None] and len(told["tokens"]) == 1
    told = asked(client, "classify", text="a b c " * 30)
    assert len(told["tokens"]) == len(told["without"]) == 16 and told["cut"] > 100
    told = asked(client, "classify", text=EVIL)
    assert not any(sign in "".join(told["words"].values()) for sign in "\x1b\u202e")
    assert "nothing to classify in an empty text" in refused(client, "classify", text="")
    assert "10,001 characters" in refused(client, "classify", text="x" * 10_001)


def test_what_it_did_on_its_test(served: Served, tmp_path: Path, monkeypatch: Any) -> None:
    client, path = client_of(served), tmp_path / "spam" / "report" / PREDICTIONS
    told = asked(client, "classify/tested")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert told["count"] == len(lines) == 30 and told["labels"] == list(LABELS)
    for row, line in zip(told["rows"], lines, strict=True):
        assert row["row"] == line["row"] and row["probabilities"] == line["probabilities"]
        assert LABELS[row["label"]] == line["label"] and "\u202e" not in row["text"]
    monkeypatch.setattr(classifying, "ROWS", 10)
    told = asked(client, "classify/tested")
    assert told["count"] == 30 and [row["row"] for row in told["rows"]] == list(range(1, 31, 3))
    path.write_text(json.dumps(lines[0] | {"label": "other"}) + "\n", "utf-8")
    assert "line 1 is no prediction of this classifier" in refused(client, "classify/tested")
    path.unlink()
    told = asked(client, "classify/tested")
    assert told["rows"] == [] and "spam --resume" in told["missing"]


def test_a_language_model_is_refused(lively: Served) -> None:
    client = client_of(lively)
    assert "lively is no classifier" in refused(client, "classify", model="lively", text="a")
    assert "lively is no classifier" in refused(client, "classify/tested", model="lively")


# In a browser


@pytest.fixture
def page(browser: Browser, tmp_path: Path, tokenizer: BPETokenizer) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 400, "height": 800}, reduced_motion="reduce")
    complaints = complaints_of(page)
    for served in serving(tmp_path / "spam", tokenizer):
        with listening(served) as address:
            page.goto(f"{address}/#classifier")
            yield page
    check_width(page)
    assert complaints == [] and page.locator("main img, main script").count() == 0
    page.close()


def cells(page: Page) -> Locator:
    return page.locator(".confusion .cell")


def test_the_page(page: Page, tmp_path: Path) -> None:
    classifier = Classifier.load(tmp_path / "spam")
    (said,) = classifier.predict([TEXT])
    page.get_by_label("a message").fill(TEXT)
    page.get_by_role("button", name="Classify", exact=True).click()
    page.get_by_text(f"{said.label}, {percent(said.probability)}.").wait_for()
    bars = page.get_by_label("how likely each class is").locator(".fill")
    assert widths(bars) == pytest.approx([100 * p for p in said.probabilities.values()], abs=0.01)
    (ids,) = classifier.encode([TEXT]).ids
    assert page.locator(".effect-token").count() == len(ids)

    lines = (tmp_path / "spam" / "report" / PREDICTIONS).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for threshold in (0.5, 0.3, 0.62):
        page.locator("#threshold").fill(f"{threshold}")
        expected = [
            sum(
                (r["label"] == "spam") == is_spam and (r["probabilities"][1] >= threshold) == called
                for r in rows
            )
            for is_spam in (False, True)
            for called in (False, True)
        ]
        assert cells(page).all_inner_texts() == [str(n) for n in expected]
        right = expected[0] + expected[3]
        assert f"accuracy {100 * right / 30:.1f}%" in page.locator(".facts-line").inner_text()
    cells(page).nth(1).press("Enter")
    assert page.get_by_role("heading", name=f"not spam, called spam: {expected[1]}").is_visible()
    assert cells(page).nth(1).get_attribute("aria-pressed") == "true"
    page.get_by_label("what is looked for").select_option("each text its likeliest class")
    assert not page.locator("#threshold").is_visible()
    wrong = [r for r in rows if LABELS[r["probabilities"][1] > r["probabilities"][0]] != r["label"]]
    assert page.get_by_role("heading", name=f"Mistakes: {len(wrong)}").is_visible()
    assert page.locator(".mistakes li").count() == len(wrong)
    page.get_by_text("which tokens?").first.click()
    first = max(wrong, key=lambda r: max(r["probabilities"]))
    assert page.get_by_label("a message").input_value()[:20] == first["text"][:20]

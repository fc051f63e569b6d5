"""``groundup classify``: train a classifier, measure it, use it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cyclopts import App

from groundup.cli.app import Flag, app, layered, opening_of, with_options
from groundup.cli.runs import closing, effective, refuse_useless, saved_run
from groundup.config import ModelConfig
from groundup.data.finding import STDIN
from groundup.data.sources import data_file
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.output import console, data_stream, say, show, table
from groundup.tasks.config import ClassifyConfig
from groundup.weights.open_config import OpenConfig

if TYPE_CHECKING:
    from groundup.evaluate.classification_report import Report
    from groundup.evaluate.classifier import Classifier

classify = App(name="classify", help="Sort texts: train a classifier, evaluate it, predict labels.")
app.command(classify)

AT_ONCE = 256
"""Texts read before they are classified, so that batches can be of like length."""

T = TypeVar("T")


@classify.command
@with_options(from_preset="Model", Model=ModelConfig, Training=ClassifyConfig)
def train(
    *,
    out: Path,
    config: Path | None = None,
    recipe: str | None = None,
    overwrite: Flag = False,
    resume: Flag = False,
    no_verify: Flag = False,
    given: dict[str, Any],
) -> int:
    """Train a classifier on labelled texts and leave a model directory with a report.

    The texts are a CSV, TSV or JSONL file with a column of texts and one of labels, or sms-spam.
    With --model a trained model learns the labels; without one, a small new GPT does.

    Args:
        out: the model directory to write.
        config: a TOML file of options; flags win over it.
        recipe: a packaged set of options: small (the default without --model) or course
            (chapter 6 of the course).
        overwrite: replace what an earlier run left in --out.
        resume: go on with the run in --out, exactly where it was saved.
        no_verify: go on, or begin with a model, though a file is not as it was saved.
    """
    values = layered(given, ClassifyConfig, ModelConfig, config=config, recipe=recipe)
    saved = saved_run(ClassifyConfig, out) if resume else None
    if saved is None:
        if not values.get("model") and recipe is None:
            say("no --model: a small new GPT learns from these texts alone (recipe small)")
            values = _small(values) | values
        refuse_useless(values)
    options = effective(ClassifyConfig, values, saved)
    path = data_file(options.data)

    from groundup.tasks.classify import train_classifier
    from groundup.tasks.splits import read_texts
    from groundup.train.interrupt import StopRequest

    stop = StopRequest(say)
    trained = train_classifier(
        read_texts(path, options),
        out,
        values,
        overwrite=overwrite,
        resume=resume,
        verify=not no_verify,
        say=say,
        stop=stop,
    )
    say("")
    for report in trained.reports:
        _show(report)
    made = ("plots/loss.png", "plots/accuracy.png", "report/report.md")  # without a split, fewer
    return closing(
        out,
        trained.record,
        stop=stop,
        again="classify train",
        files=[name for name in made if (out / name).exists()],
        try_next=(
            'classify predict {model} "a text of yours"',
            "classify evaluate {model}",
        ),
    )


def _small(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe for a small new GPT, without what another preset or tokenizer decides."""
    recipe = layered({}, ClassifyConfig, ModelConfig, recipe="small")
    decided = ()
    if "preset" in values:
        decided = ("vocab_size", "context_length", "n_layers")
    elif values.get("tokenizer", "bpe") != "bpe":
        decided = ("vocab_size",)
    return {name: value for name, value in recipe.items() if name not in decided}


ELSEWHERE = ("style", "precision", "quantize", "tokenizer", "n_heads")
"""Options of opening a model that classifiers don't have."""


@classify.command
@with_options(hide=ELSEWHERE, Opening=OpenConfig)
def evaluate(
    model: str,
    /,
    *,
    data: str | None = None,
    split: Literal["train", "validation", "test", "all"] | None = None,
    out: Path | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    separator: str | None = None,
    given: dict[str, Any],
) -> None:
    """Measure a classifier: accuracy, precision, recall, F1, what is mistaken for what.

    Without --data, on the test split of what it was trained on.

    Args:
        model: a classifier's directory.
        data: labelled texts; all of them, unless --split says otherwise.
        split: which part of the texts: the run's own splits, made again by its seed.
        out: a directory to write the report to, with pictures.
        text_column: the texts' column, if it cannot be told by its name.
        label_column: the labels' column, if it cannot be told by its name.
        separator: what separates columns, if neither comma nor tab.
    """
    opening = opening_of(given, model)
    if out is not None and out.exists():
        raise UserError(f"{out} exists; choose another --out")

    from groundup.evaluate.classification_report import write_report
    from groundup.evaluate.classifier import Classifier
    from groundup.tasks.splits import reports_on_file

    classifier = Classifier.load(
        model, opening.runtime.device, checkpoint=opening.checkpoint, verify=opening.verify
    )
    facts = classifier.model.facts or Facts()
    columns = {"text_column": text_column, "label_column": label_column, "separator": separator}
    asked = {name: value for name, value in columns.items() if value is not None}
    reports = reports_on_file(classifier, facts, model, data, split, asked, say)
    for report in reports:
        _show(report, mistakes=True)
    if out is not None:
        write_report(reports, out)
        say(f"report: {out / 'report.md'}")


@classify.command
@with_options(hide=ELSEWHERE, Opening=OpenConfig)
def predict(
    model: str,
    text: str | None = None,
    /,
    *,
    file: str | None = None,
    out: Path | None = None,
    text_column: str | None = None,
    separator: str | None = None,
    given: dict[str, Any],
) -> None:
    """Say which class texts belong to, with the probability.

    Args:
        model: a classifier's directory.
        text: what to classify; "-" reads stdin, a text per line.
        file: a CSV, TSV or JSONL file; its rows come out with label and probability added.
        out: a file for these rows, instead of stdout.
        text_column: the texts' column, if it cannot be told by its name.
        separator: what separates columns, if neither comma nor tab.
    """
    opening = opening_of(given, model)
    if (text is None) == (file is None):
        raise UserError('give one of a text, "-" for stdin, and --file FILE')
    if out is not None and out.exists():
        raise UserError(f"{out} exists; choose another --out")
    if file is None and (out or text_column or separator):
        raise UserError("--out, --text-column and --separator are for --file; leave them out")

    from groundup.evaluate.classifier import Classifier

    classifier = Classifier.load(
        model, opening.runtime.device, checkpoint=opening.checkpoint, verify=opening.verify
    )
    if file is not None:
        _predict_file(classifier, file, out, text_column, separator)
    elif text == STDIN:
        from groundup.data.lines import Problems, text_lines

        lines = text_lines(sys.stdin.buffer, Problems("stdin", at_once=True))
        texts = (line.rstrip("\r\n") for line in lines)
        for line in texts:  # each at once, for whoever pipes `tail -f` into it
            if line.strip():
                found = classifier.predict([line])[0]
                show(f"{found.label}\t{found.probability:.4f}\t{line}", flush=True)
    else:
        found = classifier.predict([text or ""])[0]
        show(f"{found.label}  {found.probability:.2%}")
        ranked = sorted(found.probabilities.items(), key=lambda item: -item[1])
        if len(ranked) > 2:
            say("\n".join(f"  {label}  {probability:.2%}" for label, probability in ranked[1:5]))


def _predict_file(
    classifier: Classifier, file: str, out: Path | None, column: str | None, separator: str | None
) -> None:
    """Stream the rows of a file: only ``AT_ONCE`` of them are in memory."""
    from groundup.data.predictions import RowWriter, open_texts
    from groundup.files import atomic_file

    with ExitStack() as stack:
        rows = stack.enter_context(open_texts(file, text_column=column, separator=separator))
        if out is None:
            stream = data_stream()
        else:
            temporary = stack.enter_context(atomic_file(out))
            stream = stack.enter_context(temporary.open("w", encoding="utf-8", newline=""))
        writer, count = RowWriter(stream, rows), 0
        for chunk in _chunks(rows):
            found = classifier.predict([row[rows.text_column] for row in chunk])
            for row, prediction in zip(chunk, found, strict=True):
                writer.write(row, prediction.label, prediction.probability)
            count += len(chunk)
    if out is not None:
        say(f"{count:,} texts: {out}")


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, AT_ONCE)):
        yield chunk


def _show(report: Report, *, mistakes: bool = False) -> None:
    """Print a report for people."""
    scores = [
        (
            f"  {c.label}",
            *(f"{share:.2%}" for share in (c.precision, c.recall, c.f1)),
            f"{c.support:,}",
        )
        for c in report.classes
    ]
    with console() as out:
        out.print(f"{report.title}: {report.count:,} texts, accuracy {report.accuracy:.2%}")
        if report.truncated:
            out.print(f"  {report.truncated:,} were longer than the classifier reads")
        numbers = ("precision", "recall", "F1", "texts")
        out.print(table(("  class", *numbers), scores, right=numbers))
        if len(report.labels) <= 8:
            rows = zip(report.labels, report.matrix, strict=True)
            shown = [(f"  {label}", *(f"{count:,}" for count in counts)) for label, counts in rows]
            called = table(("  is \\ called", *report.labels), shown, right=report.labels)
            out.print(called)
        if mistakes and report.mistakes:
            out.print("  the most confident mistakes:")
    if mistakes:
        for m in report.mistakes:
            line = " ".join(m.text.split())
            show(f"    row {m.row}, {m.label}, called {m.predicted} ({m.probability:.1%}): {line}")
    show()

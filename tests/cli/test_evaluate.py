import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from groundup.evaluate.perplexity import evaluate_text
from groundup.evaluate.perplexity_config import PerplexityConfig
from groundup.model.classifier import to_classifier
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model
from tests.conftest import TEXT, Run

Fails = Callable[..., str]


def test_it_prints_the_numbers_and_how_they_came_about(
    run: Run, model_dir: Path, text_file: Path
) -> None:
    result = run("evaluate", model_dir, text_file, "--device=cpu")
    assert result.status == 0, result.err
    score = evaluate_text(*load_model(model_dir), [text_file.read_text("utf-8")])
    rows = dict((line[:15].strip(), line[15:]) for line in result.out.splitlines())
    assert rows == {
        "loss": f"{score.loss:.4f} nats per token",
        "perplexity": f"{score.perplexity:.2f}",
        "bits per byte": f"{score.bits_per_byte:.4f}",
        "predicted": f"{score.tokens:,} tokens, {30 * len(TEXT.encode()):,} bytes, "
        f"{30 * len(TEXT):,} characters; 1 document, each read after an end-of-text token",
        "windows": "of 16 tokens, with a stride of 8",
        "computed": "on cpu in fp32",
    }


def test_every_option_is_passed_on(run: Run, model_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "two.txt"
    file.write_text("The quick fox.<|endoftext|>The lazy dog.", "utf-8")
    options = ["--context-length=12", "--stride=3", "--batch-size=2", "--precision=bf16"]
    options += ["--document-separator=<|endoftext|>", "--device=cpu", "--json"]
    found = json.loads(run("evaluate", model_dir, file, *options).out)
    config = PerplexityConfig(context_length=12, stride=3, batch_size=2, precision="bf16")
    score = evaluate_text(*load_model(model_dir), ["The quick fox.", "The lazy dog."], config)
    assert found == {"model": str(model_dir), "files": [str(file)]} | score.as_dict()
    assert found["documents"] == 2 and found["stride"] == 3 and found["precision"] == "bf16"


def test_several_files_and_stdin(
    run: Run, model_dir: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(TEXT.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    result = run("evaluate", model_dir, "-", text_file)
    assert "2 documents apart, each read after an end-of-text token" in result.out, result.err
    assert f"{31 * len(TEXT):,} characters" in result.out


def test_a_pth_takes_its_tokenizer_and_heads(
    run: Run, model_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    pth = tmp_path / "m.pth"
    assert run("export", model_dir, "--to=course", "--out", pth).status == 0
    directory = run("evaluate", model_dir, text_file)
    file = run("evaluate", pth, text_file, "--n-heads=4", "--tokenizer", model_dir)
    assert file.status == 0 and file.out == directory.out, file.err


def test_mistakes(fails: Fails, run: Run, model_dir: Path, text_file: Path, tmp_path: Path) -> None:
    assert "no text given" in fails("evaluate", model_dir)
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n", "utf-8")
    assert "there is no text in" in fails("evaluate", model_dir, empty)
    assert "there is no model directory" in fails("evaluate", tmp_path / "no", text_file)
    message = fails("evaluate", model_dir, text_file, "--stride=20")
    assert "stride is 20; expected 1 to 16" in message
    message = fails("evaluate", model_dir, text_file, "--context-length=99")
    assert "context_length is 99; expected 1 to 16" in message
    message = fails("evaluate", model_dir, text_file, "--batch-size=0", "--stride=0")
    assert "stride is 0" in message and "batch_size is 0" in message
    assert "'1.5' is not a whole number" in fails("evaluate", model_dir, text_file, "--stride=1.5")
    assert "tpu" in fails("evaluate", model_dir, text_file, "--device=tpu")


def test_a_classifier_is_no_language_model(
    fails: Fails, model_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    model, tokenizer = load_model(model_dir)
    save_model(tmp_path / "sorts", to_classifier(model, 2), tokenizer)
    message = fails("evaluate", tmp_path / "sorts", text_file)
    assert "is a classifier (LABEL_0, LABEL_1), not a language model" in message

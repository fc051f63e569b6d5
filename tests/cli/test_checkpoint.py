"""``--checkpoint``: which model of a run is opened."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.errors import UserError
from groundup.evaluate.classifier import Classifier
from groundup.tasks.assistant import Assistant
from groundup.tokenizers import BPETokenizer
from groundup.weights.load import load_model, read_facts
from tests.assistants import ENTRIES, save_assistant
from tests.conftest import TEXT, Run, small
from tests.labelled import labelled, save_classifier, write_csv

Fails = Callable[..., str]
Says = Callable[..., bytes]


@pytest.fixture
def model(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    """A run of assistants that have learned different things; the prompt style too differs."""
    out = save_assistant(tmp_path / "run", tokenizer, "alpaca")
    save_assistant(out / "checkpoints" / "last", tokenizer, "alpaca")
    save_assistant(out / "checkpoints" / "step-2", tokenizer, "phi3")
    return out


@pytest.fixture
def classifier(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    """A run of classifiers that have learned different things; labels and lengths too differ."""
    out = save_classifier(tmp_path / "run", tokenizer)
    save_classifier(out / "checkpoints" / "last", tokenizer, ["ham", "spam"])
    save_classifier(
        out / "checkpoints" / "step-2", tokenizer, ["ham", "spam", "eggs"], max_length=5
    )
    return out


@pytest.fixture
def says(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """What a command says of a model, in print or in the file that it writes."""
    text, tasks = tmp_path / "text.txt", tmp_path / "tasks.json"
    text.write_text(TEXT, "utf-8")
    tasks.write_text(json.dumps(ENTRIES[:2]), "utf-8")
    spam, out = write_csv(tmp_path / "spam.csv", labelled(8)), tmp_path / "out"
    options: dict[str, list[object]] = {
        "generate": ["The quick", "--max-new-tokens=9"],
        "evaluate": [text],
        "export": ["--to=course", "--out", out],
        "instruct chat": ["--max-new-tokens=9", "--temperature=0"],
        "instruct respond": ["--data", tasks, "--out", out, "--max-new-tokens=9"],
        "classify predict": ["win a prize now"],
        "classify evaluate": ["--data", spam],
    }

    def call(command: str, model: Path, *more: object) -> bytes:
        monkeypatch.setattr(
            "sys.stdin", io.TextIOWrapper(io.BytesIO(b"Who jumps?\n"), encoding="utf-8")
        )
        result = run(*command.split(), model, *options[command], *more)
        assert result.status == 0, result.err
        if not out.exists():
            return result.out.encode()
        wrote = out.read_bytes()
        out.unlink()
        return wrote

    return call


def check(says: Says, command: str, run_folder: Path) -> None:
    """A checkpoint is opened as if its folder had been named; without one, the best model is."""
    folders = {
        name: says(command, run_folder / "checkpoints" / name) for name in ("last", "step-2")
    }
    best = says(command, run_folder)
    assert len({best, *folders.values()}) == 3
    for name, said in folders.items():
        assert says(command, run_folder, f"--checkpoint={name}") == said


@pytest.mark.parametrize(
    "command", ["generate", "evaluate", "export", "instruct chat", "instruct respond"]
)
def test_a_language_models(says: Says, model: Path, command: str) -> None:
    check(says, command, model)


@pytest.mark.parametrize("command", ["classify predict", "classify evaluate"])
def test_a_classifiers(says: Says, classifier: Path, command: str) -> None:
    check(says, command, classifier)


def test_from_python(model: Path) -> None:
    assert Assistant.load(model, checkpoint="step-2").style.name == "phi3"
    assert read_facts(model, "step-2").prompt_style == "phi3"
    found = load_model(model, checkpoint="step-2")[0]
    named = load_model(model / "checkpoints" / "step-2")[0]
    assert found.facts == named.facts
    assert torch.equal(found.out_head.weight, named.out_head.weight)


def test_what_a_classifiers_checkpoint_says_of_itself_counts(classifier: Path) -> None:
    found = Classifier.load(classifier, checkpoint="step-2")
    assert (found.labels, found.max_length) == (["ham", "spam", "eggs"], 5)
    found = Classifier.load(classifier, checkpoint="last")
    assert (found.labels, found.max_length) == (["ham", "spam"], 16)


@pytest.mark.parametrize("command", ["generate", "instruct chat", "classify predict"])
def test_an_unknown_checkpoint(
    fails: Fails, model: Path, model_dir: Path, tmp_path: Path, command: str
) -> None:
    more = ["a text"] if command != "instruct chat" else []
    for name in ("step-9", "step-", "", "..", "../checkpoints"):
        sentence = fails(*command.split(), model, *more, f"--checkpoint={name}")
        assert sentence == f"{model} has no checkpoint {name!r}; there are: last, step-2"
    for source in (model_dir, tmp_path / "nowhere"):
        sentence = fails(*command.split(), source, *more, "--checkpoint=last")
        assert sentence == f"{source} has no checkpoint 'last'; there are: none"


def test_a_run_leaves_what_is_opened(run: Run, tmp_path: Path, text_file: Path) -> None:
    out = tmp_path / "trained"
    steps = ["--max-steps=6", "--save-freq=2", "--eval-freq=2", "--keep=2", "--learning-rate=0.01"]
    result = run("pretrain", text_file, "--out", out, *small(*steps))
    assert result.status == 0, result.err
    heads = {}
    for name, step in {"last": 6, "step-6": 6, "step-4": 4}.items():
        model, _ = load_model(out, checkpoint=name)
        assert model.facts is not None and model.facts.progress["step"] == step
        heads[name] = model.out_head.weight
    assert torch.equal(heads["last"], heads["step-6"])
    assert not torch.equal(heads["last"], heads["step-4"])
    with pytest.raises(UserError, match="'step-2'; there are: last, step-4, step-6"):
        load_model(out, checkpoint="step-2")

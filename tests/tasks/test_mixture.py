from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.data.prepare import prepare
from groundup.tasks.reproduce import command_of
from groundup.tokenizers import BPETokenizer
from groundup.train.tracking import read_metrics
from tests.conftest import LAST, TEXT, Run, facts_of, small
from tests.tasks.test_texts import everything

Fails = Callable[..., str]
OPTIONS = [o for o in small("--eval-freq=3", "--lr-schedule=constant") if "vocab-size" not in o]
OPTIONS += ["--warmup-steps=0"]


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.fixture
def mix(tmp_path: Path, tokenizer: BPETokenizer) -> list[str]:
    for name, text in (("books", TEXT * 30), ("code", "def f(x): return x + 1\n" * 60)):
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
        how = {"workers": 1, "say": quiet}
        prepare([str(tmp_path / f"{name}.txt")], tmp_path / name, tokenizer, **how)
    return [f"--mix={tmp_path / 'books'}=0.6", f"--mix={tmp_path / 'code'}=0.4"]


def test_a_mixture_trains_resumes_and_reports(run: Run, tmp_path: Path, mix: list[str]) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for out, steps in ((a, 7), (b, 12)):
        result = run("pretrain", *mix, "--out", out, *OPTIONS, f"--max-steps={steps}")
        assert result.status == 0, result.err
    result = run("pretrain", "--out", a, "--resume", "--max-steps=12")
    assert result.status == 0, result.err
    assert everything(a)[1:] == everything(b)[1:]
    last = read_metrics(b)[-1]
    assert last["val_loss"] == pytest.approx(
        0.6 * last["val_loss.books"] + 0.4 * last["val_loss.code"]
    )
    assert 0 < last["epochs.books"] < last["epochs.code"]
    facts = facts_of(b / LAST)
    assert facts.data.mix == {str(tmp_path / "books"): 0.6, str(tmp_path / "code"): 0.4}
    assert facts.progress["epochs.code"] == last["epochs.code"]
    assert facts.data.description.startswith("books (0.6: 1 document, ")
    assert all(flag in command_of(facts, b) for flag in mix)


def test_mistakes(
    run: Run, fails: Fails, tmp_path: Path, mix: list[str], tokenizer: BPETokenizer
) -> None:
    def refused(*given: str) -> str:
        return fails("pretrain", *given, "--out", tmp_path / "run", *OPTIONS)

    assert "add up to 1.2; expected 1" in refused(mix[0], mix[1].replace("0.4", "0.6"))
    missing = refused(mix[0], f"--mix={tmp_path / 'none'}=0.4")
    assert f"--mix names {tmp_path / 'none'}, where there is no prepared corpus" in missing
    assert "leave out text.txt" in refused("text.txt", *mix)
    other = BPETokenizer.train(TEXT, 270)
    prepare([str(tmp_path / "code.txt")], tmp_path / "other", other, workers=1, say=quiet)
    message = refused(mix[0], f"--mix={tmp_path / 'other'}=0.4")
    for one in (tokenizer, other):
        assert one.vocabulary.fingerprint[:16] in message
    assert run("pretrain", *mix, "--out", tmp_path / "run", *OPTIONS, "--max-steps=2").status == 0
    again = "pretrain", "--out", tmp_path / "run", "--resume", "--max-steps=4"
    turned = [mix[0].replace("0.6", "0.4"), mix[1].replace("0.4", "0.6")]
    assert "was trained on another text" in fails(*again, *turned)

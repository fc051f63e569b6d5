import io
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.tokenizers import BPETokenizer
from tests.conftest import Run
from tests.labelled import save_classifier

Fails = Callable[..., str]


def test_a_page_of_a_model_and_a_text(model_dir: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "pages" / "x.html"
    result = run("xray", model_dir, "The quick <b>", "--out", out)
    assert (result.status, result.out) == (0, "")
    assert f"{out}: " in result.err and "kB in one file" in result.err
    page = out.read_text(encoding="utf-8")
    assert "<title>X-ray of model</title>" in page and "GPT-2&#39;s architecture" in page
    assert "<b>" not in page


def test_text_from_stdin(
    model_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.html"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"The fox"), "utf-8"))
    assert run("xray", model_dir, "-", "--out", out).status == 0
    assert "read</p>" in out.read_text(encoding="utf-8")


def test_what_is_refused(
    model_dir: Path, tmp_path: Path, tokenizer: BPETokenizer, fails: Fails, run: Run
) -> None:
    out = tmp_path / "x.html"

    def refused(*args: object, model: Path = model_dir, to: Path = out) -> str:
        return fails("xray", model, *args, "--out", to)

    assert "the text is empty" in refused("")
    assert "but the model can read 16" in refused("Zz" * 30)
    assert "an X-ray holds 2" in refused("Zz" * 4, "--max-tokens=2")
    assert "lone surrogate" in refused("a\udcff")
    assert "NAME.html" in refused("x", to=tmp_path / "page.txt")
    (tmp_path / "folder.html").mkdir()
    assert "is a directory" in refused("x", to=tmp_path / "folder.html")
    spam = save_classifier(tmp_path / "spam", tokenizer)
    assert "is a classifier (" in refused("x", model=spam)
    assert not out.exists()
    out.write_text("mine", encoding="utf-8")
    assert "exists; use --overwrite" in refused("x")
    assert out.read_text(encoding="utf-8") == "mine"
    assert run("xray", model_dir, "x", "--out", out, "--overwrite").status == 0
    assert out.read_text(encoding="utf-8") != "mine"

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, unvouched

Fails = Callable[..., str]


def test_greedy_is_repeatable_and_begins_with_the_prompt(run: Run, model_dir: Path) -> None:
    first = run("generate", model_dir, "The fox", "--max-new-tokens=9")
    assert first.status == 0, first.err
    assert first.out.startswith("The fox") and first.err == ""
    assert run("generate", model_dir, "The fox", "--max-new-tokens=9").out == first.out


def test_a_seed_repeats_all_samples_and_they_differ(run: Run, model_dir: Path) -> None:
    options = ["--temperature=1", "--top-k=50", "--top-p=0.9", "--num-samples=3", "--seed=4"]
    first = run("generate", model_dir, "The", *options, "--max-new-tokens=8")
    assert first.out == run("generate", model_dir, "The", *options, "--max-new-tokens=8").out
    samples = first.out.split("--- sample ")[1:]
    assert len(samples) == 3 and len({s.split("\n", 1)[1] for s in samples}) == 3
    other = run("generate", model_dir, "The", *options[:-1], "--seed=5", "--max-new-tokens=8")
    assert other.out != first.out


def test_a_long_prompt_keeps_its_end_and_says_so(run: Run, model_dir: Path) -> None:
    long = run("generate", model_dir, "The quick brown fox " * 20, "--max-new-tokens=3")
    assert long.status == 0
    assert "the model sees the last 16 of them" in long.err


def test_a_text_longer_than_the_context_goes_on(run: Run, model_dir: Path) -> None:
    assert run("generate", model_dir, "The", "--max-new-tokens=50").status == 0


def test_stop_ends_the_text_before_it(run: Run, model_dir: Path) -> None:
    whole = run("generate", model_dir, "The", "--max-new-tokens=20").out[3:-1]
    stop = whole[5:7]
    out = run("generate", model_dir, "The", "--max-new-tokens=20", "--stop", stop).out
    assert out == "The" + whole[: whole.index(stop)] + "\n"


def test_the_prompt_may_come_from_stdin_or_be_missing(
    run: Run, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"The fox"), encoding="utf-8"))
    assert run("generate", model_dir, "-", "--max-new-tokens=2").out.startswith("The fox")
    assert run("generate", model_dir, "--max-new-tokens=2").status == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature=-1"], "temperature is -1.0; expected 0 (greedy) or more"),
        (["--top-k=1000"], "top_k is 1000; expected 1 to 300"),
        (["--top-p=0"], "top_p is 0.0; expected 0 < top_p <= 1"),
        (["--top-p=1.5"], "top_p is 1.5"),
        (["--max-new-tokens=0"], "max_new_tokens is 0"),
        (["--stop="], "stop string is empty"),
        (["--device=tpu"], "device is 'tpu'"),
        (["--temprature=1"], "Did you mean --temperature?"),
    ],
)
def test_mistakes_in_options(
    fails: Fails, model_dir: Path, options: list[str], message: str
) -> None:
    assert message in fails("generate", model_dir, "The", *options)


def test_a_missing_and_a_broken_model(fails: Fails, tmp_path: Path, model_dir: Path) -> None:
    assert "there is no model directory" in fails("generate", tmp_path / "none", "The")
    (unvouched(model_dir) / "model.safetensors").write_bytes(b"junk")
    assert "is damaged" in fails("generate", model_dir, "The")
    (model_dir / "config.json").unlink()
    assert "config.json is missing" in fails("generate", model_dir, "The")

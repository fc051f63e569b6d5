import io
import re
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
        (["--min-p=2"], "min_p is 2.0; expected 0 to 1"),
        (["--logit-bias.x=1"], "logit_bias has 'x'; expected ids, 0 to 299"),
        (["--regex=(a"], "this regular expression cannot be followed"),
        (["--json-schema=none.json"], "cannot read the JSON schema none.json"),
        (["--regex=a", "--json-schema=pyproject.toml"], "not both"),
        (["--beams=0"], "expected at least 1"),
        (["--beams=2", "--temperature=1"], "leave out the other options"),
        (["--temprature=1"], "Did you mean --temperature?"),
    ],
)
def test_mistakes_in_options(
    fails: Fails, model_dir: Path, options: list[str], message: str
) -> None:
    assert message in fails("generate", model_dir, "The", *options)


def test_a_text_of_a_given_form(run: Run, model_dir: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["fox", "dog"]}', encoding="utf-8")
    assert run("generate", model_dir, "The", "--json-schema", schema).out in (
        'The"fox"\n',
        'The"dog"\n',
    )
    out = run("generate", model_dir, "The", "--regex= (a|b){3}", "--temperature=1", "--seed=1").out
    assert re.fullmatch("The [ab]{3}\n", out)


def test_more_options_of_sampling(run: Run, model_dir: Path) -> None:
    options = ["--logit-bias.65=200", "--max-new-tokens=3"]
    letter = run("generate", model_dir, "The", *options).out[3:4]
    assert run("generate", model_dir, "The", *options).out == f"The{letter * 3}\n"
    others = ["--min-p=0.1", "--repetition-penalty=1.2", "--frequency-penalty=0.1"]
    others.append("--presence-penalty=0.1")
    drawn = run("generate", model_dir, "The", *others, "--temperature=1", "--seed=1")
    assert drawn.status == 0 and drawn.out.startswith("The")


def test_precision(run: Run, fails: Fails, model_dir: Path) -> None:
    given = ["generate", model_dir, "The fox", "--max-new-tokens=3"]
    half = run(*given, "--precision=bf16")
    assert half.status == 0 and half.out.startswith("The fox")
    assert "--precision" in fails(*given, "--precision=fp16")


def test_beams(run: Run, model_dir: Path) -> None:
    found = run("generate", model_dir, "The fox", "--beams=3", "--max-new-tokens=4")
    assert found.status == 0 and found.out.startswith("The fox") and len(found.out) > 8


def test_a_missing_and_a_broken_model(fails: Fails, tmp_path: Path, model_dir: Path) -> None:
    assert "there is no model directory" in fails("generate", tmp_path / "none", "The")
    (unvouched(model_dir) / "model.safetensors").write_bytes(b"junk")
    assert "is damaged" in fails("generate", model_dir, "The")
    (model_dir / "config.json").unlink()
    assert "config.json is missing" in fails("generate", model_dir, "The")


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_model_with_fewer_bytes_per_weight(
    command: str, run: Run, fails: Fails, model_dir: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The fox jumps over the dog. " * 9, encoding="utf-8")
    what = "The fox" if command == "generate" else text
    plain = run(command, model_dir, what)
    found = [run(command, model_dir, what, f"--quantize={kind}") for kind in ("fp16", "int8")]
    assert plain.status == 0 and all(each.status == 0 and each.out for each in found)
    assert "quantize" in fails(command, model_dir, what, "--quantize=int3")


def test_beams_and_what_they_cannot_keep_to(fails: Fails, model_dir: Path) -> None:
    told = fails("generate", model_dir, "The", "--beams=2", "--regex=[0-9]+")
    assert "--beams takes no --json-schema and no --regex" in told

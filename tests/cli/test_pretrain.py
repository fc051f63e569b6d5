"""`groundup pretrain`: what it accepts, and every mistake that it answers."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.train.tracking import read_metrics, read_samples
from groundup.weights.load import load_model
from tests.conftest import LAST, SMALL, TEXT, Run, facts_of, small
from tests.systems import needs_signals

QUICK = [*SMALL, "--max-steps=3", "--eval-freq=2"]
Fails = Callable[..., str]


def test_a_run_reports_its_losses_and_what_to_try_next(
    run: Run, tmp_path: Path, text_file: Path
) -> None:
    out = tmp_path / "run"
    result = run("pretrain", text_file, "--out", out, *QUICK)
    assert result.status == 0, result.err
    assert result.out == ""
    for expected in (
        "tok/s",
        "train",
        "val",
        f"groundup generate {out}",
        f"groundup inspect {out}",
        "groundup pretrain YOUR-TEXT",
    ):
        assert expected in result.err
    assert (out / "plots" / "loss.png").exists()
    load_model(out)


def test_samples_are_shown_after_each_evaluation(run: Run, tmp_path: Path, text_file: Path) -> None:
    options = small("--max-steps=3", "--eval-freq=2", "--sample-tokens=5")
    options.append("--start-context=The lazy")
    result = run("pretrain", text_file, "--out", tmp_path / "run", *options)
    assert result.err.count("  The lazy") == 3  # after steps 1, 2 and 3


def test_stdin_gzip_and_directories(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO((TEXT * 30).encode()), encoding="utf-8")
    )
    assert run("pretrain", "-", "--out", tmp_path / "a", *QUICK).status == 0
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "one.txt.gz").write_bytes(gzip.compress((TEXT * 20).encode()))
    (texts / "two.md").write_text(TEXT * 10, encoding="utf-8")
    assert run("pretrain", texts, "--out", tmp_path / "b", *QUICK).status == 0
    assert facts_of(tmp_path / "b").data.description.startswith("2 documents")


def test_flags_win_over_the_file_and_the_file_over_the_recipe(
    run: Run, tmp_path: Path, text_file: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        '[training]\nbatch_size = 2\nlearning_rate = 3e-3\ntokenizer = "bpe"\n', "utf-8"
    )
    options = small("--recipe=course", f"--config={config}", "--batch-size=3", "--preset=nano")
    options += ["--max-steps=2"]
    assert run("pretrain", text_file, "--out", tmp_path / "run", *options).status == 0
    saved = facts_of(tmp_path / "run").options
    assert saved["batch_size"] == 3  # the flag
    assert saved["learning_rate"] == 3e-3  # the file
    assert saved["eval_iter"] == 5  # the recipe
    assert saved["save_freq"] == 500  # the default


def test_resume_needs_no_files_and_no_options_again(
    run: Run, tmp_path: Path, text_file: Path
) -> None:
    out = tmp_path / "run"
    run("pretrain", text_file, "--out", out, *QUICK)
    result = run("pretrain", "--out", out, "--resume", "--max-steps=5")
    assert result.status == 0, result.err
    assert read_metrics(out)[-1]["step"] == 5
    assert facts_of(out).shape["emb_dim"] == 32


def test_a_run_that_was_killed_after_its_last_save_is_completed(
    run: Run, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing catches it."""

    def kill(*args: object) -> None:
        raise Killed

    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("groundup.tasks.run.plot_run", kill)
        run("pretrain", text_file, "--out", out, *QUICK)
    for _ in range(2):  # and once more does no harm
        result = run("pretrain", "--out", out, "--resume")
        assert result.status == 0, result.err
        assert "steps already" in result.err and "\ndone after" in result.err
        assert (out / "plots" / "loss.png").exists()


def test_resume_verifies_what_it_goes_on_from(
    run: Run, fails: Fails, tmp_path: Path, text_file: Path
) -> None:
    out = tmp_path / "run"
    run("pretrain", text_file, "--out", out, *QUICK)
    path = out / "checkpoints" / "last" / "training_state" / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    again = "pretrain", "--out", out, "--resume", "--max-steps=5"
    message = fails(*again)
    assert "checkpoints/last is not as it was saved" in message
    assert "(training_state/optimizer.safetensors: its SHA-256 is another one)" in message
    assert "--keep 2 would have kept the one before it" in message
    assert run(*again, "--no-verify").status == 0


def test_resume_refuses_what_would_make_it_another_run(
    run: Run, fails: Fails, tmp_path: Path, text_file: Path
) -> None:
    out = tmp_path / "run"
    run("pretrain", text_file, "--out", out, *QUICK)
    message = fails("pretrain", "--out", out, "--resume", "--emb-dim=64", "--max-steps=9")
    assert "would change emb_dim 32 to 64" in message
    text_file.write_text(TEXT * 40, encoding="utf-8")
    assert "trained on another text" in fails("pretrain", "--out", out, "--resume")
    assert "holds no run to resume" in fails("pretrain", "--out", tmp_path / "no", "--resume")


def test_an_existing_directory_needs_a_flag_and_loses_nothing(
    run: Run, fails: Fails, tmp_path: Path, text_file: Path
) -> None:
    out = tmp_path / "run"
    run("pretrain", text_file, "--out", out, *QUICK)
    before = (out / "model.safetensors").read_bytes()
    message = fails("pretrain", text_file, "--out", out, *QUICK, "--seed=7")
    assert "--resume" in message and "--overwrite" in message
    # A mistake in another option must not cost the old run, even with --overwrite.
    fails("pretrain", text_file, "--out", out, *QUICK, "--overwrite", "--n-heads=5")
    fails("pretrain", tmp_path / "none", "--out", out, *QUICK, "--overwrite")
    fails("pretrain", text_file, "--out", out, *small("--context-length=99999"), "--overwrite")
    assert (out / "model.safetensors").read_bytes() == before
    both = fails("pretrain", text_file, "--out", out, *QUICK, "--overwrite", "--resume")
    assert "contradict" in both
    assert run("pretrain", text_file, "--out", out, *QUICK, "--overwrite", "--seed=7").status == 0
    assert (out / "model.safetensors").read_bytes() != before


def test_overwrite_never_deletes_what_is_not_ours(
    fails: Fails, tmp_path: Path, text_file: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work", "utf-8")
    assert "not made by groundup" in fails(
        "pretrain", text_file, "--out", home, *QUICK, "--overwrite"
    )
    assert (home / "thesis.txt").read_text("utf-8") == "years of work"
    assert "is a file" in fails("pretrain", text_file, "--out", home / "thesis.txt", *QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-heads=5"], "emb_dim (32) is not divisible by n_heads (5)"),
        (["--bach-size=2"], "Unknown option: --bach-size=2. Did you mean --batch-size?"),
        (["--batch-size=two"], "--batch-size: 'two' is not a whole number"),
        (["--precision=fp12"], "fp12"),
        (["--batch-size=0"], "batch_size is 0; expected at least 1"),
        (["--stride=0"], "stride is 0; expected at least 1"),
        (["--sample-tokens=-1"], "sample_tokens is -1"),
        (["--sample-temperature=-1", "--sample-tokens=5"], "sample_temperature is -1"),
        (["--context-length=4096"], "one window needs context_length + 1 = 4097"),
        (["--train-ratio=0.999"], "the validation split has"),
        (["--train-ratio=1.5"], "train_ratio is 1.5"),
        (["--preset=gpt3"], "unknown preset 'gpt3'"),
        (["--recipe=cours"], "did you mean 'course'?"),
        (["--tokenizer=gpt2"], "vocab_size is 300, but the tokenizer gpt2 has 50257"),
        (["--tokenizer=nowhere"], "unknown tokenizer 'nowhere'"),
        (["--vocab-size=100"], "100"),
        (["--device=tpu"], "device is 'tpu'"),
        (["--init-from=nowhere"], "there is no model directory 'nowhere'"),
        (["--config=nowhere.toml"], "cannot read the config file nowhere.toml"),
    ],
)
def test_mistakes_in_options(
    fails: Fails, tmp_path: Path, text_file: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "run"
    assert message in fails("pretrain", text_file, "--out", out, *small(*options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        ("Käse".encode("latin-1"), "is not UTF-8: byte 0xe4 at offset 1"),
        (b"short", "the training split has"),
    ],
)
def test_mistakes_in_the_text(
    fails: Fails, tmp_path: Path, data: bytes | None, message: str
) -> None:
    path = tmp_path / "text.txt"
    if data is not None:
        path.write_bytes(data)
    assert message in fails("pretrain", path, "--out", tmp_path / "run", *QUICK)
    assert not (tmp_path / "run").exists()


def test_a_mistake_in_the_config_file_names_the_key(
    fails: Fails, tmp_path: Path, text_file: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text("emb_dmi = 64\n", "utf-8")
    message = fails("pretrain", text_file, "--out", tmp_path / "run", "--config", config)
    assert "unknown key 'emb_dmi'; did you mean 'emb_dim'?" in message


def test_going_on_from_a_model(run: Run, fails: Fails, tmp_path: Path, text_file: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run("pretrain", text_file, "--out", first, *QUICK)
    more = ["--max-steps=2", "--sample-tokens=0", "--batch-size=4", f"--init-from={first}"]
    assert run("pretrain", text_file, "--out", second, *more).status == 0
    assert load_model(second)[0].cfg == load_model(first)[0].cfg
    message = fails("pretrain", text_file, "--out", tmp_path / "x", *more, "--preset=nano")
    assert "brings its own shape, tokenizer and weights; leave out --preset" in message


def test_the_demo_can_be_resumed(run: Run, fails: Fails, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    run("demo", "--out", out, *small("--max-steps=2", "--context-length=32"))
    result = run("demo", "--out", out, "--resume", "--max-steps=3")
    assert result.status == 0 and "planned for 2 steps and now has 3" in result.err
    assert read_metrics(out)[-1]["step"] == 3


def test_a_text_from_stdin_must_be_given_again(
    run: Run, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO((TEXT * 30).encode()), encoding="utf-8")
    )
    run("pretrain", "-", "--out", tmp_path / "run", *QUICK)
    message = fails("pretrain", "--out", tmp_path / "run", "--resume", "--max-steps=5")
    assert "read its text from stdin; give it again" in message


def test_resuming_from_elsewhere_says_what_is_missing(
    run: Run, fails: Fails, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("pretrain", text_file.name, "--out", "run", *QUICK)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    resume = ["--out", "../run", "--resume", "--max-steps=5"]
    assert "is not at 'text.txt' (seen from here)" in fails("pretrain", *resume)
    assert run("pretrain", text_file, *resume).status == 0


def test_of_two_limits_the_new_one_counts(run: Run, tmp_path: Path, text_file: Path) -> None:
    run("pretrain", text_file, "--out", tmp_path / "run", *QUICK)
    result = run("pretrain", "--out", tmp_path / "run", "--resume", "--epochs=1")
    assert result.status == 0, result.err
    assert read_metrics(tmp_path / "run")[-1]["epoch"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size=1.5"], "'1.5' is not a whole number"),
        (["--seed=99999999999999999999999"], "expected 0 to 2**63 - 1"),
        (["--warmup-steps=99"], "warmup_steps is 99, but the run has only 3 steps"),
        (["--min-learning-rate=5"], "is above learning_rate"),
        (["--emb-dim=1000000", "--n-heads=1"], "there is not enough memory"),
        (["--emb-dim=1000000000", "--n-heads=1"], "emb_dim is 1000000000; expected"),
    ],
)
def test_absurd_values(
    fails: Fails, tmp_path: Path, text_file: Path, options: list[str], message: str
) -> None:
    given = small("--max-steps=3", *options)
    assert message in fails("pretrain", text_file, "--out", tmp_path / "run", *given)
    assert not (tmp_path / "run").exists()


def test_none_is_a_value_too(run: Run, tmp_path: Path, text_file: Path) -> None:
    options = small("--recipe=course", "--eval-iter=none", "--preset=nano", "--tokenizer=bpe")
    run("pretrain", text_file, "--out", tmp_path / "run", *options, "--max-steps=1")
    assert facts_of(tmp_path / "run").options["eval_iter"] is None


def test_no_text_at_all(fails: Fails, tmp_path: Path) -> None:
    assert "no text given" in fails("pretrain", "--out", tmp_path / "run")
    assert "--out" in fails("pretrain", "text.txt")


def test_divergence_ends_with_status_1(run: Run, tmp_path: Path, text_file: Path) -> None:
    options = [*SMALL, "--max-steps=60", "--learning-rate=1e30", "--grad-clip=0"]
    result = run("pretrain", text_file, "--out", tmp_path / "run", *options)
    assert result.status == 1
    assert "learning rate" in result.err and "gradient norm" in result.err
    assert "Traceback" not in result.err


def test_a_full_disk_ends_with_one_sentence_and_the_last_checkpoint(
    run: Run, fails: Fails, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    run("pretrain", text_file, "--out", out, *QUICK)
    before = (out / "model.safetensors").read_bytes()

    def full(*args: object, **more: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("groundup.weights.tensors.save_file", full)
    message = fails("pretrain", "--out", out, "--resume", "--max-steps=6")
    assert "no space left while saving" in message
    assert (out / "model.safetensors").read_bytes() == before


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "groundup", "pretrain", "none.txt", f"--out={tmp_path}/x"]
    plain = subprocess.run(command, capture_output=True, text=True)
    assert plain.returncode == 2 and "Traceback" not in plain.stderr
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True)
    assert "Traceback" in debug.stderr


@needs_signals
def test_ctrl_c_saves_and_resume_goes_on(run: Run, tmp_path: Path, text_file: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "groundup", "pretrain", str(text_file), "--out", str(out)]
    process = subprocess.Popen(
        [*command, *SMALL, "--max-steps=100000", "--eval-freq=50000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(read_metrics(out)) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "--resume" in err
    assert "of step 1; the last one is --checkpoint last" in err
    step = facts_of(out / LAST).progress["step"]
    assert step >= 5
    result = run("pretrain", "--out", out, "--resume", f"--max-steps={int(step) + 2}")
    assert result.status == 0, result.err
    steps = [r["step"] for r in read_metrics(out) if "running_loss" not in r]
    assert steps == list(range(1, int(step) + 3))


def test_the_demo_runs_and_trains_on_the_embedded_text(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = run("demo", "--out", out, *small("--max-steps=3", "--context-length=32"))
    assert result.status == 0, result.err
    assert "Python's language reference" in result.err
    card = json.loads((out / "groundup.json").read_text("utf-8"))
    assert card["data"]["train_tokens"] > 100_000


def test_steps_that_are_asked_for_win_over_a_recipes_minutes(run: Run, tmp_path: Path) -> None:
    asked = small("--max-steps=3", "--context-length=32")
    result = run("demo", "--out", tmp_path / "a", *asked)
    assert result.status == 0 and "plan:" not in result.err, result.err
    assert facts_of(tmp_path / "a" / LAST).options["minutes"] is None
    asked = small("--minutes=1e-9", "--context-length=32")  # no machine is that fast
    result = run("demo", "--out", tmp_path / "b", *asked)
    assert result.status == 0 and "plan: 1 steps" in result.err, result.err
    assert facts_of(tmp_path / "b" / LAST).options["max_steps"] == 1


def test_a_validation_text_of_ones_own(
    tmp_path: Path, run: Run, fails: Callable[..., str], data_dir: Path
) -> None:
    text, other, out = data_dir / "the-verdict.txt", tmp_path / "val.txt", tmp_path / "run"
    other.write_text(text.read_text(encoding="utf-8")[:5000] + "!", encoding="utf-8")
    small = ("--vocab-size", 300, "--context-length", 16, "--emb-dim", 16, "--n-heads", 2)
    small = (*small, "--n-layers", 1, "--sample-tokens", 0, "--eval-iter", 1)
    done = run("pretrain", text, "--validation", other, "--out", out, "--max-steps", 2, *small)
    assert done.status == 0, done.err
    assert run("pretrain", "--out", out, "--resume", "--max-steps", 3).status == 0
    same = fails("pretrain", text, "--validation", text, "--out", tmp_path / "b", *small)
    assert "the text to validate on is also one to train on" in same
    both = ("--validation", other, "--train-ratio", 0.5)
    assert "leave out --train-ratio" in fails("pretrain", text, *both, "--out", tmp_path / "b")


def test_a_cluster_that_takes_the_machine_gets_a_status_to_queue_again(
    run: Run, tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slurm does it: SIGUSR1 ahead of time, SIGTERM at the end."""
    from groundup.train.tracking import MetricsFile

    out, options = tmp_path / "run", small("--max-steps=6", "--eval-freq=2")

    class Cluster(MetricsFile):
        def on_step(self, record: dict[str, float]) -> None:
            super().on_step(record)
            if record["step"] == 3:
                signal.raise_signal(signal.SIGUSR1)
                signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("groundup.tasks.run.MetricsFile", Cluster)
        left = run("pretrain", text_file, "--out", out, *options)
    assert left.status == 75
    assert "SIGUSR1: stopping after this step and saving; the status will be 75" in left.err
    assert "stopped after 3 steps" in left.err
    assert facts_of(out / LAST).progress["step"] == 3
    assert run("pretrain", text_file, "--out", out, *options, "--resume").status == 0
    assert [r["step"] for r in read_metrics(out) if "running_loss" not in r] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_last_checkpoint_is_not_gone_on_from(
    run: Run, tmp_path: Path, text_file: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = small("--save-freq=2", "--keep=2", "--eval-freq=3", "--sample-tokens=2")
    run("pretrain", text_file, "--out", whole, *options, "--max-steps=7")
    run("pretrain", text_file, "--out", broken, *options, "--max-steps=7")
    (broken / LAST / "groundup.json").write_text(
        "{", encoding="utf-8"
    )  # the training's tests damage other files
    done = run("pretrain", "--out", broken, "--resume")
    assert done.status == 0, done.err
    assert f"warning: {broken / LAST} is not as it was saved (groundup.json: " in done.err
    assert f"the run goes on from {broken / 'checkpoints' / 'step-6'} instead" in done.err
    ours, theirs = (load_model(d, checkpoint="last")[0].state_dict() for d in (whole, broken))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    timed = {"seconds", "tokens_per_second"}
    for read in (read_metrics, read_samples):
        ours, theirs = (
            [{n: v for n, v in row.items() if n not in timed} for row in read(d)]
            for d in (whole, broken)
        )
        assert ours == theirs and ours[-1]["step"] == 7


@pytest.mark.parametrize(
    ("option", "message"),
    [("--keep=-1", "keep is -1; expected 0 or more"), ("--save-minutes=0", "save_minutes is 0")],
)
def test_mistakes_in_how_to_save(
    fails: Fails, tmp_path: Path, text_file: Path, option: str, message: str
) -> None:
    assert message in fails("pretrain", text_file, "--out", tmp_path / "run", *small(option))

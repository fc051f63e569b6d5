"""Every command and every snippet of the README runs as it stands there."""

import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from groundup.data.sources import DATA, KnownFile
from groundup.model.gpt import GPTModel
from groundup.tokenizers import get_gpt2_tokenizer
from groundup.weights.export import export
from tests.conftest import Run, small, tiny_config
from tests.data.fault_server import FaultServer, allow_network, play_hub
from tests.judge.fake_llm import FakeLLM
from tests.openai_files import write_openai_directory

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(tool: str) -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.split(" ")[0] == tool]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultServer]:
    """Plays the Hugging Face Hub and OpenAI's store, with a small GPT-2 of random weights."""
    from huggingface_hub import constants

    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    allow_network(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    model = GPTModel(tiny_config(vocab_size=50257, context_length=64, n_heads=12, emb_dim=24))
    export(model, get_gpt2_tokenizer(), "hf", tmp_path / "served" / "hub")
    write_openai_directory(tmp_path / "served" / "openai", model, get_gpt2_tokenizer())
    with FaultServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr("groundup.data.sources.OPENAI", (f"{server.url}/",))
        files = (tmp_path / "served" / "hub").iterdir()
        play_hub(server, {path.name: path.read_bytes() for path in files if path.is_file()})
        for path in (tmp_path / "served" / "openai").iterdir():
            server.serve(f"/124M/{path.name}", path.read_bytes())
        server.serve("/124M/model.ckpt.meta", b"not needed")
        for name, content in (("sms-spam", messages()), ("instructions", instructions())):
            server.serve(f"/{name}", content)
            known = KnownFile(DATA[name].name, (f"{server.url}/{name}",), len(content))
            monkeypatch.setitem(DATA, name, known)
        yield server


def messages() -> bytes:
    """As many kinds of messages as the SMS Spam Collection has, but few of each."""
    ham = [f"ham\tare you coming to lunch at {n}, or later?" for n in range(40)]
    spam = [f"spam\tWINNER!! Call 0906{n:04} now to claim your prize" for n in range(20)]
    return "\n".join(ham + spam).encode()


def instructions() -> bytes:
    entries = [
        {"instruction": f"Add {n} and 1.", "input": "", "output": str(n + 1)} for n in range(60)
    ]
    return json.dumps(entries).encode()


@pytest.fixture
def folder(server: FaultServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as after `make demo`, with a demo of a few steps."""
    for name in ("README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("demo", *small("--max-steps=3", "--context-length=32")).status == 0
    return tmp_path


def test_every_groundup_command_runs(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = commands("groundup")
    assert len(found) >= 28
    said = io.TextIOWrapper(io.BytesIO(b"What is 1 and 1?\n"))  # to chat
    monkeypatch.setattr("sys.stdin", said)
    with FakeLLM() as llm:
        monkeypatch.setenv("OLLAMA_HOST", llm.url)
        for arguments in found:
            result = run(*arguments)
            assert result.status == 0, (arguments, result.err)
    assert len(llm.asked) == 6  # a tenth of the instructions


def test_every_python_snippet_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks("python")
    assert len(found) >= 3
    for code in found:
        exec(compile(code, "README.md", "exec"), {})
    assert "tensor([[15496,    11,   314,   716," in capsys.readouterr().out


def test_ci_runs_the_make_commands() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = [arguments[0] for arguments in commands("make")]
    assert targets == ["demo", "test"]
    for target in targets:
        assert f"\nmake {target}\n" in ci


def test_links_and_pictures_exist() -> None:
    paths = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert paths
    for path in paths:
        assert "://" in path or (ROOT / path).exists(), path


def test_measured_figures_are_those_of_the_committed_results() -> None:
    results = {
        name: json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["results"]
        for name in (
            *("train", "generate", "tokenizer", "course", "loading-gpt2-xl"),
            *("classify_ratio", "classify_random", "classify_small"),
            *("instruct_ratio", "instruct_quality", "contention-avx2"),
        )
    }
    rows = {line.split(" |")[0]: line for line in README.splitlines() if line.startswith("| ")}

    def speed(kind: str, way: str) -> float:
        return results[kind][way]["tokens_per_second"]

    training = rows["| training, batch 4 x 256, bf16, tokens/s"]
    assert (
        f"**{speed('train', 'groundup bf16'):.0f}** | {speed('train', 'transformers bf16'):.0f}"
        in training
    )
    training = rows["| training, batch 4 x 256, fp32, tokens/s"]
    for way in ("groundup", "transformers", "course"):
        assert f"{speed('train', f'{way} fp32'):.0f}" in training
    generation = rows["| generation, fp32, prompt 64 + 64, tokens/s"]
    for way in ("groundup", "transformers", "course"):
        assert f" {speed('generate', way)} " in generation
    text = " ".join(README.split())
    train = results["tokenizer"]["train_vs_tokenizers"]
    assert f"takes {train['ours_s']:.2f} s in our Python and {train['theirs_s']:.2f} s" in text
    encode = [
        results["tokenizer"][f"encode_{kind}_vs_tiktoken"]["ratio"] for kind in ("warm", "cold")
    ]
    assert "takes {:.1f} to {:.1f} times as long as tiktoken".format(*encode) in text
    assert f"{results['loading-gpt2-xl']['ratio']['with files']:.2f} times the memory" in text
    ratio = results["classify_ratio"]
    assert f"takes {ratio['seconds']['groundup']:.0f} s here and 1,0" in text
    assert f"{ratio['seconds']['course']:,.0f} s with the course's code, " in text
    assert f"{ratio['times_faster']:.1f} times as long" in text
    assert f"accuracy is {results['classify_random']['median_balanced_test_accuracy']:.1%}" in text
    spam = results["classify_small"]
    assert f"at most {spam['longest_seconds']:.0f} s from file to report" in text
    theirs = spam["scikit_learn"]
    for name, found in (
        ("groundup, small GPT from scratch", spam),
        ("scikit-learn, TF-IDF of characters + logistic", theirs["characters, 2-5 grams"]),
        ("scikit-learn, TF-IDF of words + logistic regression", theirs["words, 1-2 grams"]),
    ):
        row = next(line for line in README.splitlines() if line.startswith(f"| {name}"))
        row = row.replace("*", "")
        assert f"| {found['mean_balanced_test_accuracy']:.1%} |" in row
        parts = (found["test_spam"][key] for key in ("precision", "recall", "f1"))
        assert ", ".join(f"{part:.1%}" for part in parts) in row
    quality = results["instruct_quality"]
    first, *_, last = quality["val_loss_by_epoch"].values()
    assert f"fallen from {first:.2f} to {last:.2f}, and" in text
    assert f"and {quality['ended_by_end_of_text']:.0%} of the answers to the" in text
    ratio = results["instruct_ratio"]
    assert f"{ratio['times_faster']:.1f} times as long with the course's code" in text
    assert f"take {median(ratio['seconds']['groundup']):.0f} s on one thread" in text
    assert f"answers to the {quality['test_entries']} test entries" in text
    spun = results["contention-avx2"]["tokens per second"]
    for way, told in (
        ("chosen by measurement", "{:,} alone, {:,} beside a busy process, {:,} beside a second"),
        ("libgomp's default", "default {:,}, {:,} and {:,}."),
    ):
        places = ("alone", "beside a busy process", "beside a second training")
        assert told.format(*(spun[way][place] for place in places)) in text
    end = results["course"]["at_the_end"]
    assert f"{end['train_loss']:.2f} on the training text and {end['val_loss']:.2f}" in text

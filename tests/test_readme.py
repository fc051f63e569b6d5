"""Every command and every snippet of the README runs as it stands there."""

import importlib.util
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    assert run("demo", *small("--max-steps=3", "--context-length=160")).status == 0
    return tmp_path


def test_every_groundup_command_runs(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = commands("groundup")
    assert len(found) >= 28
    said = io.TextIOWrapper(io.BytesIO(b"What is 1 and 1?\n"), encoding="utf-8")  # to chat
    monkeypatch.setattr("sys.stdin", said)
    with FakeLLM() as llm:
        monkeypatch.setenv("OLLAMA_HOST", llm.url)
        for arguments in found:
            result = run(*arguments)
            assert result.status == 0, (arguments, result.err)
    # A tenth of the instructions; and three answers to each of them, of which the judge is judged.
    assert len(llm.asked) == 6 + 3 * 6


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


DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for folder in (ROOT, ROOT / "docs", ROOT / "notebooks")
    for path in folder.glob("*.md")
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_and_pictures_exist(document: Path) -> None:
    text = (ROOT / document).read_text("utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if "://" in link:
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            assert heading in [anchor(found) for found in headings], link


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_what_troubleshooting_quotes_is_what_is_said() -> None:
    """Each heading there is a part of a sentence of ours, `…` being what differs."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    source = " ".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    said = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*f?"', "", " ".join(source.split())))
    quoted = re.findall(r"^### `(.*)`$", text, re.MULTILINE)
    assert len(quoted) > 15
    for sentence in quoted:
        for part in sentence.split("…"):
            assert part.strip() in said, sentence


def test_measured_figures_are_those_of_the_committed_results() -> None:
    figures = load(ROOT / "benchmarks" / "figures.py")
    for page in figures.TABLES:
        assert figures.filled(page) == (ROOT / page).read_text("utf-8"), "run `make figures`"
    assert figures.measured() == (ROOT / "docs" / "measured.md").read_text("utf-8")
    # Neither by hand in a template: nothing but results, settings and words.
    assert "**399** | 253" in README and "| 3,773 | 3,616 |" in figures.measured()


def load(path: Path) -> Any:
    """A script that lies outside the package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

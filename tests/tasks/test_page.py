import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from groundup.cli.app import app
from groundup.data.text import embedded_documents, fingerprint
from groundup.errors import UserError
from groundup.facts import Base, Data, Facts, Schedule
from groundup.pages import inline_svg
from groundup.tasks.config import ClassifyConfig, InstructConfig, PretrainConfig
from groundup.tasks.page import PAGE, describe, write_page
from groundup.tasks.pretrain import pretrain
from groundup.tasks.reproduce import changed_options, command_of
from groundup.train.tracking import SAMPLES, SamplesFile, read_metrics, read_samples
from tests.conftest import TEXT, Run, facts_of, small
from tests.labelled import labelled, write_csv

EVIL = '</td><script>alert(1)</script><img src="http://evil.example/x.png"> {{ 7 * 7 }} \x00\u202e'


class Read(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def shown(self) -> str:
        return "".join(self.texts)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, all of whose texts try to break out of the page."""
    out = tmp_path_factory.mktemp("evil") / 'run <b>&"x"'
    torch.set_num_threads(1)
    config = PretrainConfig(
        batch_size=4,
        max_steps=6,
        eval_freq=2,
        sample_tokens=4,
        precision="fp32",
        preset="nano",
        start_context=EVIL,
        threads=1,
    )
    shape = {"vocab_size": 300, "context_length": 16, "emb_dim": 16, "n_layers": 1}
    pretrain([TEXT * 20], out, config, shape, description=EVIL, say=lambda text: None)
    return out


def test_the_page_is_one_file_that_loads_nothing(evil: Path) -> None:
    text = (evil / PAGE).read_text(encoding="utf-8")
    page = Read(text)
    assert page.open == []  # every tag that begins ends
    forbidden = {"script", "img", "link", "iframe", "a", "object", "embed", "base", "form"}
    assert forbidden.isdisjoint(page.tags)
    assert page.tags.count("svg") == 3
    for name, value in page.attributes:
        assert not name.startswith("on") and "http" not in value
        if name in ("src", "href", "xlink:href"):
            assert value.startswith("#")
        assert all(link.startswith("#") for link in re.findall(r"url\((.*?)\)", value))
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style and "color-scheme: light dark" in style


def test_what_anybody_wrote_is_text(evil: Path) -> None:
    shown = Read((evil / PAGE).read_text(encoding="utf-8")).shown
    told = EVIL.replace("\x00\u202e", "\\x00\\u202e")
    samples = read_samples(evil)
    assert shown.count(told) == len(samples) + 3  # the data, an option, the command
    assert "\x00" not in shown and "\u202e" not in shown
    assert 'run <b>&"x"' in shown


def test_the_page_says_how_it_went(evil: Path) -> None:
    page = describe(evil)
    metrics = read_metrics(evil)
    best = min((r for r in metrics if "val_loss" in r), key=lambda r: r["val_loss"])
    assert [moment[""] for moment in page.moments] == ["best", "last"]
    assert page.moments[0]["validation loss"] == f"{best['val_loss']:.4f}"
    assert page.moments[1]["step"] == "6"
    assert ("steps", "6") in page.tiles
    assert dict(page.model)["emb dim"] == "16" and dict(page.data)["tokens to train on"]
    machine = dict(page.machine)
    assert machine["threads"].startswith("1 on ") and "fp32" in machine["device"]
    assert "torch" in machine["versions"] and machine["processor"]
    changed = {name for name, _, differs in page.options if differs}
    assert {"batch size", "max steps", "start context"} <= changed
    assert "learning rate" not in changed and "warmup steps" not in changed
    assert any(line.startswith("groundup generate ") for line in page.use)


def test_samples_are_kept_and_a_few_are_shown(evil: Path) -> None:
    samples = read_samples(evil)
    assert [row["step"] for row in samples] == [1, 2, 4, 6]
    assert all(row["prompt"] == EVIL for row in samples) and any(row["text"] for row in samples)
    many = SamplesFile(evil.parent / "many")
    (evil.parent / "many").mkdir()
    for step in range(40):
        many.add({"step": step, "epoch": step / 10}, "a", "b")
    assert len(read_samples(evil.parent / "many")) == 40


def test_going_on_drops_the_samples_of_steps_that_will_come_again(tmp_path: Path) -> None:
    first = SamplesFile(tmp_path)
    for step in (1, 5, 10):
        first.add({"step": step, "epoch": 0.5}, "it", f" is {step}")
    with (tmp_path / SAMPLES).open("a", encoding="utf-8") as file:
        file.write('{"step": 11, "epo')  # a crash
    again = SamplesFile(tmp_path, resume_step=5)
    again.add({"step": 6, "epoch": 0.6}, "it", " is 6")
    assert [row["text"] for row in read_samples(tmp_path)] == [" is 1", " is 5", " is 6"]
    (tmp_path / SAMPLES).write_text('{"step": 1, "epoch": 1, "prompt": 3, "text": ""}\n', "utf-8")
    with pytest.raises(UserError, match=r"samples\.jsonl is damaged: line 1 is no sample"):
        read_samples(tmp_path)


def test_a_run_without_samples_has_no_file_of_them(tmp_path: Path) -> None:
    SamplesFile(tmp_path)
    assert not (tmp_path / SAMPLES).exists() and read_samples(tmp_path) == []


def test_a_directory_without_a_run_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        write_page(tmp_path)


def test_pictures_within_a_page_take_its_colours() -> None:
    picture = '<?xml?>\n<svg xmlns="http://w3" xmlns:xlink="http://x"><g id="axes_1"><path '
    picture += 'style="stroke: #0072b2"/></g><text style="fill: #333333">#0072B2</text></svg>'
    drawn = inline_svg(picture)
    assert drawn.startswith("<svg><g><path") and "http" not in drawn
    assert "stroke: var(--c1, #0072b2)" in drawn and "fill: var(--c0, #333333)" in drawn


def repeat(run: Run, out: Path) -> Path:
    """Do as the page says; return the new run's directory."""
    command = command_of(facts_of(out), out)
    words = shlex.split(command)
    assert words[0] == "groundup"
    result = run(*words[1:])
    assert result.status == 0, result.err
    return Path(f"{out}-again")


def same_weights(first: Path, second: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def test_the_command_makes_the_same_model_again(tmp_path: Path, run: Run, text_file: Path) -> None:
    out = tmp_path / "a run's"
    flags = small("--max-steps=4", "--eval-freq=2", "--eval-iter=none", "--start-context=-'x $y")
    first = run("pretrain", text_file, f"--out={out}", *flags, "--no-tie-weights", "--seed=5")
    assert first.status == 0, first.err
    assert (out / PAGE).exists() and str(out / PAGE) in first.err
    again = repeat(run, out)
    assert same_weights(out, again)
    same = facts_of(out).options.items() ^ facts_of(again).options.items()
    assert not same


def test_a_classifiers_command_makes_it_again(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.tasks.classify.write_report", lambda reports, out: None)
    data, out = write_csv(tmp_path / "texts.csv", labelled()), tmp_path / "spam"
    flags = "--emb-dim=16 --n-heads=2 --vocab-size=300 --max-steps=3 --precision=fp32".split()
    first = run("classify", "train", f"--data={data}", f"--out={out}", *flags, "--stratify")
    assert first.status == 0, first.err
    assert same_weights(out, repeat(run, out))


def facts(config: Any, **more: Any) -> Facts:
    options = {name: getattr(config, name) for name in config.__dataclass_fields__}
    shape = {"vocab_size": 2048, "drop_rate": 0.0, "context_length": 64, "n_heads": 3}
    return Facts(task=config.TASK, options=options, shape=shape, **more)


@pytest.mark.parametrize(
    ("made", "expected", "absent"),
    [
        (
            facts(PretrainConfig(minutes=2.0), schedule=Schedule(100, 5)),
            ["pretrain TEXT", "--max-steps=100", "--drop-rate=0.0"],
            ["--minutes", "--warmup", "--epochs"],
        ),
        (
            facts(
                PretrainConfig(init_from="gpt2"),
                data=Data(files=["a b.txt", "stdin"]),
                schedule=Schedule(100, 50),
            ),
            ["pretrain 'a b.txt'", "--init-from=gpt2", "--context-length=64"],
            ["--preset", "--tokenizer", "--vocab-size"],
        ),
        (
            facts(InstructConfig(model="gpt2", data="instructions", style="chatml")),
            ["instruct train", "--data=instructions", "--model=gpt2", "--style=chatml"],
            ["--lora", "--vocab-size", "--n-heads"],
        ),
        (
            facts(InstructConfig(model="x.pth", train="lora", lora_rank=4), base=Base("x.pth")),
            ["--data=TEXT", "--model=x.pth", "--train=lora", "--lora-rank=4", "--n-heads=3"],
            ["--vocab-size"],
        ),
        (
            facts(ClassifyConfig(model="gpt2", data="sms-spam", epochs=None, max_steps=5)),
            ["classify train", "--data=sms-spam", "--epochs=none", "--max-steps=5"],
            ["--preset", "--balance", "--tokenizer"],
        ),
        (
            facts(ClassifyConfig(data="a.csv", train="all", tokenizer="gpt2")),
            ["--preset=tiny", "--balance=undersample", "--token-dropout=0.0", "--tokenizer=gpt2"],
            ["--vocab-size"],
        ),
        (
            facts(PretrainConfig(), data=Data(sha256=fingerprint(embedded_documents()))),
            ["groundup demo", "--start-context='Every effort", "--stride=none"],
            ["TEXT"],
        ),
    ],
)
def test_commands_say_what_they_must(made: Facts, expected: list[str], absent: list[str]) -> None:
    command = command_of(made, Path("runs/x"))
    plain = command.replace("'--start-context=", "--start-context='")
    for words in (*expected, "--out=runs/x-again"):
        assert words in plain
    for words in absent:
        assert words not in command
    app.parse_args(shlex.split(command)[1:], print_error=False, exit_on_error=False)


def test_what_was_not_made_here_cannot_be_made_again() -> None:
    with pytest.raises(UserError, match="not made by a command"):
        command_of(Facts(), Path("x"))
    assert changed_options(Facts(options={"seed": 1})) == set()
    kept = replace(facts(PretrainConfig(warmup_steps=5)), schedule=Schedule(100, 5))
    assert "warmup_steps" not in changed_options(kept)

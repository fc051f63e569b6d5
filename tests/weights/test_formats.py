"""The list of formats: whose a path is, and that what is said of a model is what is opened."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.facts import Base, Facts
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.tokenizers import BPETokenizer
from groundup.weights import load as module
from groundup.weights.checkpoint import save_model
from groundup.weights.gguf import export_gguf
from groundup.weights.load import (
    FORMATS,
    Asked,
    Format,
    load_model,
    read_facts,
    read_shape,
)
from groundup.weights.torch_files import save_course_file
from tests.conftest import tiny_config
from tests.labelled import save_classifier

OPENAI, ADAPTER, GGUF, FILE, DIRECTORY = FORMATS
FIXTURE = Path(__file__).parent / "data" / "openai-tiny"  # written by TensorFlow

KINDS = {
    "openai": OPENAI,
    "adapter": ADAPTER,
    "gguf": GGUF,
    "file": FILE,
    "ours": DIRECTORY,
    "theirs": DIRECTORY,
    "classifier": DIRECTORY,
    "lora": DIRECTORY,
    "peft": DIRECTORY,
}


@pytest.fixture
def make(tmp_path: Path, tokenizer: BPETokenizer) -> Callable[[str], Path]:
    """A model of a kind."""
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size, qkv_bias=False))

    def call(kind: str) -> Path:
        out = tmp_path / kind
        if kind == "openai":
            return shutil.copytree(FIXTURE, out)
        if kind == "gguf":
            export_gguf(model, tokenizer, out, "f32", name="m")
            return out
        if kind == "file":
            save_course_file(model, out)
            return out
        if kind == "classifier":
            return save_classifier(out, tokenizer)
        if kind in ("adapter", "lora", "peft"):
            save_model(tmp_path / "base", model, tokenizer)
            lora = add_lora(load_model(tmp_path / "base")[0], rank=2)
            save_model(out, lora, tokenizer, Facts(base=Base(str(tmp_path / "base"))))
            if kind == "peft":  # a whole model with an adapter's files among its own
                shutil.copytree(out / "adapter", out, dirs_exist_ok=True)
            return out / "adapter" if kind == "adapter" else out
        save_model(out, model, tokenizer)
        if kind == "theirs":
            (out / "groundup.json").unlink()
        return out

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_a_format_knows_its_own_and_no_others(make: Callable[[str], Path], kind: str) -> None:
    path, own = make(kind), KINDS[kind]
    particular = FORMATS[:-1]
    assert [found.matches(path) for found in particular] == [found is own for found in particular]
    assert DIRECTORY.matches(path)  # the last one takes what is none of the others


def test_what_is_of_no_kind_is_taken_for_a_model_directory(tmp_path: Path) -> None:
    assert not any(found.matches(tmp_path) for found in FORMATS[:-1])
    for opens in (load_model, read_facts, read_shape):
        with pytest.raises(UserError, match=r"not a complete model: config\.json is missing"):
            opens(tmp_path)
        with pytest.raises(UserError, match="there is no model directory"):
            opens(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "openai"])
def test_what_is_said_of_a_model_is_what_is_opened(
    make: Callable[[str], Path], tmp_path: Path, model_dir: Path, kind: str
) -> None:
    path = make(kind)
    n_heads, tokens = (4, str(model_dir)) if kind == "file" else (None, None)
    model, tokenizer = load_model(path, n_heads=n_heads, tokenizer=tokens)
    assert read_shape(path, n_heads) == (model.cfg, model.facts) and tokenizer.vocab_size == 300
    facts = model.facts
    assert facts is not None and facts == read_facts(path)
    assert facts.kind == {"classifier": kind, "adapter": kind}.get(kind, "language model")
    assert facts.is_classifier == (kind == "classifier")
    made = {"adapter", "lora", "peft"}  # of a base model, and by us
    assert facts.base.source == (str(tmp_path / "base") if kind in made else "")


def test_of_openais_files_only_the_shape_is_known(make: Callable[[str], Path]) -> None:
    path = make("openai")
    assert read_facts(path) == Facts() and read_shape(path)[0].n_layers == 2
    with pytest.raises(UserError, match="brings no tokenizer"):
        load_model(path)


def test_a_new_format_is_one_more_in_the_list(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Asked] = []

    def opens(path: Path, asked: Asked) -> tuple[GPTModel, BPETokenizer | None]:
        heard.append(asked)
        return GPTModel(tiny_config()), None if path.stem == "bare" else tokenizer

    new = Format(lambda path: path.suffix == ".toy", opens, lambda path: Facts(prompt_style="phi3"))
    monkeypatch.setattr(module, "FORMATS", (new, *FORMATS))
    for name in ("a.toy", "bare.toy"):
        (tmp_path / name).write_text("", "utf-8")
    model, tokens = load_model(tmp_path / "a.toy", "cpu", drop_rate=0.5)
    assert tokens is tokenizer and heard == [Asked("cpu", 0.5)]
    assert model.facts == read_facts(tmp_path / "a.toy") == Facts(prompt_style="phi3")
    assert read_shape(tmp_path / "a.toy")[0] == model.cfg  # it is opened for that
    with pytest.raises(UserError, match="says itself what n_heads and tokenizer are"):
        load_model(tmp_path / "a.toy", n_heads=4)
    with pytest.raises(UserError, match="brings no tokenizer"):
        load_model(tmp_path / "bare.toy")

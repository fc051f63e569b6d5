"""A model that brings its own chat template: asked in it, tuned in it, saved with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.data.instructions import encode_prompt
from groundup.decoding.chat import Chat
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tasks.assistant import Assistant
from groundup.tasks.instruct import train_assistant
from groundup.tasks.respond import respond
from groundup.tokenizers import LibraryTokenizer, Tokenizer
from groundup.tokenizers.opening import open_tokenizer
from groundup.tokenizers.reading import TokenizerFiles
from groundup.weights.checkpoint import save_model
from groundup.weights.export import export
from groundup.weights.load import load_model, read_facts
from tests.assistants import Scripted
from tests.conftest import tiny_config
from tests.data.templates import SMOLLM2, ZEPHYR
from tests.tokenizers.trained import trained

ENTRIES = [{"instruction": f"Say {n}.", "output": "best of times"} for n in range(20)]
MESSAGES = [{"role": "user", "content": "Say <|im_end|>"}]
TEMPLATE = "chat_template.jinja"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.tasks.run.plot_run", lambda out: [])
    monkeypatch.setattr("groundup.tasks.run.write_page", lambda out: None)


def tokenizer_with(template: str | None = SMOLLM2) -> Tokenizer:
    content = json.loads(trained("smollm").to_str())
    roles = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    return open_tokenizer(TokenizerFiles(content, dict(roles), template))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """As somebody else publishes a model: without a groundup.json."""
    tokenizer = tokenizer_with()
    cfg = tiny_config(vocab_size=tokenizer.vocab_size, context_length=160)
    save_model(tmp_path / "base", GPTModel(cfg).init_gpt2(), tokenizer)
    (tmp_path / "base" / "groundup.json").unlink()
    return tmp_path / "base"


def train(base: Path, out: Path, **changes: Any) -> list[str]:
    quick = {"model": str(base), "max_steps": 2, "epochs": None, "batch_size": 4}
    quick |= {"precision": "fp32", "sample_answers": 1, "eval_freq": 1}
    said: list[str] = []
    resume = changes.pop("resume", False)
    given = changes if resume else quick | changes
    train_assistant(ENTRIES, out, given, resume=resume, say=said.append)
    return said


def test_it_is_asked_in_its_own_template(base: Path) -> None:
    said: list[str] = []
    for asked in (None, "model"):
        assistant = Assistant.load(base, style=asked, fallback="alpaca", say=said.append)
        assert assistant.style.name == "model" and isinstance(assistant.tokenizer, LibraryTokenizer)
    assert said == []
    assert Assistant.load(base, style="alpaca", say=said.append).style.name == "alpaca"
    assert "brings its own chat template; it is asked in alpaca all the same" in said[0]


@pytest.mark.parametrize("how", ["all", "lora"])
def test_fine_tuning_keeps_it(tmp_path: Path, base: Path, how: str) -> None:
    from transformers import AutoTokenizer

    out = tmp_path / "bot"
    said = train(base, out, train=how, train_on="response", save_freq=1)
    assert any("prompt style model" in line for line in said)
    train(base, out, resume=True, max_steps=4)
    facts = read_facts(out)
    assert facts.prompt_style == facts.options["style"] == "model"
    for directory in (base, out, out / "checkpoints" / "last"):
        assert (directory / TEMPLATE).read_text("utf-8") == SMOLLM2
    theirs: Any = AutoTokenizer.from_pretrained(out)
    assistant = Assistant.load(out)
    said_plainly = [{"role": "user", "content": "Say 12."}]
    found = encode_prompt(said_plainly, assistant.tokenizer, assistant.style)
    assert found == theirs.apply_chat_template(
        said_plainly, add_generation_prompt=True, return_dict=False
    )
    with pytest.raises(UserError, match="trained in the prompt style model and would not"):
        Assistant.load(out, style="alpaca")
    (out / TEMPLATE).unlink()
    with pytest.raises(UserError, match="brings no chat template"):
        Assistant.load(out, verify=False)


def test_another_style_may_be_trained(tmp_path: Path, base: Path) -> None:
    train(base, tmp_path / "bot", style="alpaca")
    assert Assistant.load(tmp_path / "bot").style.name == "alpaca"
    assert "### Response" in (tmp_path / "bot" / TEMPLATE).read_text("utf-8")
    train(tmp_path / "bot", tmp_path / "more")
    assert Assistant.load(tmp_path / "more").style.name == "alpaca", "what it was trained in"
    with pytest.raises(UserError, match=r"chatml writes <\|im_start\|> as plain text"):
        train(base, tmp_path / "no", style="chatml")
    with pytest.raises(UserError, match="unknown prompt style 'modell'; did you mean 'model'"):
        train(base, tmp_path / "no", style="modell")


def test_a_model_without_a_template_cannot_be_asked_in_it(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(None)
    save_model(tmp_path, GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)), tokenizer)
    assert read_facts(tmp_path).prompt_style is None and not (tmp_path / TEMPLATE).exists()
    with pytest.raises(UserError, match="brings no chat template; name another style"):
        Assistant.load(tmp_path, style="model")
    with pytest.raises(UserError, match="brings no chat template"):
        train(tmp_path, tmp_path / "bot", style="model")


def test_answers_end_where_the_template_ends_a_turn(tmp_path: Path) -> None:
    tokenizer = tokenizer_with()
    answers = ["Yes!", "the best of times"]
    assistant = Assistant(Scripted(tokenizer, answers), tokenizer, style_model(tokenizer))
    reasons = respond(assistant, ENTRIES[:1], tmp_path / "out.json", SamplingConfig(8), say=print)
    assert reasons == {"end_of_text": 1}
    assert json.loads((tmp_path / "out.json").read_bytes())[0]["model_response"] == "Yes!"
    chat = Chat(assistant.model, tokenizer, assistant.style, SamplingConfig(30), system="Be brief.")
    assert "".join(chat.ask("Well?")) == "the best of times"


def style_model(tokenizer: Tokenizer) -> Any:
    from groundup.data.model_style import style_of

    return style_of("model", tokenizer)


def test_what_the_template_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(ZEPHYR)
    chat = Chat(
        Scripted(tokenizer, ["Hi"]),
        tokenizer,
        style_model(tokenizer),
        SamplingConfig(8),
        system="S",
    )
    with pytest.raises(
        UserError, match="refuses this conversation: Conversation roles must altern"
    ):
        chat.ask("Hello")
    assert chat.turns == []


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_it_travels_with_an_export(tmp_path: Path, base: Path, to: Any) -> None:
    model, tokenizer = load_model(base)
    export(model, tokenizer, to, tmp_path / "out")
    if to == "hf":
        assert (tmp_path / "out" / TEMPLATE).read_text("utf-8") == SMOLLM2
        assert read_facts(tmp_path / "out").prompt_style == "model"
        return
    recipe = (tmp_path / "out" / "Modelfile").read_text("utf-8")
    assert "TEMPLATE" not in recipe, "Ollama takes the one in the file"
    import gguf

    reader = gguf.GGUFReader(tmp_path / "out" / "out-f16.gguf")
    field = reader.get_field("tokenizer.chat_template")
    assert field is not None and field.contents() == SMOLLM2


def test_older_layouts_of_a_template(base: Path) -> None:
    """In tokenizer_config.json: a text, or several with names."""
    (base / TEMPLATE).unlink()
    path = base / "tokenizer_config.json"
    config = json.loads(path.read_bytes())
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": SMOLLM2}]
    for template in (SMOLLM2, several):
        path.write_text(json.dumps(config | {"chat_template": template}), encoding="utf-8")
        assert read_facts(base).prompt_style == "model"
        assert load_model(base)[1].chat_template == SMOLLM2
    path.write_text(json.dumps(config | {"chat_template": several[:1]}), encoding="utf-8")
    assert read_facts(base).prompt_style is None


@pytest.mark.parametrize("template", ["{% if %}", "{{ raise_exception('No\nsystem') }}"])
def test_a_template_that_fails_ends_the_training_before_it_begins(
    tmp_path: Path, base: Path, template: str
) -> None:
    (base / TEMPLATE).write_text(template, encoding="utf-8")
    with pytest.raises(UserError, match="chat template (is damaged: line 1|refuses .*: No system)"):
        train(base, tmp_path / "bot")
    assert not (tmp_path / "bot" / "model.safetensors").exists()
    assert torch.is_tensor(load_model(base)[0].tok_emb.weight), "it opens all the same"

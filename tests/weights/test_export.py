"""Every format is written, read back, and opens the same model again."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.cli.export import export as export_command
from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.model.gpt import GPTModel
from groundup.prompts import OWN, get_style
from groundup.tokenizers import BPETokenizer, get_gpt2_tokenizer
from groundup.weights import export as module
from groundup.weights.checkpoint import save_model
from groundup.weights.export import Format, export
from groundup.weights.gguf import DType
from groundup.weights.load import load_model, read_facts
from tests.assistants import save_assistant
from tests.conftest import TEXT, Run, tiny_config
from tests.openai_files import write_openai_directory

Fails = Callable[..., str]


def model_of(tokenizer_size: int, **changes: object) -> GPTModel:
    model = GPTModel(tiny_config(vocab_size=tokenizer_size, **changes)).eval()
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return model


def same(a: GPTModel, b: GPTModel) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("to", ["hf", "course"])
def test_a_chain_of_formats_is_the_identity(
    tmp_path: Path, tokenizer: BPETokenizer, to: Format, tie: bool, bias: bool
) -> None:
    model = model_of(tokenizer.vocab_size, tie_weights=tie, qkv_bias=bias)
    out = tmp_path / ("model.pth" if to == "course" else "model")
    assert export(model, tokenizer, to, out) == [out]
    tokens = tokenizer
    if to == "course":
        tokenizer.save(tmp_path / "tokens")
        again, tokens = load_model(out, n_heads=4, tokenizer=str(tmp_path / "tokens"))
    else:
        again, tokens = load_model(out)
    assert tokens.encode(TEXT) == tokenizer.encode(TEXT)
    assert same(model, again)
    with pytest.raises(UserError, match="exists; choose another --out"):
        export(model, tokenizer, to, out)


@settings(max_examples=15, deadline=None)
@given(
    st.builds(
        ModelConfig,
        vocab_size=st.integers(300, 310),
        context_length=st.integers(1, 9),
        emb_dim=st.sampled_from([4, 8, 12]),
        n_heads=st.sampled_from([1, 2, 4]),
        n_layers=st.integers(1, 3),
        drop_rate=st.just(0.1),
        qkv_bias=st.just(True),
        tie_weights=st.just(True),
    )
)
def test_around_all_formats_and_back_bit_for_bit(cfg: ModelConfig) -> None:
    """Whatever the shape: ours, OpenAI's, the course's, ours again."""
    tokenizer = BPETokenizer.train(TEXT * 3, 300)
    first = GPTModel(cfg)
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder), first
        tokenizer.save(path / "tokens")
        export(model, tokenizer, "hf", path / "1")
        write_openai_directory(path / "2", load_model(path / "1")[0], tokenizer)
        export(load_model(path / "2")[0], tokenizer, "course", path / "3.pth")
        options: dict[str, Any] = {
            "n_heads": cfg.n_heads,
            "drop_rate": 0.1,
            "tokenizer": str(path / "tokens"),
        }
        model, _ = load_model(path / "3.pth", **options)
    assert model.cfg == cfg and same(first, model)


def test_an_export_that_reads_back_differently_is_not_called_done(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(tokenizer.vocab_size)
    other = model_of(tokenizer.vocab_size)
    monkeypatch.setattr(module, "load_torch_file", lambda path, n_heads: other)
    with pytest.raises(UserError, match="reads back differently"):
        export(model, tokenizer, "course", tmp_path / "m.pth")


def test_gguf_comes_with_a_modelfile(run: Run, model_dir: Path, tmp_path: Path) -> None:
    result = run("export", model_dir, "--to=gguf", "--out", tmp_path / "out", "--dtype=f32")
    assert result.status == 0, result.err
    weights, recipe = map(Path, result.out.split())
    assert weights.name == "out-f32.gguf" and weights.read_bytes()[:4] == b"GGUF"
    text = recipe.read_text("utf-8")
    assert f"FROM ./{weights.name}" in text and "num_ctx 16" in text and "<|endoftext|>" in text
    assert "ollama create" in result.err


def test_gguf_and_ollama_are_told_the_prompt_style(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model, facts = model_of(tokenizer.vocab_size), Facts(task="instruct", prompt_style="chatml")
    weights, recipe = export(model, tokenizer, "gguf", tmp_path / "out", facts=facts)
    field = gguf.GGUFReader(weights).get_field("tokenizer.chat_template")
    assert field is not None and field.contents() == get_style("chatml").chat_template()
    text = recipe.read_text("utf-8")
    assert "<|im_start|>user\n{{ .Content }}" in text and 'PARAMETER stop "<|im_end|>"' in text


def test_a_models_own_template_stays_with_it(tmp_path: Path, run: Run) -> None:
    """Ollama reads it out of the file where the Modelfile has none."""
    tokens = BPETokenizer.train("a text " * 9, 260)
    tokens.chat_template = "{{ messages[0]['content'] }}"
    out, facts = tmp_path / "out", Facts(prompt_style=OWN)
    weights, recipe = export(model_of(260), tokens, "gguf", out, dtype="q4_0", facts=facts)
    assert "TEMPLATE" not in recipe.read_text("utf-8")
    assert load_model(weights)[1].chat_template == tokens.chat_template
    assert run("export", weights, "--to=gguf", "--out", tmp_path / "again").status == 0
    field = gguf.GGUFReader(tmp_path / "again" / "again-f16.gguf").get_field(
        "tokenizer.chat_template"
    )
    assert field is not None and field.contents() == tokens.chat_template


def test_the_command_line_offers_every_type() -> None:
    offered = get_type_hints(export_command)["dtype"]
    assert get_args(get_args(offered)[0]) == get_args(DType)


def test_the_prompt_style_travels_from_directory_to_directory(
    run: Run, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    model = save_assistant(tmp_path / "model", tokenizer, "phi3")
    assert run("export", model, "--to=hf", "--out", tmp_path / "hf").status == 0
    assert read_facts(tmp_path / "hf").prompt_style == "phi3"
    template = (tmp_path / "hf" / "chat_template.jinja").read_text(encoding="utf-8")
    assert template == get_style("phi3").chat_template()
    assert run("export", tmp_path / "hf", "--to=gguf", "--out", tmp_path / "gguf").status == 0
    assert "<|user|>\n{{ .Content }}" in (tmp_path / "gguf" / "Modelfile").read_text("utf-8")


def test_the_command_line_exports_and_opens_again(
    run: Run, fails: Fails, model_dir: Path, tmp_path: Path
) -> None:
    write_openai_directory(tmp_path / "tf", *load_model(model_dir))
    pth = tmp_path / "m.pth"
    assert run("export", tmp_path / "tf", "--to=course", "--out", pth).status == 0
    back = ["--n-heads=4", f"--tokenizer={model_dir}"]
    assert run("export", pth, "--to=hf", "--out", tmp_path / "hf", *back).status == 0
    expected = run("generate", model_dir, "The", "--max-new-tokens=9").out
    assert run("generate", tmp_path / "tf", "The", "--max-new-tokens=9").out == expected
    assert run("generate", tmp_path / "hf", "The", "--max-new-tokens=9").out == expected
    assert "say it with --n-heads" in fails("export", pth, "--to=hf", "--out", tmp_path / "x")
    assert "there is no model" in fails("export", "none", "--to=hf", "--out", tmp_path / "x")
    assert '"hf", "gguf"' in fails("export", model_dir, "--to=onnx", "--out", tmp_path / "x")
    assert '"hf", "gguf"' in fails("export", model_dir, "--to=openai", "--out", tmp_path / "x")


def test_what_would_be_ignored_is_refused(
    run: Run, fails: Fails, model_dir: Path, tmp_path: Path
) -> None:
    to = ["--to=course", "--out", tmp_path / "m.pth"]
    assert "dtype bf16 is for gguf" in fails("export", model_dir, *to, "--dtype=bf16")
    for option in ("--n-heads=4", "--tokenizer=gpt2"):
        assert "leave them out" in fails("export", model_dir, *to, option)
        assert "leave them out" in fails("generate", model_dir, "The", option)
    run("export", model_dir, *to)
    assert "say it with --n-heads" in fails("generate", tmp_path / "m.pth", "The")
    back = ["--n-heads=4", f"--tokenizer={model_dir}", "--max-new-tokens=9"]
    expected = run("generate", model_dir, "The", "--max-new-tokens=9").out
    assert run("generate", tmp_path / "m.pth", "The", *back).out == expected


def test_facts_travel_with_a_hugging_face_export(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    facts = Facts(task="pretrain", options={"seed": 7})
    export(model_of(tokenizer.vocab_size), tokenizer, "hf", tmp_path / "out", facts=facts)
    assert read_facts(tmp_path / "out").options == {"seed": 7}


def test_gpt2s_tokenizer_comes_from_openais_files(tmp_path: Path) -> None:
    tokenizer = get_gpt2_tokenizer()
    model = model_of(50257, emb_dim=8, n_heads=2, n_layers=1)
    write_openai_directory(tmp_path / "tf", model, tokenizer)
    again, tokens = load_model(tmp_path / "tf")
    assert same(model, again) and tokens.name == "gpt2"
    assert tokens.encode("Hello, I am") == [15496, 11, 314, 716]


def test_a_downloaded_model_is_opened_by_its_name(
    run: Run, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    assert "run `groundup download gpt2`" in fails("generate", "gpt2", "Hello")
    assert "a shape without weights" in fails("generate", "nano", "Hello")
    model = model_of(50257, emb_dim=8, n_heads=2, n_layers=1)
    export(model, get_gpt2_tokenizer(), "hf", tmp_path / "cache" / "hub" / "gpt2")
    for name in ("gpt2", "124M"):
        assert run("generate", name, "Hello", "--max-new-tokens=3").out.startswith("Hello")


@pytest.mark.parametrize(("to", "name"), [("hf", "out"), ("course", "a.pth"), ("gguf", "out")])
def test_what_cannot_be_written_is_one_sentence(
    fails: Callable[..., str],
    tmp_path: Path,
    tokenizer: BPETokenizer,
    request: pytest.FixtureRequest,
    to: str,
    name: str,
) -> None:
    """Each library has its own error for it."""
    model = GPTModel(tiny_config(emb_dim=64, vocab_size=tokenizer.vocab_size))
    save_model(tmp_path / "model", model, tokenizer)
    request.getfixturevalue("small_files")
    message = fails("export", tmp_path / "model", "--to", to, "--out", tmp_path / name)
    assert "cannot write to " in message or "no space left while saving" in message
    assert "--resume" not in message
    assert {path.name for path in tmp_path.iterdir()} <= {"model", "out"}

"""Directories with any damage to their small files: they open, or one sentence says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.cli import main
from groundup.errors import Note, UserError
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.tokenizers import BPETokenizer, load_tokenizer
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model, read_facts, read_shape
from groundup.weights.lora import save_adapter
from tests.conftest import tiny_config, unvouched

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 10**9, 1e19, 1e-400, 0.5])
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["é", "gpt2", "\ud800", "a b", "ByteLevel", "Sequence", ".", "/", "\0"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "groundup.json")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with an adapter of its own beside it."""
    folder = tmp_path_factory.mktemp("strangers")
    tokenizer = BPETokenizer.train("a", 300)
    size = tokenizer.vocab_size
    model = GPTModel(tiny_config(vocab_size=size, emb_dim=8, n_heads=2, n_layers=1))
    save_model(folder / "model", model, tokenizer)
    save_adapter(folder / "adapter", add_lora(model, rank=1), str(folder / "model"))
    return folder


def damaged(draw: Any, value: Any, depth: int = 0) -> Any:
    """The same JSON with one value, somewhere in it, replaced or taken out."""
    if isinstance(value, dict) and value and (depth == 0 or draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 5)):
            return {n: v for n, v in value.items() if n != name}
        return value | {name: damaged(draw, value[name], depth + 1)}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, min(len(value), 20) - 1))
        return [*value[:place], damaged(draw, value[place], depth + 1), *value[place + 1 :]]
    return draw(JSON)


def opens_or_says_why(path: Path) -> None:
    for read in (load_model, read_facts, read_shape, load_tokenizer):
        try:
            read(path)
        except UserError as error:
            assert str(error) and len(str(error)) < 4000


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_one_wrong_value(stranger: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    path = stranger / "model" / name
    whole = path.read_text(encoding="utf-8")
    try:
        path.write_text(json.dumps(damaged(data.draw, json.loads(whole))), "utf-8")
        opens_or_says_why(path.parent)
    finally:
        path.write_text(whole, encoding="utf-8")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_adapters(stranger: Path, data: st.DataObject) -> None:
    path = stranger / "adapter" / "adapter_config.json"
    whole = path.read_text(encoding="utf-8")
    try:
        path.write_text(json.dumps(damaged(data.draw, json.loads(whole))), "utf-8")
        opens_or_says_why(path.parent)
    finally:
        path.write_text(whole, encoding="utf-8")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(FILES), st.binary(max_size=50), st.integers(0, 300))
def test_garbage_in_a_file(stranger: Path, name: str, garbage: bytes, place: int) -> None:
    path = stranger / "model" / name
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:place] + garbage + whole[place + len(garbage) :])
        opens_or_says_why(path.parent)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tie_word_embeddings": "é"}, "tie_word_embeddings is 'é'; expected true or false"),
        ({"tie_word_embeddings": 1e19}, r"tie_word_embeddings is 1e\+19; expected true or false"),
        ({"n_embd": None}, "n_embd is None; expected a whole number"),
        ({"architectures": 1.5}, "architectures is 1.5; expected names"),
        ({"vocab_size": 2**63}, "vocab_size is 9223372036854775808; expected .* at most 16777216"),
        ({"n_layer": 10**9}, "n_layers is 1000000000; expected .* at most 1024"),
        ({"n_layer": 1e9}, r"n_layer is 1000000000\.0; expected a whole number"),
        ({"resid_pdrop": True}, "resid_pdrop is True; expected a number"),
    ],
)
def test_types_in_a_config(model_dir: Path, change: dict[str, Any], message: str) -> None:
    path = unvouched(model_dir) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(UserError, match=message):
        load_model(model_dir)


def test_a_config_that_names_no_architecture_is_a_language_models(model_dir: Path) -> None:
    path = unvouched(model_dir) / "config.json"
    values = json.loads(path.read_text("utf-8"))
    del values["architectures"]
    for value in ({}, {"architectures": None}, {"architectures": []}):
        path.write_text(json.dumps(values | value), encoding="utf-8-sig")
        assert read_facts(model_dir).kind == "language model"
        assert load_model(model_dir)[0].cfg.tie_weights


def test_adapters_that_adapt_themselves(stranger: Path) -> None:
    path = stranger / "adapter" / "adapter_config.json"
    whole = path.read_text("utf-8")
    try:
        path.write_text(
            json.dumps(json.loads(whole) | {"base_model_name_or_path": str(path.parent)}), "utf-8"
        )
        with pytest.raises(UserError, match="adapts itself, in the end"):
            load_model(path.parent)
    finally:
        path.write_text(whole, "utf-8")


def test_a_folder_with_the_name_of_a_model_says_so(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir.rename(model_dir.parent / "gpt2")
    monkeypatch.chdir(model_dir.parent)
    monkeypatch.setenv("GROUNDUP_CACHE", str(model_dir.parent / "cache"))
    with pytest.warns(Note, match=r"'gpt2' is the one that is here in .*groundup download gpt2"):
        load_model("gpt2")
    assert main(["generate", "gpt2", "The", "--max-new-tokens=1"]) == 0
    said = capsys.readouterr().err
    assert said.count("note: 'gpt2' is the one that is here") == 1 and "UserWarning" not in said
    assert main(["generate", "./gpt2", "The", "--max-new-tokens=1"]) == 0
    assert "note:" not in capsys.readouterr().err

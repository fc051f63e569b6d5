import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.weights.openai import (
    is_openai_directory,
    load_gpt2_params_from_tf_ckpt,
    load_openai_model,
    load_weights_into_gpt,
)
from groundup.weights.tensor_bundle import TensorBundle
from tests.openai_files import write_bundle, write_openai_directory
from tests.weights.data.make_openai_tiny import SETTINGS, shapes, values

FIXTURE = Path(__file__).parent / "data" / "openai-tiny"  # written by TensorFlow
CFG = ModelConfig(
    vocab_size=50,
    context_length=12,
    emb_dim=8,
    n_heads=2,
    n_layers=2,
    qkv_bias=True,
    tie_weights=True,
)


@pytest.fixture
def params() -> dict[str, Any]:
    return load_gpt2_params_from_tf_ckpt(FIXTURE, SETTINGS)


def equal(one: GPTModel, other: GPTModel) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def transformers_gpt2() -> Any:
    """The fixture's model in transformers, whose ``Conv1D`` has OpenAI's layout."""
    sizes: Any = {"vocab_size": 50, "n_positions": 12, "n_embd": 8, "n_head": 2, "n_layer": 2}
    model: Any = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    state = {}
    for name, shape in shapes(SETTINGS).items():
        _, *path = name.split("/")
        path = ["h", path[0][1:], *path[1:]] if path[0] in ("h0", "h1") else path
        path = path[:-1] if path[-1] in "gbw" else path
        ending = "bias" if name.endswith("/b") else "weight"
        tensor = torch.from_numpy(values(name, shape))
        tensor = tensor.squeeze(0) if name.endswith("/w") else tensor
        state[".".join(["transformer", *path, ending])] = tensor
    state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state)
    return model


def test_logits_equal_transformers(params: dict[str, Any]) -> None:
    idx = torch.randint(0, 50, (3, 12))
    tied, untied = load_openai_model(FIXTURE), GPTModel(CFG.replace(tie_weights=False)).eval()
    load_weights_into_gpt(untied, params)
    with torch.no_grad():
        theirs = transformers_gpt2()(idx).logits
        assert theirs.std() > 0.5
        for model in (tied, untied):
            torch.testing.assert_close(model(idx), theirs, atol=1e-5, rtol=0)


def test_the_model_that_opens() -> None:
    model = load_openai_model(FIXTURE)
    assert model.cfg == CFG and not model.training
    assert model.out_head.weight is model.tok_emb.weight
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert load_openai_model(FIXTURE, drop_rate=0.25).cfg.drop_rate == 0.25


def test_the_courses_params(params: dict[str, Any]) -> None:
    assert sorted(params) == ["b", "blocks", "g", "wpe", "wte"]
    assert isinstance(params["blocks"], list) and len(params["blocks"]) == 2
    assert sorted(params["blocks"][0]) == ["attn", "ln_1", "ln_2", "mlp"]
    w = params["blocks"][1]["attn"]["c_attn"]["w"]
    assert isinstance(w, np.ndarray) and w.dtype == np.float32 and w.shape == (8, 24)
    np.testing.assert_array_equal(w, values("model/h1/attn/c_attn/w", (1, 8, 24))[0])
    np.testing.assert_array_equal(params["g"], values("model/ln_f/g", (8,)))
    np.testing.assert_array_equal(params["wte"], values("model/wte", (50, 8)))
    from_prefix = load_gpt2_params_from_tf_ckpt(FIXTURE / "model.ckpt", SETTINGS)
    np.testing.assert_array_equal(from_prefix["wpe"], params["wpe"])


def test_into_a_model_that_exists(params: dict[str, Any]) -> None:
    expected = load_openai_model(FIXTURE)
    tied = GPTModel(CFG)
    pointers = {name: p.data_ptr() for name, p in tied.named_parameters()}
    load_weights_into_gpt(tied, params)
    assert equal(tied, expected) and tied.out_head.weight is tied.tok_emb.weight
    assert pointers == {name: p.data_ptr() for name, p in tied.named_parameters()}
    untied = GPTModel(CFG.replace(tie_weights=False))
    load_weights_into_gpt(untied, params)
    assert equal(untied, expected)
    assert untied.out_head.weight.data_ptr() != untied.tok_emb.weight.data_ptr()
    half = GPTModel(CFG).to(torch.bfloat16)
    load_weights_into_gpt(half, params)
    assert equal(half, expected.to(torch.bfloat16))


def test_a_model_without_biases_is_told_what_to_do(params: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r'GPTModel\(\{\*\*cfg, "qkv_bias": True\}\)'):
        load_weights_into_gpt(GPTModel(CFG.replace(qkv_bias=False)), params)


def test_all_that_is_wrong_with_params_is_in_one_error(params: dict[str, Any]) -> None:
    del params["g"]
    del params["blocks"][0]["mlp"]["c_fc"]["w"]
    params["wpe"] = params["wpe"][:5]
    params["blocks"][1]["attn"]["c_attn"]["w"] = params["blocks"][1]["attn"]["c_attn"]["w"].T
    params["blocks"].append({"ln_1": {"g": np.zeros(8, np.float32)}})
    model = GPTModel(CFG)
    before = copy.deepcopy(model)
    with pytest.raises(UserError) as error:
        load_weights_into_gpt(model, params)
    message = str(error.value)
    assert "model/ln_f/g is missing" in message
    assert "model/h0/mlp/c_fc/w is missing" in message
    assert "params/blocks/2/ln_1/g is unexpected" in message
    assert "model/wpe of shape (5, 8) gives pos_emb.weight the shape (5, 8)" in message
    assert "model/h1/attn/c_attn/w has the impossible shape (24, 8)" in message
    assert equal(model, before)


@pytest.mark.parametrize("bad", [None, "x", np.zeros(8, int), np.zeros(8, object)])
def test_params_that_are_no_arrays(params: dict[str, Any], bad: Any) -> None:
    params["b"] = bad
    model = GPTModel(CFG)
    before = copy.deepcopy(model)
    with pytest.raises(UserError, match="model/ln_f/b holds .*; expected an array of floating"):
        load_weights_into_gpt(model, params)
    assert equal(model, before)


def test_params_for_another_size(params: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="model/h2/ln_1/g is missing"):
        load_weights_into_gpt(GPTModel(CFG.replace(n_layers=3)), params)
    with pytest.raises(UserError, match="params/blocks/1/ln_1/g is unexpected"):
        load_weights_into_gpt(GPTModel(CFG.replace(n_layers=1)), params)


@settings(max_examples=20, deadline=None)
@given(
    cfg=st.builds(
        ModelConfig,
        vocab_size=st.integers(1, 40),
        context_length=st.integers(1, 9),
        emb_dim=st.sampled_from([1, 4, 8, 12]),
        n_heads=st.just(1),
        n_layers=st.integers(1, 3),
        drop_rate=st.just(0.1),
        qkv_bias=st.booleans(),
        tie_weights=st.booleans(),
    )
)
def test_checkpoints_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory, cfg: ModelConfig
) -> None:
    folder = tmp_path_factory.mktemp("openai")
    model = GPTModel(cfg)
    for p in model.parameters():
        torch.nn.init.normal_(p)
    model.out_head.weight.data.copy_(model.tok_emb.weight.data)  # the format has one of them
    write_openai_directory(folder, model)
    again = load_openai_model(folder)
    assert again.cfg == cfg.replace(qkv_bias=True, tie_weights=True)
    state = again.state_dict()
    assert all(torch.equal(state.pop(name), tensor) for name, tensor in model.state_dict().items())
    assert not any(tensor.any() for tensor in state.values())  # the biases, if it had none
    hparams = json.loads((folder / "hparams.json").read_text("utf-8"))
    into = GPTModel(again.cfg)
    load_weights_into_gpt(into, load_gpt2_params_from_tf_ckpt(folder, hparams))
    assert equal(into, again)


def test_the_tests_directories_are_as_openai_publishes_them(tmp_path: Path) -> None:
    assert is_openai_directory(FIXTURE) and not is_openai_directory(tmp_path)
    write_openai_directory(tmp_path / "new", load_openai_model(FIXTURE))
    assert is_openai_directory(tmp_path / "new")
    names = sorted(path.name for path in FIXTURE.iterdir())
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert json.loads((tmp_path / "new" / "hparams.json").read_text("utf-8")) == SETTINGS
    assert (tmp_path / "new" / "checkpoint").read_text("utf-8") == (
        FIXTURE / "checkpoint"
    ).read_text("utf-8")
    ours, theirs = dict(TensorBundle.open(tmp_path / "new")), dict(TensorBundle.open(FIXTURE))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_head": 3}, r"hparams.json: emb_dim \(8\) is not divisible by n_heads \(3\)"),
        ({"n_layer": "2"}, "hparams.json: n_layers is '2'"),
        ({"n_layer": 3}, "model/h2/ln_1/g is missing"),
        ({"n_layer": 1}, "model/h1/attn/c_attn/b is unexpected"),
        ({"n_layer": 1000}, "hparams.json describes another model than the 28 tensors"),
        ({"n_layer": 1 << 40}, "n_layers is 1099511627776; expected .* at most 1024"),
        ({"n_vocab": 1 << 62}, "vocab_size is 4611686018427387904; .* at most 16777216"),
        ({"n_ctx": 13}, r"model/wpe of shape \(12, 8\)"),
        ({"n_embd": 4}, r"model/wte of shape \(50, 8\)"),
    ],
)
def test_hparams_of_another_model(tmp_path: Path, changes: Any, message: str) -> None:
    folder = shutil.copytree(FIXTURE, tmp_path / "copy")
    (folder / "hparams.json").write_text(json.dumps(SETTINGS | changes), "utf-8")
    with pytest.raises(UserError, match=message):
        load_openai_model(folder)
    with pytest.raises(UserError, match=message.replace("hparams.json", "settings")):
        load_gpt2_params_from_tf_ckpt(folder, SETTINGS | changes)


def test_settings_that_lack_something(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="settings lacks n_ctx, n_head"):
        load_gpt2_params_from_tf_ckpt(FIXTURE, {"n_vocab": 50, "n_embd": 8, "n_layer": 2})
    with pytest.raises(UserError, match="there is no model directory"):
        load_openai_model(tmp_path / "nowhere")


def test_weights_that_are_no_floating_point_numbers(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURE, tmp_path / "copy")
    tensors = dict(TensorBundle.open(FIXTURE))
    tensors["model/ln_f/g"] = torch.ones(8, dtype=torch.int32)
    write_bundle(folder / "model.ckpt", tensors.items())
    for load in (load_openai_model, lambda path: load_gpt2_params_from_tf_ckpt(path, SETTINGS)):
        with pytest.raises(UserError, match="model/ln_f/g is torch.int32; expected floating"):
            load(folder)

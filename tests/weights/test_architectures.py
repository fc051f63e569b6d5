"""Llama, Qwen3 and Mistral: the same logits as transformers', whoever wrote the directory."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from groundup.config import PRESETS, ModelConfig
from groundup.errors import UserError
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora, lora_layers
from groundup.tokenizers import BPETokenizer, load_tokenizer
from groundup.weights.architectures import architecture_of
from groundup.weights.checkpoint import load_directory, save_model
from groundup.weights.hf_config import hf_config, read_model_config
from groundup.weights.lora import load_adapter, save_adapter
from tests.conftest import ARCHITECTURES
from tests.labelled import perturbed
from tests.tokenizers.trained import save, trained

SCALINGS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "yarn sharpened": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
        "attention_factor": 1.5,
    },
}
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@pytest.fixture
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train("the cat sat on the mat, the dog sat on the cat. " * 4, 270)


def theirs_perturbed(model: PreTrainedModel) -> PreTrainedModel:
    """Theirs with weights of which each matters."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def logits_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out = model(ids)
    return out if isinstance(out, torch.Tensor) else out.logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "llama with biases", "mistral", "qwen3"])
def test_what_transformers_saved_gives_its_logits(
    kind: str, tied: bool, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    sizes = SIZES | {"tie_word_embeddings": tied, "rope_theta": 5000.0}
    if kind == "qwen3":
        theirs = Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=16))
    elif kind == "mistral":
        theirs = MistralForCausalLM(MistralConfig(**sizes, sliding_window=None))
    else:
        biases: dict[str, Any] = (
            {"attention_bias": True, "mlp_bias": True} if "biases" in kind else {}
        )
        theirs = LlamaForCausalLM(LlamaConfig(**sizes, **biases, rms_norm_eps=1e-5))
    theirs_perturbed(theirs).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ids = torch.randint(0, 300, (2, 200), generator=torch.Generator().manual_seed(1))
    model, _ = load_directory(tmp_path)
    torch.testing.assert_close(model(ids), logits_of(theirs, ids), atol=1e-4, rtol=0)
    save_model(tmp_path / "again", model, tokenizer)
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32)
    torch.testing.assert_close(logits_of(back, ids), logits_of(theirs, ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaled_rotary_positions_are_those_of_transformers(
    scaling: str, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    given = SCALINGS[scaling]
    rope = {"rope_theta": 10000.0, **(given or {"rope_type": "default"})}
    theirs = theirs_perturbed(LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=rope)))
    theirs.save_pretrained(tmp_path / "new")
    tokenizer.save(tmp_path / "new")
    ids = torch.randint(0, 300, (1, 250), generator=torch.Generator().manual_seed(2))
    model, _ = load_directory(tmp_path / "new")
    torch.testing.assert_close(model(ids), logits_of(theirs, ids), atol=2e-4, rtol=0)
    # As version 4 of transformers spelled it.
    values = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
    values.pop("rope_parameters")
    old = tmp_path / "old"
    old.mkdir()
    more = {"rope_theta": 10000.0, "rope_scaling": given}
    (old / "config.json").write_text(json.dumps(values | more), encoding="utf-8")
    assert read_model_config(old) == model.cfg
    save_model(tmp_path / "again", model, tokenizer)
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32)
    torch.testing.assert_close(logits_of(back, ids), logits_of(theirs, ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_classifier_opens_in_transformers(
    kind: str, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    model = perturbed(to_classifier(GPTModel(ARCHITECTURES[kind]), 3)).eval()
    save_model(tmp_path, model, tokenizer)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(1, 270, (1, 16), generator=torch.Generator().manual_seed(3))
    expected = model(ids, at=torch.tensor([-1]))
    torch.testing.assert_close(logits_of(theirs.eval(), ids), expected, atol=1e-5, rtol=0)
    assert torch.equal(load_directory(tmp_path)[0](ids), model(ids))


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_lora_goes_onto_every_layer_and_comes_back(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(6)
    base = perturbed(GPTModel(ARCHITECTURES[kind])).eval()
    model = add_lora(copy.deepcopy(base), rank=2).eval()
    assert len(lora_layers(model)) == 2 * 7  # of each block q, k, v, o; gate, up, down
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.B)
    save_adapter(tmp_path, model, "base")
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["fan_in_fan_out"] is False and "mlp.gate_proj" in config["target_modules"]
    ids = torch.randint(0, 300, (1, 16), generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(load_adapter(tmp_path, base).eval()(ids), model(ids))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_peft_computes_the_same_with_our_adapter(
    kind: str, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    peft = pytest.importorskip("peft", reason="pip install peft")
    torch.manual_seed(7)
    base = perturbed(GPTModel(ARCHITECTURES[kind])).eval()
    save_model(tmp_path / "base", base, tokenizer)
    model = add_lora(base, rank=2).eval()
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.B)
    save_adapter(tmp_path / "adapter", model, str(tmp_path / "base"))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    ids = torch.randint(0, 300, (1, 16), generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(logits_of(theirs, ids), model(ids), atol=1e-4, rtol=1e-4)


def test_the_token_that_begins_a_text_is_said_to_transformers(tmp_path: Path) -> None:
    roles = {"bos_token": "<|begin|>", "eos_token": "<|endoftext|>"}
    files = save(trained("llama3", bos=True), tmp_path / "tokenizer", **roles)
    cfg = ARCHITECTURES["llama"].replace(vocab_size=501)
    save_model(tmp_path / "model", GPTModel(cfg), load_tokenizer(files))
    found = AutoConfig.from_pretrained(tmp_path / "model")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (found.bos_token_id, found.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert theirs.bos_token_id == 0 != theirs.eos_token_id


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_an_architecture_and_its_config_comes_back(
    name: str, tmp_path: Path
) -> None:
    values = hf_config(PRESETS[name], 0)
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert read_model_config(tmp_path) == PRESETS[name]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mixtral"}, r"'mixtral' model .* types gpt2, llama, mistral, qwen3"),
        ({"architectures": ["LlamaForMagic"]}, "'llama' model .LlamaForMagic."),
        ({"sliding_window": 64}, "sliding_window is 64, groundup's is None"),
        ({"num_local_experts": 8}, "num_local_experts is 8"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is not 1"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"attention_bias": "perhaps"}, "attention_bias is 'perhaps'"),
        ({"layer_types": ["sliding_attention"]}, "layer_types names sliding_attention"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic', which is not there"),
        ({"rope_scaling": 7}, "rope_parameters is 7"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling has no factor"),
        ({"num_key_value_heads": 4}, "n_heads .6. is not divisible by n_kv_heads .4."),
        ({"head_dim": 7}, "7 columns, and rope turns them in pairs"),
        ({"rms_norm_eps": 0}, "norm_eps is 0"),
        ({"rope_theta": "x"}, "rope_theta is 'x'"),
        ({"hidden_size": None}, "hidden_size is None"),
    ],
)
def test_a_config_with_what_the_model_has_not_is_refused_by_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    values = {**SIZES, "model_type": "llama", "architectures": ["LlamaForCausalLM"], **changes}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_model_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope": True}, "the nearest is GPT-2, but this one has rope True"),
        (
            {
                "qkv_bias": True,
                **{k: v for k, v in ARCHITECTURES["llama"].__dict__.items() if k != "qkv_bias"},
            },
            "a bias in only one of qkv_bias and attn_bias",
        ),
    ],
)
def test_a_mixture_that_nobody_opens_is_built_but_not_saved(
    changes: dict[str, Any], said: str, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    cfg = ModelConfig(**{**ARCHITECTURES["gpt2"].__dict__, **changes})
    model = GPTModel(cfg)
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 300)
    with pytest.raises(UserError, match=said):
        architecture_of(cfg)
    with pytest.raises(UserError, match="not saved"):
        save_model(tmp_path / "out", model, tokenizer)
    assert not (tmp_path / "out").exists()

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from groundup.errors import UserError
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import (
    TARGETS,
    add_lora,
    has_lora,
    lora_layers,
    merge_lora,
)
from groundup.tokenizers import BPETokenizer
from groundup.weights.checkpoint import save_model
from groundup.weights.lora import load_adapter, save_adapter
from groundup.weights.names import huggingface_rows, to_theirs
from tests.conftest import tiny_config

IDX = torch.arange(12)[None]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
C_ATTN = "base_model.model.transformer.h.{}.attn.c_attn.lora_{}.weight"


def make(**changes: object) -> GPTModel:
    model = GPTModel(tiny_config(**changes)).init_gpt2().eval()
    for p in model.parameters():  # so that biases and norms matter
        p.data += 0.05 * torch.randn_like(p)
    return model


def trained(model: GPTModel) -> GPTModel:
    """As if the updates had been trained."""
    for layer in lora_layers(model).values():
        layer.A.data.normal_(0, 0.2)
        layer.B.data.normal_(0, 0.2)
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out = model(IDX)
    return out if isinstance(out, Tensor) else out.logits


def settings(model: GPTModel) -> dict[str, tuple[int, float, float]]:
    return {n: (m.rank, m.alpha, m.dropout.p) for n, m in lora_layers(model).items()}


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return list(ours) == list(theirs) and all(torch.equal(ours[n], theirs[n]) for n in ours)


def in_transformers(base: GPTModel, directory: Path) -> GPT2LMHeadModel:
    """The base model in transformers, each matrix with what PEFT would add to it."""
    cfg, ours = base.cfg, base.state_dict()
    shape: dict[str, Any] = {"vocab_size": 300, "n_positions": 16, "n_embd": 32, "n_layer": 2}
    theirs = GPT2LMHeadModel(GPT2Config(**shape, n_head=4, bos_token_id=0, eos_token_id=0)).eval()
    state = {row.theirs: to_theirs(ours, row, cfg) for row in huggingface_rows(cfg)}
    theirs.load_state_dict(state | {"lm_head.weight": state["transformer.wte.weight"]})
    config, tensors = (
        json.loads((directory / CONFIG).read_text("utf-8")),
        load_file(directory / WEIGHTS),
    )
    for name, A in tensors.items():
        if name.endswith(".lora_A.weight"):
            B = tensors[name.replace("lora_A", "lora_B")]
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            kind = next((k for k in config["alpha_pattern"] if module.endswith(k)), "")
            alpha = config["alpha_pattern"].get(kind, config["lora_alpha"])
            assert len(A) == config["rank_pattern"].get(kind, config["r"])
            theirs.get_parameter(f"{module}.weight").data += (alpha / len(A) * B @ A).T
    return theirs


@pytest.mark.parametrize(
    "targets", [TARGETS, ["W_query", "W_value"], ["out_proj"], ["trf_blocks.1.att.W_key"]]
)
@pytest.mark.parametrize("fresh", [True, False])
def test_there_and_back_is_the_identity(tmp_path: Path, targets: list[str], fresh: bool) -> None:
    base = make()
    model = add_lora(copy.deepcopy(base), rank=4, alpha=7, dropout=0.1, targets=targets)
    if not fresh:
        trained(model)
    save_adapter(tmp_path / "adapter", model, "runs/base")
    again = copy.deepcopy(base).train()
    assert load_adapter(tmp_path / "adapter", again) is again
    assert all(module.training for module in again.modules())
    assert settings(again) == settings(model)
    assert same(again.state_dict(), model.state_dict())
    trainable = {name for name, p in again.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in model.named_parameters() if p.requires_grad}
    assert torch.equal(logits(again.eval()), logits(model))
    save_adapter(tmp_path / "again", again, "runs/base")
    for file in (CONFIG, WEIGHTS):
        before, after = (tmp_path / folder / file for folder in ("adapter", "again"))
        if file == CONFIG:
            assert json.loads(before.read_text("utf-8")) == json.loads(after.read_text("utf-8"))
        else:
            assert before.read_bytes() == after.read_bytes()


@pytest.mark.parametrize("targets", [TARGETS, ["W_query", "W_value"]])
def test_the_files_say_to_transformers_what_the_model_is(
    tmp_path: Path, targets: list[str]
) -> None:
    base = make()
    model = trained(add_lora(copy.deepcopy(base), rank=4, alpha=8, targets=targets))
    save_adapter(tmp_path, model, "runs/base")
    torch.testing.assert_close(
        logits(in_transformers(base, tmp_path)), logits(model), atol=1e-4, rtol=0
    )
    assert not torch.allclose(logits(base), logits(model), atol=0.01)


def test_the_layout_of_the_files(tmp_path: Path) -> None:
    model = trained(add_lora(make(), rank=4, alpha=8))
    save_adapter(tmp_path, model, "runs/base")
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    config = json.loads((tmp_path / CONFIG).read_text("utf-8"))
    assert config["base_model_name_or_path"] == "runs/base"
    assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (4, 8, True)
    assert config["target_modules"] == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    assert config["rank_pattern"]["attn.c_attn"] == 12
    assert config["alpha_pattern"]["attn.c_attn"] == 24
    tensors = load_file(tmp_path / WEIGHTS)
    assert len(tensors) == 2 * 4 * 2
    A, B = tensors[C_ATTN.format(1, "A")], tensors[C_ATTN.format(1, "B")]
    assert A.shape == (12, 32) and B.shape == (96, 12)
    key = lora_layers(model)["trf_blocks.1.att.W_key"]
    assert torch.equal(A[4:8], key.A) and torch.equal(B[32:64, 4:8], key.B)
    assert not B[32:64, :4].any() and not B[32:64, 8:].any()


def foreign(directory: Path, r: int = 6, **changes: Any) -> None:
    """An adapter for query, key and value as PEFT trains it: one A, and a B without zeros."""
    directory.mkdir(exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "gpt2",
        "r": r,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": ["c_attn"],
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
        "fan_in_fan_out": True,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "layers_to_transform": None,
        "peft_version": "0.18.0",
    }
    (directory / CONFIG).write_text(json.dumps(config | changes), "utf-8")
    tensors = {C_ATTN.format(i, "A"): 0.2 * torch.randn(r, 32) for i in (0, 1)}
    tensors |= {C_ATTN.format(i, "B"): 0.2 * torch.randn(96, r) for i in (0, 1)}
    save_file(tensors, directory / WEIGHTS)


def test_an_adapter_that_peft_trained(tmp_path: Path) -> None:
    base = make()
    foreign(tmp_path / "theirs")
    expected = logits(in_transformers(base, tmp_path / "theirs"))
    model = load_adapter(tmp_path / "theirs", copy.deepcopy(base))
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)
    assert set(settings(model).values()) == {(6, 16, 0.05)} and len(lora_layers(model)) == 6
    query, key, *_ = lora_layers(model).values()
    assert torch.equal(query.A, key.A) and query.A is not key.A
    save_adapter(tmp_path / "ours", model, "gpt2")
    assert torch.equal(logits(load_adapter(tmp_path / "ours", copy.deepcopy(base))), logits(model))
    assert torch.allclose(logits(merge_lora(model)), expected, atol=1e-4)


def test_one_that_peft_has_not_trained_yet_keeps_its_rank(tmp_path: Path) -> None:
    foreign(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    zeroed = {n: t.zero_() if "lora_B" in n else t for n, t in tensors.items()}
    save_file(zeroed, tmp_path / WEIGHTS)
    assert {rank for rank, *_ in settings(load_adapter(tmp_path, make())).values()} == {6}


def test_alphas_and_ranks_by_layer(tmp_path: Path) -> None:
    base = make()
    pattern = {"transformer.h.0.attn.c_attn": 3, "c_attn": 5}
    foreign(tmp_path / "theirs", alpha_pattern=pattern, rank_pattern={"h.1.attn.c_attn": 6}, r=6)
    model = load_adapter(tmp_path / "theirs", copy.deepcopy(base))
    assert [alpha for _, alpha, _ in settings(model).values()] == [3] * 3 + [5] * 3
    save_adapter(tmp_path / "ours", model, "gpt2")
    again = load_adapter(tmp_path / "ours", copy.deepcopy(base))
    assert settings(again) == settings(model)
    assert same(again.state_dict(), model.state_dict())


def test_half_precision_opens_in_the_models(tmp_path: Path) -> None:
    model = trained(add_lora(make()))
    save_adapter(tmp_path, model, "x")
    tensors = {name: t.half() for name, t in load_file(tmp_path / WEIGHTS).items()}
    save_file(tensors, tmp_path / WEIGHTS)
    for layer in lora_layers(load_adapter(tmp_path, make())).values():
        for p in (layer.A, layer.B):
            assert p.dtype == torch.float32 and torch.equal(p, p.half().float()) and p.any()


def test_a_classifier_takes_its_output_layer_along(tmp_path: Path) -> None:
    base = make()
    model = trained(add_lora(copy.deepcopy(base), rank=4))
    to_classifier(model, 3)
    save_adapter(tmp_path, model, "x")
    config = json.loads((tmp_path / CONFIG).read_text("utf-8"))
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
    stored = load_file(tmp_path / WEIGHTS)["base_model.model.score.weight"]
    assert torch.equal(stored, model.out_head.weight)
    for start in (copy.deepcopy(base), to_classifier(make(), 3)):
        start.load_state_dict(
            {n: t for n, t in base.state_dict().items() if n[:4] != "out_"}, False
        )
        again = load_adapter(tmp_path, start)
        assert torch.equal(logits(again), logits(model)) and again.out_head.weight.requires_grad
        assert not again.tok_emb.weight.requires_grad
    message = r"score.weight has the shape \(3, 32\), expected \(2, 32\)"
    with pytest.raises(UserError, match=message):
        load_adapter(tmp_path, to_classifier(make(), 2))


def test_an_adapter_without_output_layer_leaves_the_models(tmp_path: Path) -> None:
    save_adapter(tmp_path, trained(add_lora(make())), "x")
    model = to_classifier(make(), 2)
    head = model.out_head
    assert load_adapter(tmp_path, model).out_head is head


def test_what_an_adapter_cannot_hold_is_not_lost_silently(tmp_path: Path) -> None:
    def refusal(model: GPTModel) -> str:
        with pytest.raises(UserError) as error:
            save_adapter(tmp_path / "adapter", model, "x")
        assert not (tmp_path / "adapter").exists()
        return str(error.value)

    assert "has no LoRA layers to save" in refusal(make())
    model = add_lora(make())
    model.final_norm.requires_grad_(True)
    assert "final_norm.scale, final_norm.shift: trainable as well" in refusal(model)
    model = add_lora(make())
    model.out_head = nn.Linear(32, 2)
    assert "has a bias" in refusal(model)
    model = add_lora(make())
    lora_layers(model)["trf_blocks.0.att.W_key"].alpha = 3
    assert "different rank or alpha" in refusal(model)


def test_of_a_missing_or_damaged_file_is_said_which(tmp_path: Path) -> None:
    def refusal() -> str:
        model = make()
        before = model.state_dict()
        with pytest.raises(UserError) as error:
            load_adapter(tmp_path / "adapter", model)
        assert same(model.state_dict(), before) and not has_lora(model)
        assert all(p.requires_grad for p in model.parameters())
        return str(error.value)

    assert "there is no adapter directory" in refusal()
    save_adapter(tmp_path / "adapter", add_lora(make()), "x")
    config, weights = (tmp_path / "adapter" / name for name in (CONFIG, WEIGHTS))
    kept = config.read_text("utf-8"), weights.read_bytes()
    weights.write_bytes(kept[1][:-5])
    assert f"{WEIGHTS} is damaged" in refusal()
    weights.unlink()
    assert f"{WEIGHTS} is missing" in refusal()
    config.write_text(kept[0][:-5], "utf-8")
    assert f"{CONFIG} cannot be read as JSON" in refusal()
    config.unlink()
    assert f"{CONFIG} is missing" in refusal()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', groundup's is 'LORA'"),
        ({"use_dora": True}, "use_dora is True, groundup's is False"),
        ({"use_rslora": True, "bias": "all"}, "bias is 'all'.*use_rslora is True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"layers_to_transform": [0]}, r"layers_to_transform is \[0\]"),
        ({"r": 0}, "r is 0; expected a whole number of at least 1"),
        ({"r": None}, "it lacks r"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'; expected a number above 0"),
        ({"lora_dropout": 1}, "lora_dropout is 1; expected a number from 0 to below 1"),
        (
            {"target_modules": ".*c_attn"},
            r"target_modules is '\.\*c_attn'; expected a list of names",
        ),
        ({"rank_pattern": {"c_attn": "6"}}, "rank_pattern is .*; expected whole numbers"),
        ({"alpha_pattern": [6]}, "alpha_pattern is .*; expected numbers above 0 by name"),
        (
            {"target_modules": ["c_attn", "q_proj"]},
            "target_modules names 'q_proj', which is no linear layer of a GPT-2 of 2 blocks; "
            "did you mean",
        ),
        ({"rank_pattern": {"h.2.attn.c_attn": 6}}, r"rank_pattern names 'h.2.attn.c_attn'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save names 'lm_head', but groundup takes"),
        ({"modules_to_save": ["classifier", "score"]}, "model.score.weight is missing"),
        ({"target_modules": ["c_attn", "c_fc"]}, r"h\.0\.mlp\.c_fc\.lora_A\.weight is missing"),
        ({"target_modules": ["c_fc"]}, r"attn\.c_attn\.lora_A\.weight is unexpected; did you mean"),
        ({"r": 8}, r"c_attn\.lora_A\.weight has the shape \(6, 32\), expected \(8, 32\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    foreign(tmp_path)
    path = tmp_path / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    model = make()
    with pytest.raises(UserError, match=message):
        load_adapter(tmp_path, model)
    assert not has_lora(model) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emb_dim": 64}, "the adapter is for emb_dim 32, the model has 64"),
        ({"n_layers": 1}, "the adapter is for n_layers 2, the model has 1"),
        (
            {"emb_dim": 64, "n_layers": 1},
            "the adapter is for emb_dim 32, the model has 64; the adapter is for n_layers 2",
        ),
        ({"n_layers": 3}, r"h\.2\.attn\.c_attn\.lora_A\.weight is missing"),
    ],
)
def test_a_model_of_another_size(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    save_adapter(tmp_path, add_lora(make()), "x")
    with pytest.raises(UserError, match=message):
        load_adapter(tmp_path, make(**changes))


def test_a_rank_that_no_matrix_has(tmp_path: Path) -> None:
    foreign(tmp_path, r=40)
    with pytest.raises(UserError, match=r"W_query has rank 40, more than emb_dim \(32\)"):
        load_adapter(tmp_path, make())


def test_not_onto_an_adapted_model(tmp_path: Path) -> None:
    model = add_lora(make())
    save_adapter(tmp_path, model, "x")
    with pytest.raises(UserError, match="has LoRA layers already"):
        load_adapter(tmp_path, model)


@pytest.mark.oracle
@pytest.mark.parametrize("targets", [TARGETS, ["W_query", "W_value"], ["trf_blocks.1.att.W_key"]])
def test_peft_opens_ours_and_we_open_what_it_saves(
    tmp_path: Path, tokenizer: BPETokenizer, targets: list[str], recwarn: pytest.WarningsRecorder
) -> None:
    peft = pytest.importorskip("peft", reason="pip install peft")
    base = make(vocab_size=tokenizer.vocab_size)
    save_model(tmp_path / "base", base, tokenizer)
    model = trained(add_lora(copy.deepcopy(base), rank=4, alpha=7.5, targets=targets))
    save_adapter(tmp_path / "ours", model, str(tmp_path / "base"))
    their_base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(their_base, tmp_path / "ours")
    assert not [w for w in recwarn if re.search("adapter|pattern|keys", str(w.message))]
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-4, rtol=0)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_adapter(tmp_path / "theirs", copy.deepcopy(base))
    assert same(again.state_dict(), model.state_dict())


@pytest.mark.oracle
def test_we_open_what_peft_trains(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    peft = pytest.importorskip("peft", reason="pip install peft")
    base = make(vocab_size=tokenizer.vocab_size)
    save_model(tmp_path / "base", base, tokenizer)
    their_base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=6, target_modules=["c_attn", "c_fc"], task_type="CAUSAL_LM", rank_pattern={"c_fc": 3}
    )
    theirs = peft.get_peft_model(their_base, config)
    for p in theirs.parameters():
        if p.requires_grad:
            p.data.normal_(0, 0.2)
    theirs.eval().save_pretrained(tmp_path / "theirs")
    model = load_adapter(tmp_path / "theirs", copy.deepcopy(base))
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-4, rtol=0)
    assert not torch.allclose(logits(base), logits(model), atol=0.01)


@pytest.mark.oracle
def test_peft_opens_a_classifier(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    peft = pytest.importorskip("peft", reason="pip install peft")
    base = make(vocab_size=tokenizer.vocab_size)
    save_model(tmp_path / "base", base, tokenizer)
    model = trained(add_lora(copy.deepcopy(base), rank=4))
    to_classifier(model, 2)
    save_adapter(tmp_path / "ours", model, str(tmp_path / "base"))
    loader: Any = GPT2ForSequenceClassification
    theirs = loader.from_pretrained(tmp_path / "base", num_labels=2, pad_token_id=0)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours")
    torch.testing.assert_close(logits(theirs), logits(model)[:, -1], atol=1e-4, rtol=0)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_adapter(tmp_path / "theirs", copy.deepcopy(base))
    assert same(again.state_dict(), model.state_dict())

import math
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from groundup.config import ModelConfig, preset
from groundup.decoding.engine import generate_text_simple
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.options import option_fields
from groundup.weights.names import huggingface_rows, to_theirs
from tests.conftest import ARCHITECTURES, tiny_config

COURSE = {
    "vocab_size": 50257,
    "context_length": 1024,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}


@pytest.mark.usefixtures("all_cores")
def test_the_courses_seed_gives_the_courses_tokens() -> None:
    torch.manual_seed(123)
    model = GPTModel(COURSE).eval()
    idx = torch.tensor([[15496, 11, 314, 716]])
    out = generate_text_simple(model, idx, max_new_tokens=10, context_size=1024)
    golden = "15496 11 314 716 27018 24086 47843 30961 42348 7267 49706 43231 47062 34657"
    assert out.tolist() == [[int(i) for i in golden.split()]]
    assert model.num_parameters() == 163_009_536


def switches() -> list[tuple[str, dict[str, Any]]]:
    """Each architecture, with each of the config's switches in each position."""
    found = {
        name: (True, False) if hint is bool else get_args(hint)
        for name, (_, hint) in option_fields(ModelConfig).items()
        if hint is bool or get_origin(hint) is Literal
    }
    return [
        (kind, {name: value})
        for kind in ARCHITECTURES
        for name, values in found.items()
        for value in values
    ]


@pytest.mark.parametrize(("kind", "switched"), switches(), ids=str)
@pytest.mark.parametrize("gpt2", [True, False])
def test_an_untrained_model_knows_nothing(kind: str, switched: dict[str, Any], gpt2: bool) -> None:
    """Its loss is near that of guessing: a tied output layer once began at several hundred."""
    torch.manual_seed(123)
    cfg = ARCHITECTURES[kind].replace(
        vocab_size=2048, context_length=64, emb_dim=256, drop_rate=0.1, **switched
    )
    model = GPTModel(cfg).init_gpt2() if gpt2 else GPTModel(cfg)
    idx = torch.randint(0, cfg.vocab_size, (4, 65))
    loss = model(idx[:, :-1], targets=idx[:, 1:]).item() / (4 * 64)
    assert loss == pytest.approx(math.log(cfg.vocab_size), abs=0.3)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_logits_equal_those_of_transformers(tie: bool, bias: bool) -> None:
    cfg = tiny_config(tie_weights=tie, qkv_bias=bias, vocab_size=101)
    model = GPTModel(cfg).init_gpt2().eval()
    for p in model.parameters():  # so that biases and norms matter
        p.data += 0.05 * torch.randn_like(p)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=101,
            n_positions=16,
            n_embd=32,
            n_layer=2,
            n_head=4,
            tie_word_embeddings=tie,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    ours = model.state_dict()
    state = {row.theirs: to_theirs(ours, row, cfg) for row in huggingface_rows(cfg)}
    if tie:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    theirs.load_state_dict(state)
    idx = torch.randint(0, 101, (3, 16))
    with torch.no_grad():
        torch.testing.assert_close(model(idx), theirs(idx).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 1, 5], [11, 1]])
def test_cached_logits_equal_uncached_ones(chunks: list[int], kind: str) -> None:
    model = GPTModel(ARCHITECTURES[kind]).eval()
    idx = torch.randint(0, 300, (2, 12))
    cache = model.new_cache(batch_size=2)
    with torch.no_grad():
        parts = [model(part, cache) for part in idx.split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(idx), atol=1e-5, rtol=0)
    assert cache.length == 12
    cache.truncate(3)
    with torch.no_grad():
        again = model(idx[:, 3:], cache)
        torch.testing.assert_close(again, model(idx)[:, 3:], atol=1e-5, rtol=0)


def test_tied_weights_are_one_tensor_and_stay_so() -> None:
    model = GPTModel(tiny_config(tie_weights=True))
    assert model.out_head.weight is model.tok_emb.weight
    model.load_state_dict(GPTModel(tiny_config(tie_weights=True)).state_dict())
    model.to(torch.float64)
    assert model.out_head.weight is model.tok_emb.weight
    untied = GPTModel(tiny_config(tie_weights=False))
    assert untied.num_parameters() == model.num_parameters() + 300 * 32


def test_state_dict_has_the_courses_names_and_takes_the_courses_masks() -> None:
    model = GPTModel(tiny_config(n_layers=1, tie_weights=False, qkv_bias=False))
    assert sorted(model.state_dict()) == sorted(
        [
            *("tok_emb.weight", "pos_emb.weight", "out_head.weight"),
            *("final_norm.scale", "final_norm.shift"),
            *(f"trf_blocks.0.att.W_{n}.weight" for n in ("query", "key", "value")),
            *(f"trf_blocks.0.att.out_proj.{n}" for n in ("weight", "bias")),
            *(f"trf_blocks.0.ff.layers.{i}.{n}" for i in (0, 2) for n in ("weight", "bias")),
            *(f"trf_blocks.0.norm{i}.{n}" for i in (1, 2) for n in ("scale", "shift")),
        ]
    )
    state = {**model.state_dict(), "trf_blocks.0.att.mask": torch.ones(16, 16)}
    assert model.load_state_dict(state).unexpected_keys == []


def test_gpt2_initialisation_has_its_standard_deviations() -> None:
    cfg = tiny_config(emb_dim=256, n_heads=4, n_layers=8, vocab_size=1000)
    model = GPTModel(cfg).init_gpt2(torch.Generator().manual_seed(1))
    block = model.trf_blocks.get_submodule("3")
    residual = 0.02 / 4  # sqrt(2 * 8 layers)
    for name, expected in (
        ("att.W_query.weight", 0.02),
        ("att.out_proj.weight", residual),
        ("ff.layers.0.weight", 0.02),
        ("ff.layers.2.weight", residual),
    ):
        assert block.get_parameter(name).std().item() == pytest.approx(expected, rel=0.03)
    assert block.get_parameter("ff.layers.0.bias").abs().max() == 0
    assert block.get_parameter("norm1.scale").min() == 1
    again = GPTModel(cfg).init_gpt2(torch.Generator().manual_seed(1))
    assert torch.equal(again.tok_emb.weight, model.tok_emb.weight)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_begins_as_gpt2_does(kind: str) -> None:
    cfg = ARCHITECTURES[kind].replace(emb_dim=256, n_layers=8, hidden_dim=512, vocab_size=1000)
    model = GPTModel(cfg).init_gpt2(torch.Generator().manual_seed(1))
    narrow = ("att.out_proj.weight", "ff.layers.2.weight", "ff.down_proj.weight")
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert parameter.eq(0 if name.endswith("shift") else 1).all(), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            expected = 0.02 / 4 if name.endswith(narrow) else 0.02  # sqrt(2 * 8 layers)
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name


def test_an_input_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UserError, match="17 tokens, but the model's context_length is 16"):
        GPTModel(tiny_config())(torch.zeros(1, 17, dtype=torch.long))


def test_presets_have_gpt2s_sizes() -> None:
    sizes = {
        "gpt2-small": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
        "course-124m": 163_009_536,
    }
    for name, size in sizes.items():
        with torch.device("meta"):
            assert GPTModel(preset(name)).num_parameters() == size
    assert preset("124M") == preset("gpt2") == preset("gpt2-small")


def test_the_course_dict_and_the_config_are_interchangeable() -> None:
    assert ModelConfig.of(COURSE) == preset("course-124m")
    assert dict(preset("course-124m"))["emb_dim"] == 768
    assert GPTModel({**tiny_config(), "n_layers": 1}).cfg.n_layers == 1

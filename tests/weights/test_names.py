import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.weights.names import from_theirs, huggingface_rows, openai_rows, to_theirs
from tests.conftest import tiny_config


def to_gpt2(state: dict[str, torch.Tensor], cfg: ModelConfig) -> dict[str, torch.Tensor]:
    return {row.theirs: to_theirs(state, row, cfg) for row in huggingface_rows(cfg)}


def shapes(model: GPTModel) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@given(
    st.builds(
        ModelConfig,
        vocab_size=st.integers(1, 40),
        context_length=st.integers(1, 9),
        emb_dim=st.sampled_from([4, 8, 12]),
        n_heads=st.sampled_from([1, 2, 4]),
        n_layers=st.integers(1, 3),
        qkv_bias=st.booleans(),
        tie_weights=st.booleans(),
    )
)
def test_there_and_back_is_the_identity(cfg: ModelConfig) -> None:
    model = GPTModel(cfg)
    state = model.state_dict()
    for table in (huggingface_rows, openai_rows):
        theirs = {row.theirs: to_theirs(state, row, cfg) for row in table(cfg)}
        back = from_theirs(theirs, table(cfg), shapes(model), "here")
        # OpenAI's format has no output layer of its own; theirs is the embedding.
        ours = {n: t for n, t in state.items() if n in back or not n.startswith("out_head")}
        assert sorted(back) == sorted(ours)
        assert all(torch.equal(back[name], ours[name]) for name in ours)
        assert ("out_head.weight" in back) == (table is huggingface_rows and not cfg.tie_weights)


def test_every_parameter_is_in_the_table_once() -> None:
    cfg = tiny_config(tie_weights=False)
    names = [name for row in huggingface_rows(cfg) for name in row.ours]
    assert sorted(names) == sorted(GPTModel(cfg).state_dict())


def test_all_that_is_wrong_is_listed_by_name() -> None:
    cfg = tiny_config()
    model = GPTModel(cfg)
    tensors = to_gpt2(model.state_dict(), cfg)
    del tensors["transformer.ln_f.bias"]
    tensors["transformer.ln_f.bais"] = torch.zeros(32)
    tensors["transformer.wte.weight"] = torch.zeros(299, 32)
    tensors["transformer.h.0.attn.c_attn.bias"] = torch.zeros(())
    with pytest.raises(UserError) as error:
        from_theirs(tensors, huggingface_rows(cfg), shapes(model), "dir")
    message = str(error.value)
    assert "transformer.ln_f.bias is missing" in message
    assert "transformer.ln_f.bais is unexpected; did you mean 'transformer.ln_f.bias'" in message
    assert "gives tok_emb.weight the shape (299, 32), the config (300, 32)" in message
    assert "c_attn.bias has the impossible shape ()" in message


def test_a_bias_that_the_config_denies_must_be_zero() -> None:
    cfg = tiny_config(qkv_bias=False)
    model = GPTModel(cfg)
    tensors = to_gpt2(model.state_dict(), cfg)
    tensors["transformer.h.1.attn.c_attn.bias"][3] = 1.0
    with pytest.raises(UserError, match="h.1.attn.c_attn.bias is not zero"):
        from_theirs(tensors, huggingface_rows(cfg), shapes(model), "dir")


def test_openais_names_and_shapes() -> None:
    cfg = tiny_config()
    state = GPTModel(cfg).state_dict()
    theirs = {row.theirs: tuple(to_theirs(state, row, cfg).shape) for row in openai_rows(cfg)}
    assert theirs["model/wte"] == (300, 32) and theirs["model/wpe"] == (16, 32)
    assert theirs["model/h0/attn/c_attn/w"] == (1, 32, 96)
    assert theirs["model/h0/attn/c_attn/b"] == (96,)
    assert theirs["model/h1/mlp/c_fc/w"] == (1, 32, 128)
    assert theirs["model/h1/ln_1/g"] == theirs["model/ln_f/b"] == (32,)
    assert len(theirs) == 2 + 12 * 2 + 2

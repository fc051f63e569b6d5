import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.weights.names import from_gpt2, gpt2_rows, to_gpt2
from tests.conftest import tiny_config


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
    back = from_gpt2(to_gpt2(state, cfg), cfg, shapes(model), "here")
    if cfg.tie_weights:
        back["out_head.weight"] = back["tok_emb.weight"]
    assert sorted(back) == sorted(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_every_parameter_is_in_the_table_once() -> None:
    cfg = tiny_config(tie_weights=False)
    names = [name for row in gpt2_rows(cfg) for name in row.ours]
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
        from_gpt2(tensors, cfg, shapes(model), "dir")
    message = str(error.value)
    assert "transformer.ln_f.bias is missing" in message
    assert "transformer.ln_f.bais is unexpected; did you mean 'transformer.ln_f.bias'" in message
    assert "tok_emb.weight the shape (299, 32), the config (300, 32)" in message
    assert "c_attn.bias has the impossible shape ()" in message


def test_a_bias_that_the_config_denies_must_be_zero() -> None:
    cfg = tiny_config(qkv_bias=False)
    model = GPTModel(cfg)
    tensors = to_gpt2(model.state_dict(), cfg)
    tensors["transformer.h.1.attn.c_attn.bias"][3] = 1.0
    with pytest.raises(UserError, match="h.1.attn.c_attn.bias is not zero"):
        from_gpt2(tensors, cfg, shapes(model), "dir")

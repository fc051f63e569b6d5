"""What is counted on fake tensors is what real runs keep."""

import pytest
import torch

from groundup.config import ModelConfig, preset
from groundup.model.activations import (
    activation_bytes,
    activation_bytes_of,
    activations,
)
from groundup.model.classifier import set_trainable
from groundup.model.door import token_loss
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.runtime import Precision
from tests.conftest import tiny_config


def kept_by(model: GPTModel, texts: int, tokens: int, precision: Precision) -> int:
    """What autograd keeps of a real forward pass and its loss."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    idx = torch.zeros(texts, tokens, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"),
    ):
        token_loss(model, idx, idx)  # what training runs
    return sum(kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_activations_are_what_autograd_keeps_in_a_real_run(
    drop_rate: float, precision: Precision
) -> None:
    cfg = tiny_config(drop_rate=drop_rate, n_layers=3)
    real = kept_by(GPTModel(cfg), 3, cfg.context_length, precision)
    assert activations(cfg, precision).of(3) == real
    assert precision == "bf16" or activation_bytes(cfg, 3) == real


def test_a_model_with_frozen_parts_or_lora_keeps_less() -> None:
    cfg = tiny_config(n_layers=3, tie_weights=False)
    whole = activation_bytes_of(GPTModel(cfg), 2, 9, "fp32")
    for change in (lambda m: set_trainable(m, "last-block"), lambda m: add_lora(m, 2, 4.0, 0.0)):
        model = GPTModel(cfg)
        change(model)
        counted = activation_bytes_of(model, 2, 9, "fp32")
        assert counted == kept_by(model.train(), 2, 9, "fp32") < whole
        assert not any(isinstance(p, torch._subclasses.FakeTensor) for p in model.parameters())


def test_checkpointing_keeps_what_enters_each_block_and_one_block() -> None:
    cfg = tiny_config(n_layers=5)
    found = activations(cfg)
    assert found.of(2) - found.of(2, checkpointing=True) == 4 * 2 * (
        found.block_text - found.block_input
    )
    assert found.block_input == 16 * 32 * 4


def test_a_gpus_attention_writes_no_weights_down() -> None:
    long = preset("gpt2-small").replace(context_length=1024)
    gpu = [activations(long.replace(context_length=T), "bf16", "gpu") for T in (128, 1024)]
    assert gpu[1].block_text == 8 * gpu[0].block_text  # linear in the tokens
    cpu = activations(long, "bf16", "cpu")
    assert cpu.block_text > 3 * gpu[1].block_text  # where dropout writes (T, T) weights down
    assert cpu.block_fixed == gpu[1].block_fixed == 2 * 12 * 768**2  # copies of the matrices


def test_bf16_halves_what_enters_the_matrices_of_a_block() -> None:
    """Korthikanti et al. 2022, section 4.1: 34 bytes per token and width in 16 bits, with dropout.

    Here flash attention needs no softmax (which is not among the 34) but keeps its output, 2; each
    of LayerNorm's two inputs is fp32, 2 more; query, key and value each have a copy in bf16 of
    what they read, up to 4 more.
    """
    cfg = ModelConfig(emb_dim=1024, n_heads=16, drop_rate=0.1, qkv_bias=True)
    found = activations(cfg, "bf16", "gpu").block_text / (cfg.context_length * cfg.emb_dim)
    assert 40 <= found <= 44.1

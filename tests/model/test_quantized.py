"""Quantized models: the same class with fewer bytes per weight."""

import pytest
import torch

from groundup.config import ModelConfig, Quantization
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.model.quantized import QuantizedLinear, count_parameters, is_quantized, quantize
from tests.conftest import ARCHITECTURES, tiny_config
from tests.labelled import perturbed

NEAR = {"fp16": 0.002, "int8": 0.05, "int4": 0.6}
"""How far from fp32 in the root mean square, as a share of the scores' own deviation."""


def a_model(cfg: ModelConfig) -> GPTModel:
    torch.manual_seed(1)
    return perturbed(GPTModel(cfg)).eval()


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_stay_near_those_of_fp32(name: str, kind: Quantization) -> None:
    cfg = ARCHITECTURES[name].replace(hidden_dim=64)
    model, idx = a_model(cfg), torch.randint(0, 300, (2, 12))
    before = model(idx)
    assert quantize(model, kind) is model and is_quantized(model)
    after = model(idx)
    assert 0 < (after - before).square().mean().sqrt() < NEAR[kind] * before.std()
    cache = model.new_cache(2)
    cached = torch.cat([model(part, cache) for part in idx.split([6, 1, 5], dim=1)], dim=1)
    # A few tokens' activations have 8 bits, beside weights that have no more.
    few = {"fp16": 1e-4, "int8": 0.03, "int4": 0.06}[kind] * before.std()
    assert (cached - after).square().mean().sqrt() < few
    loss = model(idx[:, :-1], targets=idx[:, 1:])
    expected = torch.nn.functional.cross_entropy(
        after[:, :-1].flatten(0, 1), idx[:, 1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(loss, expected, rtol=1e-4 if kind == "fp16" else 0.02, atol=0)


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_a_model_in_another_dtype_keeps_its_quantized_numbers(kind: Quantization) -> None:
    model, idx = quantize(a_model(tiny_config()), kind), torch.randint(0, 300, (1, 5))
    before = {name: t.clone() for name, t in model.named_buffers()}
    fp32 = model(idx)
    bf16 = model.to(torch.bfloat16)(idx)
    for name, tensor in model.named_buffers():
        assert torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype
    assert (bf16.float() - fp32).abs().max() < 0.2 * fp32.std()


def test_the_layers_are_replaced_and_nothing_trains() -> None:
    model = quantize(a_model(tiny_config()), "int8")
    kinds = {type(m) for m in model.modules() if hasattr(m, "in_features")}
    assert kinds == {QuantizedLinear}
    assert not any(p.requires_grad for p in model.parameters())
    layer = model.get_submodule("trf_blocks.0.att.W_query")
    assert "int8" in repr(layer)
    bytes_now = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    before = sum(t.numel() * 4 for t in GPTModel(tiny_config()).state_dict().values())
    assert bytes_now < 0.6 * before


def test_what_cannot_be_quantized_is_refused_and_stays_as_it_was() -> None:
    model = a_model(tiny_config())
    with pytest.raises(UserError, match="quantized already"):
        quantize(quantize(model, "int8"), "int8")
    with pytest.raises(UserError, match="LoRA layers; merge them"):
        quantize(add_lora(a_model(tiny_config())), "int8")
    broken = a_model(tiny_config())
    broken.out_head.weight.data[3, 3] = torch.nan
    with pytest.raises(UserError, match="out_head holds numbers that are not finite"):
        quantize(broken, "int8")
    assert not is_quantized(broken)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_that_are_kept_in_fewer_bytes(tied: bool) -> None:
    model = GPTModel(tiny_config(tie_weights=tied))
    before = model.num_parameters()
    assert count_parameters(model) == before
    assert count_parameters(quantize(model, "int8")) == before

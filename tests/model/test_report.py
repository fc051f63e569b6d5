import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from groundup.config import preset
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.report import (
    costs,
    flops_per_token,
    human_bytes,
    layer_table,
)
from tests.conftest import ARCHITECTURES, tiny_config


def test_the_courses_counts() -> None:
    course = costs(preset("course-124m"))
    assert course.unique_parameters == course.total_parameters == 163_009_536
    assert course.tied_parameters == 124_412_160
    assert human_bytes(course.weights) == "621.83 MiB"
    gpt2 = costs(preset("gpt2-small"))
    assert gpt2.unique_parameters == 124_439_808
    assert gpt2.untied_parameters == gpt2.total_parameters == 163_037_184


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_operations_equal_pytorchs_own_count(kind: str) -> None:
    cfg = ARCHITECTURES[kind]
    with torch.device("meta"):
        model = GPTModel(cfg)
    idx = torch.zeros(1, cfg.context_length, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(idx)
    assert flops_per_token(cfg) * cfg.context_length == counter.get_total_flops()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_parameters_and_cache_are_those_of_the_model(kind: str) -> None:
    cfg = ARCHITECTURES[kind]
    model, found = GPTModel(cfg), costs(cfg)
    assert found.unique_parameters == model.num_parameters()
    assert found.block_parameters == sum(p.numel() for p in model.trf_blocks[0].parameters())
    cache = model.new_cache()
    model(torch.zeros(1, cfg.context_length, dtype=torch.long), cache)
    held = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    assert found.cache == sum(t.numel() * t.element_size() for t in held)
    rows = layer_table(cfg)
    assert [row.name for row in rows if row.name.endswith("norm")].count("final_norm") == 1


def test_layer_table_adds_up_and_is_in_order() -> None:
    cfg = tiny_config(n_layers=3)
    rows = layer_table(cfg, batch_size=2)
    names = [row.name for row in rows]
    assert names[:4] == ["tok_emb", "pos_emb", "drop_emb", "trf_blocks.0"]
    assert names.index("trf_blocks.0") < names.index("trf_blocks.0.norm1")
    assert names.index("trf_blocks.0.norm1") < names.index("trf_blocks.0.att")
    assert names[-4:] == ["trf_blocks.1", "trf_blocks.2", "final_norm", "out_head"]
    by_name = {row.name: row for row in rows}
    assert by_name["out_head"].input_shape == (2, 16, 32)
    assert by_name["out_head"].output_shape == (2, 16, 300)
    top = [row for row in rows if row.name.count(".") == (row.name.startswith("trf_blocks"))]
    total = sum(row.parameters for row in top)
    assert total == costs(cfg).total_parameters


def test_a_classifier() -> None:
    cfg = tiny_config(tie_weights=False)
    model = to_classifier(GPTModel(cfg), 3)
    found = costs(cfg, num_classes=3)
    assert found.unique_parameters == found.total_parameters == model.num_parameters()
    assert found.forward_flops == costs(cfg).forward_flops - 2 * 297 * 32
    assert found.activations < costs(cfg).activations
    head = next(row for row in layer_table(cfg, 2, num_classes=3) if row.name == "out_head")
    assert head.output_shape == (2, 16, 3) and head.parameters == 96

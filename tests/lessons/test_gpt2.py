from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.config import ModelConfig
from groundup.lessons.gpt2 import STAND_IN, gpt2_or_stand_in, openai_params
from groundup.model.gpt import GPTModel
from groundup.weights.openai import load_gpt2_params_from_tf_ckpt, load_weights_into_gpt
from tests.openai_files import write_openai_directory

SMALL = ModelConfig(
    vocab_size=50,
    context_length=8,
    emb_dim=12,
    n_heads=3,
    n_layers=2,
    qkv_bias=True,
    tie_weights=True,
)


def test_the_form_is_that_of_openais_files(tmp_path: Path) -> None:
    model = GPTModel(SMALL)
    write_openai_directory(tmp_path, model)
    settings, params = openai_params(model)
    read = load_gpt2_params_from_tf_ckpt(tmp_path, settings)
    assert _flat(params).keys() == _flat(read).keys()
    for name, array in _flat(read).items():
        assert (array == _flat(params)[name]).all(), name


def test_loaded_into_another_model_it_computes_the_same() -> None:
    model, other = GPTModel(SMALL).eval(), GPTModel(SMALL).eval()
    load_weights_into_gpt(other, openai_params(model)[1])
    idx = torch.randint(50, (2, 8))
    assert torch.equal(model(idx), other(idx))


def test_without_a_network_it_says_so_and_gives_the_stand_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, params = gpt2_or_stand_in("124M", str(tmp_path / "gpt2"))  # tests are offline
    assert "random weights" in capsys.readouterr().out
    assert settings["n_vocab"] == 50257 and settings["n_layer"] == len(params["blocks"])
    load_weights_into_gpt(GPTModel(STAND_IN), params)


def _flat(value: Any, name: str = "") -> dict[str, np.ndarray]:
    if isinstance(value, dict):
        return {
            k: v for key, part in value.items() for k, v in _flat(part, f"{name}/{key}").items()
        }
    if isinstance(value, list):
        return _flat(dict(enumerate(value)), name)
    return {name: value}

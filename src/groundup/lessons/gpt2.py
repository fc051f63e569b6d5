"""OpenAI's GPT-2 for the notebooks; where it can't be had, a small stand-in of the same form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.weights.names import openai_rows, to_theirs
from groundup.weights.openai import download_and_load_gpt2

STAND_IN = ModelConfig(emb_dim=48, n_heads=3, n_layers=2, qkv_bias=True, tie_weights=True)
"""GPT-2's vocabulary and context, but next to no width."""

Params = dict[str, Any]


def gpt2_or_stand_in(model_size: str, models_dir: str) -> tuple[Params, Params]:
    """``download_and_load_gpt2``; without a network, settings and parameters of a random model.

    It says so if they are the stand-in's.

    Args:
        model_size: 124M, 355M, 774M or 1558M.
        models_dir: where OpenAI's files are kept.
    """
    try:
        return download_and_load_gpt2(model_size, models_dir)
    except UserError:  # no network, or nobody may ask it
        print(
            f"(OpenAI's {model_size} can't be downloaded here. In its place: a small model of the\n"
            "same kind with random weights, in OpenAI's form. The steps are the same; what it\n"
            "writes is noise.)"
        )
    torch.manual_seed(123)
    return openai_params(GPTModel(STAND_IN).init_gpt2())


def openai_params(model: GPTModel) -> tuple[Params, Params]:
    """A tied model's settings and weights as ``download_and_load_gpt2`` returns OpenAI's."""
    cfg, state = model.cfg, model.state_dict()
    settings = {
        "n_vocab": cfg.vocab_size,
        "n_ctx": cfg.context_length,
        "n_embd": cfg.emb_dim,
        "n_head": cfg.n_heads,
        "n_layer": cfg.n_layers,
    }
    params: Params = {"blocks": [{} for _ in range(cfg.n_layers)]}
    for row in openai_rows(cfg):
        _, first, *path = row.theirs.split("/")  # model/h0/attn/c_attn/w, model/ln_f/g, model/wte
        target = params
        if first.startswith("h"):
            target = params["blocks"][int(first[1:])]
        elif first != "ln_f":
            path = [first]
        *path, last = path
        for key in path:
            target = target.setdefault(key, {})
        target[last] = np.squeeze(to_theirs(state, row, cfg).numpy())
    return settings, params

"""llama.cpp itself runs our GGUF files: the same tokens, the same greedy text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.weights.gguf import DType, export_gguf
from groundup.weights.load import load_model
from tests.conftest import ARCHITECTURES, tiny_config
from tests.labelled import perturbed

pytestmark = pytest.mark.oracle

PROMPT = "The quick brown fox"


def completion(path: Path, length: int) -> dict[str, Any]:
    """What llama.cpp writes after the prompt, always the likeliest token, and how likely it is."""
    llama: Any = pytest.importorskip("xllamacpp")
    params = llama.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_gpu_layers, params.warmup, params.verbosity = 64, 0, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Else keys and values are fp16, which changes the logarithms by up to 2e-3.
    params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    asked = {"prompt": PROMPT, "max_tokens": length, "temperature": 0, "logprobs": 1}
    return llama.Server(params).handle_completions(asked)["choices"][0]


def greedy(model: GPTModel, ids: list[int], length: int) -> tuple[list[int], dict[int, float]]:
    """The likeliest tokens after these ids, and the logarithms of their probabilities by token.

    Of a token that comes again they are the first one's.
    """
    ids = list(ids)
    found: dict[int, float] = {}
    with torch.no_grad():
        for _ in range(length):
            likely = model(torch.tensor([ids]), at=torch.tensor([-1]))[0].log_softmax(dim=-1)
            ids.append(int(likely.argmax()))
            found.setdefault(ids[-1], float(likely.max()))
    return ids[-length:], found


def check(
    path: Path, model: GPTModel, tokenizer: BPETokenizer, close: float, exact: bool = True
) -> None:
    """The same text, unless rounded weights may come to another word; and as likely."""
    ids, likely = greedy(model, tokenizer.encode(PROMPT), 16)
    found = completion(path, 16)
    # The first one, or that which completes a character that the first ones began.
    theirs = found["logprobs"]["content"][0]
    assert theirs["logprob"] == pytest.approx(likely[theirs["id"]], abs=close)
    if exact:
        assert found["text"] == tokenizer.decode(ids)


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("hidden_dim", [None, 96])
@pytest.mark.parametrize("tie", [True, False])
def test_it_writes_the_same_text(
    tmp_path: Path, tokenizer: BPETokenizer, tie: bool, hidden_dim: int | None, dtype: DType
) -> None:
    """A tied output layer is not in the file."""
    shape = {"context_length": 64, "emb_dim": 64, "tie_weights": tie, "hidden_dim": hidden_dim}
    model = perturbed(GPTModel(tiny_config(**shape)).init_gpt2()).eval()
    export_gguf(model, tokenizer, tmp_path / "m.gguf", dtype, name="m")
    close = 5e-2 if dtype == "q8_0" else 5e-3  # its GELU is a table of fp16
    check(tmp_path / "m.gguf", model, tokenizer, close, exact=dtype == "f32")


SCALINGS: dict[str, dict[str, object]] = {
    "linear": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


def newer_model(architecture: str, **changes: object) -> GPTModel:
    shape = {"context_length": 64, "emb_dim": 64, "hidden_dim": 96, **changes}
    return perturbed(GPTModel(ARCHITECTURES[architecture].replace(**shape)).init_gpt2()).eval()


@pytest.mark.parametrize(
    ("architecture", "tie", "scaling"),
    [
        *(("llama", tie, None) for tie in (True, False)),
        *(("qwen3", tie, None) for tie in (True, False)),
        *(("llama", True, scaling) for scaling in SCALINGS),
        ("qwen3", False, "yarn"),
    ],
)
def test_so_it_does_with_newer_models(
    tmp_path: Path, tokenizer: BPETokenizer, architecture: str, tie: bool, scaling: str | None
) -> None:
    given = scaling and json.dumps({"rope_type": scaling, **SCALINGS[scaling]})
    model = newer_model(architecture, tie_weights=tie, rope_scaling=given)
    export_gguf(model, tokenizer, tmp_path / "m.gguf", "f32", name="m")
    check(tmp_path / "m.gguf", model, tokenizer, 1e-5)


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        *(("llama", dtype) for dtype in ("q8_0", "q5_0", "q4_1", "q4_0")),
        *(("qwen3", dtype) for dtype in ("f16", "q5_1")),
    ],
)
def test_quantized_files_mean_the_same_here_and_there(
    tmp_path: Path, tokenizer: BPETokenizer, architecture: str, dtype: DType
) -> None:
    """It rounds what is multiplied with quantized weights, too, so only nearly."""
    path = tmp_path / "m.gguf"
    export_gguf(newer_model(architecture), tokenizer, path, dtype, name="m")
    check(path, load_model(path)[0], tokenizer, 5e-2, exact=False)

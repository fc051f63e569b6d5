"""llama.cpp itself runs our GGUF files: the same tokens, the same greedy text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.weights.gguf import DType, export_gguf
from tests.conftest import tiny_config
from tests.labelled import perturbed

pytestmark = pytest.mark.oracle

PROMPT = "The quick brown fox"


def completion(path: Path, length: int) -> dict[str, Any]:
    """What llama.cpp writes after the prompt, always the likeliest token, and how likely it is."""
    llama: Any = pytest.importorskip("xllamacpp")
    params = llama.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_gpu_layers, params.warmup, params.verbosity = 64, 0, False, -1
    asked = {"prompt": PROMPT, "max_tokens": length, "temperature": 0, "logprobs": 1}
    return llama.Server(params).handle_completions(asked)["choices"][0]


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
    ids, length = tokenizer.encode(PROMPT), 16
    found = completion(tmp_path / "m.gguf", length)
    with torch.no_grad():
        first = model(torch.tensor([ids]))[0, -1].log_softmax(dim=-1)
        for _ in range(length):
            ids.append(int(model(torch.tensor([ids]), at=torch.tensor([-1])).argmax()))
    theirs = found["logprobs"]["content"][0]
    close = 5e-2 if dtype == "q8_0" else 5e-3  # its GELU is a table of fp16
    assert theirs["logprob"] == pytest.approx(float(first.max()), abs=close)
    if dtype == "f32":  # rounded weights may come to another word
        assert found["text"] == tokenizer.decode(ids[-length:])

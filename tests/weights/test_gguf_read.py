"""Opening GGUF files: those that others write, and those that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from groundup.errors import Note, UserError
from groundup.model.frequencies import frequencies
from groundup.model.gpt import GPTModel
from groundup.prompts import OWN, get_style
from groundup.tokenizers import BPETokenizer
from groundup.weights.gguf import export_gguf
from groundup.weights.gguf_file import KINDS
from groundup.weights.load import load_model, read_facts, read_shape
from tests.conftest import Run
from tests.labelled import labelled, write_csv
from tests.weights.gguf_files import noisy_model, rewritten

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, tokenizer: BPETokenizer) -> Write:
    """Write a model as f32 and return the file."""

    def call(model: GPTModel, **options: Any) -> Path:
        export_gguf(model, tokenizer, tmp_path / "m.gguf", "f32", **({"name": "m"} | options))
        return tmp_path / "m.gguf"

    return call


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
def test_every_kind_opens(write: Write, kind: Kind) -> None:
    """Blocks of the K-quants are 256 wide."""
    shape = {"emb_dim": 256, "hidden_dim": 256, "n_layers": 1, "tie_weights": True}
    path = rewritten(write(noisy_model("llama", **shape)), kind=kind)
    model, _ = load_model(path)
    whole = {t.name: t for t in gguf.GGUFReader(path).tensors}["blk.0.ffn_up.weight"]
    assert whole.tensor_type == kind
    expected = torch.tensor(gguf.dequantize(whole.data, kind))
    assert torch.equal(model.state_dict()["trf_blocks.0.ff.up_proj.weight"], expected)
    with torch.no_grad():
        assert model(torch.arange(5)[None]).isfinite().all()


def test_queries_and_keys_lie_in_pairs_in_llamas_files_only(write: Write) -> None:
    for architecture in ("llama", "qwen3"):
        model = noisy_model(architecture)
        found = {t.name: t.data for t in gguf.GGUFReader(write(model)).tensors}
        rows = model.state_dict()["trf_blocks.0.att.W_query.weight"]
        D = model.cfg.head_size
        beside = rows[D // 2] if architecture == "llama" else rows[1]
        assert np.array_equal(found["blk.0.attn_q.weight"][1], beside.numpy())


def test_a_shape_is_read_without_the_weights(
    write: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = noisy_model("qwen3")
    path = write(model)

    def no_reading(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr("groundup.weights.gguf_file.GGUFTensors.__getitem__", no_reading)
    assert read_shape(path)[0] == model.cfg
    result = run("inspect", path)
    assert result.status == 0 and "rope_theta=10000.0" in result.out
    assert run("plan", "--model", path).status == 0


def test_every_command_takes_it(
    write: Write, run: Run, tmp_path: Path, text_file: Path, tokenizer: BPETokenizer
) -> None:
    path = write(noisy_model("llama", tie_weights=True))
    expected = run("generate", path, "The", "--max-new-tokens=9", "--temperature=0").out
    assert run("export", path, "--to=hf", "--out", tmp_path / "hf").status == 0
    other = run("generate", tmp_path / "hf", "The", "--max-new-tokens=9", "--temperature=0")
    assert other.out == expected != ""
    assert run("evaluate", path, text_file).status == 0
    train = ("--max-steps=1", "--precision=fp32", "--sample-tokens=0", "--out", tmp_path / "run")
    result = run("pretrain", text_file, "--init-from", path, *train)
    assert result.status == 0, result.err
    assert load_model(tmp_path / "run")[0].cfg.n_kv_heads == 2


def test_an_adapter_on_a_gguf_file_opens_again(write: Write, run: Run, tmp_path: Path) -> None:
    path = write(noisy_model("llama"))
    spam = write_csv(tmp_path / "spam.csv", labelled())
    lora = ("--train=lora", "--max-steps=1", "--precision=fp32", "--max-length=8")
    result = run(
        "classify", "train", "--model", path, "--data", spam, *lora, "--out", tmp_path / "run"
    )
    assert result.status == 0, result.err
    found = run("classify", "predict", tmp_path / "run" / "adapter", "Free prize!")
    assert found.status == 0, found.err


def test_the_prompt_style_is_known_by_its_template(write: Write) -> None:
    path = write(noisy_model("llama"), prompt_style="chatml")
    assert read_facts(path).prompt_style == "chatml"
    assert load_model(path)[1].chat_template == get_style("chatml").chat_template()
    other = rewritten(path, {"tokenizer.chat_template": "{{ messages }}"})
    assert read_facts(other).prompt_style == OWN
    assert load_model(other)[1].chat_template == "{{ messages }}"
    assert read_facts(rewritten(path, {"tokenizer.chat_template": None})).prompt_style is None


def test_a_tied_output_layer_that_is_stored_twice(write: Write) -> None:
    """As llama.cpp's converter wrote GPT-2 until 2025."""
    model = noisy_model("gpt2", tie_weights=True)
    path = write(model)
    embedding = model.tok_emb.weight.detach().numpy()
    cfg, _ = read_shape(twice := rewritten(path, tensors={"output.weight": embedding}))
    assert cfg.tie_weights
    back, _ = load_model(twice)
    assert back.out_head.weight is back.tok_emb.weight
    cfg, _ = read_shape(rewritten(path, tensors={"output.weight": embedding * 2}))
    assert not cfg.tie_weights


def test_what_llama_cpp_takes_where_a_file_does_not_say_it(write: Write) -> None:
    model = noisy_model("llama", n_kv_heads=None)
    left_out = ("attention.head_count_kv", "attention.key_length", "attention.value_length")
    facts = dict.fromkeys((f"llama.{key}" for key in (*left_out, "rope.freq_base")), None)
    assert read_shape(rewritten(write(model), facts))[0] == model.cfg


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3s_positions_are_known_by_their_divisors(write: Write, factor: float) -> None:
    """All that its files say of them is a tensor."""
    scaling = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    shape = {"emb_dim": 128, "rope_theta": 500_000.0}
    path = write(noisy_model("llama", **shape))
    plain, _ = frequencies(32, 500_000.0)
    slowed, _ = frequencies(32, 500_000.0, json.dumps(scaling))
    divisors = np.array(plain) / np.array(slowed)
    assert divisors[0] == 1 and divisors[-1] == factor  # and a ramp between
    found, _ = read_shape(rewritten(path, tensors={"rope_freqs.weight": divisors}))
    assert found == noisy_model("llama", **shape, rope_scaling=json.dumps(scaling)).cfg
    divisors[3] = 2.0
    with pytest.raises(UserError, match=r"rope_freqs\.weight is not as Llama 3\.1 to 3\.3"):
        read_shape(rewritten(path, tensors={"rope_freqs.weight": divisors}))
    with pytest.raises(UserError, match=r"rope_freqs\.weight is not as"):
        read_shape(rewritten(path, tensors={"rope_freqs.weight": divisors[:4]}))
    with pytest.raises(UserError, match="rope_scaling says factor nan; expected a number"):
        read_shape(rewritten(path, tensors={"rope_freqs.weight": divisors * np.nan}))


BAD_FACTS: list[tuple[dict[str, Any], str]] = [
    ({"general.architecture": "gemma3"}, "'gemma3'; groundup opens gpt2, llama, qwen3"),
    ({"llama.block_count": None}, "its metadata lacks llama.block_count"),
    ({"llama.block_count": "two"}, "llama.block_count is 'two'; expected a whole number"),
    ({"llama.attention.head_count": [4, 4]}, r"head_count is \[4, 4\]; expected a whole number"),
    ({"llama.attention.head_count": 0}, "n_heads is 0; expected a whole number of at least 1"),
    ({"llama.attention.head_count_kv": 3}, r"n_heads \(4\) is not divisible by n_kv_heads \(3\)"),
    ({"llama.attention.value_length": 4}, "attention.value_length is 4, not the 8 columns"),
    ({"llama.rope.dimension_count": 4}, "rope.dimension_count is 4, not the 8 columns"),
    ({"llama.attention.sliding_window": 8}, "sliding_window is 8; groundup has none"),
    ({"llama.expert_count": 8}, "llama.expert_count is 8; groundup's is 0"),
    ({"llama.logit_scale": 0.5}, "llama.logit_scale is 0.5; groundup's is 0"),
    ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "norm_eps is nan; expected"),
    ({"llama.rope.scaling.type": "longrope"}, "'longrope'; there are: none, linear, yarn"),
    ({"llama.rope.scaling.type": "linear"}, "rope_scaling says factor None"),
    ({"split.count": 3}, "is one of 3 parts; join them first with llama-gguf-split --merge"),
    ({"tokenizer.ggml.model": "llama"}, "its tokenizer.ggml.model is 'llama', and only 'gpt2'"),
    ({"tokenizer.ggml.pre": "chatglm"}, "tokenizer.ggml.pre is 'chatglm'"),
    ({"tokenizer.ggml.tokens": None}, "it has no list tokenizer.ggml.tokens"),
]


@pytest.mark.parametrize(("facts", "message"), BAD_FACTS)
def test_metadata_that_cannot_be_used(write: Write, facts: dict[str, Any], message: str) -> None:
    path = rewritten(write(noisy_model("llama")), facts)
    with pytest.raises(UserError, match=rf"other\.gguf .*{message}"):
        load_model(path)


def test_several_problems_at_once_in_one_sentence(write: Write, fails: Callable[..., str]) -> None:
    facts = {"llama.block_count": "x", "llama.expert_count": 8, "llama.context_length": None}
    message = fails("generate", rewritten(write(noisy_model("llama")), facts), "The")
    assert all(name in message for name in facts)


def test_what_means_nothing_here_is_said(write: Write) -> None:
    path = rewritten(write(noisy_model("llama")), {"llama.attention.new_idea": 3})
    with pytest.warns(Note, match=r"llama\.attention\.new_idea \(3\) means nothing to groundup"):
        read_shape(path)


def test_tensors_that_lack_or_are_too_many(write: Write) -> None:
    path = write(noisy_model("llama"))
    for name in ("blk.1.attn_k.weight", "output_norm.weight"):
        with pytest.raises(UserError, match=f"does not match its metadata: {name} is missing"):
            load_model(rewritten(path, tensors={name: None}))
    with pytest.raises(UserError, match=r"blk\.0\.attn_sinks\.weight is unexpected"):
        load_model(rewritten(path, tensors={"blk.0.attn_sinks.weight": np.zeros(4)}))
    with pytest.raises(UserError, match=r"token_embd\.weight is missing"):
        load_model(rewritten(path, tensors={"token_embd.weight": None}))
    with pytest.raises(UserError, match=r"blk\.0\.attn_q\.weight of shape \(32, 16\)"):
        load_model(rewritten(path, tensors={"blk.0.attn_q.weight": np.zeros((32, 16))}))
    with pytest.raises(UserError, match="a bias in only one of qkv_bias and attn_bias"):
        load_model(rewritten(path, tensors={"blk.0.attn_q.bias": np.zeros(32)}))


def test_a_vocabulary_of_another_model(write: Write) -> None:
    embedding = np.zeros((290, 32))
    path = rewritten(write(noisy_model("llama")), tensors={"token_embd.weight": embedding})
    with pytest.raises(UserError, match="its tokenizer has 300 tokens, its embedding 290 rows"):
        load_model(path)


def test_a_file_that_is_cut_off(write: Write, fails: Callable[..., str]) -> None:
    path = write(noisy_model("llama"))
    path.write_bytes(path.read_bytes()[:-100])
    assert "m.gguf is cut off: " in fails("generate", path, "The")
    path.write_bytes(b"GGUF")
    assert "m.gguf is damaged: it is cut off; get it again" in fails("inspect", path)


def test_what_it_says_itself_cannot_be_said(write: Write, fails: Callable[..., str]) -> None:
    path = write(noisy_model("llama"))
    assert "leave them out" in fails("generate", path, "The", "--n-heads=4")
    assert "leave them out" in fails("generate", path, "The", "--tokenizer=gpt2")

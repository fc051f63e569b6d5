"""The tokenizer in a GGUF file is the one it was made from; llama.cpp reads it the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from groundup.errors import UserError
from groundup.tokenizers import (
    BPETokenizer,
    GPT2Tokenizer,
    LibraryTokenizer,
    Tokenizer,
    load_tokenizer,
)
from groundup.tokenizers.gguf import gguf_tokenizer, read_gguf_tokenizer
from groundup.tokenizers.opening import open_tokenizer
from groundup.tokenizers.reading import TokenizerFiles
from groundup.tokenizers.splits import SPLITS, effects
from tests.tokenizers.trained import KINDS, SAMPLE, trained

PRE = {"smollm": "smollm", "llama3": "llama-bpe", "qwen2": "qwen2", "tekken": "tekken"}
ROLES = {"eos_token": "<|im_end|>", "bos_token": "<|begin|>", "pad_token": "<|endoftext|>"}


def opened(kind: str, *, bos: bool = False) -> Tokenizer:
    library = trained(kind, nfc=kind == "qwen2", bos=bos)
    return open_tokenizer(TokenizerFiles(json.loads(library.to_str()), dict(ROLES)))


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", PRE)
def test_out_and_in_again(tmp_path: Path, kind: str, bos: bool) -> None:
    ours = opened(kind, bos=bos)
    metadata = gguf_tokenizer(ours, ours.vocab_size + 3)
    assert metadata["tokenizer.ggml.pre"] == PRE[kind]
    assert metadata["tokenizer.ggml.add_bos_token"] is bos
    assert metadata["tokenizer.ggml.tokens"][-1] == f"[PAD{ours.vocab_size + 2}]"
    assert metadata["tokenizer.ggml.token_type"].count(5) == 3
    again = read_gguf_tokenizer(metadata | {"tokenizer.chat_template": "{{ x }}"})
    assert isinstance(again, LibraryTokenizer) and again.chat_template == "{{ x }}"
    assert again.vocabulary == ours.vocabulary and again.roles == ours.roles
    assert again.begin == ours.begin and again.cuttable
    assert gguf_tokenizer(again, ours.vocab_size + 3) == metadata
    again.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    for text in (SAMPLE, "e\u0301 DON'T 12345\n\n\n!!\n <think>x", "<|im_end|>"):
        assert theirs(text)["input_ids"] == again.encode_alone(text, allowed_special="all")
        assert ours.encode(text) == again.encode(text) == load_tokenizer(tmp_path).encode(text)
    assert theirs.eos_token_id == again.eot_token == 3


def test_gpt2s_kind_comes_back_as_our_own(gpt2: GPT2Tokenizer) -> None:
    for ours in (gpt2, BPETokenizer.train(SAMPLE, 300), BPETokenizer.train("ab", 257)):
        metadata = gguf_tokenizer(ours, ours.vocab_size + 7)
        assert metadata["tokenizer.ggml.pre"] == "gpt-2"
        again = read_gguf_tokenizer(metadata)
        assert type(again) is type(ours) and again.vocabulary == ours.vocabulary
    with pytest.raises(UserError, match="no <|endoftext|>"):
        gguf_tokenizer(BPETokenizer.train(SAMPLE, 300, []), 300)
    with pytest.raises(UserError, match="has 300 tokens, the model vocab_size 299"):
        gguf_tokenizer(BPETokenizer.train(SAMPLE, 300), 299)


def test_what_a_file_leaves_out() -> None:
    metadata = gguf_tokenizer(opened("llama3"), 600)
    for key in ("add_bos_token", "padding_token_id"):
        del metadata[f"tokenizer.ggml.{key}"]
    found = read_gguf_tokenizer(metadata)
    assert found.begin == [0], "llama.cpp begins Llama 3's texts with BOS unless told otherwise"
    assert "pad_token" not in found.roles
    nothing = metadata | {"tokenizer.ggml.bos_token_id": -1}
    assert read_gguf_tokenizer(nothing).begin == []
    del nothing["tokenizer.ggml.token_type"]
    found = read_gguf_tokenizer(nothing)
    assert found.special_tokens == {"<|im_end|>": 3}, "tokens with a role are special all the same"
    del nothing["tokenizer.ggml.pre"]
    found = read_gguf_tokenizer(nothing)
    assert isinstance(found, LibraryTokenizer)
    assert tuple(effects(found.steps("pre_tokenizer"))) == SPLITS["default"].steps
    assert gguf_tokenizer(found, 600)["tokenizer.ggml.pre"] == "default"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "llama"}, "tokenizer.ggml.model is 'llama', and only 'gpt2'"),
        ({"model": None}, "tokenizer.ggml.model is None"),
        ({"pre": "viking"}, r"tokenizer.ggml.pre is 'viking', .*known: gpt-2, smollm, .*qwen2"),
        ({"tokens": None}, "no list tokenizer.ggml.tokens"),
        ({"token_type": [1]}, "tokens and the types of 1$"),
        ({"merges": ["a"]}, "is not a pair|damaged|cannot use"),
        ({"merges": ["zz qq"]}, "library cannot use it"),
        ({"merges": [3]}, "tokenizer is damaged"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, "the token 'a' twice, as 0 and 1"),
        (
            {"tokens": ["中"], "token_type": [1], "merges": []},
            "spelled with '中', which is no byte",
        ),
    ],
)
def test_a_file_that_cannot_be_used(change: dict[str, Any], message: str) -> None:
    metadata = gguf_tokenizer(opened("qwen2"), 600)
    changed = {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    with pytest.raises(UserError, match=message) as told:
        read_gguf_tokenizer(metadata | changed)
    assert "\n" not in str(told.value)


def test_a_tokenizer_that_llama_cpp_has_no_name_for() -> None:
    content = json.loads(trained("llama3").to_str())
    content["model"]["ignore_merges"] = False
    with pytest.raises(UserError, match="no name in llama.cpp"):
        gguf_tokenizer(open_tokenizer(TokenizerFiles(content, dict(ROLES))), 600)
    files = TokenizerFiles(json.loads(trained("llama3", bos=True).to_str()))
    with pytest.raises(UserError, match="begins a text with the ids .0., llama.cpp with the BOS"):
        gguf_tokenizer(open_tokenizer(files), 600)


# --- llama.cpp itself


def tiny_llama(path: Path, metadata: dict[str, Any]) -> None:
    """A Llama with one layer and this tokenizer, as llama.cpp needs it to tokenize."""
    import gguf

    size = len(metadata["tokenizer.ggml.tokens"])
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {"block_count": 1, "context_length": 512, "embedding_length": 32}.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(size)
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (32, 32))
    shapes |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), (32, 32))
    shapes |= {"attn_norm": (32,), "ffn_norm": (32,)}
    names = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    names |= {"token_embd.weight": (size, 32), "output_norm.weight": (32,)}
    for name, shape in names.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.oracle
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gpt2"])
def test_llama_cpp_gives_the_same_ids(tmp_path: Path, kind: str) -> None:
    llama: Any = pytest.importorskip("xllamacpp")
    ours = opened(kind, bos=True)
    tiny_llama(tmp_path / "m.gguf", gguf_tokenizer(ours, ours.vocab_size + 5))
    params = llama.CommonParams()
    params.model.path = str(tmp_path / "m.gguf")
    params.n_ctx, params.n_gpu_layers, params.warmup, params.verbosity = 64, 0, False, -1
    server = llama.Server(params)

    @settings(max_examples=200, deadline=None)
    @given(
        st.text(st.characters(codec="ascii", exclude_characters="\0") | st.sampled_from("é中🙂"))
    )
    def same(text: str) -> None:
        asked = {"content": text, "add_special": True, "parse_special": False}
        answer = httpx.post(f"{server.listening_address}/tokenize", json=asked)
        assert answer.json()["tokens"] == ours.encode_alone(text)

    same()

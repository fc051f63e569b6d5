import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.tokenizers.vocabulary import Vocabulary
from groundup.weights.gguf import DType, export_gguf
from groundup.weights.gguf_file import read_header
from groundup.weights.gguf_names import gguf_rows
from groundup.weights.load import load_model
from tests.conftest import ARCHITECTURES, TEXT, tiny_config
from tests.weights.gguf_files import noisy_model

# The logits below are about 2 large. f16 keeps 11 bits, bf16 and q8_0 keep 8, q5 5, q4 4.
TOLERANCE: dict[DType, float] = {
    "f32": 1e-5,
    "f16": 5e-3,
    "bf16": 5e-2,
    "q8_0": 1e-1,
    "q5_1": 5e-1,
    "q5_0": 5e-1,
    "q4_1": 1.0,
    "q4_0": 1.0,
}
# llama.cpp's numbers.
FILE_TYPE = dict(zip(TOLERANCE, (0, 1, 32, 7, 9, 8, 3, 2), strict=True))


Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path, tokenizer: BPETokenizer) -> Export:
    """Export a model with the small tokenizer and return the file."""

    def call(model: GPTModel, dtype: DType = "f16", **options: Any) -> Path:
        export_gguf(model, tokenizer, tmp_path / "m.gguf", dtype, **({"name": "m"} | options))
        return tmp_path / "m.gguf"

    return call


def read_back(path: Path) -> GPTModel:
    return load_model(path)[0]


def logits(model: nn.Module) -> Tensor:
    ids = torch.arange(26).reshape(2, 13)
    with torch.no_grad():
        out = model(ids)
    return out if isinstance(out, Tensor) else out.logits


def facts(path: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(path).fields.items()
    return {name: field.contents() for name, field in fields if not name.startswith("GGUF.")}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_there_and_back_exactly(
    tmp_path: Path, tokenizer: BPETokenizer, architecture: str, tied: bool
) -> None:
    model, path = noisy_model(architecture, tie_weights=tied), tmp_path / "new" / "model.gguf"
    export_gguf(model, tokenizer, path, "f32", name="m")
    assert [p.name for p in path.parent.iterdir()] == ["model.gguf"]
    back, tokens = load_model(path)
    assert back.cfg == model.cfg and not back.training
    assert (back.out_head.weight is back.tok_emb.weight) == tied
    ours, theirs = model.state_dict(), back.state_dict()
    assert sorted(ours) == sorted(theirs)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    assert tokens.encode(TEXT) == tokenizer.encode(TEXT)
    assert tokens.vocabulary == tokenizer.vocabulary


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_there_and_back(export: Export, dtype: DType, architecture: str) -> None:
    """Each number is what the package makes of it; the model is nearly the same."""
    # Rows of 32: q8_0 and below work on so many at a time.
    model = noisy_model(architecture, tie_weights=False, hidden_dim=64)
    path = export(model, dtype)
    assert facts(path)["general.file_type"] == FILE_TYPE[dtype]
    assert read_header(path).tensors["blk.0.ffn_up.weight"].kind.name.lower() == dtype
    back = read_back(path)
    ours, theirs = logits(model), logits(back)
    assert ours.abs().max() > 1
    torch.testing.assert_close(theirs, ours, rtol=0, atol=TOLERANCE[dtype])
    state, found = model.state_dict(), back.state_dict()
    rounded = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    for row in gguf_rows(model.cfg):
        kind = read_header(path).tensors[row.theirs].kind
        for name in row.ours:
            exact = state[name].dim() == 1 or name == "pos_emb.weight"
            assert exact == (kind == Kind.F32) or dtype == "f32", name
            expected = state[name]
            if dtype in rounded:  # exactly what PyTorch rounds to
                expected = expected if exact else expected.to(rounded[dtype]).float()
            elif not exact:
                expected = quantized(expected, kind)
            assert torch.equal(found[name], expected), name


def quantized(tensor: Tensor, kind: Kind) -> Tensor:
    """What the package makes of a matrix; blocks lie within rows, so that their order is free."""
    return torch.from_numpy(gguf.dequantize(gguf.quantize(tensor.numpy(), kind), kind))


def test_biases_of_queries_that_are_not_there_come_back_as_zeros(export: Export) -> None:
    """llama.cpp's GPT-2 always has them."""
    model = noisy_model(qkv_bias=False)
    back = read_back(export(model, "f32"))
    assert back.cfg == model.cfg.replace(qkv_bias=True)
    assert not back.state_dict()["trf_blocks.1.att.W_key.bias"].any()
    assert torch.equal(logits(back), logits(model))


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_same_model(
    export: Export, tmp_path: Path, tokenizer: BPETokenizer, tied: bool
) -> None:
    from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    path = export(model := noisy_model(tie_weights=tied, qkv_bias=tied), "f32")
    # It takes the context length for n_ctx, which its own GPT-2 calls n_positions.
    config = AutoConfig.from_pretrained(tmp_path, gguf_file="m.gguf", n_positions=16)
    assert isinstance(config, GPT2Config)
    assert (config.n_ctx, config.n_embd, config.n_head, config.n_layer) == (16, 32, 4, 2)
    theirs = GPT2LMHeadModel(config).eval()
    loaded = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=theirs)
    missing, unexpected = theirs.load_state_dict(loaded["tensors"], strict=False)
    assert missing == ["lm_head.weight"] * tied and not unexpected
    torch.testing.assert_close(logits(theirs), logits(model), rtol=0, atol=1e-5)

    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    text = f"{TEXT} it's  12\n\n\t x"
    assert their_tokenizer(text).input_ids == tokenizer.encode(text)
    assert their_tokenizer.eos_token_id == tokenizer.eot_token


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_transformers_reads_the_same_newer_models(
    export: Export, tmp_path: Path, architecture: str, tied: bool
) -> None:
    """It undoes llama.cpp's order of Llama's queries and keys by its own code."""
    from transformers import AutoModelForCausalLM

    model = noisy_model(architecture, tie_weights=tied)
    export(model, "f32")
    head_dim = model.cfg.head_size  # which it does not read for Qwen3
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", head_dim=head_dim
    ).eval()
    assert theirs.config.model_type == architecture
    torch.testing.assert_close(logits(theirs), logits(model), rtol=0, atol=1e-5)


def test_every_parameter_is_in_the_table_once_under_llama_cpps_name() -> None:
    rows = list(gguf_rows(cfg := tiny_config(n_layers=1, tie_weights=False)))
    assert sorted(name for row in rows for name in row.ours) == sorted(GPTModel(cfg).state_dict())
    parts = ("attn_norm", "ffn_norm", "attn_qkv", "attn_output", "ffn_up", "ffn_down")
    assert [row.theirs for row in rows] == [
        *("token_embd.weight", "position_embd.weight"),
        *(f"blk.0.{part}.{kind}" for part in parts for kind in ("weight", "bias")),
        *("output_norm.weight", "output_norm.bias", "output.weight"),
    ]
    assert [row.theirs for row in gguf_rows(cfg.replace(tie_weights=True))] == [
        row.theirs for row in rows[:-1]
    ]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_so_it_is_for_newer_models(architecture: str) -> None:
    cfg = ARCHITECTURES[architecture].replace(n_layers=1, tie_weights=False)
    rows = list(gguf_rows(cfg))
    assert sorted(name for row in rows for name in row.ours) == sorted(GPTModel(cfg).state_dict())
    parts = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
    parts |= {"attn_norm", "ffn_norm"}
    parts |= {"attn_q_norm", "attn_k_norm"} if architecture == "qwen3" else set()
    names = {f"blk.0.{part}.weight" for part in parts}
    assert {row.theirs for row in rows} == names | {
        *("token_embd.weight", "output_norm.weight", "output.weight")
    }
    assert {row.theirs: row.paired_heads for row in rows if row.paired_heads} == (
        {"blk.0.attn_q.weight": 4, "blk.0.attn_k.weight": 2} if architecture == "llama" else {}
    )


def test_shapes_and_types_are_llama_cpps(export: Export) -> None:
    model = noisy_model(tie_weights=False)
    found = {t.name: t for t in gguf.GGUFReader(export(model, "q8_0")).tensors}
    # GGUF counts dimensions from the innermost: (in, out).
    assert tuple(found["blk.0.attn_qkv.weight"].shape) == (32, 96)
    assert tuple(found["blk.1.ffn_up.weight"].shape) == (32, 128)
    assert tuple(found["blk.1.ffn_down.weight"].shape) == (128, 32)
    assert tuple(found["output.weight"].shape) == (32, 300)
    for name, tensor in found.items():
        exact = len(tensor.shape) == 1 or name == "position_embd.weight"
        assert tensor.tensor_type == (Kind.F32 if exact else Kind.Q8_0), name


def test_with_few_bits_the_scores_of_all_tokens_get_more(export: Export) -> None:
    path = export(noisy_model("llama", tie_weights=False, hidden_dim=64), "q4_0")
    kinds = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == Kind.Q8_0
    assert kinds["blk.1.attn_k.weight"] == kinds["blk.0.ffn_down.weight"] == Kind.Q4_0
    assert kinds["output_norm.weight"] == Kind.F32


def test_rows_that_do_not_fit_q8_0_are_f16(export: Export) -> None:
    path = export(noisy_model(emb_dim=40), "q8_0")  # 4 * 40 divides by 32, 40 does not
    kinds = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
    assert kinds["blk.0.ffn_down.weight"] == Kind.Q8_0
    assert kinds["blk.0.ffn_up.weight"] == kinds["token_embd.weight"] == Kind.F16


def test_q8_0_is_off_by_half_a_step_at_most(export: Export) -> None:
    model = noisy_model()
    back = read_back(export(model, "q8_0")).state_dict()
    ours, theirs = (t["tok_emb.weight"].reshape(-1, 32) for t in (model.state_dict(), back))
    step = ours.abs().amax(dim=1, keepdim=True) / 127  # which the file keeps in fp16
    assert ((theirs - ours).abs() <= step * 0.5 + ours.abs() * 2**-10).all()


def test_the_facts(export: Export, tokenizer: BPETokenizer) -> None:
    found = facts(export(noisy_model(), name="Mein Modell", prompt_style="alpaca"))
    assert "### Instruction:" in found.pop("tokenizer.chat_template")
    tokens, kinds = found.pop("tokenizer.ggml.tokens"), found.pop("tokenizer.ggml.token_type")
    merges = found.pop("tokenizer.ggml.merges")
    assert found == {
        "general.architecture": "gpt2",
        "general.type": "model",
        "general.name": "Mein Modell",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "gpt2.block_count": 2,
        "gpt2.context_length": 16,
        "gpt2.embedding_length": 32,
        "gpt2.feed_forward_length": 128,
        "gpt2.attention.head_count": 4,
        "gpt2.attention.layer_norm_epsilon": float(np.float32(1e-5)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        **{f"tokenizer.ggml.{use}_token_id": 299 for use in ("bos", "eos", "unknown")},
        "tokenizer.ggml.add_bos_token": False,
    }
    assert tokens[0] == "!" and "Ġthe" in tokens and tokens[-1] == "<|endoftext|>"
    assert kinds == [1] * 299 + [3]
    assert merges[0] == "h e" and len(merges) == len(tokenizer.merges)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_the_facts_of_newer_models(export: Export, architecture: str) -> None:
    found = facts(export(noisy_model(architecture, rope_theta=1e6, norm_eps=1e-6)))
    kv_heads, head_dim = (2, 8) if architecture == "llama" else (1, 16)
    prefix = f"{architecture}."
    assert {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)} == {
        "block_count": 2,
        "context_length": 16,
        "embedding_length": 32,
        "feed_forward_length": 48,
        "vocab_size": 300,
        "attention.head_count": 4,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(np.float32(1e-6)),
        "rope.dimension_count": head_dim,
        "rope.freq_base": 1e6,
    }


SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 2.5},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 16.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.5,
        "high_freq_factor": 3.0,
        "original_max_position_embeddings": 12,
    },
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_longer_contexts_there_and_back(export: Export, kind: str) -> None:
    scaling = json.dumps({"rope_type": kind, **SCALINGS[kind]})
    model = noisy_model("llama", rope_scaling=scaling)
    path = export(model, "f32")
    found, names = facts(path), [tensor.name for tensor in gguf.GGUFReader(path).tensors]
    assert ("groundup.rope_scaling" in found) == (kind == "llama3")
    assert found.get("llama.rope.scaling.type", "llama3") == kind
    assert ("rope_freqs.weight" in names) == (kind == "llama3")
    if kind == "yarn":
        assert found["llama.rope.scaling.original_context_length"] == 8
        assert found["llama.rope.scaling.yarn_beta_fast"] == 16.0
    back = read_back(path)
    assert back.cfg == model.cfg
    assert torch.equal(logits(back), logits(model))
    assert not torch.allclose(logits(noisy_model("llama")), logits(model), atol=1e-3)


@pytest.mark.parametrize(
    ("architecture", "kind", "more", "message"),
    [
        ("llama", "yarn", {"attention_factor": 1.1}, "no rope_scaling's attention_factor"),
        ("llama", "yarn", {"mscale": 0.7, "mscale_all_dim": 0.7}, "no rope_scaling's mscale;"),
        ("qwen3", "llama3", {}, "no Llama 3's rope_scaling in Qwen3"),
    ],
)
def test_longer_contexts_that_llama_cpp_has_not(
    export: Export, architecture: str, kind: str, more: dict[str, Any], message: str
) -> None:
    scaling = json.dumps({"rope_type": kind, **SCALINGS[kind], **more})
    with pytest.raises(UserError, match=message):
        export(noisy_model(architecture, rope_scaling=scaling))


def test_ids_that_the_tokenizer_does_not_use(export: Export) -> None:
    found = facts(export(noisy_model(vocab_size=302)))
    assert found["tokenizer.ggml.tokens"][299:] == ["<|endoftext|>", "[PAD300]", "[PAD301]"]
    assert found["tokenizer.ggml.token_type"][299:] == [3, 5, 5]
    assert "tokenizer.chat_template" not in found


def test_a_tokenizer_of_bytes_has_a_merge_that_never_happens(tmp_path: Path) -> None:
    tokenizer = BPETokenizer(Vocabulary.from_merges([], ["<|endoftext|>"]))
    export_gguf(noisy_model(vocab_size=257), tokenizer, tmp_path / "m.gguf", name="m")
    assert facts(tmp_path / "m.gguf")["tokenizer.ggml.merges"] == ["a Ġ"]


def test_refusals(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    def refused(message: str, model: GPTModel, *args: Any) -> None:
        with pytest.raises(UserError, match=message):
            export_gguf(model, *(args or (tokenizer,)), path=tmp_path / "m.gguf", name="m")
        assert not list(tmp_path.iterdir())

    classifier = noisy_model()
    classifier.out_head = nn.Linear(32, 2)
    refused("a classifier cannot be exported", classifier)
    refused("activation is gelu_exact; llama.cpp", noisy_model(feed_forward="gelu_exact"))
    refused("tokenizer has 300 tokens, the model vocab_size 299", noisy_model(vocab_size=299))
    silent = Vocabulary.from_merges([], [])
    refused(r"has no <\|endoftext\|>", noisy_model(), BPETokenizer(silent))
    ids = Vocabulary.from_merges([(b"h", b"e")], ["<|endoftext|>", "he"])
    refused("the token 'he' is there twice", noisy_model(), BPETokenizer(ids))


def test_an_unknown_prompt_style_or_type(export: Export) -> None:
    with pytest.raises(UserError, match="unknown prompt style 'alpacca'"):
        export(noisy_model(), prompt_style="alpacca")
    with pytest.raises(UserError, match="unknown GGUF type 'q3_k'; there are: f32, f16, bf16"):
        export(noisy_model(), "q3_k")  # pyright: ignore[reportArgumentType]


def test_numbers_that_a_type_cannot_hold(export: Export) -> None:
    model = noisy_model()
    with torch.no_grad():
        model.trf_blocks[1].get_parameter("att.W_key.weight")[0, 0] = 1e5
    with pytest.raises(UserError, match=r"trf_blocks.1.att.W_key.weight.*too large for F16"):
        export(model, "f16")
    export(model, "bf16")
    with torch.no_grad():
        model.get_parameter("final_norm.shift")[3] = float("nan")
    with pytest.raises(UserError, match="final_norm.shift holds NaN"):
        export(model, "f32")


@pytest.fixture
def old_file(tmp_path: Path) -> Iterator[Path]:
    """A file that must survive what the test does."""
    path = tmp_path / "m.gguf"
    path.write_text("old", "utf-8")
    yield path
    assert path.read_text("utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def fails(*problem: object) -> Mock:
    return Mock(side_effect=OSError(*problem))


@pytest.mark.usefixtures("old_file")
@pytest.mark.parametrize(
    ("function", "instead", "message"),
    [
        ("shutil.disk_usage", Mock(return_value=Mock(free=9999)), "no space left"),
        # As numpy says it:
        ("gguf.GGUFWriter.write_tensor_data", fails("9 requested, 0 written"), "no space left"),
        ("gguf.GGUFWriter.write_tensor_data", fails(errno.ENOSPC, "full"), "no space left"),
        ("gguf.GGUFWriter.close", fails(errno.EIO, "I/O error"), "cannot write to .*I/O error"),
    ],
)
def test_failures(
    export: Export, monkeypatch: pytest.MonkeyPatch, function: str, instead: Any, message: str
) -> None:
    monkeypatch.setattr(function, instead)
    with pytest.raises(UserError, match=message):
        export(noisy_model())


@pytest.mark.usefixtures("old_file")
@pytest.mark.parametrize(
    ("after", "offset", "what"),
    [
        (b"", 0, "magic"),
        (b"Mein Mode", 9, "general.name"),
        (b"tokenizer.ggml.tokens", 45, "tokenizer.ggml.tokens"),
        (b"blk.1.ffn_up.weight", 31, "blk.1.ffn_up.weight"),  # its number of rows
        (b"output.weight", -40, "output.weight"),  # counted from the end: the last numbers
    ],
)
def test_a_flipped_bit_is_noticed(
    monkeypatch: pytest.MonkeyPatch, export: Export, after: bytes, offset: int, what: str
) -> None:
    close = gguf.GGUFWriter.close

    def close_and_flip(writer: gguf.GGUFWriter) -> None:
        close(writer)
        assert writer.path is not None
        content = bytearray(writer.path.read_bytes())
        content[content.index(after) + offset if offset >= 0 else offset] ^= 1
        writer.path.write_bytes(content)

    monkeypatch.setattr(gguf.GGUFWriter, "close", close_and_flip)
    with pytest.raises(UserError, match=f"read back .*{what}"):
        export(noisy_model(tie_weights=False), "q8_0", name="Mein Modell")

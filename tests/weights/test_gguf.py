import errno
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

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.tokenizers.vocabulary import Vocabulary
from groundup.weights.gguf import DType, export_gguf, gguf_rows, read_gguf_state
from tests.conftest import TEXT, tiny_config

DTYPES: tuple[DType, ...] = ("f32", "f16", "bf16", "q8_0")

# The logits below are about 2 large. f16 keeps 11 bits, bf16 and q8_0 keep 8.
TOLERANCE = {"f32": 1e-5, "f16": 5e-3, "bf16": 5e-2, "q8_0": 1e-1}
FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}  # llama.cpp's numbers


def noisy_model(**changes: object) -> GPTModel:
    """Every parameter is different, so that none can be mistaken for another."""
    model = GPTModel(tiny_config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("scale") else 0.0, 0.1)
    return model


Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path, tokenizer: BPETokenizer) -> Export:
    """Export a model with the small tokenizer and return the file."""

    def call(model: GPTModel, dtype: DType = "f16", **options: Any) -> Path:
        export_gguf(model, tokenizer, tmp_path / "m.gguf", dtype, **({"name": "m"} | options))
        return tmp_path / "m.gguf"

    return call


def read_back(path: Path, cfg: ModelConfig) -> GPTModel:
    model = GPTModel(cfg).eval()
    model.load_state_dict(read_gguf_state(path, cfg))
    return model


def logits(model: nn.Module) -> Tensor:
    ids = torch.arange(26).reshape(2, 13)
    with torch.no_grad():
        out = model(ids)
    return out if isinstance(out, Tensor) else out.logits


def facts(path: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(path).fields.items()
    return {name: field.contents() for name, field in fields if not name.startswith("GGUF.")}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(tmp_path: Path, tokenizer: BPETokenizer, dtype: DType, tied: bool) -> None:
    model, path = noisy_model(tie_weights=tied, qkv_bias=tied), tmp_path / "new" / "model.gguf"
    export_gguf(model, tokenizer, path, dtype, name="m")
    assert [p.name for p in path.parent.iterdir()] == ["model.gguf"]
    assert facts(path)["general.file_type"] == FILE_TYPE[dtype]
    ours, theirs = logits(model), logits(read_back(path, model.cfg))
    assert ours.abs().max() > 1
    torch.testing.assert_close(theirs, ours, rtol=0, atol=TOLERANCE[dtype])
    state, back = model.state_dict(), read_gguf_state(path, model.cfg)
    assert sorted(back) == sorted(state)
    if dtype != "q8_0":  # exactly what PyTorch rounds to
        rounded = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
        for name, ours in state.items():
            exact = ours.dim() == 1 or name == "pos_emb.weight"
            assert torch.equal(back[name], ours if exact else ours.to(rounded).float()), name


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


def test_rows_that_do_not_fit_q8_0_are_f16(export: Export) -> None:
    path = export(noisy_model(emb_dim=40), "q8_0")  # 4 * 40 divides by 32, 40 does not
    kinds = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
    assert kinds["blk.0.ffn_down.weight"] == Kind.Q8_0
    assert kinds["blk.0.ffn_up.weight"] == kinds["token_embd.weight"] == Kind.F16


def test_q8_0_is_off_by_half_a_step_at_most(export: Export) -> None:
    model = noisy_model()
    back = read_gguf_state(export(model, "q8_0"), model.cfg)
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
    with pytest.raises(UserError, match="unknown GGUF type 'q4_0'; there are: f32, f16, bf16"):
        export(noisy_model(), "q4_0")


def test_numbers_that_a_type_cannot_hold(export: Export) -> None:
    model = noisy_model()
    with torch.no_grad():
        model.trf_blocks[1].get_parameter("att.W_key.weight")[0, 0] = 1e5
    with pytest.raises(UserError, match=r"trf_blocks.1.att.W_key.weight.*too large for F16"):
        export(model, "f16")
    export(model, "bf16")
    with torch.no_grad():
        model.final_norm.shift[3] = float("nan")
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


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"x" * 100])
def test_reading_what_is_no_gguf(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as GGUF"):
        read_gguf_state(tmp_path / "m.gguf", tiny_config())


def test_reading_another_shape_is_refused(export: Export) -> None:
    with pytest.raises(UserError, match="position_embd.weight of shape"):
        read_gguf_state(export(noisy_model()), tiny_config(context_length=17))

"""Write a model as a GGUF file, for llama.cpp, Ollama and whatever else is built on them.

    export_gguf(model, tokenizer, Path("my-model.gguf"), "q8_0", name="my-model")

The file is what llama.cpp's own ``convert_hf_to_gguf.py`` makes of a GPT-2, written with its own
package. It is read back and compared before it appears under its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from torch import Tensor

from groundup.config import ModelConfig
from groundup.data.model_style import template_of
from groundup.errors import UserError
from groundup.files import atomic_file
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer
from groundup.tokenizers.byte_level import to_characters
from groundup.tokenizers.vocabulary import Vocabulary
from groundup.weights.names import Row, from_theirs, huggingface_rows, to_theirs

DType = Literal["f32", "f16", "bf16", "q8_0"]
Array = np.ndarray[Any, Any]

_TYPES: dict[DType, tuple[LlamaFileType, GGMLQuantizationType]] = {
    "f32": (LlamaFileType.ALL_F32, GGMLQuantizationType.F32),
    "f16": (LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16),
    "bf16": (LlamaFileType.MOSTLY_BF16, GGMLQuantizationType.BF16),
    "q8_0": (LlamaFileType.MOSTLY_Q8_0, GGMLQuantizationType.Q8_0),
}

# llama.cpp refuses a file with no merges. GPT-2's pieces never hold a letter before a space, so
# this merge changes nothing.
_NO_MERGES = ["a Ġ"]


def export_gguf(
    model: GPTModel,
    tokenizer: Tokenizer,
    path: str | Path,
    dtype: DType = "f16",
    *,
    name: str,
    prompt_style: str | None = None,
) -> None:
    """Write ``model`` and its tokenizer as one GGUF file, whole or not at all.

    Vectors (norms, biases) and the position embedding stay f32, as llama.cpp keeps them. q8_0
    works on 32 numbers at a time: a matrix whose rows do not divide by 32 is f16 instead. An output
    layer that is tied to the embedding is not written again: llama.cpp takes the embedding (since
    March 2025).

    Args:
        model: the model; its tensors are converted and written one at a time.
        tokenizer: its tokenizer; the ids that it does not use become unused tokens.
        path: where to; a file that is there is replaced.
        dtype: how the matrices are stored.
        name: what applications show as the model's name.
        prompt_style: one of ``prompts.PROMPT_STYLES``, saved as the chat template.

    Raises:
        UserError: the model cannot be expressed, the disk is full or cannot be written to, or what
            was read back is not what was written; a file that was there is intact.
    """
    path = Path(path)
    vocabulary = tokenizer.vocabulary
    _check_can_be_expressed(model, vocabulary, dtype)
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT2])
    _add_model_facts(writer, model.cfg, _TYPES[dtype][0], name)
    _add_tokenizer(writer, vocabulary, model.cfg.vocab_size)
    if prompt_style is not None:
        writer.add_chat_template(template_of(prompt_style, tokenizer))
    with atomic_file(path) as temporary:
        _write(writer, model, dtype, temporary)
        _compare(temporary, writer, model, dtype)


def gguf_rows(cfg: ModelConfig) -> Iterator[Row]:
    """The table for GGUF: llama.cpp's names, in the layout of ``nn.Linear``.

    Query, key and value always have biases.
    """
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, cfg.n_layers)
    for row in huggingface_rows(cfg):
        name = names.get_name(row.theirs, try_suffixes=(".weight", ".bias"))
        assert name is not None, row.theirs
        yield replace(row, theirs=name, transposed=False)


def read_gguf_state(path: str | Path, cfg: ModelConfig) -> dict[str, Tensor]:
    """Read a GGUF file's weights as the fp32 state dict of a ``GPTModel(cfg)``.

    Raises:
        UserError: the file is missing or damaged, or does not match ``cfg``.
    """
    tensors = {
        tensor.name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        for tensor in _open(path).tensors
    }
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in GPTModel(cfg).state_dict().items()}
    state = from_theirs(tensors, gguf_rows(cfg), shapes, str(path))
    return state | ({"out_head.weight": state["tok_emb.weight"]} if cfg.tie_weights else {})


def _check_can_be_expressed(model: GPTModel, vocabulary: Vocabulary, dtype: str) -> None:
    if dtype not in _TYPES:
        raise UserError(f"unknown GGUF type {dtype!r}; there are: {', '.join(_TYPES)}")
    if model.out_head.weight.shape != model.tok_emb.weight.shape:
        raise UserError(
            f"the model's output layer has {model.out_head.weight.shape[0]} rows, not one per "
            "token: llama.cpp's GPT-2 is a language model, so a classifier cannot be exported"
        )
    if model.cfg.feed_forward != "gelu":
        raise UserError(
            f"the model's activation is {model.cfg.feed_forward}; llama.cpp's GPT-2 knows the tanh "
            "GELU only, and would write other texts: use --to hf"
        )
    if len(vocabulary) > model.cfg.vocab_size:
        raise UserError(
            f"the tokenizer has {len(vocabulary)} tokens, the model vocab_size "
            f"{model.cfg.vocab_size}; export the model with its own tokenizer"
        )
    if vocabulary.eot_token is None:
        raise UserError(
            "the tokenizer has no <|endoftext|>, and llama.cpp would take an ordinary token (id "
            "11) for the end of the text; train with a tokenizer that has it"
        )


def _add_model_facts(
    writer: gguf.GGUFWriter, cfg: ModelConfig, file_type: LlamaFileType, name: str
) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_block_count(cfg.n_layers)
    writer.add_context_length(cfg.context_length)
    writer.add_embedding_length(cfg.emb_dim)
    writer.add_feed_forward_length(cfg.feed_forward_dim)
    writer.add_head_count(cfg.n_heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary, vocab_size: int) -> None:
    """Add tokens in the order of their ids, padded to the model's ``vocab_size``."""
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]  # llama.cpp's own spelling
    types = [gguf.TokenType.UNUSED] * vocab_size
    for token, index in vocabulary.ids.items():
        tokens[index], types[index] = to_characters(token), gguf.TokenType.NORMAL
    for token, index in vocabulary.special_tokens.items():
        tokens[index], types[index] = token, gguf.TokenType.CONTROL
    for token, index in vocabulary.added_tokens.items():
        tokens[index], types[index] = token, gguf.TokenType.USER_DEFINED
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise UserError(
            f"the token {twice!r} is there twice, as an ordinary and as a special token, which "
            "GGUF cannot tell apart; train a tokenizer with other special tokens"
        )
    merges = [f"{to_characters(a)} {to_characters(b)}" for a, b in vocabulary.merges]
    eot = vocabulary.eot_token
    assert eot is not None  # checked before
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges or _NO_MERGES)
    writer.add_bos_token_id(eot)
    writer.add_eos_token_id(eot)
    writer.add_unk_token_id(eot)
    writer.add_add_bos_token(False)


def _type_of(name: str, shape: torch.Size, dtype: DType) -> GGMLQuantizationType:
    """How llama.cpp's converter stores this tensor when asked for ``dtype``."""
    wanted = _TYPES[dtype][1]
    if len(shape) == 1 or name.startswith("position_embd"):
        return GGMLQuantizationType.F32
    block_size, _ = gguf.GGML_QUANT_SIZES[wanted]
    return GGMLQuantizationType.F16 if shape[-1] % block_size else wanted


def _encode(tensor: Tensor, row: Row, dtype: DType) -> Array:
    """The numbers as the file holds them."""
    wanted = _type_of(row.theirs, tensor.shape, dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # reported below
        data = gguf.quantize(tensor.float().numpy(), wanted)
        fine = np.isfinite(gguf.dequantize(data, wanted)).all()
    if not fine:
        raise UserError(
            f"{' and '.join(row.ours)} holds NaN, infinity or a number too large for "
            f"{wanted.name}; export bf16 or f32, or mend the model"
        )
    return data


def _write(writer: gguf.GGUFWriter, model: GPTModel, dtype: DType, path: Path) -> None:
    """Write the header, then one tensor after the other."""
    state, rows = model.state_dict(), list(gguf_rows(model.cfg))
    total = 0
    for row in rows:
        shape = to_theirs(state, row, model.cfg).shape
        wanted = _type_of(row.theirs, shape, dtype)
        size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, wanted)))
        total += size
        # Not uint8: that would say that the shape counts bytes.
        writer.add_tensor_info(row.theirs, shape, np.dtype(np.float32), size, wanted)
    if shutil.disk_usage(path.parent).free < total:
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for row in rows:
            writer.write_tensor_data(_encode(to_theirs(state, row, model.cfg), row, dtype))
        writer.flush()
    except OSError as error:
        if error.errno is None:  # numpy's: some numbers were not written
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(path)) from error
        raise
    finally:
        writer.close()


def _compare(path: Path, writer: gguf.GGUFWriter, model: GPTModel, dtype: DType) -> None:
    """Read the file back and compare all of it with what it was made from."""
    try:
        reader = _open(path)
    except UserError as error:
        raise _not_as_written(str(error)) from error
    wrong = [
        key
        for key, value in writer.kv_data[0].items()
        if (field := reader.get_field(key)) is None or field.contents() != _as_read(value.value)
    ]
    state, rows = model.state_dict(), list(gguf_rows(model.cfg))
    if [row.theirs for row in rows] != [tensor.name for tensor in reader.tensors]:
        wrong.append("the list of tensors")
    for row, found in zip(rows, reader.tensors, strict=False):
        whole = to_theirs(state, row, model.cfg)
        data = _encode(whole, row, dtype)
        same_shape = tuple(found.shape) == tuple(reversed(whole.shape))  # GGUF counts from the end
        same_type = found.tensor_type == _type_of(row.theirs, whole.shape, dtype)
        if not (same_shape and same_type and _same_bits(found.data, data)):
            wrong.append(row.theirs)
    if wrong:
        raise _not_as_written(", ".join(wrong[:8]))


def _not_as_written(what: str) -> UserError:
    return UserError(
        f"what was read back from the disk is not what was written: {what}; "
        "nothing was kept of it, so check the disk and export again"
    )


def _as_read(value: object) -> object:
    """A value as GGUF gives it back: its real numbers are fp32."""
    return float(np.float32(value)) if isinstance(value, float) else value


def _same_bits(a: Array, b: Array) -> bool:
    return np.array_equal(a.view(np.uint8), b.view(np.uint8))


def _open(path: str | Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{path} cannot be read as GGUF: {error}") from error

"""Write a model as a GGUF file, for llama.cpp, Ollama and whatever else is built on them.

    export_gguf(model, tokenizer, Path("my-model.gguf"), "q8_0", name="my-model")

The file is what llama.cpp's own ``convert_hf_to_gguf.py`` makes of a GPT-2, a Llama or a Qwen3,
written with its own package. It is read back and compared before it appears under its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from errno import ENOSPC
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from torch import Tensor

from groundup.data.model_style import template_of
from groundup.errors import UserError
from groundup.files import atomic_file
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer
from groundup.tokenizers.gguf import gguf_tokenizer
from groundup.weights.architectures import architecture_of
from groundup.weights.gguf_names import extra_tensors, gguf_rows, metadata_of
from groundup.weights.names import to_theirs

DType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
Array = np.ndarray[Any, Any]

_TYPES: dict[DType, tuple[LlamaFileType, GGMLQuantizationType]] = {
    "f32": (LlamaFileType.ALL_F32, GGMLQuantizationType.F32),
    "f16": (LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16),
    "bf16": (LlamaFileType.MOSTLY_BF16, GGMLQuantizationType.BF16),
    "q8_0": (LlamaFileType.MOSTLY_Q8_0, GGMLQuantizationType.Q8_0),
    "q5_1": (LlamaFileType.MOSTLY_Q5_1, GGMLQuantizationType.Q5_1),
    "q5_0": (LlamaFileType.MOSTLY_Q5_0, GGMLQuantizationType.Q5_0),
    "q4_1": (LlamaFileType.MOSTLY_Q4_1, GGMLQuantizationType.Q4_1),
    "q4_0": (LlamaFileType.MOSTLY_Q4_0, GGMLQuantizationType.Q4_0),
}

# With 4 or 5 bits, the scores of all tokens would suffer most; llama.cpp gives them more, too.
_FINE = ("token_embd.weight", "output.weight")


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

    Vectors (norms, biases) and the position embedding stay f32, as llama.cpp keeps them. The types
    with a q work on 32 numbers at a time: a matrix whose rows do not divide by 32 is f16 instead.
    With 4 and 5 bits, embedding and output layer are q8_0. An output layer that is tied to the
    embedding is not written again: llama.cpp takes the embedding (since March 2025).

    Args:
        model: the model; its tensors are converted and written one at a time.
        tokenizer: its tokenizer; the ids that it does not use become unused tokens.
        path: where to; a file that is there is replaced.
        dtype: how the matrices are stored.
        name: what applications show as the model's name.
        prompt_style: one of ``prompts.PROMPT_STYLES``, or ``OWN``, saved as the chat template.

    Raises:
        UserError: the model cannot be expressed, the disk is full or cannot be written to, or what
            was read back is not what was written; a file that was there is intact.
    """
    path = Path(path)
    _check_can_be_expressed(model, dtype)
    writer = gguf.GGUFWriter(None, architecture_of(model.cfg).name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    _add(writer, metadata_of(model.cfg))
    writer.add_file_type(_TYPES[dtype][0])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add(writer, gguf_tokenizer(tokenizer, model.cfg.vocab_size))
    if prompt_style is not None:
        writer.add_chat_template(template_of(prompt_style, tokenizer))
    with atomic_file(path) as temporary:
        _write(writer, model, dtype, temporary)
        _compare(temporary, writer, model, dtype)


def _check_can_be_expressed(model: GPTModel, dtype: str) -> None:
    if dtype not in _TYPES:
        raise UserError(f"unknown GGUF type {dtype!r}; there are: {', '.join(_TYPES)}")
    if model.out_head.weight.shape != model.tok_emb.weight.shape:
        raise UserError(
            f"the model's output layer has {model.out_head.weight.shape[0]} rows, not one per "
            "token: a GGUF file is for language models, so a classifier cannot be exported"
        )
    if model.cfg.feed_forward == "gelu_exact":
        raise UserError(
            f"the model's activation is {model.cfg.feed_forward}; llama.cpp's GPT-2 knows the tanh "
            "GELU only, and would write other texts: use --to hf"
        )


def _add(writer: gguf.GGUFWriter, values: Mapping[str, Any]) -> None:
    """Put values of Python's into the metadata."""
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for name, value in values.items():
        add[type(value)](name, value)


def _tensors(model: GPTModel) -> Iterator[tuple[str, str, Tensor]]:
    """Every tensor of the file: its name there, what it is of ours, and its numbers."""
    state = model.state_dict()
    for row in gguf_rows(model.cfg):
        yield row.theirs, " and ".join(row.ours), to_theirs(state, row, model.cfg)
    for name, tensor in extra_tensors(model.cfg).items():
        yield name, "rope_scaling", tensor


def _type_of(name: str, shape: torch.Size, dtype: DType) -> GGMLQuantizationType:
    """How llama.cpp stores this tensor when asked for ``dtype``."""
    if len(shape) == 1 or name.startswith("position_embd"):
        return GGMLQuantizationType.F32
    if name in _FINE and dtype[:2] in ("q4", "q5"):
        dtype = "q8_0"
    wanted = _TYPES[dtype][1]
    block_size, _ = gguf.GGML_QUANT_SIZES[wanted]
    return GGMLQuantizationType.F16 if shape[-1] % block_size else wanted


def _encode(name: str, ours: str, tensor: Tensor, dtype: DType) -> Array:
    """The numbers as the file holds them."""
    wanted = _type_of(name, tensor.shape, dtype)
    with np.errstate(all="ignore"):  # reported below
        data = gguf.quantize(tensor.float().numpy(), wanted)
        fine = np.isfinite(gguf.dequantize(data, wanted)).all()
    if not fine:
        raise UserError(
            f"{ours} holds NaN, infinity or a number too large for {wanted.name}; export bf16 or "
            "f32, or mend the model"
        )
    return data


def _write(writer: gguf.GGUFWriter, model: GPTModel, dtype: DType, path: Path) -> None:
    """Write the header, then one tensor after the other."""
    total = 0
    for name, _, tensor in _tensors(model):
        wanted = _type_of(name, tensor.shape, dtype)
        size = int(np.prod(gguf.quant_shape_to_byte_shape(tensor.shape, wanted)))
        total += size
        # Not uint8: that would say that the shape counts bytes.
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size, wanted)
    if shutil.disk_usage(path.parent).free < total:
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, ours, tensor in _tensors(model):
            writer.write_tensor_data(_encode(name, ours, tensor, dtype))
        writer.flush()
    except OSError as error:
        if error.errno is None:  # numpy's: some numbers were not written
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(path)) from error
        raise
    finally:
        writer.close()


def _compare(path: Path, writer: gguf.GGUFWriter, model: GPTModel, dtype: DType) -> None:
    """Read the file back, with the package's own reader, and compare all of it."""
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise _not_as_written(str(error)) from error
    wrong = [
        key
        for key, value in writer.kv_data[0].items()
        if (field := reader.get_field(key)) is None or field.contents() != _as_read(value.value)
    ]
    found = {tensor.name: tensor for tensor in reader.tensors}
    names = []
    for name, ours, tensor in _tensors(model):
        names.append(name)
        data, there = _encode(name, ours, tensor, dtype), found.get(name)
        if there is None:
            continue
        same_shape = tuple(there.shape) == tuple(reversed(tensor.shape))  # GGUF counts from the end
        same_type = there.tensor_type == _type_of(name, tensor.shape, dtype)
        if not (same_shape and same_type and _same_bits(there.data, data)):
            wrong.append(name)
    if names != list(found):
        wrong.append("the list of tensors")
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

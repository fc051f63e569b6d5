"""GPT-2 as OpenAI published it, for the tests: TensorFlow's checkpoint written without TensorFlow.

Nobody reads such files but us, so the product does not write them. The tests do, to have
checkpoints of any shape and damaged ones; TensorFlow agrees with what is written here
(``pytest -m oracle tests/weights/test_tensor_bundle.py``).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from groundup.files import write_json
from groundup.model.gpt import GPTModel
from groundup.tokenizers import Tokenizer
from groundup.tokenizers.byte_level import to_characters
from groundup.tokenizers.files import merges_file
from groundup.weights.names import openai_rows, to_theirs
from groundup.weights.tensor_bundle_format import masked_crc

DTYPES = {  # the numbers are from TensorFlow's types.proto
    torch.float32: 1,
    torch.float64: 2,
    torch.int32: 3,
    torch.int64: 9,
    torch.bfloat16: 14,
    torch.float16: 19,
}
MAGIC, FOOTER_BYTES = 0xDB4775248B80FB57, 48
BLOCK_BYTES, RESTART_INTERVAL = 1 << 18, 16  # what TensorFlow writes


def write_openai_directory(
    directory: Path, model: GPTModel, tokenizer: Tokenizer | None = None
) -> None:
    """All of OpenAI's files; biases of query, key and value that the model lacks are zeros."""
    directory.mkdir(parents=True, exist_ok=True)
    cfg, state = model.cfg, model.state_dict()
    settings = {
        "n_vocab": cfg.vocab_size,
        "n_ctx": cfg.context_length,
        "n_embd": cfg.emb_dim,
        "n_head": cfg.n_heads,
        "n_layer": cfg.n_layers,
    }
    write_json(directory / "hparams.json", settings)
    line = 'model_checkpoint_path: "model.ckpt"\n'
    (directory / "checkpoint").write_text(line + "all_" + line.replace("path:", "paths:"), "utf-8")
    tensors = ((row.theirs, to_theirs(state, row, cfg)) for row in openai_rows(cfg))
    write_bundle(directory / "model.ckpt", tensors)
    if tokenizer is not None:
        write_openai_vocabulary(directory, tokenizer)


def write_openai_vocabulary(directory: Path, tokenizer: Tokenizer) -> None:
    """``encoder.json`` and ``vocab.bpe``; for GPT-2, OpenAI's own files byte for byte."""
    vocabulary = tokenizer.vocabulary
    vocab = {to_characters(token): index for token, index in vocabulary.ids.items()}
    vocab |= vocabulary.special_tokens
    encoder = json.dumps(dict(sorted(vocab.items(), key=lambda item: item[1])))
    (directory / "encoder.json").write_text(encoder, encoding="utf-8")
    (directory / "vocab.bpe").write_bytes(merges_file(vocabulary.merges))


def write_bundle(prefix: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """``PREFIX.index`` and ``PREFIX.data-00000-of-00001``."""
    entries: dict[bytes, bytes] = {}
    with Path(f"{prefix}.data-00000-of-00001").open("wb") as file:
        for name, tensor in tensors:
            data = tensor.contiguous().flatten().view(torch.uint8).numpy()
            dims = (put_message(2, put_number(1, size)) for size in tensor.shape)
            entries[name.encode()] = (
                put_number(1, DTYPES[tensor.dtype])
                + put_message(2, b"".join(dims))
                + put_number(4, file.tell())
                + put_number(5, data.size)
                + put_fixed32(6, masked_crc(data))
            )
            file.write(data.data)
    header = put_number(1, 1) + put_message(3, put_number(1, 1))
    with Path(f"{prefix}.index").open("wb") as file:
        write_table(file, [(b"", header), *sorted(entries.items())])


def write_table(file: BinaryIO, entries: list[tuple[bytes, bytes]]) -> None:
    """Keys and values, sorted or not, as LevelDB's table."""
    index: list[tuple[bytes, bytes]] = []
    begin = used = 0
    for i, (key, value) in enumerate(entries, start=1):
        used += len(key) + len(value)
        if used >= BLOCK_BYTES or i == len(entries):
            index.append((key, _write_block(file, _block(entries[begin:i], RESTART_INTERVAL))))
            begin, used = i, 0
    handles = _write_block(file, _block([], 1)) + _write_block(file, _block(index, 1))
    file.write(handles.ljust(FOOTER_BYTES - 8, b"\0") + MAGIC.to_bytes(8, "little"))


def put_number(field: int, value: int) -> bytes:
    """A field with a number of at least 0; zero is what a missing field means."""
    return _put_varint(field << 3) + _put_varint(value) if value else b""


def put_message(field: int, content: bytes) -> bytes:
    """A field that holds a message."""
    return _put_varint(field << 3 | 2) + _put_varint(len(content)) + content


def put_fixed32(field: int, value: int) -> bytes:
    """A field of four bytes."""
    return _put_varint(field << 3 | 5) + struct.pack("<I", value)


def _write_block(file: BinaryIO, block: bytes) -> bytes:
    """Write an uncompressed block with its trailer; return its handle."""
    handle = _put_varint(file.tell()) + _put_varint(len(block))
    block += b"\0"
    file.write(block + struct.pack("<I", masked_crc(block)))
    return handle


def _block(entries: list[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    out, restarts, last = bytearray(), [0], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart_interval:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        elif i:
            restarts.append(len(out))
        for number in (shared, len(key) - shared, len(value)):
            out += _put_varint(number)
        out += key[shared:] + value
        last = key
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _put_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

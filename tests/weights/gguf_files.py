"""GGUF files that others could have written: ours, with changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as Type

from groundup.model.gpt import GPTModel
from tests.conftest import ARCHITECTURES

# Where a block's scales are, as numbers of 16 bits: random bytes there could be infinity.
_SCALES = {
    Kind.Q2_K: (80, 82),
    Kind.Q3_K: (108,),
    Kind.Q4_K: (0, 2),
    Kind.Q5_K: (0, 2),
    Kind.Q6_K: (208,),
    Kind.IQ4_NL: (0,),
    Kind.IQ4_XS: (0,),
}


def noisy_model(architecture: str = "gpt2", **changes: object) -> GPTModel:
    """Every parameter is different, so that none can be mistaken for another."""
    model = GPTModel(ARCHITECTURES[architecture].replace(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("scale") else 0.0, 0.1)
    return model


def random_blocks(shape: tuple[int, ...], kind: Kind) -> np.ndarray[Any, Any]:
    """Numbers as a file holds them in this way, also in those that the package cannot write."""
    random = np.random.default_rng(0)
    if kind not in _SCALES:
        return gguf.quantize(random.normal(0, 0.1, shape).astype(np.float32), kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (int(np.prod(shape)) // block, size), dtype=np.uint8)
    for at in _SCALES[kind]:
        scales = random.uniform(0.001, 0.01, len(data)).astype(np.float16)
        data[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return data.reshape(*shape[:-1], -1)


def rewritten(
    path: Path,
    facts: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray[Any, Any] | None] | None = None,
    kind: Kind | None = None,
) -> Path:
    """A copy of a file beside it, with other metadata or tensors.

    Args:
        path: the file.
        facts: by name: a value instead, or None to leave it out.
        tensors: by name: fp32 numbers instead or besides, or None to leave it out.
        kind: how the matrices are stored; random then, as ``random_blocks`` makes them.
    """
    reader = gguf.GGUFReader(path)
    facts, tensors = dict(facts or {}), dict(tensors or {})
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(None, facts.pop("general.architecture", architecture))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name in facts:
            continue
        of = field.types[-1] if field.types[0] == Type.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], of)
    for name, value in facts.items():
        if value is not None:
            array = isinstance(value, list)
            one = value[0] if array else value
            of = gguf.GGUFValueType.get_type(one)
            writer.add_key_value(name, value, Type.ARRAY if array else of, of if array else None)
    for tensor in reader.tensors:
        if tensor.name in tensors:
            continue
        shape = tuple(reversed(tensor.shape.tolist()))
        if kind is not None and len(shape) == 2:
            writer.add_tensor(tensor.name, random_blocks(shape, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for name, data in tensors.items():
        if data is not None:
            writer.add_tensor(name, data.astype(np.float32))
    target = path.with_name("other.gguf")
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target

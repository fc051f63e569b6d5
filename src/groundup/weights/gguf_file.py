"""The container that GGUF is: metadata by name, then tensors, each quantized in its own way.

The header is read here and not by the package ``gguf``, whose reader makes an array of every
token (4.4 s and 190 MB for SmolLM2's 98,000 strings, against 0.3 s) and cuts short what a damaged
file says is longer. Every length is compared with the file's size before it is believed. What
the blocks of a quantization mean is the package's affair.

The layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFValueType
from torch import Tensor

from groundup.errors import UserError, read_error

MAGIC = b"GGUF"

_KINDS = (
    *("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
)
KINDS = {GGMLQuantizationType[name]: name for name in _KINDS}
"""The ways of storing numbers that are read here, and their names."""

_NUMBERS = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.FLOAT64: "<f8",
    GGUFValueType.BOOL: "?",
}

_MOST = 1 << 16
"""Entries of metadata, and tensors; a model of 100 blocks has some 1,200."""

_PIECE = 1 << 22
"""Numbers that are dequantized at a time: the package needs three times as much memory."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in the file, and how: its shape is PyTorch's, the last dimension inner.

    ``row_bytes`` and ``offset`` are in bytes; the offset counts from the file's beginning.
    """

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the last dimension."""
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return self.shape[-1] // block * size

    @property
    def rows(self) -> int:
        """How many such rows there are."""
        return math.prod(self.shape[:-1])


@dataclass(frozen=True)
class Header:
    """What a GGUF file says before its numbers begin."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF does, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Read a file's metadata, and where its tensors are.

    Raises:
        UserError: the file is missing, damaged or cut off, or quantized in a way not known here.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header()
    except OSError as error:
        raise read_error(path, error) from error


class GGUFTensors(Mapping[str, Tensor]):
    """The tensors of a file in fp32, each read and dequantized when it is asked for."""

    def __init__(
        self, path: Path, stored: Mapping[str, Stored], device: torch.device | str = "cpu"
    ) -> None:
        self.path, self.stored, self.device = path, stored, device

    def __getitem__(self, name: str) -> Tensor:
        at = self.stored[name]
        whole = np.empty((at.rows, at.shape[-1]), np.float32)
        step = max(1, _PIECE // at.shape[-1])
        try:
            with self.path.open("rb") as file:
                file.seek(at.offset)
                for first in range(0, at.rows, step):
                    piece = whole[first : first + step]
                    content = file.read(len(piece) * at.row_bytes)
                    data = np.frombuffer(content, np.uint8).reshape(len(piece), at.row_bytes)
                    with np.errstate(all="ignore"):  # a damaged block's scale may be NaN
                        piece[:] = gguf.dequantize(data, at.kind)
        except (OSError, ValueError) as error:  # ValueError: it was cut off meanwhile
            raise read_error(self.path, error) from error
        return torch.from_numpy(whole.reshape(at.shape)).to(self.device)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


class _Reader:
    """Reads a header from its beginning to its end."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.left = self.size = path.stat().st_size

    def header(self) -> Header:
        self._check_version()
        tensors, entries = self._count(), self._count()
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            name = self._text()
            if name in metadata:
                raise self._damaged(f"it says {name!r:.80} twice")
            metadata[name] = self._value(name, self._number("<I"))
        listed = [self._tensor() for _ in range(tensors)]
        align = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(align, int) or align < 1 or align & (align - 1):
            raise self._damaged(f"general.alignment is {align!r:.40}; expected a power of two")
        begin = -(-(self.size - self.left) // align) * align
        found: dict[str, Stored] = {}
        for name, shape, kind, offset in listed:
            if name in found:
                raise self._damaged(f"the tensor {name!r:.80} is there twice")
            stored = found[name] = Stored(shape, kind, begin + offset)
            end = stored.offset + stored.rows * stored.row_bytes
            if end > self.size:
                raise UserError(
                    f"{self.path} is cut off: {name} ends at byte {end:,}, the file has "
                    f"{self.size:,}; get it again"
                )
        return Header(metadata, found)

    def _check_version(self) -> None:
        if self._bytes(len(MAGIC)) != MAGIC:
            raise UserError(f"{self.path} is no GGUF file: it does not begin with GGUF")
        version = self._number("<I")
        if version & 0xFFFF == 0:
            raise UserError(f"{self.path} is for big-endian machines; get the usual one")
        if version not in (2, 3):
            raise UserError(
                f"{self.path} is GGUF of version {version}; versions 2 and 3 can be read: convert "
                "the model again with today's llama.cpp"
            )

    def _value(self, name: str, code: int) -> Any:
        try:
            kind = GGUFValueType(code)
        except ValueError:
            raise self._damaged(f"{name!r:.80} is of the unknown type {code}") from None
        if kind == GGUFValueType.STRING:
            return self._text()
        if kind != GGUFValueType.ARRAY:
            return self._array(name, kind, 1)[0]
        code, count = self._number("<I"), self._number("<Q")
        if code == GGUFValueType.STRING:
            if count > self.left // 8:
                raise self._damaged("it is cut off")
            return [self._text() for _ in range(count)]
        return self._array(name, code, count)

    def _array(self, name: str, code: int, count: int) -> list[Any]:
        numbers = _NUMBERS.get(code)  # pyright: ignore[reportArgumentType]
        if numbers is None:  # an array of arrays, say
            raise self._damaged(f"{name!r:.80} is of the unknown type {code}")
        content = self._bytes(np.dtype(numbers).itemsize * count)
        return np.frombuffer(content, numbers).tolist()

    def _tensor(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        name, dimensions = self._text(), self._number("<I")
        if not 1 <= dimensions <= 4:
            raise self._damaged(f"{name!r:.80} has {dimensions} dimensions; expected 1 to 4")
        shape = tuple(reversed([self._number("<Q") for _ in range(dimensions)]))
        code, offset = self._number("<I"), self._number("<Q")
        if code not in KINDS:
            known = [kind.name for kind in GGMLQuantizationType if kind == code]
            raise UserError(
                f"{self.path}: {name!r:.80} is of the type {known[0] if known else code}, which "
                f"is not read here; there are: {', '.join(KINDS.values())}"
            )
        kind = GGMLQuantizationType(code)
        block, _ = gguf.GGML_QUANT_SIZES[kind]
        if not all(shape) or shape[-1] % block:
            raise self._damaged(f"{name!r:.80} has the impossible shape {shape} for {kind.name}")
        return name, shape, kind, offset

    def _count(self) -> int:
        count = self._number("<Q")
        if count > _MOST:
            raise self._damaged(f"it has {count} entries; no model has more than {_MOST:,}")
        return count

    def _text(self) -> str:
        try:
            return self._bytes(self._number("<Q")).decode()
        except UnicodeDecodeError as error:
            raise self._damaged("a text in it is not UTF-8") from error

    def _number(self, layout: str) -> int:
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]

    def _bytes(self, count: int) -> bytes:
        if count > self.left:
            raise self._damaged("it is cut off")
        content = self.file.read(count)
        if len(content) < count:  # somebody else cuts it off meanwhile
            raise self._damaged("it is cut off")
        self.left -= count
        return content

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.path} is damaged: {what}; get it again")

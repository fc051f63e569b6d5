"""TensorFlow's checkpoints ("tensor bundles") read without TensorFlow.

A bundle ``PREFIX`` is an index and one or more data files::

    PREFIX.index                  a sorted table in LevelDB's format: name -> where its bytes are
    PREFIX.data-00000-of-00001    the tensors' bytes, little-endian, one after the other

The table's blocks and every tensor carry a CRC32C, and all of them are checked. Sources: LevelDB's
``doc/table_format.md``, TensorFlow's ``tensor_bundle.proto``.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.weights.tensor_bundle_format import (
    Problem,
    damaged,
    decode,
    integer,
    masked_crc,
    message,
    messages,
    read_table,
)

_MAX_INDEX_BYTES = 1 << 28  # GPT-2's have some 15 kB
_VERSION = 1
_DTYPES = {  # the numbers are from TensorFlow's types.proto
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    9: torch.int64,
    14: torch.bfloat16,
    19: torch.float16,
}


@dataclass(frozen=True)
class _Entry:
    """Where a tensor is, and what it is."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int  # masked


class TensorBundle(Mapping[str, Tensor]):
    """A checkpoint's tensors by name; each is read, and its checksum checked, when asked for."""

    def __init__(self, entries: Mapping[str, _Entry], shards: Mapping[int, Path]) -> None:
        self._entries, self._shards = entries, shards

    @classmethod
    def open(cls, path: str | Path) -> TensorBundle:
        """Open a checkpoint by its prefix, or by its directory, whose file ``checkpoint`` names it.

        Everything but the tensors' bytes is checked here.

        Raises:
            UserError: a file is missing, damaged, outside the directory, or has what we cannot
                read (slices, compression, other types than those in ``_DTYPES``).
        """
        path = Path(path)
        try:
            prefix = _prefix_in(path) if path.is_dir() else path
            index = _file_of(prefix, ".index")
            try:
                entries, n_shards = _read_index(index)
            except Problem as error:
                raise UserError(f"{index} {error}") from None
            suffix = ".data-{:05d}-of-{:05d}"
            used = sorted({entry.shard for entry in entries.values()})
            shards = {i: _file_of(prefix, suffix.format(i, n_shards)) for i in used}
            sizes = {i: shard.stat().st_size for i, shard in shards.items()}
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        for name, entry in entries.items():
            if entry.offset + entry.size > sizes[entry.shard]:
                raise UserError(
                    f"{shards[entry.shard]} is damaged: it has {sizes[entry.shard]:,} bytes, but "
                    f"{name} ends at {entry.offset + entry.size:,}; fetch it again"
                )
        return cls(entries, shards)

    @property
    def names(self) -> list[str]:
        """The tensors' names, sorted."""
        return list(self._entries)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return self._entries[name].shape

    def dtype_of(self, name: str) -> torch.dtype:
        """A tensor's dtype, without reading it."""
        return self._entries[name].dtype

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name]
        path = self._shards[entry.shard]
        # Pages of its own, which go back to the system with the tensor. On the heap, where they
        # would leave holes, loading GPT-2 124M took 1.25 times the model at its peak, not 1.02.
        pages = mmap.mmap(-1, max(entry.size, 1))
        data = torch.frombuffer(pages, dtype=torch.uint8)[: entry.size]
        buffer = data.numpy()
        try:
            with path.open("rb") as file:
                file.seek(entry.offset)
                whole = file.readinto(buffer.data) == buffer.size
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        if not whole or masked_crc(buffer) != entry.crc:
            raise UserError(f"{path} is damaged: the checksum of {name} is wrong; fetch it again")
        return data.view(entry.dtype).view(entry.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # Mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _prefix_in(directory: Path) -> Path:
    """The checkpoint that the directory's text file ``checkpoint`` names."""
    path = _file_of(directory / "checkpoint", "")
    with path.open("rb") as file:
        text = file.read(1 << 16).decode("utf-8", errors="replace")
    found = re.search(r'^model_checkpoint_path: *"([^"\\\x00-\x1f]+)"', text, re.MULTILINE)
    if found is None:
        raise UserError(
            f'{path} is damaged: it does not say model_checkpoint_path: "…"; fetch it again'
        )
    prefix = directory / found[1]
    if not _is_inside(prefix, directory) or prefix.resolve() == directory.resolve():
        raise UserError(
            f"{path} names {found[1]!r}, which is outside the directory; "
            "write a path relative to it there"
        )
    return prefix


def _file_of(prefix: Path, ending: str) -> Path:
    """One of the checkpoint's files, links followed if they stay in its directory."""
    path = prefix.with_name(prefix.name + ending)
    if not _is_inside(path, path.parent):
        raise UserError(f"{path} is a link out of its directory; put the file itself there")
    real = Path(os.path.realpath(path))
    if not real.is_file():
        raise UserError(f"{prefix.parent} is not a complete checkpoint: {path.name} is missing")
    return real


def _is_inside(path: Path, directory: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def _read_index(path: Path) -> tuple[dict[str, _Entry], int]:
    """All entries by name, and the number of data files."""
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise damaged(f"it has more than {_MAX_INDEX_BYTES:,} bytes")
    table = read_table(path.read_bytes())
    key, value = next(table, (None, b""))
    if key != b"":
        raise damaged("it has no header entry")
    header = decode(value)
    n_shards = integer(header, 1)
    if n_shards < 1:
        raise damaged(f"it counts {n_shards} data files")
    if integer(header, 2):
        raise Problem("is of a big-endian machine; groundup reads little-endian checkpoints")
    version = message(header, 3)
    if integer(version, 2) > _VERSION:
        raise Problem(f"needs a reader of version {integer(version, 2)}; ours has {_VERSION}")
    entries: dict[str, _Entry] = {}
    for key, value in table:
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise damaged(f"the name {key!r} is not UTF-8") from None
        entries[name] = _read_entry(name, value)
        if not 0 <= entries[name].shard < n_shards:
            raise damaged(f"{name} is in data file {entries[name].shard} of {n_shards}")
    return entries, n_shards


def _read_entry(name: str, value: bytes) -> _Entry:
    """Decode a ``BundleEntryProto`` and check it."""
    fields = decode(value)
    if 7 in fields:
        raise Problem(f"has {name} in slices; groundup reads whole tensors")
    dtype = _DTYPES.get(integer(fields, 1))
    if dtype is None:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES.values())
        raise Problem(
            f"has {name} with TensorFlow's type {integer(fields, 1)}; groundup reads {known}"
        )
    shape = message(fields, 2)
    sizes = tuple(integer(decode(dim), 1) for dim in messages(shape, 2))
    if integer(shape, 3) or min(sizes, default=0) < 0 or math.prod(n or 1 for n in sizes) >= 2**60:
        raise damaged(f"{name} has the impossible shape {sizes}")
    shard, offset, size = (integer(fields, number) for number in (3, 4, 5))
    if offset < 0 or size != math.prod(sizes) * dtype.itemsize:
        raise damaged(f"{name} of shape {sizes} and {dtype} has {size} bytes at {offset}")
    return _Entry(dtype, sizes, shard, offset, size, integer(fields, 6))

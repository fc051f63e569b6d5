"""The two encodings inside a TensorFlow checkpoint's index: a table of protocol buffers.

The table is LevelDB's (its ``doc/table_format.md``): blocks of sorted keys, a block that lists the
blocks, and a footer that says where that one is; each block carries a CRC32C. A value is a protocol
buffer, of which only the wire format is needed here (protobuf.dev, "Encoding").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c
import numpy as np
from numpy.typing import NDArray

_MAGIC, _FOOTER_BYTES = 0xDB4775248B80FB57, 48
_TRAILER_BYTES = 5  # after every block: how it is compressed (1), its checksum (4)

Fields = dict[int, list[int | bytes]]


class Problem(Exception):
    """What is wrong with a file, as the rest of a sentence that begins with its name."""


def damaged(what: str) -> Problem:
    """The problem that the file is not what was written."""
    return Problem(f"is damaged: {what}; fetch it again")


def masked_crc(data: bytes | NDArray[np.uint8]) -> int:
    """The CRC32C as LevelDB stores it: rotated and shifted, for data that hold CRCs themselves."""
    crc = 0
    for i in range(0, len(data), 1 << 20):  # a copy per MiB; the library wants bytes
        crc = google_crc32c.extend(crc, bytes(data[i : i + (1 << 20)]))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The table's keys and values; the keys strictly ascend."""
    footer = data[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise damaged("it does not end like a TensorFlow checkpoint's index")
    _, at = _read_block(data, footer, 0)  # about filters, which TensorFlow does not have
    index, _ = _read_block(data, footer, at)
    last = None
    for _, handle in _block_entries(index):
        block, _ = _read_block(data, handle, 0)
        for key, value in _block_entries(block):
            if last is not None and key <= last:
                raise damaged(f"the names {last!r} and {key!r} are not in order")
            last = key
            yield key, value


def _read_block(data: bytes, handle: bytes, at: int) -> tuple[bytes, int]:
    """The block that the handle at ``at`` points to, and where that handle ends."""
    start, at = _varint(handle, at)
    size, at = _varint(handle, at)
    end = start + size
    if end + _TRAILER_BYTES > len(data) - _FOOTER_BYTES:
        raise damaged("a block lies outside the file")
    compression, crc = struct.unpack_from("<BI", data, end)
    if masked_crc(data[start : end + 1]) != crc:
        raise damaged(f"the checksum of the block at {start} is wrong")
    if compression:
        kind = "snappy" if compression == 1 else f"method {compression}"
        raise Problem(f"is compressed ({kind}); groundup reads uncompressed checkpoints")
    return data[start:end], at


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A block's keys and values; a key repeats only what differs from the one before it."""
    n_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (n_restarts + 1)
    if end < 0:
        raise damaged("a block is too short")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        size, at = _varint(block, at)
        if shared > len(key) or at + rest + size > end:
            raise damaged("an entry is longer than its block")
        key = key[:shared] + block[at : at + rest]
        at += rest + size
        yield key, block[at - size : at]


def decode(data: bytes) -> Fields:
    """A protocol buffer's fields by number; the wire format says how long each is, not more."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire, value = tag & 7, b""
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        else:
            raise damaged(f"a field has the unknown wire type {wire}")
        if at > len(data):
            raise damaged("a field is longer than its message")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def integer(fields: Fields, number: int) -> int:
    """A signed number; 0 if the field is not there."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise damaged(f"field {number} should be a number")
    return value - (1 << 64) if value >= 1 << 63 else value


def messages(fields: Fields, number: int) -> list[bytes]:
    """All messages of a repeated field."""
    values = fields.get(number, [])
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) != len(values):
        raise damaged(f"field {number} should be a message")
    return found


def message(fields: Fields, number: int) -> Fields:
    """The fields of the message in a field; none if it is not there."""
    return decode((messages(fields, number) or [b""])[-1])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, seven bits a byte, and where it ends."""
    value = 0
    for i in range(10):
        if at + i >= len(data):
            raise damaged("a number is cut off")
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return value & (1 << 64) - 1, at + i + 1
    raise damaged("a number has more than 64 bits")

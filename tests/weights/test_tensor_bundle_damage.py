"""Damaged and nonsensical TensorFlow checkpoints: a clean error each, and never a wrong tensor."""

import io
import os
import shutil
import struct
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.weights.tensor_bundle import TensorBundle
from groundup.weights.tensor_bundle_format import masked_crc, read_table
from tests.openai_files import put_fixed32, put_message, put_number, write_table
from tests.weights.test_tensor_bundle import DATA, FIXTURE, INDEX, read, refusal, same

HEADER = put_number(1, 1) + put_message(3, put_number(1, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of TensorFlow's checkpoint, to damage."""
    return shutil.copytree(FIXTURE, tmp_path / "openai-tiny")


def write_entry(folder: Path, entry: bytes, header: bytes = HEADER, name: bytes = b"t") -> None:
    """A checkpoint with one entry, whose checksums are right whatever it says."""
    with (folder / INDEX).open("wb") as file:
        write_table(file, [(b"", header), (name, entry)])


def entry(
    dtype: int = 1,
    shape: tuple[int, ...] = (2, 3),
    shard: int = 0,
    offset: int = 0,
    size: int = 24,
    rest: bytes = b"",
) -> bytes:
    dims = b"".join(put_message(2, put_number(1, n % (1 << 64))) for n in shape)
    numbers = put_number(3, shard) + put_number(4, offset % (1 << 64)) + put_number(5, size)
    data = (FIXTURE / DATA).read_bytes()[offset : offset + size] if offset >= 0 else b""
    crc = put_fixed32(6, masked_crc(data))
    return put_number(1, dtype) + put_message(2, dims) + numbers + crc + rest


def test_a_flipped_bit_anywhere_in_the_index(folder: Path) -> None:
    whole, theirs = (folder / INDEX).read_bytes(), read(folder)
    unread = len(whole) - 48  # of the footer, only the two places it names and the magic count
    for at in range(len(whole)):
        for bit in {1 << at % 8, 0x80}:
            (folder / INDEX).write_bytes(flipped(whole, at, bit))
            try:
                found = read(folder)
            except UserError as error:
                assert INDEX in str(error) or "model.ckpt" in str(error)
            else:
                assert at >= unread and same(found, theirs), (at, bit)


def test_a_flipped_bit_in_the_data(folder: Path) -> None:
    whole = (folder / DATA).read_bytes()
    for at in {*range(0, len(whole), 7), len(whole) - 1}:
        (folder / DATA).write_bytes(flipped(whole, at, 1 << at % 8))
        assert "is damaged: the checksum of model/" in refusal(folder)


def test_a_flipped_bit_under_a_right_checksum_never_crashes(folder: Path) -> None:
    """Someone may forge the checksums as well: then what the entries say must make sense."""
    whole = (folder / INDEX).read_bytes()
    _, value = list(read_table(whole))[-1]
    size = whole.rindex(value) + len(value) + 4 * 3  # with its two restart points
    refused = 0
    for at in range(size):
        for bit in {1 << at % 8, 0x80}:
            forged = with_block(whole, flipped(whole[: size + 1], at, bit))
            (folder / INDEX).write_bytes(forged)
            try:
                assert read(folder)
            except UserError as error:
                refused += "checksum of the block" not in str(error)
    assert refused > size


@pytest.mark.parametrize("file", [INDEX, DATA])
def test_truncated_at_any_length(folder: Path, file: str) -> None:
    whole = (folder / file).read_bytes()
    step = 1 if file == INDEX else 13
    for length in {*range(0, len(whole), step), len(whole) - 1}:
        (folder / file).write_bytes(whole[:length])
        assert f"{file} is damaged" in refusal(folder)


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def test_a_data_file_that_shrinks_after_opening(folder: Path) -> None:
    bundle = TensorBundle.open(folder)
    os.truncate(folder / DATA, 100)
    with pytest.raises(UserError, match="is damaged"):
        dict(bundle)
    (folder / DATA).unlink()
    with pytest.raises(UserError, match=f"{DATA} cannot be read"):
        bundle["model/wte"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry(dtype=7), "has t with TensorFlow's type 7; groundup reads float32, float64"),
        (entry(dtype=0), "type 0"),
        (entry(shape=(2, 4)), r"is damaged: t of shape \(2, 4\) and torch.float32 has 24 bytes"),
        (entry(shape=(-2, -3)), r"impossible shape \(-2, -3\)"),
        (entry(shape=(0, 1 << 59, 2), size=0), "impossible shape"),
        (entry(shard=1), "t is in data file 1 of 1"),
        (entry(offset=9012), "it has 9,024 bytes, but t ends at 9,036"),
        (entry(offset=-8), "has 24 bytes at -8"),
        (entry(rest=put_message(7, b"")), "has t in slices; groundup reads whole tensors"),
        (entry(rest=put_number(2, 1)), "field 2 should be a message"),
        (entry(rest=put_message(5, b"")), "field 5 should be a number"),
        (entry(rest=put_message(9, b"xyz")[:-1]), "a field is longer than its message"),
        (entry(rest=b"\x0b"), "unknown wire type 3"),
        (entry(rest=b"\x08" + b"\xff" * 10), "a number has more than 64 bits"),
        (entry(rest=b"\x08\x80"), "a number is cut off"),
    ],
)
def test_an_entry_that_makes_no_sense(folder: Path, bad: bytes, message: str) -> None:
    write_entry(folder, entry())
    assert read(folder)["t"].shape == (2, 3)
    write_entry(folder, bad)
    with pytest.raises(UserError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "it counts 0 data files"),
        (put_number(1, 1) + put_number(2, 1), "is of a big-endian machine"),
        (put_number(1, 1) + put_message(3, put_number(2, 2)), "needs a reader of version 2"),
        (put_number(1, 2), "model.ckpt.data-00000-of-00002 is missing"),
    ],
)
def test_a_header_that_we_cannot_follow(folder: Path, header: bytes, message: str) -> None:
    write_entry(folder, entry(), header)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "it has no header entry"),
        ([(b"t", entry())], "it has no header entry"),
        (
            [(b"", HEADER), (b"t", entry()), (b"t", entry())],
            "the names b't' and b't' are not in order",
        ),
        (
            [(b"", HEADER), (b"t", entry()), (b"s", entry())],
            "the names b't' and b's' are not in order",
        ),
        ([(b"", HEADER), (b"\xff", entry())], r"the name b'\xff' is not UTF-8"),
    ],
)
def test_a_table_that_makes_no_sense(
    folder: Path, entries: list[tuple[bytes, bytes]], message: str
) -> None:
    with (folder / INDEX).open("wb") as file:
        write_table(file, entries)
    assert f"{INDEX} is damaged: {message}" in refusal(folder)


def one_entry() -> tuple[bytes, int]:
    """The index of a checkpoint with one entry, and the size of the block with the entry."""
    buffer = io.BytesIO()
    write_table(buffer, [(b"", HEADER), (b"t", entry())])
    index = buffer.getvalue()
    return index, index.index(entry()) + len(entry()) + 8  # a restart point, and their number


def with_block(index: bytes, block: bytes) -> bytes:
    """The index with another first block and type byte, under the right checksum."""
    crc = struct.pack("<I", masked_crc(block))
    return block + crc + index[len(block) + 4 :]


@pytest.mark.parametrize(("kind", "message"), [(1, "snappy"), (2, "method 2")])
def test_compression_is_refused(folder: Path, kind: int, message: str) -> None:
    index, size = one_entry()
    (folder / INDEX).write_bytes(with_block(index, index[:size] + bytes([kind])))
    assert f"{INDEX} is compressed ({message})" in refusal(folder)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0, "an entry is longer than its block"),  # it shares more of a key than there is
        (1, "an entry is longer than its block"),
        (-2, "a block is too short"),  # for so many restart points
    ],
)
def test_a_block_that_makes_no_sense(folder: Path, at: int, message: str) -> None:
    index, size = one_entry()
    block = bytearray(index[: size + 1])
    block[at] = 0x7F
    (folder / INDEX).write_bytes(with_block(index, bytes(block)))
    assert f"{INDEX} is damaged: {message}" in refusal(folder)


def test_several_data_files(folder: Path) -> None:
    (folder / DATA).rename(folder / "model.ckpt.data-00001-of-00002")
    write_entry(folder, entry(shard=1), put_number(1, 2))  # the other one holds nothing
    assert read(folder)["t"].shape == (2, 3)

"""The container: what a header says is read as the package reads it, or refused in a sentence."""

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from groundup.errors import UserError
from groundup.weights.gguf_file import KINDS, GGUFTensors, is_gguf, read_header
from tests.weights.gguf_files import random_blocks

VALUES: dict[str, tuple[Any, gguf.GGUFValueType, gguf.GGUFValueType | None]] = {
    "a.text": ("Näive 日本語", gguf.GGUFValueType.STRING, None),
    "a.empty": ("", gguf.GGUFValueType.STRING, None),
    "a.whole": (-3, gguf.GGUFValueType.INT32, None),
    "a.large": (2**40, gguf.GGUFValueType.UINT64, None),
    "a.real": (0.1, gguf.GGUFValueType.FLOAT32, None),
    "a.switch": (True, gguf.GGUFValueType.BOOL, None),
    "a.texts": (["x", "", "yz"], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING),
    "a.numbers": ([1, 2, 3], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT16),
    "a.switches": ([True, False], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.BOOL),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with values of all kinds and two tensors."""
    writer = gguf.GGUFWriter(None, "none")
    for name, (value, kind, of) in VALUES.items():
        writer.add_key_value(name, value, kind, of)
    writer.add_tensor("one", np.arange(7, dtype=np.float32))
    writer.add_tensor("two", random_blocks((3, 64), gguf.GGMLQuantizationType.Q4_0), raw_dtype=Q4_0)
    writer.write_header_to_file(tmp_path / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "m.gguf"


Q4_0 = gguf.GGMLQuantizationType.Q4_0


def test_a_header_is_read_as_the_package_reads_it(path: Path) -> None:
    found, reader = read_header(path), gguf.GGUFReader(path)
    theirs = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert found.metadata == theirs
    for tensor in reader.tensors:
        stored = found.tensors[tensor.name]
        assert stored.offset == tensor.data_offset and stored.kind == tensor.tensor_type
        assert list(stored.shape) == tensor.shape.tolist()[::-1]


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
def test_every_kind_is_dequantized_as_the_package_does(tmp_path: Path, kind: Any) -> None:
    """In pieces of some rows: the first matrix takes several, and its last one is smaller."""
    writer = gguf.GGUFWriter(None, "none")
    expected = {}
    for name, shape in {"wide": (5, 1 << 20), "small": (2, 3, 256)}.items():
        data = random_blocks(shape, kind) if name == "small" else _repeated(shape, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        expected[name] = gguf.dequantize(data, kind)
    writer.write_header_to_file(tmp_path / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GGUFTensors(tmp_path / "m.gguf", read_header(tmp_path / "m.gguf").tensors)
    assert list(found) == ["wide", "small"] and len(found) == 2
    for name, numbers in expected.items():
        assert found[name].dtype == torch.float32 and np.isfinite(numbers).all()
        assert np.array_equal(found[name].numpy(), numbers), name


def _repeated(shape: tuple[int, int], kind: Any) -> np.ndarray[Any, Any]:
    """Rows of few different blocks, each beginning with another."""
    few = random_blocks((shape[0], 1024), kind)
    return np.tile(few, (1, shape[1] // 1024))


def test_only_what_begins_so_is_gguf(tmp_path: Path, path: Path) -> None:
    (tmp_path / "x").write_bytes(b"GGU")
    assert is_gguf(path) and not is_gguf(tmp_path / "x")
    assert not is_gguf(tmp_path) and not is_gguf(tmp_path / "none")


def test_every_length_at_which_it_may_be_cut_off(tmp_path: Path, path: Path) -> None:
    whole, cut = path.read_bytes(), tmp_path / "cut.gguf"
    last = read_header(path).tensors["two"]
    for length in range(4, last.offset + last.rows * last.row_bytes):  # then comes padding
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.gguf is (cut off|damaged).*get it again"):
            read_header(cut)


def test_any_byte_may_be_another(tmp_path: Path, path: Path) -> None:
    """It is read, or refused with a sentence; nothing else happens."""
    whole, other = path.read_bytes(), tmp_path / "other.gguf"
    end = read_header(path).tensors["one"].offset
    refused = 0
    for place in range(end):
        for value in (255, whole[place] ^ 1):
            other.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                read_header(other)
            except UserError as error:
                assert "other.gguf" in str(error)
                refused += 1
    assert refused > end


HEAD = b"GGUF" + struct.pack("<I", 3)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGML" + bytes(40), "is no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF of version 1; versions 2 and 3"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "for big-endian machines"),
        (HEAD + struct.pack("<QQ", 1 << 60, 0), "no model has more than 65,536"),
        (HEAD + struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<I", 13), "unknown type 13"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1 << 62), "it is cut off"),
        (
            HEAD + struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 9, 1),
            "'a' is of the unknown type 9",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 8, 1 << 50),
            "it is cut off",
        ),
        (HEAD + struct.pack("<QQ", 0, 1) + text(b"\xff"), "a text in it is not UTF-8"),
        (
            HEAD + struct.pack("<QQ", 0, 2) + 2 * (text(b"a") + struct.pack("<IB", 0, 1)),
            "it says 'a' twice",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + text(b"general.alignment") + struct.pack("<II", 4, 3),
            "general.alignment is 3; expected a power of two",
        ),
        (HEAD + struct.pack("<QQ", 1, 0) + text(b"t") + struct.pack("<I", 5), "has 5 dimensions"),
        (
            HEAD + struct.pack("<QQ", 1, 0) + text(b"t") + struct.pack("<IQIQ", 1, 32, 19, 0),
            "'t' is of the type IQ1_S, which is not read here; there are: F32, F16",
        ),
        (
            HEAD + struct.pack("<QQ", 1, 0) + text(b"t") + struct.pack("<IQIQ", 1, 32, 999, 0),
            "'t' is of the type 999",
        ),
        (
            HEAD + struct.pack("<QQ", 1, 0) + text(b"t") + struct.pack("<IQIQ", 1, 33, 2, 0),
            r"impossible shape \(33,\) for Q4_0",
        ),
        (
            HEAD
            + struct.pack("<QQ", 1, 0)
            + text(b"t")
            + struct.pack("<IQQIQ", 2, 1 << 62, 1 << 62, 0, 0),
            "is cut off: t ends at byte",
        ),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_header(tmp_path / "m.gguf")


def test_a_file_that_is_cut_off_while_it_is_read(path: Path) -> None:
    tensors = GGUFTensors(path, read_header(path).tensors)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"m\.gguf is damaged"):
        tensors["two"]
    path.unlink()
    with pytest.raises(UserError, match="cannot read"):
        tensors["two"]
    with pytest.raises(UserError, match="cannot read"):
        read_header(path)

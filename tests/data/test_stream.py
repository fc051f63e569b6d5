import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import stream
from groundup.data.packed import opened
from groundup.data.stream import Piece, file_pieces, pieces_of, whole_documents
from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer
from tests.conftest import TEXT

zstandard = pytest.importorskip("zstandard")
pyarrow = pytest.importorskip("pyarrow")


def read(path: Path, separator: str | None = None, field: str = "text") -> list[str]:
    with opened(str(path)) as file:
        return list(whole_documents(pieces_of(file, separator, field)))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stream, "PIECE", 7)
    monkeypatch.setattr(stream, "BUFFER", 5)
    yield


@given(
    text=st.text(alphabet="ab \n\r\t|é日", min_size=1),
    separator=st.sampled_from([None, "|", "||", "\n\n", " | ", "a b"]),
)
def test_pieces_make_the_documents_of_the_whole_text(
    text: str, separator: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes(text.encode())
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    expected = plain.split(separator) if separator else [plain]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "PIECE", 5)
        patch.setattr(stream, "BUFFER", 3)
        pieces = list(file_pieces(str(path), separator))
    assert list(whole_documents(pieces)) == [part for part in expected if part.strip()]
    assert all(piece.text for piece in pieces)


def test_pieces_are_cut_where_no_token_spans(
    tmp_path: Path, tokenizer: BPETokenizer, small_pieces: None
) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 3, "utf-8")
    pieces = list(file_pieces(str(path)))
    assert len(pieces) > 20 and [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [
        True
    ]
    assert sum((tokenizer.encode(p.text) for p in pieces), []) == tokenizer.encode(TEXT * 3)


def test_gzip_and_zstandard_of_several_frames(tmp_path: Path) -> None:
    data = TEXT.encode()
    for name, pack in (("a.txt.gz", gzip.compress), ("a.txt.zst", zstandard.compress)):
        (tmp_path / name).write_bytes(pack(data) + pack(data))
        assert read(tmp_path / name) == [TEXT * 2]
        (tmp_path / name).write_bytes((pack(data) + pack(data))[:-9])
        with pytest.raises(UserError, match=f"{name} is not valid (gzip|Zstandard): "):
            read(tmp_path / name)
    (tmp_path / "b.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"nonsense")
    with pytest.raises(UserError, match="b.zst is not valid Zstandard"):
        read(tmp_path / "b.zst")


def test_without_its_library_zstandard_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zst").write_bytes(zstandard.compress(b"text"))
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(UserError, match=r"pip install 'groundup\[corpora\]'"):
        read(tmp_path / "a.zst")


def test_a_bad_byte_is_named_by_its_offset_wherever_it_is(
    tmp_path: Path, small_pieces: None
) -> None:
    (tmp_path / "a.txt").write_bytes("Kä".encode() * 7 + b"\xe4 and more")
    with pytest.raises(UserError, match="not UTF-8: byte 0xe4 at offset 21"):
        read(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes("Kä".encode() * 7 + "é".encode()[:1])
    with pytest.raises(UserError, match="not UTF-8: byte 0xc3 at offset 21"):
        read(tmp_path / "b.txt")


def test_rows_of_json(tmp_path: Path) -> None:
    rows = [{"text": "one\r\ntwo"}, {"text": None}, {"text": " \n"}, {"text": "three", "id": 4}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "A.JSONL.GZ").write_bytes(gzip.compress(text.encode()))
    for path in tmp_path.iterdir():
        assert read(path) == ["one\ntwo", "three"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', r"not JSON: .* in line 2 \(column 1\)"),
        ('["text"]', "no object of JSON in line 2"),
        ('{"body": "a"}', r"no field 'text' in line 2 \(there are 'body'; see --field\)"),
        ('{"text": 3}', r"the field 'text' is no text in line 2 \(int\)"),
        ('{"text": "\\ud800"}', "half a character .* in line 2"),
    ],
)
def test_a_bad_row_is_told_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"a.jsonl: {message}"):
        read(tmp_path / "a.jsonl")


def test_columns_of_parquet(tmp_path: Path) -> None:
    from pyarrow import parquet

    words = [f"document {n}\r\n" for n in range(600)]
    texts = pyarrow.array([*words, None, " "])
    table = pyarrow.table({"body": texts, "packed": texts.dictionary_encode(), "n": range(602)})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    expected = [word.replace("\r\n", "\n") for word in words]
    assert read(path, field="body") == expected and read(path, field="packed") == expected
    with pytest.raises(UserError, match="has no column 'text'; it has 'body', 'packed', 'n': name"):
        read(path)
    with pytest.raises(UserError, match="the column 'n' holds int64; expected text"):
        read(path, field="n")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="a.parquet is not valid Parquet"):
        read(path, field="body")


def test_what_is_read_is_counted_and_hashed(tmp_path: Path) -> None:
    import hashlib

    packed = gzip.compress(TEXT.encode())
    (tmp_path / "a.gz").write_bytes(packed)
    with opened(str(tmp_path / "a.gz"), hashed=True) as file:
        assert file.read() == TEXT.encode()
        assert file.raw_file.count == len(packed) and file.raw_file.digest is not None
        assert file.raw_file.digest.hexdigest() == hashlib.sha256(packed).hexdigest()


def test_stdin_is_read_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one|two"), encoding="utf-8"))
    assert list(file_pieces("-", "|")) == [Piece("one", True, "stdin"), Piece("two", True, "stdin")]

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.text import (
    embedded_documents,
    fingerprint,
    read_documents,
    split_documents,
)
from groundup.errors import UserError


def write(path: Path, data: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def test_files_globs_directories_and_gzip(tmp_path: Path) -> None:
    a = write(tmp_path / "a.txt", "alpha")
    write(tmp_path / "sub" / "b.md", "beta")
    write(tmp_path / "sub" / "c.txt.gz", gzip.compress(b"gamma"))
    write(tmp_path / "sub" / "image.png", b"\x89PNG\xff")
    write(tmp_path / "sub" / ".hidden.txt", "hidden")
    assert read_documents([a]) == ["alpha"]
    assert read_documents([str(tmp_path)]) == ["alpha", "beta", "gamma"]
    assert read_documents([str(tmp_path / "**" / "*.md")]) == ["beta"]
    assert read_documents([a, str(tmp_path)]) == ["alpha", "beta", "gamma"]  # none twice


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("né".encode()), encoding="utf-8"))
    assert read_documents(["-"]) == ["né"]


def test_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    assert read_documents([write(tmp_path / "a", b"\xef\xbb\xbfone\r\ntwo\rthree")]) == [
        "one\ntwo\nthree"
    ]


def test_separator_cuts_a_file_into_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one<|endoftext|>two<|endoftext|>\n")
    assert read_documents([path], "<|endoftext|>") == ["one", "two"]
    assert len(read_documents([path])) == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b" \n ", "only white space"),
        ("latin.txt", "Käse".encode("latin-1"), "not UTF-8: byte 0xe4 at offset 1"),
        ("broken.gz", gzip.compress(b"hello", mtime=0)[:-4], "not valid gzip"),
        ("broken2.gz", b"\x1f\x8b\x08garbage", "not valid gzip"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_documents([write(tmp_path / name, data)])


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_documents([str(tmp_path / "none.txt")])
    with pytest.raises(UserError, match="no file matches"):
        read_documents([str(tmp_path / "*.txt")])
    with pytest.raises(UserError, match="no text in the directory"):
        read_documents([str(tmp_path)])
    with pytest.raises(UserError, match="no text given"):
        read_documents([])


def test_a_downloaded_text_is_read_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="run `groundup download the-verdict` first"):
        read_documents(["the-verdict"])
    monkeypatch.setattr("groundup.data.sources.cached", lambda name: tmp_path / f"{name}.txt")
    write(tmp_path / "the-verdict.txt", "I HAD always thought")
    assert read_documents(["the-verdict"]) == ["I HAD always thought"]


def test_the_embedded_text_is_there_and_real() -> None:
    documents = embedded_documents()
    assert sum(map(len, documents)) > 400_000
    assert any("with" in d and "statement" in d for d in documents)


def test_one_document_is_split_as_in_the_course() -> None:
    text = "abcdefghij" * 10 + "x"
    assert split_documents([text], 0.9) == ([text[:90]], [text[90:]])
    assert split_documents([text], 1.0) == ([text], [])


@given(
    st.lists(st.text(min_size=1), min_size=1), st.floats(0, 1, exclude_min=True, allow_nan=False)
)
def test_a_split_loses_nothing_and_keeps_documents_apart(docs: list[str], ratio: float) -> None:
    train, val = split_documents(docs, ratio)
    assert "".join(train + val) == "".join(docs)
    assert len("".join(train)) == int(ratio * len("".join(docs)))
    assert len(train) + len(val) in (len(docs), len(docs) + 1)


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, float("nan")])
def test_a_senseless_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(UserError, match="train_ratio"):
        split_documents(["abc"], ratio)


def test_fingerprint_tells_documents_apart() -> None:
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
    assert fingerprint(["ab", "c"]) == fingerprint(["ab", "c"])

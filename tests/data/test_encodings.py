import gzip
from pathlib import Path

import pytest

from groundup.data.classification import read_labelled
from groundup.data.encodings import decode, guess_encoding
from groundup.data.instruction_files import read_instructions
from groundup.data.lines import Problems, text_lines
from groundup.data.text import read_documents
from groundup.errors import UserError

MARKED = ["utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", MARKED)
def test_a_byte_order_mark_is_believed_by_every_reader(tmp_path: Path, encoding: str) -> None:
    text = tmp_path / "a.txt"
    text.write_bytes("Käse, 日本語\r\nand more 🙂\n".encode(encoding))
    assert read_documents([str(text)]) == ["Käse, 日本語\nand more 🙂\n"]
    table = tmp_path / "a.csv"
    table.write_bytes("label,text\r\nham,Grüße\r\nspam,日本語\r\n".encode(encoding))
    data = read_labelled(table)
    assert (data.labels, data.texts) == (["ham", "spam"], ["Grüße", "日本語"])
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(table.read_bytes()))
    assert read_labelled(tmp_path / "b.csv.gz").texts == data.texts
    entries = tmp_path / "a.json"
    entries.write_bytes('[{"instruction": "é", "output": "🙂"}]'.encode(encoding))
    assert read_instructions(entries)[0]["output"] == "🙂"


def test_lines_of_utf_16_come_as_soon_as_they_are_there() -> None:
    data = "één\nzwei\nthree".encode("utf-16-le")
    chunks = [b"\xff\xfe" + data[:7], data[7:10], data[10:]]
    assert list(text_lines(chunks, Problems("x"))) == ["één\n", "zwei\n", "three"]
    with pytest.raises(UserError, match="x is not UTF-16, as its beginning says"):
        list(text_lines(chunks[:1], Problems("x")))


TEXTS = {
    "cp1252": "it’s ok, “win” now; £100",
    "cp1251": "Это простой текст на русском языке, который нужно прочитать.",
    "koi8_r": "Это простой текст на русском языке, который нужно прочитать.",
    "cp932": "これは日本語のテキストです。漢字も含まれます。",
    "gb18030": "这是一个简单的中文文本，需要被读取。",
    "utf-16-le": "hello world, this is text",
    "utf-16-be": "hello world, this is text",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_another_encoding_is_recognised(encoding: str) -> None:
    assert guess_encoding(TEXTS[encoding].encode(encoding)) == encoding


@pytest.mark.parametrize("text", ["Käse", "El niño comió mañana", "C’était fermé à Noël, déjà"])
def test_western_texts_are_cp1252_of_which_latin1_is_a_part(text: str) -> None:
    assert guess_encoding(text.encode("cp1252")) == "cp1252"


def test_what_is_no_text_is_not_guessed() -> None:
    assert guess_encoding(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0") is None
    with pytest.raises(UserError, match="find out its encoding"):
        list(decode([b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"], "a.png"))


def test_the_advice_is_the_right_encoding_and_how_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("label,text\nham,it’s ok\nspam,“win” now\n".encode("cp1252"))
    for read in (read_labelled, lambda path: read_documents([str(path)])):
        with pytest.raises(UserError) as caught:
            read(path)
        message = str(caught.value)
        assert "it looks like cp1252 and would read" in message and "it’s ok" in message
        assert f"`iconv -f WINDOWS-1252 -t UTF-8 {path} > text.txt`" in message


def test_utf_16_without_a_mark_is_no_text_full_of_nul(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("plain words\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="NUL bytes; it looks like utf-16-le.*iconv -f UTF-16LE"):
        read_documents([str(path)])


def test_a_packed_file_is_unpacked_before_it_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("label,text\nham,Käse\n".encode("latin-1")))
    with pytest.raises(UserError, match=r"`gunzip -c .*a.csv.gz \| iconv -f WINDOWS-1252 -t UTF-8"):
        read_labelled(path)

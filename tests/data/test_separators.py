import csv
import io
from pathlib import Path

import pytest

from groundup.data.classification import read_labelled
from groundup.data.predictions import RowWriter, open_texts
from groundup.data.separators import quotes_fields
from groundup.errors import UserError

TEXTS = ['he said "hi" to me', "plain", "with\ta tab", "two\nlines", 'ends with "quotes"', "end"]


def table(texts: list[str], quoting: int, header: bool = True) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", quoting=quoting, lineterminator="\r\n")  # type: ignore
    writer.writerows([["label", "text"]] * header)
    writer.writerows([["ham", "spam"][i % 2], text] for i, text in enumerate(texts))
    return stream.getvalue()


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
@pytest.mark.parametrize("header", [True, False])
def test_quotes_around_fields_are_no_part_of_them(
    tmp_path: Path, quoting: int, header: bool
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(table(TEXTS, quoting, header), encoding="utf-8", newline="")
    columns = {} if header else {"text_column": "2", "label_column": "1"}
    data = read_labelled(path, **columns)
    assert data.texts == TEXTS and set(data.labels) == {"ham", "spam"}


def test_quotes_that_somebody_wrote_stay(tmp_path: Path, data_dir: Path) -> None:
    lines = (data_dir / "SMSSpamCollection").read_text(encoding="utf-8").splitlines(keepends=True)
    assert not quotes_fields(lines)
    assert not any(quotes_fields(lines[i : i + 100]) for i in range(0, len(lines), 100))
    said = ['ham\t"Happy valentines day" I know\n', "spam\tyes\n", 'ham\t"all of it"\n']
    assert not quotes_fields(said) and not quotes_fields(said[:2]) and not quotes_fields(said[1:])
    path = tmp_path / "a.tsv"
    path.write_text("".join(said), encoding="utf-8")
    assert read_labelled(path).texts == ['"Happy valentines day" I know', "yes", '"all of it"']


def test_a_quote_here_and_one_there_are_no_pair() -> None:
    rows = ["ham\tone\n", 'ham\t"two\n', "spam\tthree\n", 'ham\tfour"\n']
    assert not quotes_fields(rows)


def test_the_last_row_may_go_on() -> None:
    lines = table(TEXTS, csv.QUOTE_MINIMAL).splitlines(keepends=True)
    assert quotes_fields(lines[:-4])  # within a field of two lines
    assert quotes_fields(lines)


def test_rows_come_back_with_the_quotes_they_had(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tsv", io.StringIO()
    path.write_text(table(TEXTS, csv.QUOTE_MINIMAL), encoding="utf-8", newline="")
    with open_texts(path) as rows:
        writer = RowWriter(out, rows)
        for row in rows:
            writer.write(row, "x", 0.5)
    (tmp_path / "b.tsv").write_text(out.getvalue(), encoding="utf-8", newline="")
    with open_texts(tmp_path / "b.tsv", text_column="text") as rows:
        assert [row["text"] for row in rows] == TEXTS


def test_a_header_among_the_rows_is_no_class(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,text\nham,a\nspam,b\nLabel,Message\nham,c\n", "utf-8")
    with pytest.raises(UserError, match="the column's name 'Label' as the label in line 4"):
        read_labelled(path)
    path.write_text("ham,label text\nclass,other\nham,a\nspam,b\nclass,b\nspam,c\n", "utf-8")
    assert set(read_labelled(path).labels) == {"ham", "spam", "class"}  # twice: a class

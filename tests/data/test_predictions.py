import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest

from groundup.data.classification import read_labelled
from groundup.data.predictions import RowWriter, open_texts
from groundup.errors import UserError


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def predicted(path: Path, **options: str) -> str:
    """The rows written back, all as spam."""
    stream = io.StringIO()
    with open_texts(path, **options) as rows:
        writer = RowWriter(stream, rows)
        for row in rows:
            assert row[rows.text_column].strip()
            writer.write(row, "spam", 0.98765432)
    return stream.getvalue()


def test_rows_come_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,Message,when\n7," Hi, you",\n8,NA,x\n')
    with open_texts(path) as rows:
        assert rows.text_column == "Message"
        assert list(rows) == [
            {"id": "7", "Message": " Hi, you", "when": ""},
            {"id": "8", "Message": "NA", "when": "x"},
        ]


def test_csv_round_trip(tmp_path: Path) -> None:
    cells = ["a,b", 'a "quoted" one', "two\nlines", "carriage\rreturn", "NA", " spaces "]
    frame = pd.DataFrame({"n": range(len(cells)), "text": cells})
    path = tmp_path / "a.csv"
    frame.to_csv(path, index=False, quoting=1)
    out = write(tmp_path / "out.csv", predicted(path))
    back = pd.read_csv(out, keep_default_na=False)
    assert list(back.columns) == ["n", "text", "label", "probability"]
    pd.testing.assert_frame_equal(back.filter(["n", "text"]), frame, check_dtype=False)
    assert set(back["label"]) == {"spam"}
    assert set(back["probability"]) == {0.987654}


def test_tsv_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tn\n"Oh, \ty"es"\n')
    out = predicted(path)
    assert out == 'text\tn\tlabel\tprobability\n"Oh, \ty"es"\tspam\t0.987654\n'
    frame = pd.read_csv(io.StringIO(out), sep="\t", quoting=3)
    assert frame["text"].tolist() == ['"Oh, ']


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_round_trip(tmp_path: Path, name: str) -> None:
    entries = [{"id": 1, "text": "Näh\n"}, {"text": "Ho", "tags": ["x"], "id": None}]
    data = json.dumps(entries) if name == "a.json" else "\n".join(map(json.dumps, entries))
    lines = predicted(write(tmp_path / name, data)).splitlines()
    added = {"label": "spam", "probability": 0.987654}
    assert [json.loads(line) for line in lines] == [{**entry, **added} for entry in entries]
    assert "Näh" in lines[0]


def test_the_sms_spam_collection(data_dir: Path, tmp_path: Path) -> None:
    """A file without a header gets one, so that it is clear which column is which."""
    path = data_dir / "SMSSpamCollection"
    out = predicted(path)
    head, _, body = out.partition("\n")
    assert head == "1\t2\tlabel\tprobability"
    assert body.replace("\tspam\t0.987654\n", "\n") == path.read_text("utf-8")
    with open_texts(write(tmp_path / "out", out), text_column="2") as rows:
        assert len(list(rows)) == 5574


def test_one_text_per_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Hello, you\nI came, I saw, I won\n\nBye\n")
    assert predicted(path).splitlines()[1:] == [
        f"{text}\tspam\t0.987654" for text in ("Hello, you", "I came, I saw, I won", "Bye")
    ]


def test_gzip(tmp_path: Path) -> None:
    plain = predicted(write(tmp_path / "a.csv", "text\nHi\nHo\n"))
    assert predicted(write(tmp_path / "a.csv.gz", gzip.compress(b"text\nHi\nHo\n"))) == plain


def test_columns_of_the_same_name_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Label,text,predicted_label,probability\nham,Hi,x,1\n")
    head, row = predicted(path).splitlines()
    assert head.endswith("probability,predicted_predicted_label,predicted_probability")
    assert row == "ham,Hi,x,1,spam,0.987654"
    lines = predicted(write(tmp_path / "a.jsonl", '{"text": "Hi", "label": "ham"}'))
    assert json.loads(lines)["label"] == "ham"
    assert json.loads(lines)["predicted_label"] == "spam"


def test_a_key_that_appears_late_is_not_overwritten(tmp_path: Path) -> None:
    lines = ['{"text": "Hi"}'] * 1500 + ['{"text": "Hi", "label": "ham"}']
    with pytest.raises(UserError, match="has the key 'label'"):
        predicted(write(tmp_path / "a.jsonl", "\n".join(lines)))


def test_what_was_written_can_be_trained_on(tmp_path: Path) -> None:
    stream = io.StringIO()
    with open_texts(write(tmp_path / "a.csv", "text\nHi\nHo\n")) as rows:
        writer = RowWriter(stream, rows)
        for row, label in zip(rows, ("ham", "spam"), strict=True):
            writer.write(row, label, 0.5)
    assert read_labelled(write(tmp_path / "b.csv", stream.getvalue())).labels == ["ham", "spam"]


@pytest.mark.parametrize(
    ("name", "row", "bad", "message"),
    [
        ("a.csv", "1,Hi", "2,", "an empty text in line 1502"),
        ("a.csv", "1,Hi", "2", r"another number of columns than 2 in line 1502 \(1\)"),
        ("a.csv", "1,Hi", '2,"x" y', "a quote that is not closed or not doubled in line 1502"),
        ("a.jsonl", '{"text": "Hi"}', '{"text": null}', "an empty text in line 1502"),
        ("a.jsonl", '{"text": "Hi"}', '{"txt": "Hi"}', "no key 'text' in line 1502"),
        ("a.jsonl", '{"text": "Hi"}', '{"text": [1]}', r"no string as 'text' in line 1502 \(\[1\]"),
        ("a.jsonl", '{"text": "Hi"}', "{", "not valid JSON in line 1502"),
    ],
)
def test_a_bad_row_is_named_when_it_is_reached(
    tmp_path: Path, name: str, row: str, bad: str, message: str
) -> None:
    first = "id,text" if name == "a.csv" else row
    path = write(tmp_path / name, "\n".join([first, *[row] * 1500, bad, row]))
    with open_texts(path) as rows:
        seen = 0
        with pytest.raises(UserError, match=message):
            for _ in rows:
                seen += 1
        assert seen >= 1500


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,text\n1,ok\n2,K\xe4se\n")
    with pytest.raises(UserError, match=r"not UTF-8.*in line 3 \(byte 0xe4\)"), open_texts(path):
        pass


def test_bad_files(tmp_path: Path) -> None:
    for path, options, message in (
        (tmp_path / "none.csv", {}, "there is no file"),
        (tmp_path, {}, "is a directory"),
        (write(tmp_path / "a.csv", ""), {}, "is empty"),
        (write(tmp_path / "b.csv", "text\nHi\n"), {"text_column": "txt"}, "did you mean 'text'"),
        (write(tmp_path / "c.csv", "a,b\nsome text,more text\n"), {}, "--text-column"),
        (write(tmp_path / "d.csv", "id;text\n1;Hi\n"), {}, "--separator semicolon"),
    ):
        with pytest.raises(UserError, match=message), open_texts(path, **options):
            pass


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write("id,text\n")
        file.writelines(f"{i},{'x' * 1000}\n" for i in range(12_000))
    tracemalloc.start()
    try:
        with open_texts(path) as rows:
            assert sum(1 for _ in rows) == 12_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 2

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.classification import (
    LabelledTexts,
    Splits,
    balance,
    class_names,
    class_weights,
    read_labelled,
    split_labelled,
)
from groundup.errors import UserError

CSV = 'Label,Text\n0,"Hello, you"\n1,"WIN ""now"""\n0,NA\n1,null\n'


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refuses(path: Path, **options: str) -> str:
    with pytest.raises(UserError) as caught:
        read_labelled(path, **options)
    return str(caught.value)


def labelled(texts: list[str], labels: list[str]) -> LabelledTexts:
    return LabelledTexts(texts, labels, list(range(1, len(texts) + 1)), "some.csv")


def distinct(**counts: int) -> LabelledTexts:
    """Texts that all differ, so many of each class."""
    labels = [name for name, count in counts.items() for _ in range(count)]
    return labelled([f"{name} {i}" for i, name in enumerate(labels)], labels)


class TestReading:
    def test_the_sms_spam_collection(self, data_dir: Path) -> None:
        path = data_dir / "SMSSpamCollection"
        data = read_labelled(path)
        assert Counter(data.labels) == {"ham": 4827, "spam": 747}
        assert data.rows == list(range(1, 5575))
        assert data.source == str(path)
        lines = path.read_text("utf-8").split("\n")
        assert [f"{a}\t{b}" for a, b in zip(data.labels, data.texts, strict=True)] == lines[:-1]
        assert data == read_labelled(path, text_column="2", label_column="1", separator="tab")

    @pytest.mark.parametrize("name", ["a.csv", "a.txt", "a", "a.CSV"])
    def test_csv_with_a_header(self, tmp_path: Path, name: str) -> None:
        data = read_labelled(write(tmp_path / name, CSV))
        assert data.texts == ["Hello, you", 'WIN "now"', "NA", "null"]
        assert data.labels == ["0", "1", "0", "1"]
        assert data.rows == [2, 3, 4, 5]

    def test_gzip_byte_order_mark_line_ends_and_blank_lines(self, tmp_path: Path) -> None:
        raw = b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n\r\n").encode()
        data = read_labelled(write(tmp_path / "a.csv.gz", gzip.compress(raw)))
        assert data.texts == read_labelled(write(tmp_path / "b.csv", CSV)).texts
        assert data.rows == [3, 5, 7, 9]

    def test_a_text_of_several_lines(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", 'text,label\n"one\ntwo",a\nthree,b\n')
        assert read_labelled(path).texts == ["one\ntwo", "three"]
        assert read_labelled(path).rows == [2, 4]

    def test_tsv_takes_quotes_literally(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tsv", 'label\ttext\nham\t"Oh\nspam\tso" \x85 \u2028 x\n')
        assert read_labelled(path).texts == ['"Oh', 'so" \x85 \u2028 x']

    @pytest.mark.parametrize(("mark", "name"), [(";", "semicolon"), ("|", "pipe"), ("\t", r"\t")])
    def test_other_separators(self, tmp_path: Path, mark: str, name: str) -> None:
        text = f"label{mark}text\nham{mark}Yes, I do\nspam{mark}No\n"
        expected = ["Yes, I do", "No"]
        assert read_labelled(write(tmp_path / "a.txt", text)).texts == expected  # sniffed
        path = write(tmp_path / "a.csv", text)
        assert read_labelled(path, separator=mark).texts == expected
        assert read_labelled(path, separator=name).texts == expected

    @pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a"])
    def test_json_lines(self, tmp_path: Path, name: str) -> None:
        text = (
            '{"text": "Hi\\nyou", "label": 0}\n\n{"label": " b  c ", "text": "None", "id": [1]}\n'
        )
        data = read_labelled(write(tmp_path / name, text))
        assert data == LabelledTexts(
            ["Hi\nyou", "None"], ["0", "b c"], [1, 3], str(tmp_path / name)
        )

    @pytest.mark.parametrize("name", ["a.json", "a", "a.jsonl"])
    def test_a_json_list(self, tmp_path: Path, name: str) -> None:
        entries = [{"sentence": "Hi", "class": True}, {"sentence": "Ho", "class": False}]
        data = read_labelled(write(tmp_path / name, json.dumps(entries, indent=1)))
        assert (data.labels, data.rows) == (["true", "false"], [1, 2])

    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
    def test_a_text_as_long_as_a_book(self, tmp_path: Path, name: str) -> None:
        """Python's csv takes no cell of more than 131,072 characters unasked."""
        book = "It is so. " * 20_000
        mark = "," if name == "a.csv" else "\t"
        path = write(tmp_path / name, f"label{mark}text\na{mark}{book}\nb{mark}No\n")
        assert read_labelled(path).texts == [book, "No"]

    def test_a_header_without_names_for_all_columns(self, tmp_path: Path) -> None:
        """As in two files that are everywhere: pandas' index first, empty columns last."""
        rows = [f"{'spam' if i % 2 else 'ham'},{word} lar,," for i, word in enumerate("abcdef")]
        text = "\n".join(["v1,v2,,", *rows, "ham,Go now,x,"])
        assert read_labelled(write(tmp_path / "a.csv", text)).texts[:2] == ["a lar", "b lar"]
        path = write(tmp_path / "b.csv", ",Label,Text\n0,ham,Ok\n1,spam,Win\n")
        assert read_labelled(path).labels == ["ham", "spam"]


class TestBadFiles:
    def test_all_problems_are_in_one_message(self, tmp_path: Path) -> None:
        rows = ["a,Yes"] * 30
        rows[3:5] = ["a,", ",No"]
        rows[7] = ",  "
        rows[9] = "b,Yes,No"
        rows[10] = "b"
        rows[12] = 'b,"Yes" no'
        raw = "\n".join(["label,text", *rows]).encode() + b"\nb,K\xe4se\nb,fine\nlabel,text\n"
        message = refuses(write(tmp_path / "a.csv", raw))
        for part in (
            "an empty text in lines 5, 9;",
            "no label in lines 6, 9;",
            "another number of columns than 2 in lines 11 (3), 12 (1);",
            "a quote that is not closed or not doubled in line 14;",
            "in line 32 (byte 0xe4)",
            "iconv",
            "the header once more in line 34",
        ):
            assert part in message
        assert message.startswith(str(tmp_path / "a.csv"))

    def test_ten_rows_are_named_and_the_others_counted(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tsv", "label\ttext\n" + "a\t\n" * 15 + "b\tYes\n")
        message = refuses(path)
        assert "lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 5 more" in message

    def test_json_lines(self, tmp_path: Path) -> None:
        lines = [
            {"text": "Yes", "label": "a"},
            {"label": "a"},
            {"text": "No"},
            {"text": 5, "label": None},
            {"text": "No", "label": ["a"]},
            {"text": "", "label": float("nan")},
            {"text": "\ud83d", "label": "b"},
            ["text"],
        ]
        text = (
            "\n".join(map(json.dumps, lines))
            + '\n{"text": "Oh", label: 1}\n'
            + "1" * 5000
            + "\n"
            + "[" * 99999
        )
        message = refuses(write(tmp_path / "a.jsonl", text))
        for part in (
            "no key 'text' in line 2",
            "no key 'label' in line 3",
            "no string as 'text' in line 4 (5)",
            "no label in lines 4, 6",
            "neither a text nor a number in line 5",
            "an empty text in line 6",
            "half a character (a lone surrogate) in line 7",
            "not a JSON object in line 8 (list)",
            "not valid JSON in lines 9 (Expecting property name",
            "column 16), 10 (Exceeds the limit",
            ", 11 (",
        ):
            assert part in message

    def test_a_json_list(self, tmp_path: Path) -> None:
        entries = [{"text": "Yes", "label": "a"}, {"text": "", "label": "a"}, 3]
        message = refuses(write(tmp_path / "a.json", json.dumps(entries)))
        assert "an empty text in entry 2" in message
        assert "not a JSON object in entry 3 (int)" in message
        assert "not valid JSON: Expecting" in refuses(write(tmp_path / "b.json", '[{"text": }]'))
        assert "no entries" in refuses(write(tmp_path / "c.json", "[]"))
        latin = b'[{"text": "fine"},\n {"text": "K\xe4se"}]'
        assert "line 2 (byte 0xe4)" in refuses(write(tmp_path / "d.json", latin))

    @pytest.mark.parametrize("right", ["tab", "semicolon", "pipe"])
    def test_a_wrong_separator(self, tmp_path: Path, right: str) -> None:
        mark = {"tab": "\t", "semicolon": ";", "pipe": "|"}[right]
        path = write(tmp_path / "a.csv", f"label{mark}text\nham{mark}Yes, I do\nspam{mark}No\n")
        for separator in (None, "comma"):
            message = refuses(path, **({"separator": separator} if separator else {}))
            assert "no columns with the separator comma" in message
            assert f"give --separator {right}" in message

    def test_one_column_and_no_separator_that_fits(self, tmp_path: Path) -> None:
        message = refuses(write(tmp_path / "a.txt", "Hello\nThere, you\nare\n"))
        assert "only the column '1'; expected a text and a label" in message

    @pytest.mark.parametrize("separator", ["::", '"', "", "\n"])
    def test_no_separator(self, tmp_path: Path, separator: str) -> None:
        message = refuses(write(tmp_path / "a.csv", CSV), separator=separator)
        assert "expected one character or tab, comma, semicolon, pipe" in message
        json_file = write(tmp_path / "a.jsonl", '{"text": "a", "label": "b"}')
        assert "leave out --separator" in refuses(json_file, separator="tab")

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("empty.csv", b"", "is empty"),
            ("blank.csv", b" \n\n", "is empty"),
            ("quotes.csv", b'"never closed\n' * 3, "a quote that is not closed"),
            ("header.csv", b"label,text\n", "has a header but no rows"),
            ("twice.csv", b"text,text,label\na,b,c\n", "several columns called 'text'"),
            ("one.csv", b"label,text\na,x\na,y\n", "all 2 labels (column 'label') are 'a'"),
            ("broken.csv.gz", gzip.compress(b"label,text\na,b\n", mtime=0)[:-4], "not valid gzip"),
            ("broken.gz", b"\x1f\x8b\x08garbage", "not valid gzip"),
            ("old.csv", b"label,text\ra,x\rb,y\r", "a carriage return within a row"),
            ("open.csv", b'label,text\na,"' + b"x" * 200_000, "a quote that is not closed"),
            ("book.xlsx", b"PK\x03\x04rest", "is a zip archive or a workbook"),
            ("utf-16.txt", "a\tHello\nb\tYou there\n".encode("utf-16")[:-1], "is not UTF-16, as"),
            ("no-mark.txt", "a\tHello\nb\tYou\n".encode("utf-16-le"), "iconv -f UTF-16LE"),
        ],
    )
    def test_whole_files(self, tmp_path: Path, name: str, data: bytes, message: str) -> None:
        assert message in refuses(write(tmp_path / name, data))

    def test_a_cell_beyond_all_measure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("groundup.data.separators.LONGEST_CELL", 1000)
        text = "label{0}text\na{0}Yes\nb{0}" + "x" * 1001 + "\n"
        message = refuses(write(tmp_path / "a.tsv", text.format("\t")))
        assert "a cell of more than 1,000 characters in line 3;" in message
        message = refuses(write(tmp_path / "a.csv", text.format(",")))
        assert "1,000 characters, or a quote that is not closed, in line 3;" in message

    def test_no_file_and_a_directory(self, tmp_path: Path) -> None:
        assert "there is no file" in refuses(tmp_path / "none.csv")
        assert "is a directory" in refuses(tmp_path)

    def test_columns_that_are_not_there(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", CSV)
        message = refuses(path, text_column="Txt")
        assert "did you mean 'Text'?" in message and "'Label', 'Text'" in message
        assert "there are 'Label', 'Text'" in refuses(path, text_column="2")


DATA = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["x", "y"])), min_size=5)


def parts(splits: Splits) -> tuple[LabelledTexts, ...]:
    return splits.train, splits.validation, splits.test


class TestSplitting:
    @given(DATA, st.integers(), st.booleans(), st.sampled_from([" {}", "{}\n", "{}"]))
    def test_no_text_is_on_two_sides_and_nothing_is_lost(
        self, rows: list[tuple[str, str]], seed: int, stratify: bool, padding: str
    ) -> None:
        texts = [padding.format(text) if i % 2 else text for i, (text, _) in enumerate(rows)]
        data = labelled(texts, [label for _, label in rows])
        try:
            splits = split_labelled(data, seed=seed, stratify=stratify)
        except UserError as error:
            assert "too few different texts" in str(error)
            return
        assert sorted(row for part in parts(splits) for row in part.rows) == data.rows
        sides = [{text.strip() for text in part.texts} for part in parts(splits)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == len(data) - splits.duplicates
        for part in parts(splits):
            assert part == data.select(row - 1 for row in part.rows)
        assert splits == split_labelled(data, seed=seed, stratify=stratify)

    @given(st.integers(3, 300), st.integers())
    def test_sizes_are_the_courses_where_no_text_occurs_twice(self, size: int, seed: int) -> None:
        data = labelled([str(i) for i in range(size)], ["a"] * size)
        splits = split_labelled(data, seed=seed)
        if size >= 10:
            train, validation = int(size * 0.7), int(size * 0.1)
            assert [len(p) for p in parts(splits)] == [train, validation, size - train - validation]
        assert all(len(part) for part in parts(splits))

    def test_another_seed_gives_another_split(self) -> None:
        data = distinct(a=50, b=50)
        first, second = (split_labelled(data, seed=seed).test.rows for seed in (1, 2))
        assert first != second
        assert first != sorted(first)  # shuffled

    def test_no_test_split(self) -> None:
        splits = split_labelled(distinct(a=50, b=50), fractions=(0.7, 0.3))
        assert [len(part) for part in parts(splits)] == [70, 30, 0]
        splits = split_labelled(distinct(a=5, b=5), fractions=(1.0, 0.0))
        assert [len(part) for part in parts(splits)] == [10, 0, 0]

    def test_stratified_fractions_hold_for_every_class(self) -> None:
        splits = split_labelled(distinct(a=100, b=20, c=3), stratify=True)
        counts = [Counter(part.labels) for part in parts(splits)]
        assert [count["a"] for count in counts] == [70, 10, 20]
        assert [count["b"] for count in counts] == [14, 2, 4]
        assert [count["c"] for count in counts] == [1, 1, 1]
        assert len({label for label in splits.train.labels[:20]}) > 1  # not class after class

    def test_copies_and_contradictions_are_counted(self) -> None:
        texts = ["one", " one", "two", "two ", "two", "three", "four", "five"]
        splits = split_labelled(labelled(texts, list("xyyyyxxy")), fractions=(0.5, 0.0))
        assert (splits.duplicates, splits.conflicting) == (3, 1)

    def test_the_sms_spam_collection(self, data_dir: Path) -> None:
        data = read_labelled(data_dir / "SMSSpamCollection")
        splits = split_labelled(data)
        assert (splits.duplicates, splits.conflicting) == (414, 0)
        assert [len(part) for part in parts(splits)] == [3901, 557, 1116]

    @pytest.mark.parametrize("copies", [1, 15])
    def test_a_split_that_stays_empty(self, copies: int) -> None:
        data = labelled(["one", "two"] * copies, ["a", "b"] * copies)
        with pytest.raises(UserError, match=r"different texts \(2\): nothing is left for"):
            split_labelled(data)

    def test_a_class_that_a_split_lacks(self) -> None:
        with pytest.raises(UserError) as caught:
            split_labelled(distinct(a=20, b=2, c=1), stratify=True)
        message = str(caught.value)
        assert "each of 3 splits needs one: 'b' has 2; 'c' has 1; add examples" in message
        rare = labelled(["same"] * 3 + ["x", "y", "z", "v", "w"], ["b"] * 3 + ["a"] * 5)
        with pytest.raises(UserError, match="needs one: 'b' has 1; add"):
            split_labelled(rare, stratify=True)

    def test_copies_can_fill_the_room_of_a_class(self) -> None:
        """As many different texts as splits, but one of them many times over."""
        data = labelled(["1", "2", "3"] + ["0"] * 5 + list("abcdefghij"), ["b"] * 8 + ["a"] * 10)
        found: set[str] = set()
        for seed in range(20):
            try:
                splits = split_labelled(data, seed=seed, stratify=True)
                assert all("b" in part.labels for part in parts(splits))
                found.add("a split")
            except UserError as error:
                assert "'b' (of which there are 4) is not in validation; add examples" in str(error)
                found.add("a refusal")
        assert found == {"a split", "a refusal"}

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_class_with_fewer_texts_than_splits_is_refused(self, count: int) -> None:
        """Whatever the seed: else the validation split, or the test, would lack it unnoticed."""
        for seed in range(10):
            with pytest.raises(UserError, match=f"3 splits needs one: 'b' has {count}; add"):
                split_labelled(distinct(a=1000, b=count), seed=seed)
        splits = split_labelled(distinct(a=50, b=count), fractions=(1.0, 0.0))
        assert splits.train.labels.count("b") == count

    def test_an_unlucky_draw_is_refused(self) -> None:
        """Every split has every class, or the advice is to stratify, which helps."""
        data = distinct(a=30, b=5)
        seeds = range(40)
        lucky = 0
        for seed in seeds:
            try:
                splits = split_labelled(data, seed=seed)
                assert all(set(part.labels) == {"a", "b"} for part in parts(splits))
                lucky += 1
            except UserError as error:
                assert "'b' (of which there are 5) is not in" in str(error)
                assert "(--stratify)" in str(error)
                split_labelled(data, seed=seed, stratify=True)
        assert 0 < lucky < len(seeds)

    @pytest.mark.parametrize(
        "fractions", [(0.0, 0.5), (0.8, 0.3), (0.5, -0.1), (float("nan"), 0.1), (1.2, -0.2)]
    )
    def test_senseless_fractions(self, fractions: tuple[float, float]) -> None:
        with pytest.raises(UserError, match="expected more than 0 and at least 0"):
            split_labelled(distinct(a=5, b=5), fractions=fractions)


def test_balance_keeps_as_many_of_each_class_as_of_the_rarest() -> None:
    data = distinct(a=30, b=4, c=9)
    balanced = balance(data, seed=1)
    assert Counter(balanced.labels) == {"a": 4, "b": 4, "c": 4}
    assert balanced == balance(data, seed=1)
    assert balanced.texts != balance(data, seed=2).texts
    assert balanced.rows == sorted(balanced.rows)
    assert balanced == data.select(row - 1 for row in balanced.rows)


def test_class_names_have_a_stable_order() -> None:
    assert class_names(["spam", "ham", "spam"]) == ["ham", "spam"]
    assert class_names(["10", "9", "-1", "2.5"]) == ["-1", "2.5", "9", "10"]
    assert class_names(["10", "9", "x"]) == ["10", "9", "x"]


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1))
def test_class_weights_let_every_class_count_the_same(labels: list[str]) -> None:
    names = class_names(labels)
    weights = dict(zip(names, class_weights(labels, names), strict=True))
    assert sum(weights[label] for label in labels) / len(labels) == pytest.approx(1)
    totals = [weights[name] * labels.count(name) for name in names]
    assert totals == pytest.approx([totals[0]] * len(totals))


def test_class_weights_need_examples_of_every_class() -> None:
    with pytest.raises(UserError, match="without an example 'c', unknown 'b'"):
        class_weights(["a", "b"], ["a", "c"])

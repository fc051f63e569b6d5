import pytest

from groundup.data.columns import cell_text, choose_columns, has_header
from groundup.errors import UserError

TEXTS = ["Go until jurong point, crazy", "Ok lar... Joking wif u", "Free entry", "U dun say so"]
LABELS = ["ham", "ham", "spam", "ham"]


def header(*rows: str, named: tuple[str, ...] = ()) -> bool:
    cells = [row.split("|") for row in rows]
    return has_header(cells[0], cells[1:], named)


def choose(
    columns: dict[str, list],
    text: str | None = None,
    label: str | None = None,
    *,
    label_needed: bool = True,
) -> tuple[str, str | None]:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return choose_columns(
        "f.csv", list(columns), rows, text=text, label=label, label_needed=label_needed
    )


def test_a_usual_name_makes_a_header() -> None:
    assert header("Label|Text", "0|hello")
    assert header("id| MESSAGE ", "0|hello")
    assert header("y|text", "y|sure", "n|never")  # though "y" is a value too
    assert header("text", "one", "two")


def test_rows_are_no_header() -> None:
    assert not header("ham|Go now", "ham|Ok", "spam|Win")
    assert not header("ham|text", "ham|Ok", "spam|Win")  # a message that says "text"
    assert not header("1|good", "0|bad", "1|fine")
    assert not header("a sentence", "another one", "the third")
    assert not header("ham|hello")


def test_a_name_above_other_values_is_a_header() -> None:
    assert header("v1|v2|", "ham|Go|", "spam|Win|", "ham|Ok|", "ham|Yes|", "spam|Call|", "ham|No|")
    assert header("kind|words", "0|Go", "1|Win")
    long = "Well, this is a sentence of a text; no name of a column looks like it!"
    assert not header(f"odd|{long}", "a|Go", "b|Win", "a|Ok", "a|Yes", "b|Call", "a|No")


def test_a_column_that_the_user_named_makes_a_header() -> None:
    assert header("kind|words", "a|Go", "b|Win", named=("words",))
    assert not header("kind|words", "a|Go", "b|Win", named=("2",))
    assert not header("1|good", "0|bad", named=("1", "2"))
    assert header("Label|Text", "0|hello", named=("2",))


def test_columns_by_name() -> None:
    assert choose({"Label": LABELS, "Text": TEXTS}) == ("Text", "Label")
    assert choose({"SMS": TEXTS, "n": [1, 1, 2, 2], "Category": LABELS}) == ("SMS", "Category")
    both = {"label": LABELS, "class": LABELS, "text": TEXTS, "review": TEXTS}
    assert choose(both) == ("text", "label")  # the surest names


def test_columns_by_what_they_hold() -> None:
    ids = ["8", "7", "6", "5"]
    assert choose({"1": LABELS, "2": TEXTS}) == ("2", "1")
    assert choose({"1": TEXTS, "2": LABELS}) == ("1", "2")
    assert choose({"1": ids, "2": LABELS, "3": TEXTS}) == ("3", "2")
    assert choose({"1": LABELS, "2": TEXTS, "3": ["web"] * 4}) == ("2", "1")
    assert choose({"1": [0, 1, 1, 0], "2": ["明日は雨です", "勝った", "はい", "ちょっと"]}) == (
        "2",
        "1",
    )
    empty = ["", "", "more", ""]
    assert choose({"v1": LABELS, "v2": TEXTS, "3": empty}) == ("v2", "v1")


def test_columns_for_prediction() -> None:
    assert choose({"1": TEXTS}, label_needed=False) == ("1", None)
    assert choose({"id": list("8765"), "body": TEXTS}, label_needed=False) == ("body", None)
    assert choose({"1": LABELS, "2": TEXTS}, label_needed=False) == ("2", None)


def test_named_columns() -> None:
    columns = {"a": LABELS, "b": TEXTS, "c": TEXTS, "d": LABELS}
    assert choose(columns, "c", "d") == ("c", "d")
    assert choose({"a": LABELS, "b": TEXTS, "c": TEXTS}, "c") == ("c", "a")
    assert choose({"label": TEXTS, "text": LABELS}, "label", "text") == ("label", "text")


def test_unclear_columns_are_listed_with_the_options_that_name_them() -> None:
    with pytest.raises(UserError, match="which column of f.csv is the text") as caught:
        choose({"a": LABELS, "b": TEXTS, "c": TEXTS, "d": LABELS})
    for part in ("--text-column", "--label-column", "'a', 'b', 'c', 'd'"):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"is the label \(--label-column\); name it") as caught:
        choose({"text": TEXTS, "a": LABELS, "d": LABELS})
    assert "--text-column" not in str(caught.value)
    with pytest.raises(UserError, match="label"):
        choose({"id": ["1", "2", "3", "4"], "text": TEXTS})  # four values in four rows: no label


def test_columns_that_are_not_there() -> None:
    with pytest.raises(UserError) as caught:
        choose({"Label": LABELS, "Text": TEXTS}, "text", "klass")
    message = str(caught.value)
    assert "no column 'text' (--text-column); did you mean 'Text'?" in message
    assert "no column 'klass' (--label-column)" in message
    assert "there are 'Label', 'Text'" in message
    with pytest.raises(UserError, match="are both 'Text'"):
        choose({"Label": LABELS, "Text": TEXTS}, "Text", "Text")
    with pytest.raises(UserError, match="only the column 'Text'.*--separator"):
        choose({"Text": TEXTS})


def test_values_as_text() -> None:
    assert [cell_text(v) for v in ("NA", "", None, float("nan"), 1, 1.5, True)] == [
        "NA", "", "", "", "1", "1.5", "true",
    ]  # fmt: skip

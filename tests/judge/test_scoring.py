import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.judge.responses import Entry
from groundup.judge.scoring import (
    COURSE,
    PAIRWISE,
    Template,
    parse_score,
    parse_winner,
    read_template,
)
from groundup.prompts import format_input

ENTRY = Entry(1, "Add.", "1 + 1", "2", "It is {reference} {0} {response}")


def test_the_question_is_the_course_s() -> None:
    entry = {"instruction": "Add.", "input": "1 + 1", "output": "2"}
    course = (  # llms-from-scratch 1.0.19, ch07.generate_model_scores
        f"Given the input `{format_input(entry)}` "
        f"and correct output `{entry['output']}`, "
        f"score the model response `{ENTRY.response}`"
        f" on a scale from 0 to 100, where 100 is the best score. "
        f"Respond with the integer number only."
    )
    assert COURSE.fill(ENTRY) == course
    assert COURSE.scale == (0, 100)


@pytest.mark.parametrize("given_input", ["", "a\nb"])
def test_an_entry_s_prompt_is_format_input(given_input: str) -> None:
    entry = Entry(1, "Do {content}", given_input, "", "")
    assert entry.prompt == format_input({"instruction": "Do {content}", "input": given_input})


def test_braces_in_data_are_no_placeholders() -> None:
    filled = Template('{response}|{reference}|{"score": 5}').fill(ENTRY)
    assert filled == 'It is {reference} {0} {response}|2|{"score": 5}'


def test_two_responses() -> None:
    text = PAIRWISE.fill(ENTRY, "two")
    assert f"A `{ENTRY.response}` and the model response B `two`" in text


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"score": 85}', 85),
        (' {\n"score":85\n} ', 85),
        ("85", 85),
        (" 85\n", 85),
        ("85.", 85),
        ("**85**", 85),
        ("`85`", 85),
        ("85/100", 85),
        ("85 / 100", 85),
        ("85 out of 100", 85),
        ("Score: 85", 85),
        ("score = 85/100.", 85),
        ("0", 0),
        ("100", 100),
        ("", None),
        ("eighty-five", None),
        ("850", None),
        ("-1", None),
        ("101", None),
        ("85.5", None),
        ("8/10", None),
        ("85/850", None),
        ("80 or 90", None),
        ("I would say 85", None),
        ('{"score": 850}', None),
        ('{"score": -1}', None),
        ('{"score": true}', None),
        ('{"score": 85.0}', None),
        ('{"score": null}', None),
        ('{"score": "85"}', None),
        ('{"score": 85, "why": "good"}', None),
        ('{"score": 85', None),
        ("[85]", None),
        ("[" * 4000, None),
        ("9" * 4000, None),
    ],
)
def test_a_score_is_read_strictly(answer: str, score: int | None) -> None:
    assert parse_score(answer, (0, 100)) == score


def test_a_fraction_counts_only_on_its_scale() -> None:
    assert parse_score("4/5", (1, 5)) == 4
    assert parse_score("85/100", (1, 5)) is None
    assert parse_score("0", (1, 5)) is None


@given(st.integers(-1000, 1000), st.sampled_from(['{{"score": {}}}', "{}", "Score: {}", "{}/100"]))
def test_only_what_is_on_the_scale_counts(score: int, form: str) -> None:
    found = parse_score(form.format(score), (0, 100))
    assert found == (score if 0 <= score <= 100 else None)


@given(st.text(max_size=30))
def test_any_text_is_survived(text: str) -> None:
    found = parse_score(text, (0, 100))
    assert found is None or str(found) in re.sub(r"\b0+(?=\d)", "", text)


@pytest.mark.parametrize(
    ("answer", "winner"),
    [
        ('{"winner": "A"}', "A"),
        ('{"winner": "tie"}', "tie"),
        ("b", "B"),
        ("**Tie**.", "tie"),
        ("Winner: A", "A"),
        ("A or B", None),
        ('{"winner": "C"}', None),
        ('{"winner": 1}', None),
        ("", None),
    ],
)
def test_a_winner_is_read_strictly(answer: str, winner: str | None) -> None:
    assert parse_winner(answer) == winner


def test_the_schema_holds_the_scale() -> None:
    assert Template("", (1, 5)).schema["properties"] == {
        "score": {"type": "integer", "minimum": 1, "maximum": 5}
    }
    assert PAIRWISE.schema["properties"]["winner"]["enum"] == ["A", "B", "tie"]


def test_a_template_file_is_text_or_toml(tmp_path: Path) -> None:
    plain = tmp_path / "q.txt"
    plain.write_text("Rate {response}", "utf-8")
    assert read_template(plain) == Template("Rate {response}", (0, 100))
    toml = tmp_path / "q.toml"
    toml.write_text('scale = [1, 5]\nprompt = """Rate {response} for {instruction}"""', "utf-8")
    assert read_template(toml) == Template("Rate {response} for {instruction}", (1, 5))
    pair = tmp_path / "p.toml"
    pair.write_text('prompt = "{response_a} or {response_b}?"', "utf-8")
    assert read_template(pair, pairwise=True) == Template("{response_a} or {response_b}?", None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.txt", "{respons} {x}", "unknown placeholder {respons}; did you mean 'response'?"),
        ("q.txt", "{respons} {x}", "unknown placeholder {x}; {response} is missing; there are"),
        ("q.txt", "Rate it", "{response} is missing"),
        ("q.toml", "scale = [1, 5]", "it needs a text called prompt"),
        ("q.toml", 'prompt = "{response}"\nscale = [5, 1]', "scale is [5, 1]; expected"),
        ("q.toml", 'prompt = "{response}"\nscale = [0.0, 1]', "scale is [0.0, 1]; expected"),
        ("q.toml", 'promt = "{response}"', "unknown key 'promt'; did you mean 'prompt'?"),
        ("q.toml", "prompt =", "is not valid TOML"),
    ],
)
def test_a_bad_template_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        read_template(path)


def test_a_template_for_pairs_needs_both_responses_and_no_scale(tmp_path: Path) -> None:
    path = tmp_path / "q.toml"
    path.write_text('prompt = "{response_a}"\nscale = [1, 5]', "utf-8")
    with pytest.raises(UserError, match="unknown key 'scale'"):
        read_template(path, pairwise=True)
    path.write_text('prompt = "{response_a}"', "utf-8")
    with pytest.raises(UserError, match="{response_b} is missing"):
        read_template(path, pairwise=True)
    with pytest.raises(UserError, match="cannot read the template"):
        read_template(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("<think>90 or 80?</think>85", 85),
        ('<THINK>\n90\n</THINK>\n\n{"score": 85}', 85),
        ("I think of 90.</think>\n85", 85),  # the thought began in the prompt
        ("<think>a</think><think>b</think> 85", 85),
        ("<thinking>90</thinking>Score: 85", 85),
        ("<think>85", None),
        ("<think>a</think><think>85", None),
        ("85<think>90", None),
        ("<think>85</think>", None),
        ("<think>85</think>about 80", None),
    ],
)
def test_what_follows_the_thought_counts(answer: str, score: int | None) -> None:
    assert parse_score(answer, (0, 100)) == score


def test_a_verdict_may_follow_a_thought_too() -> None:
    assert parse_winner("<think>A is good</think>B") == "B"
    assert parse_winner('<think>A</think>{"winner": "tie"}') == "tie"
    assert parse_winner("<think>A") is None

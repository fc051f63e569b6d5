from dataclasses import replace
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.judge.answers import Answer, AnswersFile

ANSWER = Answer("a", 1, "", 85, ["né 🙂\u2028\x85", "85"], 0.5, True)


def test_answers_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    unscored = replace(ANSWER, key="b", verdict=None, texts=["\udc80"], note="why")
    file = AnswersFile(path)
    file.add(ANSWER)
    file.add(unscored)
    assert AnswersFile(path).answers == file.answers == {"a": ANSWER, "b": unscored}


def test_an_incomplete_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    AnswersFile(path).add(ANSWER)
    whole = path.read_bytes()
    for length in range(1, len(whole), 9):  # wherever the process was killed
        path.write_bytes(whole + whole[:length])
        file = AnswersFile(path)
        assert list(file.answers) == ["a"]
        file.add(replace(ANSWER, key="b"))
        assert list(AnswersFile(path).answers) == ["a", "b"]


@pytest.mark.parametrize("line", ["{", "[]", "{}", "5"])
def test_a_damaged_file_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "answers.jsonl"
    AnswersFile(path).add(ANSWER)
    path.write_text(f"{line}\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UserError, match="is damaged: line 1 is no answer"):
        AnswersFile(path)

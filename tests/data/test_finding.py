import os
from pathlib import Path

import pytest

from groundup.data.finding import find_files, same_files
from groundup.data.text import read_documents
from groundup.errors import UserError
from tests.systems import needs_links


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two texts, one of them in a folder, and links to the folder above."""
    (tmp_path / "texts" / "sub").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text("alpha", "utf-8")
    (tmp_path / "texts" / "sub" / "b.md").write_text("beta", "utf-8")
    for name in ("loop", "sub/up"):
        (tmp_path / "texts" / name).symlink_to(tmp_path / "texts", target_is_directory=True)
    return tmp_path / "texts"


@needs_links
def test_a_folder_that_links_to_itself_is_read_once(folder: Path) -> None:
    said: list[str] = []
    assert read_documents([str(folder)], say=said.append) == ["alpha", "beta"]
    (note,) = said
    assert note.startswith("note: links to folders that are read already: ")
    assert str(folder / "loop") in note and str(folder / "sub" / "up") in note


@needs_links
def test_a_glob_does_not_run_round_either(folder: Path) -> None:
    assert read_documents([f"{folder}/**/*.md"]) == ["beta"]
    assert read_documents([f"{folder}/**/*"]) == ["alpha", "beta"]
    assert read_documents([f"{folder}/**"]) == ["alpha", "beta"]
    assert read_documents([f"{folder}/**/sub/*.md"]) == ["beta"]
    assert read_documents([f"{folder}/*.txt"]) == ["alpha"]
    with pytest.raises(UserError, match="no file matches"):
        read_documents([f"{folder}/**/*.rst"])


@needs_links
def test_a_file_is_read_once_whatever_it_is_called(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    os.link("a.txt", "hard.txt")
    Path("soft.txt").symlink_to("a.txt")
    said: list[str] = []
    sources = ["a.txt", "./a.txt", str(folder / "a.txt"), "hard.txt", "soft.txt", "a.txt"]
    assert read_documents(sources, say=said.append) == ["alpha"]
    assert said[0].startswith("note: named more than once and read once: ./a.txt (is a.txt), ")
    assert "hard.txt (is a.txt), soft.txt (is a.txt), a.txt" in said[0]


@needs_links
def test_a_folder_and_what_is_in_it(folder: Path) -> None:
    said: list[str] = []
    sub, both = str(folder / "sub"), [str(folder), str(folder / "sub" / "b.md")]
    assert len(find_files(both, said.append)) == 2
    assert f"read once: {folder / 'sub' / 'b.md'}" in "".join(said)
    assert len(find_files([str(folder), sub])) == 2
    assert find_files([str(folder / "sub" / "b.md"), sub]) == [
        str(folder / "sub" / "b.md"),
        str(folder / "sub" / "up" / "a.txt"),
    ]


def test_endings_may_be_in_capitals_and_others_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha", "utf-8")
    (tmp_path / "B.TXT").write_text("beta", "utf-8")
    (tmp_path / "c.csv").write_text("no", "utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "groundup.json").write_text("{}", "utf-8")
    (tmp_path / "model" / "README.md").write_text("no", "utf-8")
    said: list[str] = []
    assert sorted(read_documents([str(tmp_path)], say=said.append)) == ["alpha", "beta"]
    assert f"models and corpora are no texts and are left out: {tmp_path / 'model'}" in said[0]
    assert "files with other endings are left out (1 .csv); name them outright" in said[1]


@needs_links
def test_the_text_to_validate_on_must_be_another(folder: Path) -> None:
    a, again = str(folder / "a.txt"), f"{folder}/sub/../a.txt"
    assert same_files([a], [again]) == [again]
    with pytest.raises(UserError, match="is also one to train on: .*a.txt; name another"):
        read_documents([again], apart_from=[str(folder)])
    assert read_documents([a], apart_from=[str(folder / "sub" / "b.md")]) == ["alpha"]

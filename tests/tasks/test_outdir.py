import json
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.files import LOCK
from groundup.tasks.outdir import prepare_output

NEW = {"overwrite": False, "resume": False}
RECORD = json.dumps({"step": 1, "epoch": 0.1, "tokens_seen": 5}) + "\n"


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first, second = (prepare_output(out, **NEW) for _ in range(2))
    with first(), pytest.raises(UserError, match="in use by another run"), second():
        pass
    with second():
        pass


def test_a_run_that_saved_nothing_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(RECORD)
    (tmp_path / "samples.jsonl").write_text("")
    (tmp_path / LOCK).touch()
    with prepare_output(tmp_path, **NEW)():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


@pytest.mark.parametrize("content", ["{}", "not json\n{}\n", ""])
def test_a_file_of_the_same_name_does_not_make_it_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(content)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not made by groundup"):
        prepare_output(tmp_path, overwrite=True, resume=False)
    assert (tmp_path / "thesis.txt").exists()


def test_overwriting_keeps_what_the_user_put_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(RECORD)
    ours = ("groundup.json", "model.safetensors", "samples.jsonl", "report.html")
    for name in (*ours, "notes.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "plots").mkdir()
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    with prepare_output(tmp_path, overwrite=True, resume=False)():
        pass
    assert {path.name for path in tmp_path.iterdir()} - {LOCK} == {"notes.txt"}

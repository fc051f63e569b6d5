import json
import shutil
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.tasks.outdir import LOCK, check_space, prepare_output

NEW = {"overwrite": False, "resume": False}
RECORD = json.dumps({"step": 1, "epoch": 0.1, "tokens_seen": 5}) + "\n"


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first, second = (prepare_output(out, **NEW) for _ in range(2))
    lock = first()
    with pytest.raises(UserError, match="in use by another run"):
        second()
    lock.release()
    second().release()


def test_a_run_that_saved_nothing_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(RECORD)
    (tmp_path / LOCK).touch()
    prepare_output(tmp_path, **NEW)().release()
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("content", ["{}", "not json\n{}\n", ""])
def test_a_file_of_the_same_name_does_not_make_it_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(content)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not made by groundup"):
        prepare_output(tmp_path, overwrite=True, resume=False)
    assert (tmp_path / "thesis.txt").exists()


def test_overwriting_keeps_what_the_user_put_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(RECORD)
    for name in ("groundup.json", "model.safetensors", "notes.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "plots").mkdir()
    prepare_output(tmp_path, overwrite=True, resume=False)().release()
    assert {path.name for path in tmp_path.iterdir()} - {LOCK} == {"notes.txt"}


def test_too_little_space_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 23_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    check_space(tmp_path / "new", 900_000)
    with pytest.raises(UserError, match="they need 23 MiB, 22 MiB are free"):
        check_space(tmp_path / "new", 1_000_000)
    check_space(tmp_path / "new", 2_000_000, trained=400_000)  # the others have no moments
    (tmp_path / "groundup.json").touch()
    check_space(tmp_path, 1_000_000)

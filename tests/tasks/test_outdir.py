import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.files import LOCK
from groundup.staging import STAGING, new_staging
from groundup.tasks.outdir import prepare_output
from tests.systems import needs_links

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
    (tmp_path / "metrics.jsonl").write_text(RECORD, "utf-8")
    (tmp_path / "samples.jsonl").write_text("", "utf-8")
    (tmp_path / LOCK).touch()
    with prepare_output(tmp_path, **NEW)():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


class Killed(BaseException):
    """What nothing catches, as nothing goes on after SIGKILL."""


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("last", range(12))
def test_a_run_that_is_killed_while_it_clears_its_directory_is_no_obstacle(
    saved: bool, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ["metrics.jsonl", "samples.jsonl", "history/step-000001/model.safetensors"]
    if saved:
        files += ["groundup.json", "config.json", "model.safetensors", "report.html"]
        files += ["checkpoints/last/groundup.json", "checkpoints/last/training/state.json"]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(RECORD if file.endswith("jsonl") else "{}", "utf-8")
    left = iter(range(last))

    def killed_at_last(name: str) -> Callable[..., None]:
        whole = getattr(os, name)

        def delete(*args: Any, **kwargs: Any) -> None:
            whole(*args, **kwargs)
            if next(left, None) is None:
                raise Killed

        return delete

    with monkeypatch.context() as patch, suppress(Killed):
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, killed_at_last(name))
        with prepare_output(tmp_path, overwrite=saved, resume=False)():
            pass
    with prepare_output(tmp_path, overwrite=saved, resume=False)():
        assert {path.name for path in tmp_path.iterdir()} == {LOCK}


@pytest.mark.parametrize("content", ["{}", "not json\n{}\n", ""])
def test_a_file_of_the_same_name_does_not_make_it_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(content, "utf-8")
    (tmp_path / "thesis.txt").write_text("years of work", "utf-8")
    with pytest.raises(UserError, match="not made by groundup"):
        prepare_output(tmp_path, overwrite=True, resume=False)
    assert (tmp_path / "thesis.txt").exists()


def test_overwriting_keeps_what_the_user_put_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(RECORD, "utf-8")
    ours = ("groundup.json", "model.safetensors", "samples.jsonl", "report.html")
    for name in (*ours, "notes.txt"):
        (tmp_path / name).write_text("{}", "utf-8")
    for name in ("plots", "tensorboard", "wandb"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    with prepare_output(tmp_path, overwrite=True, resume=False)():
        pass
    assert {path.name for path in tmp_path.iterdir()} - {LOCK} == {"notes.txt"}


# A run that ends before its first save.


def nothing(out: Path) -> None:
    """Nothing of it is there."""


def empty(out: Path) -> None:
    (out / "metrics.jsonl").touch()


def half_a_line(out: Path) -> None:
    (out / "metrics.jsonl").write_text('{"step": 1, "epo', "utf-8")


def measured(out: Path) -> None:
    (out / "metrics.jsonl").write_text(RECORD + RECORD[:9], "utf-8")


@pytest.mark.parametrize("metrics", [nothing, empty, half_a_line, measured])
@pytest.mark.parametrize(
    "litter",
    ["", f"{STAGING}x/metrics.jsonl", ".metrics.jsonl.123.part"]
    + [f"checkpoints/last/{STAGING}x/model.safetensors", f"checkpoints/step-5/{STAGING}x/a"],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_it_does_not_lock_its_directory(
    tmp_path: Path, metrics: Callable[[Path], None], litter: str, overwrite: bool
) -> None:
    metrics(tmp_path)
    (tmp_path / LOCK).touch()
    if litter:
        (tmp_path / litter).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / litter).write_text("half", "utf-8")
    with pytest.raises(UserError, match="holds no run to resume; leave out --resume"):
        prepare_output(tmp_path, overwrite=False, resume=True)
    with prepare_output(tmp_path, overwrite=overwrite, resume=False)():
        assert {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_what_somebody_else_put_beside_the_litter_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / f"{STAGING}x").mkdir()
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "plots").mkdir()
    (tmp_path / "thesis.txt").write_text("years of work", "utf-8")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"was not made by groundup.*; choose another --out"):
            prepare_output(tmp_path, overwrite=overwrite, resume=False)


def test_a_model_without_a_state_is_not_said_to_be_resumable(tmp_path: Path) -> None:
    """The best one, saved before the first checkpoint was due."""
    (tmp_path / "groundup.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match="exists; use --overwrite to replace it, or another"):
        prepare_output(tmp_path, **NEW)
    with pytest.raises(UserError, match="holds a model, but nothing to go on from.*--overwrite"):
        prepare_output(tmp_path, overwrite=False, resume=True)
    with prepare_output(tmp_path, overwrite=True, resume=False)():
        pass


def test_what_a_living_run_is_writing_is_not_swept(tmp_path: Path) -> None:
    last = tmp_path / "checkpoints" / "last"
    state = last / "training_state" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}", "utf-8")
    with new_staging(last, last, "") as living:
        (last / f"{STAGING}dead").mkdir()
        with prepare_output(tmp_path, overwrite=False, resume=True)():
            assert living.exists() and not (last / f"{STAGING}dead").exists()


def test_a_run_that_another_has_gone_on_with_meanwhile(tmp_path: Path) -> None:
    last = tmp_path / "checkpoints" / "last"
    (last / "training_state").mkdir(parents=True)
    for name in ("training_state/state.json", "groundup.json"):
        (last / name).write_text("{}", "utf-8")
    ready = prepare_output(tmp_path, overwrite=False, resume=True)
    (last / "new").write_text("{}", "utf-8")
    (last / "new").replace(last / "groundup.json")
    with pytest.raises(UserError, match="has been written by another run meanwhile"), ready():
        pass


@needs_links
def test_a_link_to_nowhere_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"out is a link to .*gone, where nothing is"):
        prepare_output(tmp_path / "out", **NEW)


def test_a_name_that_is_no_text_is_refused() -> None:
    """safetensors would write the model there, and not open it."""
    with pytest.raises(UserError, match="is not UTF-8; choose another --out"):
        prepare_output(Path("Gr\udcfcn"), **NEW)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a system without /proc")
def test_where_nothing_can_be_made_is_told_before_the_work(
    fails: Callable[..., str], text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails("pretrain", text_file, "--out", "/proc/x").startswith("cannot write to /proc/x: ")


def test_looking_whether_something_can_be_made_leaves_nothing(tmp_path: Path) -> None:
    prepare_output(tmp_path / "a" / "b", **NEW)
    assert not any(tmp_path.iterdir())

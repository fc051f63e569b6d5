import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from groundup.errors import UserError, read_error
from groundup.files import (
    KEPT,
    atomic_file,
    atomic_update,
    is_locked,
    locked,
    read_json,
    write_json,
)
from groundup.staging import STAGING, finish_update, new_staging, sweep
from tests.systems import needs, needs_links


def content(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_text("utf-8")
        for p in folder.rglob("*")
        if p.is_file() and STAGING not in str(p)
    }


def update(folder: Path, text: str) -> None:
    with atomic_update(folder) as staging:
        (staging / "a").write_text(text, "utf-8")
        (staging / "sub").mkdir()
        (staging / "sub" / "b").write_text(text, "utf-8")


def test_files_appear_together_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    update(folder, "1")
    (folder / "mine").write_text("keep", "utf-8")
    update(folder, "2")
    assert content(folder) == {"a": "2", "sub/b": "2", "mine": "keep"}


def test_a_failure_leaves_the_old_files_and_no_litter(tmp_path: Path) -> None:
    update(tmp_path, "old")
    with pytest.raises(ZeroDivisionError), atomic_update(tmp_path) as staging:
        (staging / "a").write_text("new", "utf-8")
        raise ZeroDivisionError
    assert content(tmp_path) == {"a": "old", "sub/b": "old"}
    assert not list(tmp_path.glob(f"{STAGING}*"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(tmp_path: Path, code: int) -> None:
    update(tmp_path, "old")
    with pytest.raises(UserError, match="no space left while saving"), atomic_update(tmp_path):
        raise OSError(code, os.strerror(code))
    assert content(tmp_path) == {"a": "old", "sub/b": "old"}


@pytest.mark.parametrize("crash_at", range(4))
def test_a_crash_at_any_moment_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """Die (without any cleaning up) at the n-th move; the next reader must see a whole state."""
    update(tmp_path, "old")
    calls = 0
    real = os.replace

    class Died(BaseException):
        pass

    def replace(src: object, dst: object) -> None:
        nonlocal calls
        if calls == crash_at:
            raise Died
        calls += 1
        real(src, dst)  # pyright: ignore

    monkeypatch.setattr(os, "replace", replace)
    try:
        update(tmp_path, "new")
    except Died:
        pass
    monkeypatch.undo()
    finish_update(tmp_path)
    assert content(tmp_path) == {"a": "new", "sub/b": "new"}
    assert not list(tmp_path.glob(f"{STAGING}*"))


def test_an_incomplete_staging_folder_is_ignored_and_replaced(tmp_path: Path) -> None:
    update(tmp_path, "old")
    (tmp_path / f"{STAGING}dead").mkdir()
    (tmp_path / f"{STAGING}dead" / "a").write_text("half", "utf-8")
    finish_update(tmp_path)
    assert content(tmp_path)["a"] == "old"
    update(tmp_path, "new")
    assert content(tmp_path) == {"a": "new", "sub/b": "new"}


def test_readers_and_a_writer_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    update(tmp_path, "0")
    done = threading.Event()
    problems: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                finish_update(tmp_path)
        except BaseException as error:
            problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(60):
        update(tmp_path, str(number))
        assert content(tmp_path) == {"a": str(number), "sub/b": str(number)}
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []


def test_dying_before_the_update_is_complete_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(tmp_path, "old")

    class Died(BaseException):
        pass

    def die(self: Path, *args: object, **more: object) -> None:
        raise Died

    monkeypatch.setattr(Path, "touch", die)  # what marks an update as complete
    with pytest.raises(Died):
        update(tmp_path, "new")
    monkeypatch.undo()
    finish_update(tmp_path)
    assert content(tmp_path) == {"a": "old", "sub/b": "old"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing"),
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list"),
        ("\xff", "JSON"),
    ],
)
def test_bad_json(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        read_json(path)


# Whose staging folder is whose.


def test_an_update_within_an_update_of_the_same_folder_deletes_nothing(tmp_path: Path) -> None:
    with atomic_update(tmp_path) as outer:
        (outer / "a").write_text("outer", "utf-8")
        update(tmp_path, "inner")
        with atomic_file(tmp_path / "c") as temporary:
            temporary.write_text("file", "utf-8")
        assert content(tmp_path) == {"a": "inner", "sub/b": "inner", "c": "file"}
    assert content(tmp_path) == {"a": "outer", "sub/b": "inner", "c": "file"}
    assert not list(tmp_path.glob(f"{STAGING}*"))


DIE = """
import sys, time
from pathlib import Path
from groundup.files import atomic_file
with atomic_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_leaves_is_swept_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", DIE, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        update(tmp_path, "new")
        sweep(tmp_path)
        (staging,) = tmp_path.glob(f"{STAGING}*")
        process.kill()
        process.wait()
    assert (staging / "a").read_text("utf-8") == "half" and content(tmp_path)["a"] == "new"
    sweep(tmp_path)
    assert not staging.exists()


def test_what_cannot_be_moved_is_told_before_anything_is(tmp_path: Path) -> None:
    update(tmp_path, "old")
    (tmp_path / "sub" / "b").unlink()
    (tmp_path / "sub").rmdir()
    (tmp_path / "sub").write_text("a file", "utf-8")
    with pytest.raises(
        UserError, match=re.escape(f"cannot write to {tmp_path}: Not a directory: sub")
    ):
        update(tmp_path, "new")
    assert content(tmp_path) == {"a": "old", "sub": "a file"}
    assert not list(tmp_path.glob(f"{STAGING}*"))


# What keeps one from writing and reading is told as what it is.


def by_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"a": torch.zeros(100_000)}, file)


def by_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(100_000)}, path)


@pytest.mark.parametrize("write", [by_torch, by_safetensors])
def test_a_librarys_error_is_what_the_system_said(
    tmp_path: Path, small_files: None, write: object
) -> None:
    assert callable(write)
    message = f"cannot write to {re.escape(str(tmp_path))}.*: File too large"
    with pytest.raises(UserError, match=message), atomic_file(tmp_path / "a") as temporary:
        write(temporary)
    with pytest.raises(UserError, match=message), atomic_update(tmp_path) as staging:
        write(staging / "a")
    assert content(tmp_path) == {}


def test_a_mistake_of_ours_is_no_writing_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), atomic_update(tmp_path):
        raise RuntimeError("shape mismatch")


def test_a_full_disk_has_no_advice_of_runs_where_there_is_none(tmp_path: Path) -> None:
    for context in (atomic_update(tmp_path), atomic_file(tmp_path / "a")):
        with pytest.raises(UserError) as caught, context:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert "--resume" not in str(caught.value)


@needs_links
def test_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for place in ("link", "link/within"):
        with pytest.raises(UserError, match=r"link is a link to .*gone, where nothing is; remove"):
            update(tmp_path / place, "1")


@needs("/proc/self")
def test_where_no_file_can_be_made(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="cannot write to /proc: no file can be made there"),
        locked(Path("/proc/.r.json.lock"), "another run is writing it"),
    ):
        pass
    with (
        pytest.raises(UserError, match="cannot write to /proc/r.json: "),
        new_staging(Path("/proc"), Path("/proc/r.json"), KEPT),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "cannot read a: Permission denied"),
        (OSError("No such device (os error 19)"), "cannot read a: No such device"),
        (ValueError("header too small"), "a is damaged: header too small"),
    ],
)
def test_what_cannot_be_read_is_not_damaged(error: Exception, message: str) -> None:
    assert str(read_error(Path("a"), error)) == message


def test_a_files_name_that_is_no_text_comes_back_from_json(tmp_path: Path) -> None:
    """As of a file from a system with another encoding; a run's facts name its texts."""
    write_json(tmp_path / "a.json", {"files": ["Gr\udcfcn.txt", "Grün.txt"]})
    assert "Grün" in (tmp_path / "a.json").read_text("utf-8")
    assert read_json(tmp_path / "a.json") == {"files": ["Gr\udcfcn.txt", "Grün.txt"]}


def test_who_only_looks_at_a_lock_keeps_nobody_out(tmp_path: Path) -> None:
    """A page asks again and again whether a run is going on, also when one begins."""
    from filelock import FileLock

    looking = FileLock(tmp_path / "lock", thread_local=False)
    looking.acquire()
    letting_go = threading.Timer(0.02, looking.release)
    letting_go.start()
    with locked(tmp_path / "lock", "in use"):
        assert is_locked(tmp_path / "lock")
    letting_go.join()
    assert not is_locked(tmp_path / "lock")
    looking.acquire()
    with pytest.raises(UserError, match="in use"), locked(tmp_path / "lock", "in use"):
        pass
    looking.release()

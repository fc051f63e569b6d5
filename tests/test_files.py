import errno
import os
import threading
from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.files import atomic_update, finish_update, read_json
from groundup.staging import STAGING


def content(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text()
        for p in folder.rglob("*")
        if p.is_file() and STAGING not in str(p)
    }


def update(folder: Path, text: str) -> None:
    with atomic_update(folder) as staging:
        (staging / "a").write_text(text)
        (staging / "sub").mkdir()
        (staging / "sub" / "b").write_text(text)


def test_files_appear_together_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    update(folder, "1")
    (folder / "mine").write_text("keep")
    update(folder, "2")
    assert content(folder) == {"a": "2", "sub/b": "2", "mine": "keep"}


def test_a_failure_leaves_the_old_files_and_no_litter(tmp_path: Path) -> None:
    update(tmp_path, "old")
    with pytest.raises(ZeroDivisionError), atomic_update(tmp_path) as staging:
        (staging / "a").write_text("new")
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
    (tmp_path / f"{STAGING}dead" / "a").write_text("half")
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

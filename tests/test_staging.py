"""Staging on other systems, as far as it can be played here."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundup import staging
from groundup.errors import UserError
from groundup.staging import STAGING, finish_update
from tests.test_files import content, update

# Windows refuses to replace a file that somebody has open.


class Held(PermissionError):
    """What Windows says then."""

    winerror = 32


@pytest.mark.parametrize("tries", [3, 10**9])
def test_a_file_that_is_held_open_is_replaced_when_it_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    update(tmp_path, "old")
    move, left = os.replace, tries

    def held(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            raise Held(errno.EACCES, "The process cannot access the file")
        move(source, target)

    monkeypatch.setattr(os, "replace", held)
    if tries == 3:
        update(tmp_path, "new")
    else:
        monkeypatch.setattr(staging, "HELD_PATIENCE", 0.02)
        with pytest.raises(UserError, match="does another program have a open"):
            update(tmp_path, "new")
        monkeypatch.setattr(os, "replace", move)
        finish_update(tmp_path)  # as the next one who reads or writes there does
    assert content(tmp_path) == {"a": "new", "sub/b": "new"}
    assert not list(tmp_path.glob(f"{STAGING}*"))


def test_what_may_not_be_replaced_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        tried.append(target)
        raise PermissionError(errno.EACCES, "Permission denied")

    tried: list[Path] = []
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        update(tmp_path, "new")
    assert len(tried) == 1


WITHOUT_FCNTL = """
from pathlib import Path
from groundup.files import atomic_update
from groundup.snapshot import read_whole
for text in ("old", "new"):
    with atomic_update(Path(sys.argv[1])) as staging:
        (staging / "a").write_text(text, "utf-8")
    assert read_whole(Path(sys.argv[1]), (Path(sys.argv[1]) / "a").read_text) == text
"""


def test_without_the_locks_of_posix(tmp_path: Path) -> None:
    code = f"import sys\nsys.modules['fcntl'] = None\n{WITHOUT_FCNTL}"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert content(tmp_path) == {"a": "new"}

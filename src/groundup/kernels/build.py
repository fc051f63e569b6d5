"""Build the kernels (``products.cpp``, ``tokens.cpp``) with the system's compiler, once; open them.

The library lies in groundup's cache under a name made of its source, the flags, the compiler and
the CPU, so a change of any of them builds another one. Without a compiler nobody is stopped:
products are then PyTorch's own (``products.py``), which are slower; :func:`unavailable` says why.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

SWITCH = "GROUNDUP_KERNELS"
"""``off`` in this variable of the environment: do without."""

# Products and sums are joined (to the last bit another result) where the source says so, not here
# and there: a row's result must not depend on how many rows there are.
FLAGS = ("-O3", "-fPIC", "-std=c++17", "-ffp-contract=off")
# The fastest first; what a compiler does not know is left out. Not -ffast-math: with it, some
# compilers change how the whole process computes.
WAYS = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
SECONDS = 120

SOURCES = ("products.cpp", "registers.h", "tokens.cpp")
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "product_f32": [_POINTER] * 4 + [_SIZE] * 3,
    "product_bf16": [_POINTER] * 4 + [_SIZE] * 3,
    "product_f16": [_POINTER] * 4 + [_SIZE] * 4,
    "product_i8": [_POINTER] * 5 + [_SIZE] * 4,
    "product_i4": [_POINTER] * 6 + [_SIZE] * 4,
    "rms_norm": [_POINTER] * 3 + [_SIZE] * 2 + [ctypes.c_float, _SIZE],
    "rotate": [_POINTER] * 4 + [_SIZE] * 5,
    "attend": [_POINTER] * 6,
}


@cache
def library() -> ctypes.CDLL | None:
    """The library, built if it has not been; None where it cannot be had."""
    return _library()[0]


def unavailable() -> str | None:
    """Why there is no library, in words; None if there is one."""
    return _library()[1]


@cache
def _library() -> tuple[ctypes.CDLL | None, str | None]:
    if os.environ.get(SWITCH) == "off":
        return None, f"{SWITCH} is off"
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        return None, "there is no C++ compiler (g++ or clang++)"
    problem = ""
    for way in WAYS:
        try:
            return _open(_built(compiler, (*FLAGS, *way))), None
        except subprocess.CalledProcessError as error:
            problem = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
    return None, f"{compiler} could not build the kernels: {str(problem):.200}"


def _built(compiler: str, flags: tuple[str, ...]) -> Path:
    """The path of the library for this compiler and CPU; it is built if it is not there."""
    from groundup.data.sources import cache_dir  # whose neighbours load the tokenizers

    sources = written()
    told = "\0".join((compiler, *flags, platform.machine(), _cpu())).encode()
    name = hashlib.sha256(b"".join(sources.values()) + told).hexdigest()[:16]
    path = cache_dir() / "kernels" / f"kernels-{name}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as there:
        built = compiled(compiler, flags, sources, Path(there))
        built.replace(path)  # whoever builds it at the same time builds the same
    return path


def written() -> dict[str, bytes]:
    """The source files, by name."""
    folder = resources.files("groundup") / "kernels"
    return {name: (folder / name).read_bytes() for name in SOURCES}


def compiled(
    compiler: str, flags: tuple[str, ...], sources: Mapping[str, bytes], folder: Path
) -> Path:
    """A library of these files, made in a folder."""
    things, built = [], folder / "built.so"
    for name, text in sources.items():
        (folder / name).write_bytes(text)
    for code in folder.glob("*.cpp"):
        things.append(str(code.with_suffix(".o")))
        _run([compiler, *flags, "-c", str(code), "-o", things[-1]])
    # Without OpenMP's own library: torch has one in this process already, and two would each keep
    # their threads waiting for work on the same cores.
    _run([compiler, "-shared", *things, "-o", str(built)])
    return built


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)


def _open(path: Path) -> ctypes.CDLL:
    import torch

    for threads in Path(torch.__file__).parent.glob("lib/libgomp*"):
        ctypes.CDLL(str(threads), mode=ctypes.RTLD_GLOBAL)  # so that its functions are found
    found = ctypes.CDLL(str(path))
    for name, arguments in _ARGUMENTS.items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, None
    return found


def _cpu() -> str:
    """What a CPU can do: a library built for another one might not run here."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")

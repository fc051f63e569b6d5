from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from groundup.planning import devices

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 1 GiB, half of it available, without a container."""
    memory = SimpleNamespace(total=2**30, available=2**29)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    return tmp_path


def test_a_machine_says_what_is_available(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.free_memory(CPU) == 2**29 and devices.total_memory(CPU) == 2**30
    monkeypatch.setattr("groundup.launch.local_world_size", lambda: 4)  # they share it
    assert devices.free_memory(CPU) == 2**27
    assert devices.free_memory(torch.device("mps")) is None


def test_a_container_has_its_limit(machine: Path) -> None:
    (machine / "memory.max").write_text("max\n", encoding="ascii")
    (machine / "memory.current").write_text("5000000\n", encoding="ascii")
    assert devices.free_memory(CPU) == 2**29
    (machine / "memory.max").write_text("20000000\n", encoding="ascii")
    assert devices.free_memory(CPU) == 15_000_000 and devices.total_memory(CPU) == 20_000_000
    (machine / "memory.stat").write_text(
        "anon 1\ninactive_file 2000000\nactive_file 500000\n", encoding="ascii"
    )
    assert devices.free_memory(CPU) == 17_500_000

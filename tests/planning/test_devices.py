from pathlib import Path

import pytest
import torch

from groundup.planning import devices

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 1 GiB, half of it available, without a container."""
    (tmp_path / "meminfo").write_text("MemTotal: 1048576 kB\nMemAvailable:  524288 kB\n")
    monkeypatch.setattr(devices, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def test_a_machine_says_what_is_available(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.free_memory(CPU) == 2**29 and devices.total_memory(CPU) == 2**30
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert devices.free_memory(CPU) == 2**27
    (machine / "meminfo").unlink()
    assert devices.free_memory(CPU) is None and devices.total_memory(CPU) is None
    assert devices.free_memory(torch.device("mps")) is None


def test_a_container_has_its_limit(machine: Path) -> None:
    (machine / "memory.max").write_text("max\n")
    (machine / "memory.current").write_text("5000000\n")
    assert devices.free_memory(CPU) == 2**29
    (machine / "memory.max").write_text("20000000\n")
    assert devices.free_memory(CPU) == 15_000_000 and devices.total_memory(CPU) == 20_000_000
    (machine / "memory.stat").write_text("anon 1\ninactive_file 2000000\nactive_file 500000\n")
    assert devices.free_memory(CPU) == 17_500_000

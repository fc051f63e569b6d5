import pytest
import torch

from groundup.errors import UserError
from groundup.runtime import resolve_device, resolve_runtime


def test_auto_is_a_device_that_is_there() -> None:
    runtime = resolve_runtime()
    assert torch.zeros(1, device=runtime.device).sum() == 0
    assert runtime.reason in str(runtime)


@pytest.mark.parametrize("fast", [True, False])
def test_auto_precision_on_a_cpu_follows_its_bf16_units(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: fast)
    assert resolve_runtime("cpu").precision == ("bf16" if fast else "fp32")
    assert resolve_runtime("cpu", "fp32").precision == "fp32"
    assert resolve_runtime("cpu", "bf16").precision == "bf16"


def test_autocast_computes_in_the_precision() -> None:
    a = torch.randn(4, 4)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with resolve_runtime("cpu", name).autocast():
            assert (a @ a).dtype == dtype


@pytest.mark.parametrize(
    ("name", "message"),
    [("gpu", "device is 'gpu'"), ("cuda:99", "'cuda:99' is not there"), ("meta", "not supported")],
)
def test_devices_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_device(name)


def test_an_unknown_precision() -> None:
    with pytest.raises(UserError, match="precision is 'fp8'; expected auto, fp32 or bf16"):
        resolve_runtime("cpu", "fp8")

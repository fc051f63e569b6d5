"""Our linear layer is PyTorch's, whichever kernel computes it."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from groundup.kernels import build, products
from groundup.kernels.products import FEW
from groundup.model import linear as module
from groundup.model.linear import WITH_AMX, Linear, linear

SHAPE = 512, 512


def layer(bias: bool = True) -> Linear:
    torch.manual_seed(1)
    return Linear(*SHAPE, bias=bias)


def kernels(layer: nn.Module, x: Tensor) -> int:
    """How often our kernel is called for it."""
    with patch.object(module, "product", wraps=products.product) as product:
        layer(x)
    return product.call_count


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, FEW, FEW + 1, 64])
def test_it_computes_what_pytorchs_does(bias: bool, rows: int) -> None:
    ours = layer(bias)
    theirs = nn.Linear(*SHAPE, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(rows, 1, SHAPE[0])
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(x), theirs(x), atol=0, rtol=0)  # while it learns, to the bit


def test_it_begins_as_pytorchs_does() -> None:
    ours = layer()
    torch.manual_seed(1)
    assert torch.equal(ours.weight, nn.Linear(*SHAPE).weight)


@pytest.mark.skipif(build.unavailable() is not None, reason=f"no kernel: {build.unavailable()}")
def test_only_a_few_plain_rows_are_our_kernels() -> None:
    ours, x = layer(), torch.randn(1, 1, SHAPE[0])
    assert kernels(ours, x) == 0, "gradients are PyTorch's"
    with torch.no_grad():
        assert kernels(ours, x) == 1
        assert kernels(ours, x.expand(FEW, 1, -1).contiguous()) == 1
        assert kernels(ours, torch.randn(FEW + 1, SHAPE[0])) == 0
        assert kernels(ours.double(), x.double()) == 0
        assert kernels(ours.bfloat16(), x.bfloat16()) == 1
        assert kernels(ours.half(), x.half()) == 0
        ours.float()
        with pytest.raises(RuntimeError, match="shapes"):
            ours(torch.randn(1, SHAPE[0] + 1))  # which PyTorch says
        with pytest.raises(RuntimeError, match="dtype|type"):
            linear(x.bfloat16(), ours.weight.bfloat16(), ours.bias)
        with torch.autocast("cpu", torch.bfloat16):
            assert kernels(ours, x) == 0 and ours(x).dtype == torch.bfloat16
        assert kernels(Linear(8, 8), torch.randn(1, 8)) == 0, "it lies in the CPU's cache"
        turned = torch.randn(SHAPE).T
        assert torch.equal(linear(x, turned), x @ turned.T)
    with torch.device("meta"), torch.no_grad():
        assert kernels(Linear(*SHAPE), torch.empty(1, SHAPE[0])) == 0


@pytest.mark.skipif(build.unavailable() is not None, reason=f"no kernel: {build.unavailable()}")
@pytest.mark.parametrize("has_amx", [True, False])
def test_with_amx_fewer_rows_in_bf16_are_our_kernels(has_amx: bool) -> None:
    ours = layer().bfloat16()
    with (
        torch.no_grad(),
        patch.object(torch.cpu, "_is_amx_tile_supported", lambda: has_amx),
        patch.object(module, "most_rows", module.most_rows.__wrapped__),
    ):
        assert kernels(ours, torch.randn(WITH_AMX, SHAPE[0]).bfloat16()) == 1
        assert kernels(ours, torch.randn(WITH_AMX + 1, SHAPE[0]).bfloat16()) == int(not has_amx)
        assert kernels(layer(), torch.randn(FEW, SHAPE[0])) == 1


def test_a_planner_that_fakes_numbers_gets_none_of_them_read() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.no_grad():
        assert Linear(*SHAPE)(torch.empty(1, SHAPE[0])).shape == (1, SHAPE[1])


@pytest.mark.timeout(120)
def test_torch_compile_goes_through_it() -> None:
    ours, x = layer(), torch.randn(1, SHAPE[0])
    with torch.no_grad():
        compiled = torch.compile(ours, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), ours(x), atol=1e-5, rtol=1e-5)

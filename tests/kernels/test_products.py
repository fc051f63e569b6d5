"""The kernel computes what its formula says, on any compiler and CPU; without it, PyTorch does."""

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from groundup.kernels import build, products
from groundup.kernels.products import (
    FEW,
    GROUP,
    dequantized,
    product,
    quantized_int4,
    quantized_int8,
    whole_groups,
)

HAS_AVX2 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
AVX2 = ("-mavx2", "-mfma", "-mf16c") if HAS_AVX2 else ()
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler"
)


def halved(weight: Tensor) -> tuple[Tensor, None]:
    return weight.half(), None


def as_it_is(weight: Tensor) -> tuple[Tensor, None]:
    return weight, None


def in_eight_bits(x: Tensor) -> Tensor:
    """Each 32 activations as whole numbers from -127 to 127 of a step of their own."""
    groups = x.unflatten(-1, (-1, GROUP))
    step = groups.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return ((groups * (1 / step)).round() * step).view_as(x)


KINDS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor | None]]] = {
    "fp32": as_it_is,
    "fp16": halved,
    "int8": quantized_int8,
    "int4": quantized_int4,
}


def expected(x: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
    """By the formula, in float64; with quantized weights the activations have 8 bits."""
    if scale is not None:
        x = in_eight_bits(whole_groups(x))
    return x.double() @ dequantized(weight, scale).double().T


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 32), (7, 96), (70, 64), (33, 416)])
@pytest.mark.parametrize("count", [1, 3, FEW])
def test_the_kernel_is_its_formula(kind: str, rows: int, columns: int, count: int) -> None:
    torch.manual_seed(rows + columns)
    weight, scale = KINDS[kind](torch.randn(rows, columns) * torch.rand(rows, 1))
    x = torch.randn(count, columns) * 3
    assert build.library() is not None
    out = product(x, weight, scale)
    torch.testing.assert_close(out.double(), expected(x, weight, scale), atol=1e-4, rtol=1e-5)
    bias = torch.randn(rows)
    shaped = product(x[:, None], weight, scale, bias)
    assert shaped.shape == (count, 1, rows)
    torch.testing.assert_close(shaped[:, 0], out + bias)


@needs_compiler
@pytest.mark.parametrize("kind", [*KINDS, "bf16"])
@pytest.mark.parametrize("columns", [32, 70, 416])
@pytest.mark.parametrize("count", [1, FEW])
def test_activations_in_bf16_lose_nothing_but_their_own_bits(
    kind: str, columns: int, count: int
) -> None:
    weight = torch.randn(33, columns) * torch.rand(33, 1)
    x, bias = torch.randn(count, columns).bfloat16(), torch.randn(33)
    if kind == "bf16":
        matrix, scale, added = weight.bfloat16(), None, bias.bfloat16()
    else:
        (matrix, scale), added = KINDS[kind](weight), bias
    wanted = expected(x.float(), matrix, scale) + added.double()
    out = product(x, matrix, scale, added)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), wanted, atol=1e-4, rtol=2**-8)
    nearest = wanted.to(torch.bfloat16)
    assert (out == nearest).double().mean() > 0.97  # not just near: rounded as it should be
    many = torch.randn(FEW + 1, columns).bfloat16()  # which PyTorch computes, in bf16
    near = many.double() @ dequantized(matrix, scale)[:, :columns].double().T + added.double()
    torch.testing.assert_close(
        product(many, matrix, scale, added).double(), near, atol=0.1, rtol=0.05
    )
    alone = torch.cat([product(row[None], matrix, scale, added) for row in x])
    assert torch.equal(out, alone)


@needs_compiler
def test_bf16_is_rounded_to_the_nearest_of_two_the_even_one() -> None:
    numbers = torch.cat((torch.randn(500) * 1e3, torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 3e38])))
    numbers = torch.cat((numbers, torch.tensor([torch.inf, -torch.inf, torch.nan])))
    weight = numbers[:, None].half()  # a matrix whose numbers bf16 has not all
    out = product(torch.ones(1, 1).bfloat16(), weight)
    assert torch.equal(out[0].nan_to_num(7), weight[:, 0].bfloat16().nan_to_num(7))


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_of_other_columns_is_not_read(kind: str) -> None:
    weight, scale = KINDS[kind](torch.randn(5, 96))
    for columns in (64, 97, 128):
        with pytest.raises(ValueError, match=f"{columns} activations per row .* of 96 columns"):
            product(torch.randn(2, columns), weight, scale)


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_to_the_bit_whoever_comes_with_it(kind: str) -> None:
    weight, scale = KINDS[kind](torch.randn(40, 416))
    x = torch.randn(FEW, 416)
    alone = torch.cat([product(row[None], weight, scale) for row in x])
    for count in range(2, FEW + 1):
        assert torch.equal(product(x[:count], weight, scale), alone[:count])


@needs_compiler
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_is_not_lost_by_rounding(kind: str, bad: float) -> None:
    weight, scale = KINDS[kind](torch.randn(5, 96))
    x = torch.randn(2, 96)
    x[1, 40] = bad
    out = product(x, weight, scale)
    assert out[0].isfinite().all() and out[1].isnan().all()


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_columns_will_do(kind: str) -> None:
    weight, scale = KINDS[kind](torch.randn(5, 37))
    x = torch.randn(2, 37)
    out = product(x, weight, scale)
    torch.testing.assert_close(out, expected(x, weight, scale).float(), atol=1e-5, rtol=1e-5)
    many = torch.randn(FEW + 1, 37)  # which PyTorch computes
    wanted = many @ dequantized(weight, scale)[:, :37].T
    torch.testing.assert_close(product(many, weight, scale), wanted)


@needs_compiler
def test_every_number_of_fp16_is_read_as_it_is() -> None:
    numbers = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.float16)
    numbers = numbers[numbers.isfinite()]
    out = product(torch.ones(1, 1), numbers[:, None].contiguous(), None)
    assert torch.equal(out[0], numbers.float())


@needs_compiler
@pytest.mark.parametrize("flags", [(), ("-fopenmp",), AVX2])
def test_the_plain_loops_are_the_same_kernel(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a CPU without AVX2: ARM's, say; and to the bit, AVX2's is AVX512's."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    assert compiler is not None
    build.library()  # makes OpenMP's functions known to the process
    plain = build._open(build.compiled(compiler, (*build.FLAGS, *flags), build.written(), tmp_path))
    assert isinstance(plain, ctypes.CDLL)
    for kind, quantized in KINDS.items():
        for columns in (96, 320, 37):
            weight, scale = quantized(torch.randn(19, columns))
            x = torch.randn(5, columns)
            native = product(x, weight, scale)
            with monkeypatch.context() as patched:
                patched.setattr(products, "library", lambda: plain)
                out = product(x, weight, scale)
            wanted = expected(x, weight, scale)
            torch.testing.assert_close(out.double(), wanted, atol=1e-4, rtol=1e-5, msg=kind)
            assert flags != AVX2 or torch.equal(out, native)


def test_without_a_kernel_pytorch_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "library", lambda: None)
    for quantized in KINDS.values():
        weight, scale = quantized(torch.randn(19, 96))
        x = torch.randn(2, 3, 96)
        bias = torch.randn(19)
        wanted = x @ dequantized(weight, scale).T + bias
        torch.testing.assert_close(product(x, weight, scale, bias), wanted)


def test_who_says_off_gets_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "off")
    assert build._library.__wrapped__() == (None, "GROUNDUP_KERNELS is off")


def test_a_compiler_that_fails_is_a_reason_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "g++"
    fake.write_text("#!/bin/sh\necho 'no such thing' >&2; exit 1\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)
    found, why = build._library.__wrapped__()
    assert found is None and why is not None and "no such thing" in why


@pytest.mark.parametrize("seed", range(3))
def test_int8_is_what_llama_cpp_calls_q8_0(seed: int) -> None:
    gguf = pytest.importorskip("gguf")
    weight = torch.randn(8, 96, generator=torch.Generator().manual_seed(seed))
    kind = gguf.GGMLQuantizationType.Q8_0
    theirs = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind)
    ours = dequantized(*quantized_int8(weight))
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=0.04, rtol=0)
    again = dequantized(*quantized_int8(torch.from_numpy(theirs)))  # what was of this form stays
    torch.testing.assert_close(again, torch.from_numpy(theirs), atol=1e-6, rtol=0)


def test_what_is_quantized_is_near_what_it_was() -> None:
    weight = torch.randn(40, 128)
    weight[3] = 0
    eight, four = (dequantized(*KINDS[kind](weight)) for kind in ("int8", "int4"))
    groups = weight.unflatten(1, (-1, 32))
    steps = groups.abs().amax(dim=2, keepdim=True) / 127
    assert ((eight.view_as(groups) - groups).abs() <= steps / 2 * 1.07 + 1e-6).all()  # fp16 steps
    span = groups.amax(dim=2, keepdim=True) - groups.amin(dim=2, keepdim=True)
    assert ((four - weight).unflatten(1, (-1, 32)).abs() <= span / 30 + 4e-3).all()
    assert not eight[3].any() and not four[3].any()

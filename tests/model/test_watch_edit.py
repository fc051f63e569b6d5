import pytest
import torch
from torch import Tensor, nn

from groundup import GPTModel, watch
from groundup.errors import UserError
from tests.conftest import tiny_config

B, H, T, C, D, V = 2, 4, 9, 32, 8, 300


@pytest.fixture
def model() -> GPTModel:
    return GPTModel(tiny_config()).eval()


@pytest.fixture
def idx() -> Tensor:
    return torch.randint(0, V, (B, T))


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_silent_head_is_one_whose_columns_are_zero(model: GPTModel, idx: Tensor) -> None:
    def silence(x: Tensor) -> Tensor:
        return x * (torch.arange(H) != 2)[:, None, None]

    def without_columns(m: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        return args[0] * (torch.arange(C) // D != 2)

    hook = model.get_submodule("trf_blocks.0.att.out_proj").register_forward_pre_hook(
        without_columns
    )
    expected = model(idx)
    hook.remove()
    for name in ("dropout", "context"):  # its weights, or what it has gathered
        with watch(model, edit={f"trf_blocks.0.att.{name}": silence}) as seen:
            torch.testing.assert_close(model(idx), expected, atol=1e-5, rtol=0)
        assert (seen.context[0][:, 2] == 0).all() and (seen.context[1] != 0).all()
    assert not torch.allclose(model(idx), expected, atol=1e-3)


def test_a_copy_may_be_changed_in_place_and_gradients_pass(model: GPTModel, idx: Tensor) -> None:
    def silence(x: Tensor) -> None:
        x[:, 2] = 0

    with watch(model, edit={"trf_blocks.0.att.dropout": silence}) as seen:
        model(idx).square().sum().backward()
    assert (seen.attention[0][:, 2] == 0).all() and (seen.attention[0][:, 1].sum(-1) > 0.99).all()
    gradient = model.get_parameter("trf_blocks.0.att.W_value.weight").grad
    assert gradient is not None and (gradient[2 * D : 3 * D] == 0).all()
    assert (gradient[: 2 * D] != 0).any()


def test_an_activation_of_another_run_is_patched_in(model: GPTModel, idx: Tensor) -> None:
    with watch(model) as other:
        expected = model(idx.flip(1))
    patch = other.residual[0].double()  # goes in as the model's own dtype
    with watch(model, edit={"trf_blocks.0": lambda x: patch}) as seen:
        found = model(idx)
    assert found.dtype == torch.float32 and torch.equal(seen.residual[0], other.residual[0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with watch(model, edit={"": torch.neg}) as seen:
        assert torch.equal(model(idx), -seen["out_head"])


def test_edited_values_go_into_the_cache(model: GPTModel, idx: Tensor) -> None:
    cache = model.new_cache(B)
    with torch.no_grad(), watch(model, edit={"trf_blocks.1.att.W_value": torch.zeros_like}) as seen:
        model(idx, cache)
        model(idx[:, :1], cache)
    assert seen.values[1].shape == (B, H, T + 1, D) and not seen.values[1].any()
    assert seen.values[0].any() and not seen.context[1].any()


def test_an_edit_of_what_there_is_not_is_refused(model: GPTModel, idx: Tensor) -> None:
    message = (
        r"cannot edit 'trf_blocks.0.atn.dropout'; did you mean 'trf_blocks.0.att.dropout'\? "
        r"there are: '' \(the model\), tok_emb, .* trf_blocks.0.att.context "
        r"\(and trf_blocks.1, … likewise\)$"
    )
    with (
        pytest.raises(UserError, match=message),
        watch(model, edit={"trf_blocks.0.atn.dropout": torch.neg}),
    ):
        pass
    assert hooks_of(model) == 0
    # A container is never called.
    with (
        pytest.raises(UserError, match="the edit of 'trf_blocks' changed nothing, since nothing"),
        watch(model, edit={"trf_blocks": torch.neg}),
    ):
        model(idx)
    for result, what in (
        (torch.zeros(2, 3), r"a tensor of shape \(2, 3\)"),
        (0, "an object of type int"),
    ):
        with (
            pytest.raises(UserError, match=rf"'tok_emb' returned {what}; expected a tens"),
            watch(model, edit={"tok_emb": lambda x, result=result: result}),  # pyright: ignore[reportArgumentType]
        ):
            model(idx)
    assert hooks_of(model) == 0

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup import GPTModel, add_lora, generate_text_simple, to_classifier, watch
from groundup.errors import UserError
from groundup.model.attention import SHORT
from groundup.model.ladder import MultiHeadAttentionSpelledOut
from tests.conftest import tiny_config

B, H, T, C, D, V = 2, 4, 9, 32, 8, 300


class OnlyIds(GPTModel):
    """A student's subclass."""

    def forward(self, in_idx: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -super().forward(in_idx)


def with_lora() -> GPTModel:
    model = add_lora(GPTModel(tiny_config()), rank=2)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            parameter.data.normal_(std=0.02)
    return model


def compiled_in_place() -> GPTModel:
    model = GPTModel(tiny_config())
    model.compile(backend="aot_eager")
    return model


def compiled() -> nn.Module:
    return torch.compile(GPTModel(tiny_config()), backend="aot_eager")  # pyright: ignore[reportReturnType]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: GPTModel(tiny_config()),
    "subclass": lambda: OnlyIds(tiny_config()),
    "lora": with_lora,
    "classifier": lambda: to_classifier(GPTModel(tiny_config()), 3),
    "compiled": compiled,
    "compiled in place": compiled_in_place,
    "wrapped": lambda: nn.DataParallel(GPTModel(tiny_config())),
}


@pytest.fixture
def model() -> GPTModel:
    return GPTModel(tiny_config()).eval()


@pytest.fixture
def idx() -> Tensor:
    return torch.randint(0, V, (B, T))


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_seen_fits_together_and_what_is_computed_stays(kind: str, idx: Tensor) -> None:
    model = MODELS[kind]().eval()
    before = model(idx)  # compiled now, if it is to be
    with watch(model) as seen:
        during = model(idx)
    torch.testing.assert_close(during, before, atol=1e-5, rtol=0)
    assert torch.equal(model(idx), before)
    assert hooks_of(model) == 0
    assert len(seen.attention) == len(seen.values) == len(seen.context) == len(seen.residual) == 2
    for weights, values, context in zip(seen.attention, seen.values, seen.context, strict=True):
        assert weights.shape == (B, H, T, T) and values.shape == context.shape == (B, H, T, D)
        torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, T), atol=1e-6, rtol=0)
        assert (weights.triu(diagonal=1) == 0).all() and (weights.tril() > 0).sum() > B * H * T
        torch.testing.assert_close(weights @ values, context, atol=1e-6, rtol=0)
    assert [x.shape for x in seen.residual] == [(B, T, C)] * 2
    assert not any(seen[name].requires_grad for name in seen)
    assert torch.equal(seen[""], during)
    sign = -1 if kind == "subclass" else 1
    torch.testing.assert_close(sign * seen.logit_lens(-1), before, atol=1e-5, rtol=0)
    assert not torch.allclose(sign * seen.logit_lens(0), before, atol=1e-2)


def test_the_logit_lens_is_the_model_without_its_later_layers(model: GPTModel, idx: Tensor) -> None:
    with watch(model) as seen:
        model(idx)
        lens = seen.logit_lens(0)  # asked within, it is not a part of what is seen
        assert torch.equal(seen["out_head"], seen[""]) and not lens.requires_grad
    del model.trf_blocks[1]
    torch.testing.assert_close(model(idx), lens, atol=1e-5, rtol=0)


def test_the_residual_stream_is_the_sum_of_what_the_parts_add(model: GPTModel, idx: Tensor) -> None:
    with watch(model) as seen:
        model(idx)
    found = seen.residual[0] + seen["trf_blocks.1.att"] + seen["trf_blocks.1.ff"]
    torch.testing.assert_close(found, seen.residual[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_not_a_bit_changes_where_attention_is_spelled_out_anyway(
    training: bool, idx: Tensor
) -> None:
    assert T <= SHORT
    model = GPTModel(tiny_config(drop_rate=0.1)).train(training)
    results = []
    for context in (nullcontext(), watch(model)):
        torch.manual_seed(1)
        with context, torch.autocast("cpu", torch.bfloat16):
            logits = model(idx)
        gradients = torch.autograd.grad(logits.float().square().sum(), list(model.parameters()))
        results.append([logits, *gradients])
    for plain, watched in zip(*results, strict=True):
        assert torch.equal(plain, watched)


def test_the_kernel_is_back_afterwards(
    model: GPTModel, idx: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    kernel = F.scaled_dot_product_attention

    def spy(*args: Any, **options: Any) -> Tensor:
        calls.append(1)
        return kernel(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    with watch(model):
        model(idx)
    assert calls == []
    model(idx)
    assert calls == [1, 1]


def test_a_compiled_model_runs_as_it_is_written_and_is_compiled_once(idx: Tensor) -> None:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        compiled.append(1)
        return graph.forward

    model = torch.compile(GPTModel(tiny_config()).eval(), backend=backend)
    model(idx)
    count = len(compiled)
    with watch(model) as seen:  # pyright: ignore[reportArgumentType]
        model(idx)
    assert len(seen.attention) == 2
    model(idx)
    assert len(compiled) == count > 0


def test_shapes_are_in_the_order_of_execution_and_print_as_a_table(
    model: GPTModel, idx: Tensor
) -> None:
    with watch(model) as seen:
        model(idx)
    names = list(seen.shapes)
    assert names == list(seen) and len(seen) == len(names) and names[0] in seen
    first = [
        *("tok_emb", "pos_emb", "drop_emb", "trf_blocks.0.norm1"),
        *(f"trf_blocks.0.att.{n}" for n in ("W_query", "W_key", "W_value", "dropout")),
        *(f"trf_blocks.0.att{n}" for n in (".values", ".context", ".out_proj", "")),
    ]
    assert names[: len(first)] == first and names[-3:] == ["final_norm", "out_head", ""]
    assert seen.shapes["trf_blocks.1.ff.layers.0"] == (B, T, 4 * C)
    lines = str(seen.shapes).splitlines()
    assert len(lines) == len(names)
    assert lines[7].split(maxsplit=1) == ["trf_blocks.0.att.dropout", "(2, 4, 9, 9)"]
    assert lines[-1].split(maxsplit=1) == ["(model)", "(2, 9, 300)"]
    assert len({line.index("(", 7) for line in lines}) == 1  # in columns


def test_with_a_cache_the_values_are_those_of_all_tokens(model: GPTModel, idx: Tensor) -> None:
    with watch(model) as whole:
        model(idx)
    cache = model.new_cache(B)
    with torch.no_grad(), watch(model, keep=None) as seen:
        for part in idx.split([5, 1, 3], dim=1):
            model(part, cache)
    # The mask of the last three tokens begins at the sixth column.
    for layer in range(2):
        assert seen.attention[layer].shape == (B, H, 3, T)
        assert (seen.attention[layer].triu(diagonal=T - 2) == 0).all()
        for now, then in (
            (seen.attention[layer], whole.attention[layer][:, :, -3:]),
            (seen.values[layer], whole.values[layer]),
            (seen.context[layer], whole.context[layer][:, :, -3:]),
            (seen.attention[layer] @ seen.values[layer], seen.context[layer]),
        ):
            torch.testing.assert_close(now, then, atol=1e-6, rtol=0)
    before = [values.clone() for values in seen.values]
    cache.truncate(0)
    with torch.no_grad():
        model(idx.flip(1), cache)  # writes over what the cache held
    assert all(torch.equal(*pair) for pair in zip(seen.values, before, strict=True))


def test_with_rows_of_different_lengths(model: GPTModel, idx: Tensor) -> None:
    cache = model.new_cache(B, capacity=T + 1)
    with torch.no_grad(), watch(model) as seen:
        model(idx, cache.rows(0, [0, 0], T))
        model(idx[:, :1], cache.rows(0, [T, 4], 1))
    assert seen.attention[0].shape == (B, H, 1, T + 1)
    assert (seen.attention[0][1, :, :, 5:] == 0).all()
    torch.testing.assert_close(seen.attention[1].sum(-1), torch.ones(B, H, 1))
    found = seen.attention[1] @ seen.values[1]
    torch.testing.assert_close(found, seen.context[1], atol=1e-6, rtol=0)


def test_the_newest_call_is_seen_and_others_if_asked_for(model: GPTModel, idx: Tensor) -> None:
    with watch(model, keep=2) as seen:
        generate_text_simple(model, idx[:, :3], max_new_tokens=4, context_size=16)
    assert seen["tok_emb"].shape == (B, 1, C)
    assert [weights.shape[-1] for weights in seen.calls("trf_blocks.0.att.dropout")] == [5, 6]
    with watch(model) as seen:
        model(idx[:, :3])
        model(idx[:, 3:4])
        assert len(seen.calls("tok_emb")) == 1
        torch.testing.assert_close(seen["tok_emb"], model.tok_emb.weight[idx[:, 3:4]])
    with pytest.raises(UserError, match="keep is 0; expected how many calls to keep, or None"):
        watch(model, keep=0).__enter__()


def test_what_is_seen_stays_when_the_model_s_output_is_changed_in_place(
    model: GPTModel, idx: Tensor
) -> None:
    with torch.no_grad(), watch(model) as seen:
        logits = model(idx)
        expected = logits.clone()
        logits.zero_()
    assert torch.equal(seen["out_head"], expected) and torch.equal(seen[""], expected)


def test_after_an_error_the_hooks_are_gone_and_one_sees_how_far_it_came(
    model: GPTModel, idx: Tensor
) -> None:
    model.trf_blocks[1].att.W_key = nn.Linear(C + 1, C)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), watch(model) as seen:
        model(idx)
    assert hooks_of(model) == 0
    assert list(seen)[-1] == "trf_blocks.1.att.W_query"
    assert len(seen.residual) == 1


def test_the_users_own_hooks_stay_and_are_seen_through(model: GPTModel, idx: Tensor) -> None:
    def double(module: nn.Module, args: object, output: Tensor) -> Tensor:
        return 2 * output

    model.final_norm.register_forward_hook(double)
    with watch(model) as seen:
        logits = model(idx)
    assert hooks_of(model) == 1
    torch.testing.assert_close(model.out_head(seen["final_norm"]), logits)


def test_a_name_that_nothing_was_recorded_of(model: GPTModel, idx: Tensor) -> None:
    with watch(model) as seen:
        with pytest.raises(UserError, match="nothing was recorded; call the model within"):
            print(seen.shapes)
        assert len(seen) == 0 and "tok_emb" not in seen
        model(idx)
    for ask in (seen.__getitem__, seen.calls):
        with pytest.raises(UserError, match="nothing was recorded of 'tokemb'; did you mean 'tok_"):
            ask("tokemb")


def test_a_block_of_its_own_and_the_ladders_last_rung(idx: Tensor) -> None:
    x = torch.randn(B, T, C)
    rung = MultiHeadAttentionSpelledOut(C, C, T, 0.0, H)
    with watch(rung) as seen:
        rung(x)
    found = seen["dropout"] @ seen["values"]
    torch.testing.assert_close(found, seen["context"], atol=1e-6, rtol=0)
    model = GPTModel(tiny_config())
    with watch(model) as seen:
        model.trf_blocks[0](x)  # nobody calls the model
    assert seen.attention[0].shape == (B, H, T, T) and list(seen)[-1] == "trf_blocks.0"


def test_a_model_of_a_students_own(idx: Tensor) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.rnn, self.out = nn.Embedding(V, C), nn.GRU(C, C), nn.Linear(C, V)

        def forward(self, idx: Tensor) -> Tensor:
            return self.out(self.rnn(self.emb(idx))[0])

    model = Recurrent()
    with watch(model) as seen:
        model(idx)
    assert seen.shapes == {"emb": (B, T, C), "out": (B, T, V), "": (B, T, V)}
    with pytest.raises(UserError, match=r"nothing was recorded of 'trf_blocks.0.att.dropout'"):
        print(seen.attention)
    with (
        pytest.raises(
            UserError,
            match="cannot edit 'rnn': it gives an object of type tuple; expected a tensor",
        ),
        watch(model, edit={"rnn": torch.neg}),
    ):
        model(idx)

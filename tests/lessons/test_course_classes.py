"""The course's classes beside ours: weights by a seed, outputs, state dicts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import groundup
from groundup import get_gpt2_tokenizer
from tests.lessons.course_package import chapter, compares

ch02, ch03, ch04, ch06, ch07 = (chapter(f"ch0{n}") for n in (2, 3, 4, 6, 7))
appendix_e = chapter("appendix_e")

CFG = {
    "vocab_size": 60,
    "context_length": 12,
    "emb_dim": 24,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": True,
}


def same_by_seed(theirs: type[nn.Module], ours: type[nn.Module], *args: Any) -> tuple[Any, Any]:
    """Both, made with the same seed, and shuffled: each with the other's weights by its names."""
    made: list[Any] = []
    for kind in (theirs, ours):
        torch.manual_seed(123)
        made.append(kind(*args).eval())
    course, here = made
    for name, tensor in here.state_dict().items():
        torch.testing.assert_close(tensor, course.state_dict()[name], atol=0, rtol=0)
    for parameter in course.parameters():
        nn.init.normal_(parameter, std=0.3)
    here.load_state_dict(course.state_dict())
    for parameter in here.parameters():
        nn.init.normal_(parameter, std=0.3)
    # The course's attention keeps its mask among the weights; ours takes it and needs none.
    lacking, unknown = course.load_state_dict(here.state_dict(), strict=False)
    assert not unknown and all(name.endswith("mask") for name in lacking)
    return course, here


def assert_same_output(course: nn.Module, here: nn.Module, *inputs: Tensor) -> None:
    with torch.no_grad():
        expected = course(*inputs)
        assert expected.std() > 1e-3
        torch.testing.assert_close(here(*inputs), expected, atol=1e-5, rtol=1e-5)


@compares("ch03.SelfAttention_v1")
def test_self_attention_v1() -> None:
    pair = same_by_seed(ch03.SelfAttention_v1, groundup.SelfAttention_v1, 5, 4)
    assert_same_output(*pair, torch.randn(7, 5))


@compares("ch03.SelfAttention_v2")
@pytest.mark.parametrize("bias", [False, True])
def test_self_attention_v2(bias: bool) -> None:
    pair = same_by_seed(ch03.SelfAttention_v2, groundup.SelfAttention_v2, 5, 4, bias)
    assert_same_output(*pair, torch.randn(7, 5))


@compares("ch03.CausalAttention")
@pytest.mark.parametrize("bias", [False, True])
def test_causal_attention(bias: bool) -> None:
    course, here = same_by_seed(
        ch03.CausalAttention, groundup.CausalAttention, *(5, 4, 9, 0.4, bias)
    )
    x = torch.randn(2, 7, 5)
    assert_same_output(course, here, x)
    found = []
    for attention in (course, here):  # dropout too draws what the course draws
        torch.manual_seed(5)
        found.append(attention.train()(x))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)


@compares("ch03.MultiHeadAttentionWrapper", "ch03.MultiHeadAttention")
@pytest.mark.parametrize("name", ["MultiHeadAttentionWrapper", "MultiHeadAttention"])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention(name: str, bias: bool) -> None:
    kinds = getattr(ch03, name), getattr(groundup, name)
    pair = same_by_seed(*kinds, 6, 4, 9, 0.0, 2, bias)
    assert_same_output(*pair, torch.randn(2, 9, 6))


@compares("ch03.PyTorchMultiHeadAttention")
@pytest.mark.parametrize("bias", [False, True])
def test_pytorch_multi_head_attention(bias: bool) -> None:
    pair = same_by_seed(
        ch03.PyTorchMultiHeadAttention, groundup.PyTorchMultiHeadAttention, 6, 4, 2, 0.5, bias
    )
    assert_same_output(*pair, torch.randn(2, 9, 6))


@compares("ch04.LayerNorm", "ch04.GELU", "ch04.FeedForward", "ch04.TransformerBlock")
@pytest.mark.parametrize(
    ("name", "args"),
    [("LayerNorm", [24]), ("GELU", []), ("FeedForward", [CFG]), ("TransformerBlock", [CFG])],
)
def test_the_parts_of_a_block(name: str, args: list[Any]) -> None:
    pair = same_by_seed(getattr(ch04, name), getattr(groundup, name), *args)
    assert_same_output(*pair, torch.randn(2, 12, 24) * 3 + 1)


@compares("ch04.GPTModel")
def test_gpt_model() -> None:
    pair = same_by_seed(ch04.GPTModel, groundup.GPTModel, CFG)
    assert_same_output(*pair, torch.randint(0, 60, (2, 12)))


def from_fast(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the course's fast classes by the names of ours, which are its plain ones."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        head, _, last = name.rpartition(".")
        if head.endswith("qkv"):
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"{head.removesuffix('qkv')}W_{part}.{last}"] = piece
        elif "norm" in head:
            found[f"{head}.{'scale' if last == 'weight' else 'shift'}"] = tensor
        else:
            found[name.replace(".proj.", ".out_proj.")] = tensor
    return found


@compares("ch04.FeedForwardFast", "ch04.TransformerBlockFast", "ch04.GPTModelFast")
@pytest.mark.parametrize("name", ["FeedForwardFast", "TransformerBlockFast", "GPTModelFast"])
def test_the_fast_classes(name: str) -> None:
    course = getattr(ch04, name)(CFG).eval()
    for parameter in course.parameters():
        nn.init.normal_(parameter, std=0.3)
    here = getattr(groundup, name)(CFG).eval()
    here.load_state_dict(from_fast(course.state_dict()))
    ids, x = torch.randint(0, 60, (2, 12)), torch.randn(2, 12, 24)
    assert_same_output(course, here, ids if name == "GPTModelFast" else x)


@compares("appendix_e.LoRALayer")
def test_lora_layer() -> None:
    course, here = same_by_seed(appendix_e.LoRALayer, groundup.LoRALayer, 6, 4, 2, 3.0)
    assert_same_output(course, here, torch.randn(5, 6))


@compares("appendix_e.LinearWithLoRA", "appendix_e.replace_linear_with_lora")
def test_linear_with_lora_everywhere() -> None:
    made: list[nn.Module] = []
    for module in (appendix_e, groundup):
        torch.manual_seed(123)
        model = groundup.GPTModel(CFG).eval()
        before = model(torch.arange(12)[None])
        assert module.replace_linear_with_lora(model, 2, 3.0) is None
        torch.testing.assert_close(model(torch.arange(12)[None]), before)
        made.append(model)
    course, here = made
    names = [n for n, m in course.named_modules() if isinstance(m, appendix_e.LinearWithLoRA)]
    assert names and "out_head" in names
    assert names == [n for n, m in here.named_modules() if isinstance(m, groundup.LinearWithLoRA)]
    state = course.state_dict()
    assert list(state) == list(here.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in here.state_dict().items())
    for name, parameter in here.named_parameters():
        assert parameter.requires_grad
        if name.endswith(".B"):
            nn.init.normal_(parameter)
    course.load_state_dict(here.state_dict())
    assert_same_output(course, here, torch.randint(0, 60, (2, 12)))


@compares("ch02.GPTDatasetV1")
@pytest.mark.parametrize(("length", "stride"), [(4, 4), (4, 1), (3, 5), (7, 2)])
def test_windows(length: int, stride: int) -> None:
    tokenizer = get_gpt2_tokenizer()
    text = "Every effort moves you forward.<|endoftext|>A new text, with its own words."
    course = ch02.GPTDatasetV1(text, tokenizer, length, stride)
    here = groundup.GPTDatasetV1(text, tokenizer, length, stride)
    assert len(course) == len(here) > 1
    for i in range(len(course)):
        assert all(map(torch.equal, course[i], here[i]))


@compares("ch06.SpamDataset")
@pytest.mark.parametrize("max_length", [None, 5, 20])
def test_spam_dataset(tmp_path: Path, max_length: int | None) -> None:
    path = tmp_path / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(0, "See you, at eight"), (1, "WINNER!! Call 0906 now"), (0, "ok")]
        csv.writer(file).writerows([("Label", "Text"), *rows])
    tokenizer = get_gpt2_tokenizer()
    course, here = (m.SpamDataset(path, tokenizer, max_length) for m in (ch06, groundup))
    assert course.max_length == here.max_length and len(course) == len(here) == 3
    for i in range(3):
        for theirs, ours in zip(course[i], here[i], strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@compares("ch07.InstructionDataset")
def test_instruction_dataset() -> None:
    data = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Say hello.", "input": "", "output": " Hello!"},
    ]
    tokenizer = get_gpt2_tokenizer()
    course, here = (m.InstructionDataset(data, tokenizer) for m in (ch07, groundup))
    assert [course[i] for i in range(2)] == [here[i] for i in range(2)]
    assert len(course) == len(here) == 2 and course.data is here.data

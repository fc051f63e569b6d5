import os
from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.weights.load import load_model
from groundup.weights.names import nanogpt_rows, to_theirs
from groundup.weights.torch_files import load_torch_file, save_course_file
from tests.conftest import tiny_config

IDX = torch.arange(10)[None]

ARGS = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 16, "vocab_size": 300}
"""What nanoGPT says of a model's shape."""


def same(a: GPTModel, b: GPTModel) -> bool:
    with torch.no_grad():
        return torch.equal(a.eval()(IDX), b.eval()(IDX))


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_state_dict_of_the_course_comes_back_bit_for_bit(
    tmp_path: Path, tie: bool, bias: bool
) -> None:
    model = GPTModel(tiny_config(tie_weights=tie, qkv_bias=bias))
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    save_course_file(model, tmp_path / "course.pth")  # with the course's masks
    both = {"model_state_dict": model.state_dict(), "optimizer_state_dict": {"state": {}}}
    torch.save(both, tmp_path / "both.pth")  # as the course saves to go on training
    for name in ("plain", "course", "both"):
        again = load_torch_file(tmp_path / f"{name}.pth", n_heads=4)
        assert again.cfg == model.cfg and not again.training
        assert same(model, again)


def test_the_exported_file_is_what_the_courses_strict_loading_expects(tmp_path: Path) -> None:
    """The course's attention registers its mask as a buffer, so a strict load asks for it."""

    class CourseAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("W_query", "W_key", "W_value"):
                setattr(self, name, nn.Linear(32, 32, bias=False))
            self.out_proj = nn.Linear(32, 32)
            self.register_buffer("mask", torch.triu(torch.ones(16, 16), diagonal=1))

    model = GPTModel(tiny_config(qkv_bias=False))
    save_course_file(model, tmp_path / "m.pth")
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    prefix = "trf_blocks.1.att."
    part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    CourseAttention().load_state_dict(part, strict=True)
    assert {"tok_emb.weight", "out_head.weight", "final_norm.scale"} <= set(state)


@pytest.mark.parametrize("bias", [True, False])
def test_nanogpts_checkpoints(tmp_path: Path, bias: bool) -> None:
    model = GPTModel(tiny_config())
    if not bias:
        for name, p in model.named_parameters():
            if name.endswith(("bias", "shift")):
                p.data.zero_()
    state = {
        row.theirs: to_theirs(model.state_dict(), row, model.cfg) for row in nanogpt_rows(model.cfg)
    }
    if not bias:
        state = {n: t for n, t in state.items() if not n.endswith(".bias")}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    args = ARGS | {"bias": bias, "dropout": 0.0}
    compiled = {f"_orig_mod.{n}": t for n, t in state.items()}
    torch.save({"model": compiled, "model_args": args, "iter_num": 5}, tmp_path / "ckpt.pt")
    again = load_torch_file(tmp_path / "ckpt.pt")
    assert again.cfg == model.cfg
    assert same(model, again)
    del args["n_head"]
    torch.save({"model": compiled, "model_args": args}, tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match="model_args lack n_head"):
        load_torch_file(tmp_path / "ckpt.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_names(tmp_path: Path, prefix: str) -> None:
    """As DataParallel and torch.compile save them, also within a model."""
    model = GPTModel(tiny_config())
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    inner = {
        name.replace("trf_blocks.1.", f"trf_blocks.1.{prefix}"): t for name, t in state.items()
    }
    for content in (state, inner, {"model_state_dict": state}):
        torch.save(content, tmp_path / "m.pth")
        assert same(model, load_torch_file(tmp_path / "m.pth", n_heads=4))
    torch.save(state | model.state_dict(), tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"has tok_emb\.weight twice"):
        load_torch_file(tmp_path / "m.pth", n_heads=4)


def test_another_inner_width_is_read_and_what_the_course_cannot_hold_is_not_written(
    tmp_path: Path,
) -> None:
    model = GPTModel(tiny_config(hidden_dim=40))
    torch.save(model.state_dict(), tmp_path / "m.pth")
    again = load_torch_file(tmp_path / "m.pth", n_heads=4)
    assert again.cfg == model.cfg and same(model, again)
    for other in (model, GPTModel(tiny_config(feed_forward="gelu_exact"))):
        with pytest.raises(UserError, match=r"4 \* emb_dim columns with the tanh GELU.*--to hf"):
            save_course_file(other, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": 5, "model_args": {}}, "must be by name"),
        ({"model": {}, "model_args": [1]}, "must be by name"),
        ({"model": {"a": 1}, "model_args": ARGS}, "a in its model: no tensor"),
        ({"model": {}, "model_args": ARGS | {"n_layer": 1 << 40}}, "n_layers is 1099511627776"),
        ({"model": {}, "model_args": ARGS | {"n_head": "x"}}, "n_heads is 'x'"),
        ({5: torch.zeros(2)}, "it has the key 5"),
    ],
)
def test_damaged_checkpoints_of_nanogpt(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match=message):
        load_torch_file(tmp_path / "ckpt.pt")


class Payload:
    """What a malicious file would hold: that a folder be made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_a_file_that_needs_unpickling_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    was_here = tmp_path / "was-here"
    torch.save({"tok_emb.weight": torch.zeros(2, 2), "x": Payload(was_here)}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="would run code from the file"):
        load_torch_file(tmp_path / "evil.pth")
    assert not was_here.exists()
    torch.save(GPTModel(tiny_config()), tmp_path / "whole.pth")  # the whole module, not its state
    with pytest.raises(UserError, match=r"torch.save\(model.state_dict\(\), path\)"):
        load_torch_file(tmp_path / "whole.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(2)}, "not a state dict of the course's GPTModel"),
        ({}, "not a state dict"),
        ([torch.zeros(2)], "holds a list"),
        ({"tok_emb.weight": torch.zeros(3)}, "must both be matrices"),
        ({"tok_emb.weight": torch.zeros(3, 64), "pos_emb.weight": torch.zeros(2, 64)}, "n_layers"),
        ({"tok_emb.weight": 5}, "not a state dict"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(UserError, match=message):
        load_torch_file(tmp_path / "m.pth")


def test_what_the_file_cannot_say_must_be_said(tmp_path: Path, model_dir: Path) -> None:
    model = GPTModel(tiny_config())
    save_course_file(model, tmp_path / "m.pth")
    with pytest.raises(UserError, match="say it with --n-heads"):
        load_torch_file(tmp_path / "m.pth")
    with pytest.raises(UserError, match="brings no tokenizer"):
        load_model(tmp_path / "m.pth", n_heads=4)
    again, tokenizer = load_model(tmp_path / "m.pth", n_heads=4, tokenizer=str(model_dir))
    assert same(model, again) and tokenizer.vocab_size == 300
    with pytest.raises(UserError, match="has 50257 tokens"):
        load_model(tmp_path / "m.pth", n_heads=4, tokenizer="gpt2")


def test_missing_and_unexpected_tensors_are_listed(tmp_path: Path) -> None:
    state = GPTModel(tiny_config()).state_dict()
    del state["final_norm.shift"]
    state["final_norm.shifty"] = torch.zeros(32)
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(UserError) as error:
        load_torch_file(tmp_path / "m.pth", n_heads=4)
    assert "final_norm.shift is missing" in str(error.value)
    assert "final_norm.shifty is unexpected" in str(error.value)


def test_every_damaged_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Flip a bit all over the file, and cut it anywhere: an error, or the same weights."""
    model = GPTModel(tiny_config(vocab_size=20, emb_dim=8, n_heads=2, n_layers=1))
    path = tmp_path / "m.pth"
    save_course_file(model, path)
    whole = path.read_bytes()
    expected = model.state_dict()
    noticed = 0
    for position in range(0, len(whole), 61):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            state = load_torch_file(path, n_heads=2).state_dict()
        except UserError:
            noticed += 1
        else:
            assert all(torch.equal(state[n], expected[n]) for n in expected), position
    assert noticed > 100
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_torch_file(path, n_heads=2)

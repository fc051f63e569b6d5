"""Models that transformers wrote, in all the forms that it writes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer
from groundup.weights.load import load_model
from tests.systems import needs_links

IDX = torch.arange(12)[None]


def theirs(**changes: Any) -> GPT2LMHeadModel:
    torch.manual_seed(3)
    shape: dict[str, Any] = {"vocab_size": 300, "n_positions": 16, "n_embd": 32, "n_layer": 2}
    shape |= {"n_head": 4, "bos_token_id": 299, "eos_token_id": 299} | changes
    model = GPT2LMHeadModel(GPT2Config(**shape)).eval()
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return model


@pytest.fixture
def check(tmp_path: Path, tokenizer: BPETokenizer) -> Callable[..., None]:
    """Save with ``save``, open with ours, compare the logits."""
    tokenizer.save(tmp_path)

    def compare(model: GPT2LMHeadModel, atol: float = 1e-5) -> None:
        ours, _ = load_model(tmp_path)
        with torch.no_grad():
            expected = model(IDX).logits.float()
            torch.testing.assert_close(ours(IDX), expected, atol=atol, rtol=0)

    return compare


@pytest.mark.parametrize("tie", [True, False])
def test_one_file(tmp_path: Path, check: Callable, tie: bool) -> None:
    model = theirs(tie_word_embeddings=tie)
    model.save_pretrained(tmp_path)
    check(model)


@pytest.mark.parametrize("tie", [True, False])
def test_shards(tmp_path: Path, check: Callable, tie: bool) -> None:
    model = theirs(tie_word_embeddings=tie)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    check(model)


def test_the_bare_model_has_no_prefix(tmp_path: Path, check: Callable) -> None:
    model = theirs()
    bare: GPT2Model = model.transformer
    bare.save_pretrained(tmp_path)
    assert "wte.weight" in load_file(tmp_path / "model.safetensors")
    check(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path: Path, check: Callable, dtype: torch.dtype) -> None:
    model = theirs()
    nn.Module.to(model, dtype)
    model.save_pretrained(tmp_path)
    check(model.float())  # fp32 of the same rounded weights


def test_openais_upload_carries_masks_and_no_prefix(tmp_path: Path, check: Callable) -> None:
    model = theirs()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {n.removeprefix("transformer."): t for n, t in load_file(path).items()}
    for i in range(2):
        tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, path, metadata={"format": "pt"})
    check(model)


def test_a_tied_head_that_is_stored_must_be_the_embedding(tmp_path: Path, check: Callable) -> None:
    model = theirs()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    check(model)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"said to be tied, but lm_head\.weight differs"):
        load_model(tmp_path)


def as_bin(directory: Path, *, old: bool = False, prefix: str = "", shards: int = 1) -> None:
    """The weights as ``torch.save`` wrote them before there was safetensors, the tied head too."""
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    state["lm_head.weight"] = state["transformer.wte.weight"]
    state = {prefix + name: tensor for name, tensor in state.items()}
    if shards == 1:
        torch.save(state, directory / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
        return
    where = {name: f"pytorch_model-{i % shards}.bin" for i, name in enumerate(state)}
    for shard in set(where.values()):
        part = {name: tensor for name, tensor in state.items() if where[name] == shard}
        torch.save(part, directory / shard)
    (directory / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": where}), "utf-8"
    )


@pytest.mark.parametrize(
    "how",
    [{}, {"old": True}, {"shards": 3}, {"prefix": "module."}, {"prefix": "_orig_mod.module."}],
)
def test_pytorch_model_bin(tmp_path: Path, check: Callable, how: dict[str, Any]) -> None:
    model = theirs()
    model.save_pretrained(tmp_path)
    as_bin(tmp_path, **how)
    check(model)
    for path in tmp_path.glob("pytorch_model*.bin"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match="is damaged"):
            load_model(tmp_path)
        path.write_bytes(whole)


@pytest.mark.parametrize("old", [False, True])
def test_pytorch_model_bin_is_not_unpickled(tmp_path: Path, check: Callable, old: bool) -> None:
    theirs().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    path, mark = tmp_path / "pytorch_model.bin", tmp_path / "mark"
    for content, message in (
        ({"wte.weight": Runs(mark)}, "would run code from the file"),
        ({"wte.weight": "text"}, "'wte.weight' is no tensor"),
        ([1, 2], "holds a list"),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=not old)
        with pytest.raises(UserError, match=message):
            load_model(tmp_path)
    assert not mark.exists()


class Runs:
    """What a malicious file would hold."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_names_in_safetensors(tmp_path: Path, check: Callable, prefix: str) -> None:
    """Of a model that was saved inside DataParallel, or compiled."""
    model = theirs()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({prefix + n: t for n, t in tensors.items()}, path, metadata={"format": "pt"})
    check(model)
    twice = {prefix + n: t for n, t in tensors.items()} | {"transformer.wte.weight": torch.ones(1)}
    save_file(twice, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"has transformer\.wte\.weight twice"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"activation_function": "relu"},
            "activation_function is 'relu', groundup's is 'gelu_new'",
        ),
        ({"layer_norm_epsilon": 0}, "norm_eps is 0"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"n_inner": 100}, r"c_fc.weight of shape \(32, 128\) .* the config \(100, 32\)"),
        ({"n_inner": 0}, "hidden_dim is 0"),
        ({"architectures": ["GPT2ForTokenClassification"]}, "GPT2ForTokenClassification"),
        (
            {"architectures": ["T5Model"], "model_type": "t5"},
            r"a 't5' model \(T5Model\); groundup opens .* of the types gpt2, llama",
        ),
    ],
)
def test_what_our_model_does_not_compute_is_refused(
    tmp_path: Path, check: Callable, changes: dict[str, Any], message: str
) -> None:
    theirs().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)


@pytest.fixture
def sharded(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    tokenizer.save(tmp_path / "model")
    theirs().save_pretrained(tmp_path / "model", max_shard_size="40KB")
    return tmp_path / "model"


def rename_shards(directory: Path, rename: Callable[[str], str]) -> None:
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text("utf-8"))
    index["weight_map"] = {n: rename(shard) for n, shard in index["weight_map"].items()}
    path.write_text(json.dumps(index), "utf-8")


@pytest.mark.parametrize("escape", ["../{}", "/etc/{}", "sub/../../{}", "..\\{}"])
def test_an_index_may_not_lead_outside(sharded: Path, escape: str) -> None:
    for shard in sharded.glob("model-*.safetensors"):
        shard.rename(sharded.parent / shard.name)
    rename_shards(sharded, lambda name: escape.format(name))
    with pytest.raises(UserError, match="lies outside the directory"):
        load_model(sharded)


@needs_links
def test_a_link_may_not_lead_outside_but_within_the_hubs_cache(sharded: Path) -> None:
    model = load_model(sharded)[0]
    outside = sharded.parent / "blobs"
    outside.mkdir()
    for shard in sharded.glob("model-*.safetensors"):
        shard.rename(outside / shard.name)
        shard.symlink_to(outside / shard.name)
    with pytest.raises(UserError, match="lies outside the directory"):
        load_model(sharded)
    snapshot = sharded.parent / "snapshots" / "abc"  # the hub's layout: repo/{blobs,snapshots/X}
    snapshot.parent.mkdir()
    sharded.rename(snapshot)
    again = load_model(snapshot)[0]
    assert torch.equal(model.tok_emb.weight, again.tok_emb.weight)


def test_missing_shards_and_broken_indexes(sharded: Path) -> None:
    first = min(sharded.glob("model-*.safetensors"))
    data = first.read_bytes()
    first.unlink()
    with pytest.raises(UserError, match=f"{first.name} is missing"):
        load_model(sharded)
    first.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="is damaged"):
        load_model(sharded)
    (sharded / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}', "utf-8")
    with pytest.raises(UserError, match="has no weight_map"):
        load_model(sharded)


def test_every_damaged_byte_of_the_header_is_noticed_or_harmless(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    """safetensors carries no checksum: its header is checked, its data is taken as it is."""
    tokenizer.save(tmp_path)
    theirs(n_embd=8, n_head=2, n_layer=1).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    expected = load_model(tmp_path)[0].state_dict()
    for position in range(0, header, 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            state = load_model(tmp_path)[0].state_dict()
        except UserError:
            continue
        assert all(state[name].shape == expected[name].shape for name in expected)
    for length in range(0, len(whole), 499):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_model(tmp_path)

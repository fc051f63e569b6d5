import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from groundup.data.instructions import encode_prompt
from groundup.errors import UserError
from groundup.facts import Data, Facts
from groundup.model.gpt import GPTModel
from groundup.prompts import PROMPT_STYLES, PromptStyle
from groundup.tokenizers import BPETokenizer, GPT2Tokenizer, get_gpt2_tokenizer
from groundup.weights.checkpoint import MODEL_FILES, save_model
from groundup.weights.load import load_model, read_facts
from tests.conftest import TEXT, tiny_config, unvouched


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_transformers_opens_the_directory(
    tmp_path: Path, tokenizer: BPETokenizer, tie: bool, bias: bool
) -> None:
    cfg = tiny_config(vocab_size=tokenizer.vocab_size, tie_weights=tie, qkv_bias=bias)
    model = GPTModel(cfg).init_gpt2().eval()
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    save_model(tmp_path, model, tokenizer)
    loader: Any = GPT2LMHeadModel
    theirs, info = loader.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is type(theirs)
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.encode(TEXT)
    assert their_tokenizer(TEXT)["input_ids"] == ids
    assert their_tokenizer.eos_token_id == theirs.config.eos_token_id == tokenizer.eot_token
    idx = torch.tensor([ids[:16]])
    with torch.no_grad():
        torch.testing.assert_close(model(idx), theirs(idx).logits, atol=1e-5, rtol=0)
    generated = theirs.generate(idx[:, :4], max_new_tokens=5, do_sample=False)
    assert generated.shape[1] <= 9


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_there_and_back_is_the_identity(
    tmp_path: Path, tokenizer: BPETokenizer, tie: bool, bias: bool
) -> None:
    cfg = tiny_config(
        vocab_size=tokenizer.vocab_size, tie_weights=tie, qkv_bias=bias, drop_rate=0.25
    )
    model = GPTModel(cfg)
    save_model(tmp_path, model, tokenizer)
    again, same = load_model(tmp_path)
    assert again.cfg == cfg
    assert not again.training and all(p.requires_grad for p in again.parameters())
    assert (again.out_head.weight is again.tok_emb.weight) == tie
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert same.encode(TEXT) == tokenizer.encode(TEXT)
    assert load_model(tmp_path, drop_rate=0.0)[0].cfg.drop_rate == 0.0


def test_gpt2s_vocabulary_travels_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_config(vocab_size=50257, emb_dim=8, n_heads=2, n_layers=1)
    save_model(tmp_path, GPTModel(cfg), get_gpt2_tokenizer())
    monkeypatch.setattr(
        "groundup.tokenizers.gpt2.get_gpt2_tokenizer", lambda: pytest.fail("not from outside")
    )
    _, tokenizer = load_model(tmp_path)
    assert isinstance(tokenizer, GPT2Tokenizer)
    assert tokenizer.encode("Hello, I am") == [15496, 11, 314, 716]
    assert AutoTokenizer.from_pretrained(tmp_path)("Hello, I am")["input_ids"] == (
        [15496, 11, 314, 716]
    )


def test_facts_and_card_tell_the_runs_facts(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    facts = Facts(
        task="pretrain",
        options={"seed": 7},
        data=Data("a book"),
        progress={"running_loss": 2.3456, "val_loss": 1.2345},
    )
    save_model(tmp_path, GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)), tokenizer, facts)
    read = Facts.read(tmp_path)
    assert read is not None
    assert (read.task, read.options, read.progress) == ("pretrain", {"seed": 7}, facts.progress)
    assert read.versions["torch"] == torch.__version__
    card = (tmp_path / "README.md").read_text("utf-8")
    assert card.startswith("---\n") and "| validation loss | 1.2345 |" in card
    assert "| training text | a book |" in card and "| seed | 7 |" in card
    assert "| training loss | 2.3456 |" in card


@pytest.mark.parametrize("style", PROMPT_STYLES.values(), ids=lambda style: style.name)
def test_transformers_asks_in_the_saved_prompt_style(
    tmp_path: Path, tokenizer: BPETokenizer, style: PromptStyle
) -> None:
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size))
    save_model(tmp_path, model, tokenizer, Facts(task="instruct", prompt_style=style.name))
    assert read_facts(tmp_path).prompt_style == style.name
    assert {path.name for path in tmp_path.iterdir()} <= MODEL_FILES
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    roles = ("user", "assistant", "user")
    contents = ("Who jumps?", "The fox 🙂.", "Over what?")
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    for asked in (messages[:1], messages):
        found = theirs.apply_chat_template(
            asked, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert found == encode_prompt(asked, tokenizer, style)


def test_only_a_known_prompt_style_is_saved(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size))
    with pytest.raises(UserError, match="unknown prompt style 'lama'"):
        save_model(tmp_path / "m", model, tokenizer, Facts(prompt_style="lama"))
    assert not any((tmp_path / "m").iterdir())
    save_model(tmp_path / "m", model, tokenizer)
    assert not (tmp_path / "m" / "chat_template.jinja").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(model_dir: Path, name: str) -> None:
    (model_dir / name).unlink()
    (model_dir / "vocab.json").unlink()  # which would do, with merges.txt, for the tokenizer
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        load_model(model_dir)


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_truncated_weights_are_refused(model_dir: Path, cut: int) -> None:
    path = model_dir / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="is damaged"):
        load_model(model_dir)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 64}, r"does not match its config: .*tok_emb.weight the shape"),
        ({"n_layer": 3}, r"transformer\.h\.2\.ln_1\.weight is missing"),
        ({"n_layer": 1}, r"transformer\.h\.1\.ln_1\.weight is unexpected"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
        ({"n_head": 5}, "not divisible"),
        ({"n_head": "4"}, "n_head is '4'; expected a whole number"),
        ({"model_type": "llama"}, "describes a 'llama' model"),
        ({"vocab_size": 200}, "the tokenizer has 300 tokens"),
    ],
)
def test_weights_that_do_not_match_the_config(model_dir: Path, changes: dict, message: str) -> None:
    edit(unvouched(model_dir) / "config.json", **changes)
    with pytest.raises(UserError, match=message):
        load_model(model_dir)


def test_a_missing_directory_and_a_config_without_a_shape(tmp_path: Path, model_dir: Path) -> None:
    with pytest.raises(UserError, match="there is no model directory"):
        load_model(tmp_path / "none")
    (unvouched(model_dir) / "config.json").write_text('{"model_type": "gpt2"}', "utf-8")
    with pytest.raises(UserError, match="it lacks vocab_size; it lacks n_positions"):
        load_model(model_dir)


def test_a_full_disk_keeps_the_last_checkpoint(
    model_dir: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_file(model_dir / "model.safetensors")

    def full(*args: object, **more: object) -> None:
        # What safetensors raises on a full disk, word for word.
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr("groundup.weights.tensors.save_file", full)
    with pytest.raises(UserError, match="no space left while saving"):
        save_model(model_dir, GPTModel(tiny_config()), tokenizer)
    monkeypatch.undo()
    after = load_file(model_dir / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    load_model(model_dir)


def test_files_in_half_precision_open_as_fp32(model_dir: Path) -> None:
    path = unvouched(model_dir) / "model.safetensors"
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    model, _ = load_model(model_dir)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_an_unwritable_place_is_one_sentence(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UserError, match=f"cannot write to .*{os.strerror(errno.ENOTDIR)}"):
        save_model(tmp_path / "file" / "model", GPTModel(tiny_config()), tokenizer)


def test_a_directory_s_name_is_no_markup_in_its_card(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    name = "a [x](http:evil) <b>\x1b[31m\n## no #"
    save_model(tmp_path / name, GPTModel(tiny_config(vocab_size=300)), tokenizer)
    lines = (tmp_path / name / "README.md").read_text(encoding="utf-8").splitlines()
    headings = [line for line in lines if line.startswith("#")]
    assert headings == ["# a \\[x\\](http:evil) &lt;b&gt;\\\\x1b\\[31m \\#\\# no \\#"]

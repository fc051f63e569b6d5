"""One model directory for every stage, which is at the same time a Hugging Face model directory.

``config.json`` and ``model.safetensors`` are what ``transformers`` reads; ``groundup.json`` holds
what only we know (``facts.py``). Nothing is ever unpickled.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from groundup.config import ModelConfig
from groundup.data.model_style import template_of
from groundup.errors import UserError
from groundup.facts import NAME, Facts
from groundup.files import KEPT, atomic_update, read_json, write_json
from groundup.model.classifier import is_classifier, to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.hollow import hollow
from groundup.model.lora import has_lora, lora_layers
from groundup.snapshot import digests, read_whole
from groundup.tokenizers import Tokenizer, load_tokenizer
from groundup.tokenizers.files import TEMPLATE, write_template
from groundup.weights.architectures import architecture_of
from groundup.weights.card import model_card
from groundup.weights.hf_config import CONFIG, hf_config, read_labels, read_model_config
from groundup.weights.huggingface import WEIGHTS, TensorFiles
from groundup.weights.lora import save_adapter
from groundup.weights.names import Row, from_theirs, huggingface_rows, to_theirs
from groundup.weights.tensors import save_tensors

ADAPTER = "adapter"

MODEL_FILES = frozenset(
    {CONFIG, WEIGHTS, NAME, "generation_config.json", "README.md", "tokenizer.json"}
    | {"tokenizer_config.json", "vocab.json", "merges.txt", TEMPLATE}
)
"""All that :func:`save_model` writes by itself."""


def save_model(
    directory: str | Path,
    model: GPTModel,
    tokenizer: Tokenizer,
    facts: Facts | None = None,
    extra: Callable[[Path], None] | None = None,
    *,
    title: str | None = None,
    advice: str = KEPT,
    half: bool = False,
) -> None:
    """Write a model directory, whole or not at all.

    Args:
        directory: made if it is not there; files of the same names are replaced.
        model: the model.
        tokenizer: its tokenizer.
        facts: goes into ``groundup.json`` and the model card; what the model was opened with,
            unless given.
        extra: writes more files into the folder it is given; they appear together with the rest.
        title: what the card calls the model; the directory's name unless given.
        advice: what to do about a full disk.
        half: write the weights in fp16 (a tensor with numbers too large for it stays as it is).

    Raises:
        UserError: the disk is full or cannot be written to, or the format cannot hold the model;
            what was there is intact.
    """
    directory = Path(directory)
    facts = replace(facts or model.facts or Facts(), versions=versions())
    facts.labels = _labels(model, facts)
    facts.kind = "classifier" if facts.labels else "language model"
    architecture_of(model.cfg)  # whether there is one, before anything is made
    with atomic_update(directory, advice=advice) as staging:
        write_json(
            staging / CONFIG,
            hf_config(model.cfg, tokenizer.eot_token, facts.labels, bos_token=tokenizer.bos_token)
            | ({"dtype": "float16"} if half else {}),
        )
        state = _without_head_bias(plain_state(model))
        rows = huggingface_rows(model.cfg, classifier=facts.is_classifier)
        tensors = {r.theirs: to_theirs(state, r, model.cfg) for r in rows}
        if half:
            tensors = {name: _half(tensor) for name, tensor in tensors.items()}
        save_tensors(tensors, staging / WEIGHTS)
        longest = facts.reading.max_length if facts.is_classifier else None
        tokenizer.save(staging, model_max_length=longest or model.cfg.context_length)
        if facts.is_classifier:
            _for_classification(staging / "tokenizer_config.json")
        else:
            ends = {"bos_token_id": tokenizer.bos_token, "eos_token_id": tokenizer.eot_token}
            write_json(staging / "generation_config.json", ends)
        if facts.prompt_style is not None:
            write_template(staging, template_of(facts.prompt_style, tokenizer))
        if has_lora(model):
            save_adapter(staging / ADAPTER, model, facts.base.source)
            adapter = replace(facts, kind="adapter", digests=digests(staging / ADAPTER))
            adapter.write(staging / ADAPTER)
        card = model_card(title or directory.resolve().name, model, facts)
        (staging / "README.md").write_text(card, encoding="utf-8", newline="\n")
        if extra is not None:
            extra(staging)
        replace(facts, digests=digests(staging)).write(staging)


def plain_state(model: GPTModel) -> dict[str, Tensor]:
    """A model's state dict with LoRA's updates, if any, merged into the weights."""
    layers = lora_layers(model)
    merged = {f"{name}.weight": layer.merged().weight for name, layer in layers.items()}
    added = {f"{name}.{part}" for name in layers for part in ("A", "B")}
    state = model.state_dict() | merged
    return {name: tensor for name, tensor in state.items() if name not in added}


def _half(tensor: Tensor) -> Tensor:
    smaller = tensor.half()
    return smaller if smaller.isfinite().all() or not tensor.isfinite().all() else tensor


def _labels(model: GPTModel, facts: Facts) -> list[str]:
    """The names of a classifier's classes; none for a language model."""
    if not is_classifier(model):
        return []
    count = model.out_head.out_features
    labels = facts.labels or [f"LABEL_{index}" for index in range(count)]
    if len(labels) != count:
        raise UserError(
            f"the classifier has {count} classes, but {len(labels)} labels were given: "
            f"{', '.join(labels)}"
        )
    return labels


def _without_head_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same model without the output layer's bias, which Hugging Face's models have not.

    The course's classifier has one. Its scores are ``W (n + shift) + b`` with ``n`` the scaled
    norm; a ``shift`` that is longer by the pseudo-inverse of ``W`` times ``b`` adds the same.

    Raises:
        UserError: no ``shift`` does, because the rows of ``W`` depend on each other.
    """
    if state.get("out_head.bias") is None:
        return state
    weight, bias = (state[f"out_head.{name}"].cpu().double() for name in ("weight", "bias"))
    more = torch.linalg.pinv(weight) @ bias
    if "final_norm.shift" not in state or not torch.allclose(weight @ more, bias, atol=1e-5):
        raise UserError(
            "the output layer has a bias, for which transformers' models have no place, and "
            "nothing else can stand for it: the norm before it has no shift, or the rows of its "
            "matrix depend on each other; build it with bias=False"
        )
    shift = state["final_norm.shift"].cpu()
    return state | {"final_norm.shift": (shift + more).to(shift.dtype)}


def _for_classification(path: Path) -> None:
    """Make ``transformers`` read texts as we do.

    The padding token lets it classify several at once. Texts to classify are strangers': one that
    spells ``<|endoftext|>`` must not end there, so a special token is split as any other word.
    """
    config = read_json(path) | {"split_special_tokens": True}
    if "eos_token" in config:
        config["pad_token"] = config["eos_token"]
    write_json(path, config)


def load_directory(
    directory: str | Path,
    device: torch.device | str = "cpu",
    *,
    drop_rate: float | None = None,
    verify: bool = True,
) -> tuple[GPTModel, Tokenizer]:
    """Open a model directory, a language model's or a classifier's; it is in eval mode.

    Args:
        directory: where it is.
        device: where the weights go.
        drop_rate: another dropout probability than the saved one, to train on.
        verify: whether to compare the files with the SHA-256 that were saved with them.

    Raises:
        UserError: a file is missing or damaged, or the weights do not match the config.
    """
    directory = Path(directory)
    return read_whole(
        directory, lambda: open_directory(directory, device, drop_rate), verify=verify
    )


def open_directory(
    directory: Path, device: torch.device | str, drop_rate: float | None
) -> tuple[GPTModel, Tokenizer]:
    """As :func:`load_directory`, for a caller that reads more of it at once."""
    if not directory.is_dir():
        raise UserError(f"there is no model directory {str(directory)!r}")
    cfg = read_model_config(directory)
    if drop_rate is not None:
        cfg = cfg.replace(drop_rate=drop_rate)
    tokenizer = load_tokenizer(directory, cfg.vocab_size)
    if tokenizer.vocab_size > cfg.vocab_size:
        raise UserError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} tokens, but the config says "
            f"vocab_size {cfg.vocab_size}; one of the two files is from another model"
        )
    tensors, labels = TensorFiles(directory, architecture_of(cfg), device), read_labels(directory)
    rows = huggingface_rows(cfg, classifier=bool(labels))
    model = build_model(cfg, tensors, rows, str(directory), num_classes=len(labels))
    return model, tokenizer


def build_model(
    cfg: ModelConfig,
    tensors: Mapping[str, Tensor],
    rows: Iterable[Row],
    source: str,
    *,
    num_classes: int = 0,
) -> GPTModel:
    """A model with somebody else's tensors, in fp32 and eval mode.

    It is built without memory (on the meta device), then given the tensors one by one, so that
    loading needs little more memory than the model itself.

    Raises:
        UserError: a tensor is missing, unexpected or misshapen; every one is listed by name.
    """
    with hollow():
        model = GPTModel(cfg)
        if num_classes:
            to_classifier(model, num_classes)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if cfg.tie_weights:
        rows = list(rows)
        embedding = next(row.theirs for row in rows if row.ours == ("tok_emb.weight",))
        tensors = _without_tied_head(tensors, embedding, source)
    state = from_theirs(tensors, rows, shapes, source)
    if cfg.tie_weights:
        state["out_head.weight"] = state["tok_emb.weight"]
    model.load_state_dict(state, assign=True)
    if cfg.tie_weights:
        model.out_head.weight = model.tok_emb.weight
    return model.requires_grad_(True).eval()


def _without_tied_head(
    tensors: Mapping[str, Tensor], embedding: str, source: str
) -> Mapping[str, Tensor]:
    """Leave out a tied output layer that is stored all the same, if it is what it should be."""
    head = "lm_head.weight"
    if head not in tensors or embedding not in tensors:
        return tensors
    if not torch.equal(tensors[head], tensors[embedding]):
        raise UserError(
            f"{source} does not match its config: it is said to be tied, but {head} differs from "
            f"{embedding}"
        )
    return Without(tensors, head)


class Without(Mapping[str, Tensor]):
    """Lazily read tensors but one."""

    def __init__(self, tensors: Mapping[str, Tensor], left_out: str) -> None:
        self.tensors, self.left_out = tensors, left_out

    def __getitem__(self, name: str) -> Tensor:
        if name == self.left_out:
            raise KeyError(name)
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.tensors if name != self.left_out)

    def __len__(self) -> int:
        return len(self.tensors) - 1


def versions() -> dict[str, str]:
    """The versions that matter for repeating a run."""
    names = ("groundup", "torch", "tiktoken", "tokenizers", "safetensors", "numpy")
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in names}

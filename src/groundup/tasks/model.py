"""The model and tokenizer that a task trains: new ones of a preset's shape, or saved ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.config import preset
from groundup.errors import UserError
from groundup.model.classifier import is_classifier, set_trainable
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.tasks.config import FineTuneConfig, TaskConfig
from groundup.tasks.tokenizer import train_tokenizer
from groundup.tokenizers import Tokenizer, get_tokenizer
from groundup.weights.checkpoint import ADAPTER, RunNotes
from groundup.weights.load import load_model
from groundup.weights.lora import load_adapter
from groundup.weights.tensors import weights_fingerprint


def build_tokenizer(
    config: TaskConfig,
    shape: Mapping[str, Any],
    documents: Sequence[str],
    say: Callable[[str], None],
) -> Tokenizer:
    """The tokenizer that ``config.tokenizer`` asks for; ``bpe`` is trained on the documents.

    Raises:
        UserError: it cannot be found, or its size is not the ``vocab_size`` asked for.
    """
    wanted = shape.get("vocab_size")
    if config.tokenizer != "bpe":
        tokenizer = get_tokenizer(config.tokenizer)
        if wanted not in (None, tokenizer.vocab_size):
            raise UserError(
                f"vocab_size is {wanted}, but the tokenizer {config.tokenizer} has "
                f"{tokenizer.vocab_size} tokens; leave vocab_size out, or use --tokenizer bpe"
            )
        return tokenizer
    size = wanted or preset(config.preset).vocab_size
    return train_tokenizer(documents, size, say)


def new_model(config: TaskConfig, shape: Mapping[str, Any], tokenizer: Tokenizer) -> GPTModel:
    """A new model of the preset's shape with the options' changes, for this tokenizer."""
    changes = {**shape, "vocab_size": tokenizer.vocab_size}
    model = GPTModel(preset(config.preset).replace(**changes))
    return model.init_gpt2() if config.init == "gpt2" else model


def open_model(source: str | Path, shape: Mapping[str, Any]) -> tuple[GPTModel, Tokenizer]:
    """Open the model to go on from; only its dropout and the windows' length may be changed."""
    n_heads = shape.get("n_heads") if Path(source).is_file() else None  # a .pth cannot say it
    model, tokenizer = load_model(source, drop_rate=shape.get("drop_rate"), n_heads=n_heads)
    problems = [
        f"{name} is {value}, but the model has {model.cfg[name]}"
        for name, value in shape.items()
        if name not in ("drop_rate", "context_length") and value != model.cfg[name]
    ]
    longest = model.cfg.context_length
    if shape.get("context_length", 1) > longest:
        problems.append(f"context_length is {shape['context_length']}, the model's is {longest}")
    if problems:
        raise UserError(
            f"{source} cannot take that shape: {'; '.join(problems)}; leave these options out"
        )
    return model, tokenizer


def as_saved(notes: RunNotes) -> dict[str, Any]:
    """What to open a run's base model with so that it is as it was: its dropout and its heads."""
    return {name: notes.config[name] for name in ("drop_rate", "n_heads") if name in notes.config}


def check_length(max_length: int | None, model: GPTModel) -> int:
    """The most tokens of an example: as asked for, or as many as the model can look at.

    Raises:
        UserError: more are asked for.
    """
    context = model.cfg.context_length
    if max_length is not None and max_length > context:
        raise UserError(f"max_length is {max_length}, but the model's context_length is {context}")
    return max_length or context


def frozen_fingerprint(model: GPTModel) -> str:
    """A SHA-256 of the weights that do not train, to tell whether LoRA's base is still the same."""
    return weights_fingerprint(p for p in model.parameters() if not p.requires_grad)


def check_base(notes: RunNotes, model: GPTModel, config: FineTuneConfig) -> None:
    """Refuse to go on with LoRA on another base model than before.

    Raises:
        UserError: its weights have changed.
    """
    before = notes.data.get("frozen_sha256")
    if config.train == "lora" and before not in (None, frozen_fingerprint(model)):
        raise UserError(
            f"the model {config.model} has changed since this run began on it; start a new run "
            "with another --out"
        )


def begin_fine_tuning(
    model: GPTModel, config: FineTuneConfig, resumed: Path | None = None
) -> GPTModel:
    """Let only what the options say train; return the model, changed in place.

    Args:
        model: whole; a classifier has its new output layer already.
        config: what trains.
        resumed: with LoRA, the directory of the run that goes on.

    Raises:
        UserError: a part of a new model is to be kept as it is, or LoRA's numbers make no sense.
    """
    if not config.model and config.train != "all":
        raise UserError(
            f"--train {config.train} keeps most of a model as it is, which makes sense for a "
            "trained one only; name it with --model, or use --train all"
        )
    if config.train != "lora":
        return set_trainable(model, config.train)
    if resumed:
        load_adapter(resumed / ADAPTER, model)
    else:
        add_lora(model, config.lora_rank, config.lora_alpha, config.lora_dropout)
    # A classifier's output layer is new; a language model's stays.
    model.out_head.requires_grad_(is_classifier(model))
    return model

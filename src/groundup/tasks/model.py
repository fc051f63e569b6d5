"""The model and tokenizer that a task trains: new ones of a preset's shape, or saved ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groundup.config import preset
from groundup.errors import UserError
from groundup.facts import Base
from groundup.model.classifier import is_classifier, set_trainable
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.tasks.config import NewModelConfig
from groundup.tasks.task import Job
from groundup.tokenizers import Tokenizer, get_tokenizer
from groundup.weights.architectures import architecture_of
from groundup.weights.checkpoint import ADAPTER
from groundup.weights.load import expect_language_model, load_model, says_heads
from groundup.weights.lora import load_adapter
from groundup.weights.tensors import weights_fingerprint


def build_tokenizer(
    config: NewModelConfig,
    shape: Mapping[str, Any],
    train: Callable[[int], Tokenizer],
) -> Tokenizer:
    """The tokenizer that ``config.tokenizer`` asks for; ``bpe`` is trained, of so many tokens.

    Raises:
        UserError: it cannot be found, its size is not the ``vocab_size`` asked for, or the model
            that it is for makes no sense or could not be saved.
    """
    architecture_of(preset(config.preset).replace(**shape))  # now, not at the first checkpoint
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
    return train(size)


def new_model(config: NewModelConfig, shape: Mapping[str, Any], tokenizer: Tokenizer) -> GPTModel:
    """A new model of the preset's shape with the options' changes, for this tokenizer."""
    changes = {**shape, "vocab_size": tokenizer.vocab_size}
    model = GPTModel(preset(config.preset).replace(**changes))
    return model.init_gpt2() if config.init == "gpt2" else model


def open_model(
    source: str | Path, shape: Mapping[str, Any], *, verify: bool = True
) -> tuple[GPTModel, Tokenizer]:
    """Open the model to go on from; only its dropout and the windows' length may be changed."""
    n_heads = None if says_heads(source) else shape.get("n_heads")
    model, tokenizer = load_model(
        source,
        drop_rate=shape.get("drop_rate"),
        n_heads=n_heads,
        expect=expect_language_model,
        verify=verify,
    )
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


def open_base(
    source: str | Path, shape: Mapping[str, Any], *, verify: bool = True
) -> tuple[GPTModel, Tokenizer]:
    """Open the model that a fine-tuning begins from; only its dropout may be changed."""
    if "context_length" in shape:
        context = open_model(source, {}, verify=verify)[0].cfg.context_length
        raise UserError(
            f"{source} has a context of its own ({context} tokens); leave context_length out, and "
            "give max_length for shorter texts"
        )
    return open_model(source, shape, verify=verify)


def fine_tuned(
    job: Job[Any], make: Callable[[Mapping[str, Any]], tuple[GPTModel, Tokenizer]]
) -> tuple[GPTModel, Tokenizer]:
    """The model that a fine-tuning trains, with only that trainable which the options say.

    Args:
        job: the run; if it goes on, the model is that of its checkpoint.
        make: makes the model to begin from (a classifier has its new output layer already), given
            the options of its shape. LoRA's base is made anew when a run goes on.

    Raises:
        UserError: a part of a new model is to be kept as it is, LoRA's numbers make no sense, or
            its base has changed since the run began.
    """
    config, checkpoint = job.config, job.checkpoint
    if checkpoint and config.train != "lora":
        model, tokenizer = load_model(checkpoint, verify=job.verify)
        return set_trainable(model, config.train), tokenizer
    if not config.model and config.train != "all":
        raise UserError(
            f"--train {config.train} keeps most of a model as it is, which makes sense for a "
            "trained one only; name it with --model, or use --train all"
        )
    # What LoRA's base was opened with: its dropout, and the heads that a .pth cannot say.
    kept = {name: job.shape[name] for name in ("drop_rate", "n_heads") if name in job.shape}
    model, tokenizer = make(kept if checkpoint else job.shape)
    if config.train != "lora":
        return set_trainable(model, config.train), tokenizer
    if checkpoint:
        load_adapter(checkpoint / ADAPTER, model, verify=job.verify)
    else:
        add_lora(model, config.lora_rank, config.lora_alpha, config.lora_dropout)
    # A classifier's output layer is new; a language model's stays.
    model.out_head.requires_grad_(is_classifier(model))
    if job.saved and job.saved.base.frozen_sha256 not in (None, frozen_fingerprint(model)):
        raise UserError(
            f"the model {config.model} has changed since this run began on it; start a new run "
            "with another --out"
        )
    return model, tokenizer


def base_facts(job: Job[Any], model: GPTModel) -> Base:
    """What ``groundup.json`` says of the model that a fine-tuning began from."""
    frozen = frozen_fingerprint(model) if job.config.train == "lora" else None
    return Base(job.config.model or "", model.cfg.n_heads, frozen)


def frozen_fingerprint(model: GPTModel) -> str:
    """A SHA-256 of the weights that do not train, to tell whether LoRA's base is still the same."""
    return weights_fingerprint(p for p in model.parameters() if not p.requires_grad)


def check_max_length(max_length: int | None, model: GPTModel) -> int:
    """The most tokens of an example: as asked for, or as many as the model can look at.

    Raises:
        UserError: more are asked for.
    """
    context = model.cfg.context_length
    if max_length is not None and max_length > context:
        raise UserError(f"max_length is {max_length}, but the model's context_length is {context}")
    return max_length or context


def parameters_of(model: GPTModel) -> str:
    """How many parameters a model has, and how many of them train, for people."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{model.num_parameters():,} parameters, of which {trained:,} train"

"""The checks behind ``groundup doctor MODEL``: is a directory whole, does all of it fit together?

Nothing in it is changed. A run's older checkpoints and its measurements are looked at as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from groundup.doctor import Check
from groundup.errors import UserError, first_ten
from groundup.facts import NAME, Facts

COPY = "copy it again from where it is whole"


def examine_directory(directory: str | Path) -> Iterator[Check]:
    """Check a model directory or a run: its best model, its checkpoints, its measurements.

    Raises:
        UserError: there is no such model, or it is a single file.
    """
    from groundup.staging import pending_updates
    from groundup.train.checkpoints import LAST, kept_steps, steps_in
    from groundup.train.tracking import METRICS
    from groundup.weights.finding import CHECKPOINTS, HISTORY, resolve_source

    path = resolve_source(directory)
    if not path.is_dir():
        raise UserError(
            f"{path} is a file, which knows no checksums; opening it is the check: "
            f"groundup inspect {path}"
        )
    last = path / CHECKPOINTS / LAST
    folders = [path, *(folder for folder in (last, *kept_steps(path)) if folder.is_dir())]
    begun_only = not (path / NAME).exists() and (path / METRICS).exists()
    for folder in folders[begun_only:]:
        name = "" if folder == path else f"{folder.name}: "
        if pending_updates(folder):
            found = "a save was interrupted when it was complete; the next opening finishes it"
            yield Check(f"{name}save", "note", found)
        yield from _model(folder, name)
        if folder != path:
            yield _training_state(folder, name)
    yield from _history(steps_in(path / HISTORY))
    if begun_only:
        yield Check("model", "note", "no model is saved yet: the run has only measurements")
    if (path / METRICS).exists():
        yield from _records(path, last)


def _history(folders: list[Path]) -> Iterator[Check]:
    """The snapshots of a run's history: one line for those that are whole."""
    whole = 0
    for folder in folders:
        if not (folder / NAME).exists():
            found = "it is not whole: its run was killed meanwhile; --resume makes it again"
            yield Check(f"history/{folder.name}", "note", found)
            continue
        checks = list(_model(folder, f"history/{folder.name}: "))
        bad = [check for check in checks if check.level == "problem"]
        whole += not bad
        yield from bad
    if whole:
        yield Check("history", "ok", f"{whole} snapshots are whole")


def _model(folder: Path, name: str) -> Iterator[Check]:
    """One model: its files as they were saved, and what they say."""
    from groundup.snapshot import changed_files
    from groundup.train.state import FOLDER

    # The training state is the last checkpoint's; the best model's file only names it.
    without = "" if (folder / FOLDER).exists() else FOLDER
    wrong = changed_files(folder, without)
    try:
        facts = Facts.read(folder)
    except UserError:
        facts = None
    known = {n for n in (facts.digests if facts else ()) if not n.startswith(f"{without or '/'}/")}
    if wrong:
        said = first_ten([f"{file}: {what}" for file, what in wrong.items()], "\n")
        yield Check(f"{name}files", "problem", said, COPY)
    elif known:
        yield Check(f"{name}files", "ok", f"{len(known) + 1} files are as they were saved")
    else:
        what = "says no checksums" if (folder / NAME).exists() else "is not there"
        yield Check(f"{name}files", "note", f"{NAME} {what}: there is nothing to compare with")
    yield from _weights(folder, name)


def _weights(folder: Path, name: str) -> Iterator[Check]:
    """Config, tokenizer and weights: each can be read, and they are of one model."""
    import torch

    from groundup.tokenizers import load_tokenizer
    from groundup.weights.architectures import architecture_of
    from groundup.weights.checkpoint import build_model
    from groundup.weights.hf_config import CONFIG, read_labels, read_model_config
    from groundup.weights.huggingface import TensorFiles
    from groundup.weights.load import load_model
    from groundup.weights.names import huggingface_rows

    if not (folder / CONFIG).exists():  # another format, or none
        yield _tried(f"{name}model", lambda: _parameters(load_model(folder, verify=False)[0]))
        return
    try:
        cfg, labels = read_model_config(folder), read_labels(folder)
    except UserError as error:
        yield Check(f"{name}config", "problem", str(error), COPY)
        return

    def tokenizer() -> str:
        found = load_tokenizer(folder, cfg.vocab_size)
        if found.vocab_size > cfg.vocab_size:
            raise UserError(
                f"the tokenizer has {found.vocab_size} tokens, the config says vocab_size "
                f"{cfg.vocab_size}: one of the two is another model's"
            )
        return f"{found.vocab_size:,} tokens, for a vocabulary of {cfg.vocab_size:,}"

    def weights() -> str:
        rows = huggingface_rows(cfg, classifier=bool(labels))
        tensors = TensorFiles(folder, architecture_of(cfg))
        model = build_model(cfg, tensors, rows, str(folder), num_classes=len(labels))
        broken = [n for n, p in model.named_parameters() if not torch.isfinite(p).all()]
        if broken:
            raise UserError(f"not all numbers are finite in {first_ten(broken)}")
        return _parameters(model)

    yield _tried(f"{name}tokenizer", tokenizer)
    yield _tried(f"{name}weights", weights)


def _parameters(model: Any) -> str:
    cfg = model.cfg
    return f"{model.num_parameters():,} parameters: {cfg.n_layers} blocks of width {cfg.emb_dim}"


def _training_state(folder: Path, name: str) -> Check:
    """What it takes to go on: it can be read, and is of these weights."""
    import torch

    from groundup.model.classifier import set_trainable
    from groundup.tasks.reproduce import CONFIGS
    from groundup.train.optim import build_optimizer
    from groundup.train.state import FOLDER, STATE, load_training_state
    from groundup.weights.load import load_model

    title = f"{name}training state"
    if not (folder / FOLDER / STATE).exists():
        return Check(title, "note", "there is none: no run can go on from here")

    def fits() -> str:
        facts = Facts.read(folder) or Facts()
        train = facts.options.get("train", "all")
        if train == "lora" or facts.task not in CONFIGS:
            return _state_alone(folder, facts)
        model = set_trainable(load_model(folder, verify=False)[0], train)
        optimizer = build_optimizer(model, facts.options_of(CONFIGS[facts.task]))
        with torch.random.fork_rng():
            state = load_training_state(folder, optimizer, torch.device("cpu"), verify=False)
        for group in optimizer.param_groups:
            for p in group["params"]:
                shapes = {tuple(m.shape) for m in optimizer.state[p].values() if m.dim()}
                if shapes - {tuple(p.shape)}:
                    raise UserError(f"moments of shape {shapes} are a weight's of {tuple(p.shape)}")
        return _same_step(state, facts)

    return _tried(title, fits)


def _state_alone(folder: Path, facts: Facts) -> str:
    """For LoRA, whose base is not here: it can be read, and has both moments of each matrix."""
    from groundup.files import read_json
    from groundup.train.state import FOLDER, STATE, TENSORS
    from groundup.weights.tensors import load_tensors

    tensors = load_tensors(folder / FOLDER / TENSORS, "cpu")
    shapes = {n: t.shape for n, t in tensors.items() if not n.startswith("rng.")}
    for index in range(len({name.split(".")[0] for name in shapes})):
        first, second = (shapes.get(f"{index}.{n}") for n in ("exp_avg", "exp_avg_sq"))
        if first is None or first != second:
            raise UserError(f"it lacks a moment of the parameter number {index}")
    return _same_step(read_json(folder / FOLDER / STATE), facts)


def _same_step(state: dict[str, Any], facts: Facts) -> str:
    step, said = state["progress"]["step"], facts.progress.get("step")
    if said not in (None, step):
        raise UserError(f"it is of step {step}, the weights are of step {said:g}")
    return f"of step {step:,}; a run can go on from here"


def _records(run: Path, last: Path) -> Iterator[Check]:
    """The measurements and samples: whole, and not behind the last checkpoint."""
    from groundup.train.tracking import METRICS, is_evaluation, read_metrics, read_samples

    def metrics() -> str:
        records = read_metrics(run)
        steps = [int(r["step"]) for r in records if not is_evaluation(r)]
        gaps = [b for a, b in zip([0, *steps], steps, strict=False) if b != a + 1]
        if gaps:
            raise UserError(f"{METRICS}: step {gaps[0]} does not follow the one before it")
        facts = Facts.read(last) if last.is_dir() else None
        saved = facts.progress.get("step", 0) if facts is not None else 0
        if saved > (steps[-1] if steps else 0):
            raise UserError(f"{METRICS} ends before step {saved:g}, which is saved")
        torn = not (run / METRICS).read_bytes().endswith(b"\n") and bool(steps)
        return f"{len(steps):,} steps" + ("; the last line is incomplete, and ignored" * torn)

    yield _tried("metrics", metrics)
    yield _tried("samples", lambda: f"{len(read_samples(run)):,}")


def _tried(name: str, what: Callable[[], str]) -> Check:
    """A check that is passed if nothing is raised."""
    try:
        return Check(name, "ok", what())
    except UserError as error:
        return Check(name, "problem", str(error), COPY)
    except (KeyError, TypeError) as error:
        return Check(name, "problem", f"it is not what a run writes: {error!r}", COPY)

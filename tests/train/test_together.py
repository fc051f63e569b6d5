"""Several processes give what one gives: DDP and FSDP2 over gloo, on the CPU."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import groundup.tasks.classify
import groundup.tasks.run
from groundup.data.classification import LabelledTexts
from groundup.data.prepare import prepare
from groundup.tasks.classify import train_classifier
from groundup.tasks.instruct import train_assistant
from groundup.tasks.mixture import Mixture
from groundup.tasks.pretrain import pretrain
from groundup.tokenizers import BPETokenizer
from groundup.train.state import FOLDER, TENSORS
from groundup.train.tracking import read_metrics
from groundup.weights.load import load_model
from tests.conftest import LAST, TEXT, facts_of
from tests.labelled import labelled
from tests.tasks.test_instruct import ENTRIES, save_base
from tests.train.together import together

STEPS = 20
GLOBAL = 12
"""Examples of a batch of all processes."""

SIZES = {"sample_tokens": 0, "eval_freq": 10, "eval_iter": 2, "threads": 1, "precision": "fp32"}
QUIET: dict[str, Any] = {"say": lambda text: None}


def _pretrain(out: Path, each: int, world: int, **changes: Any) -> None:
    """With accumulation, tied weights and clipping."""
    how: dict[str, Any] = SIZES | {"batch_size": each, "max_steps": STEPS, "grad_accum_steps": 2}
    how |= {"learning_rate": 3e-3, "lr_schedule": "constant", "warmup_steps": 0}
    how |= {"eval_iter": 12 // (each * world) or 1, "grad_clip": 0.5}
    shape = {"context_length": 16, "emb_dim": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 300}
    shape |= {"tie_weights": True, "drop_rate": 0.0}
    resume = changes.pop("resume", False)
    given = how | changes
    if resume:
        given = {"max_steps": STEPS, "parallel": given.get("parallel", "auto")}
        given |= {"batch_size": each} if each * world == GLOBAL else {}
        shape = {}
    else:
        shape |= {n: given.pop(n) for n in ("drop_rate", "tie_weights") if n in given}
    pretrain([TEXT * 60], out, given, shape, resume=resume, **QUIET)


def _classify(out: Path, each: int, world: int, base: Path, **changes: Any) -> None:
    """Of uneven classes and lengths, most of it frozen; its last batch has one text only."""
    even = labelled()
    kept = [n for n in range(54) if n % 8]  # 27 of one class, 20 of the other
    texts, labels = ([column[n] for n in kept] for column in (even.texts, even.labels))
    data = LabelledTexts(texts, labels, kept, "toy")
    how = {"train_ratio": 0.8, "val_ratio": 0.2, "balance": "weights", "train": "last-block"}
    how |= SIZES | {"model": str(base), "batch_size": each, "max_steps": STEPS, "eval_freq": 5}
    train_classifier(data, out, how | {"learning_rate": 3e-3} | changes, {}, **QUIET)


def _instruct(out: Path, each: int, world: int, base: Path, **changes: Any) -> None:
    """With masked prompts, LoRA, and answers shown on the way."""
    how = {"model": str(base), "style": "plain", "train_on": "response", "train": "lora"}
    how |= {
        "sample_answers": 1,
        "epochs": 7,
        "max_steps": STEPS,
        "learning_rate": 3e-3,
        "lora_dropout": 0.0,
    }
    how |= {n: SIZES[n] for n in ("eval_freq", "threads", "precision")} | {"batch_size": each}
    train_assistant(ENTRIES, out, how | changes, {}, **QUIET)


def _mixed(out: Path, each: int, world: int, corpora: Path, **changes: Any) -> None:
    """On two corpora by shares, of which the smaller is gone through several times."""
    shares = {str(corpora / "books"): 0.6, str(corpora / "code"): 0.4}
    how = SIZES | {"batch_size": each, "max_steps": STEPS, "learning_rate": 3e-3}
    how |= {"eval_iter": 12 // (each * world) or 1, "mix": [f"{n}={w}" for n, w in shares.items()]}
    shape = {"context_length": 16, "emb_dim": 32, "n_heads": 4, "n_layers": 1, "drop_rate": 0.0}
    pretrain(Mixture(shares), out, how | changes, shape, **QUIET)


def _all(folder: Path, each: int, world: int, **changes: Any) -> None:
    base = folder.parent / "base"
    _pretrain(folder / "pretrain", each, world, **changes)
    _classify(folder / "classify", each, world, base, **changes)
    _instruct(folder / "instruct", each, world, base, **changes)


def _without_pictures() -> None:
    _patch(setattr)


def _patch(set_to: Callable[[Any, str, Any], None]) -> None:
    set_to(groundup.tasks.run, "plot_run", lambda out: [])
    set_to(groundup.tasks.run, "write_page", lambda out: None)
    set_to(groundup.tasks.classify, "write_report", lambda reports, out: None)


def two(folder: str) -> None:
    """What two processes do."""
    _without_pictures()
    for how in ("ddp", "fsdp"):
        _all(Path(folder) / how, 6, 2, parallel=how)
        half = partial(_pretrain, each=6, world=2, parallel=how, drop_rate=0.1)
        half(Path(folder) / f"{how}-whole")
        half(Path(folder) / f"{how}-half", max_steps=STEPS // 2)
        half(Path(folder) / f"{how}-half", resume=True)
        _pretrain(Path(folder) / f"{how}-two", 6, 2, parallel=how, max_steps=STEPS // 2)
    _mixed(Path(folder) / "mixed-two", 6, 2, Path(folder), parallel="ddp")


def three(folder: str) -> None:
    """What three processes do, of which some go on with what two have begun."""
    _without_pictures()
    for how in ("ddp", "fsdp"):
        for name in ("three", "more"):
            shutil_copy(Path(folder) / f"{how}-two", Path(folder) / f"{how}-{name}")
        _pretrain(Path(folder) / f"{how}-three", 4, 3, parallel=how, resume=True)
        _pretrain(Path(folder) / f"{how}-more", 6, 3, parallel=how, resume=True)
    half = partial(_pretrain, each=4, world=3, parallel="ddp", drop_rate=0.1)
    half(Path(folder) / "of-three-whole")
    half(Path(folder) / "of-three-half", max_steps=STEPS // 2)
    half(Path(folder) / "of-three-half", resume=True)


def shutil_copy(source: Path, target: Path) -> None:
    """Copy a run; every process may be asked to."""
    import torch.distributed as dist

    if dist.get_rank() == 0:
        shutil.copytree(source, target)
    dist.barrier()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tokenizer: BPETokenizer) -> Path:
    """All runs, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("together")
    torch.manual_seed(1)
    # A bias of keys has no effect, so its gradient is rounding, which AdamW makes a step of.
    save_base(folder / "base", tokenizer, context_length=64, qkv_bias=False)
    for name, text in (("books", TEXT * 30), ("code", "def f(x): return x + 1\n" * 60)):
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        prepare([str(folder / f"{name}.txt")], folder / name, tokenizer, workers=1, **QUIET)
    with pytest.MonkeyPatch.context() as patch:
        _patch(patch.setattr)
        _all(folder / "one", GLOBAL, 1)
        _mixed(folder / "mixed-one", GLOBAL, 1, folder)
        printed = together(2, f"{__name__}:two", folder)
        assert not any(map(_shown, printed)), printed
        printed = together(3, f"{__name__}:three", folder)
        assert not any(map(_shown, printed)), printed
        for how in ("ddp", "fsdp"):
            shutil.copytree(folder / f"{how}-two", folder / f"{how}-one")
            _pretrain(folder / f"{how}-one", GLOBAL, 1, resume=True)
    return folder


def _shown(printed: str) -> bool:
    """Whether a process has said more than the lines of evaluations that the main one says."""
    return any(not line.startswith(("step ", "  ")) for line in printed.splitlines() if line)


def column(run: Path, name: str) -> list[float]:
    return [record[name] for record in read_metrics(run) if name in record]


def same_numbers(ours: Path, theirs: Path) -> bool:
    """Whether two runs differ by rounding only, which AdamW makes larger step by step."""
    exact = ("step", "epoch", "tokens_seen", "examples_seen", "val_accuracy", "learning_rate")
    assert len(column(ours, "loss")) > STEPS
    return (
        all(column(ours, name) == column(theirs, name) for name in exact)
        and column(ours, "loss") == pytest.approx(column(theirs, "loss"), rel=1e-5)
        and column(ours, "val_loss") == pytest.approx(column(theirs, "val_loss"), rel=1e-5)
        and column(ours, "grad_norm") == pytest.approx(column(theirs, "grad_norm"), rel=1e-3)
        and farthest(weights(ours), weights(theirs)) < 1e-4
    )


def weights(run: Path, at: str = LAST) -> dict[str, torch.Tensor]:
    return load_file(run / at / "model.safetensors")


def moments(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / LAST / FOLDER / TENSORS)


def farthest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert sorted(ours) == sorted(theirs)
    return max((ours[n] - theirs[n]).abs().max().item() for n in ours)


def same_bits(ours: Path, theirs: Path) -> bool:
    pairs = [(weights(run), moments(run)) for run in (ours, theirs)]
    names = ("step", "loss", "grad_norm", "val_loss", "tokens_seen")
    return all(column(ours, name) == column(theirs, name) for name in names) and all(
        sorted(a) == sorted(b) and all(torch.equal(a[n], b[n]) for n in a)
        for a, b in zip(*pairs, strict=True)
    )


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize("task", ["pretrain", "classify", "instruct"])
def test_two_processes_train_as_one_with_the_same_global_batch(
    runs: Path, how: str, task: str
) -> None:
    one, ours = runs / "one" / task, runs / how / task
    assert same_numbers(ours, one)
    assert facts_of(ours).processes == 2 and facts_of(one).processes == 1
    if task == "classify":  # the second process has nothing of the last batch
        assert (facts_of(one).data.train_examples or 0) % GLOBAL == 1


def test_a_mixture_is_dealt_to_two_processes_as_to_one(runs: Path) -> None:
    one, ours = runs / "mixed-one", runs / "mixed-two"
    assert same_numbers(ours, one)
    for name in ("books", "code"):
        assert column(ours, f"epochs.{name}") == column(one, f"epochs.{name}")
        assert column(ours, f"val_loss.{name}") == pytest.approx(
            column(one, f"val_loss.{name}"), rel=1e-5
        )
    assert 1 < column(one, "epochs.code")[-1] > column(one, "epochs.books")[-1] > 0


@pytest.mark.parametrize("how", ["ddp", "fsdp", "of-three"])
def test_a_run_that_goes_on_with_as_many_processes_is_the_same_to_the_bit(
    runs: Path, how: str
) -> None:
    assert same_bits(runs / f"{how}-half", runs / f"{how}-whole")
    world = 3 if how == "of-three" else 2
    numbers = [name for name in moments(runs / f"{how}-half") if name.startswith("rng.")]
    assert sorted(numbers) == sorted(["rng.cpu", *(f"rng.cpu.{r}" for r in range(1, world))])


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize("world", ["one", "three"])
def test_what_two_processes_saved_is_gone_on_with_by_one_or_three(
    runs: Path, how: str, world: str
) -> None:
    one, ours = runs / "one/pretrain", runs / f"{how}-{world}"
    assert same_numbers(ours, one)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_with_larger_steps_no_example_is_seen_twice_in_an_epoch(runs: Path, how: str) -> None:
    """18 windows a batch instead of 12, after 10 steps of 24."""
    records = read_metrics(runs / f"{how}-more")
    seen = [r["examples_seen"] for r in records if "val_loss" not in r]
    assert seen[:10] == [24 * (n + 1) for n in range(10)]
    steps = {after - before for before, after in zip(seen[9:], seen[10:], strict=False)}
    assert 36 in steps and max(steps) == 36


def test_a_sharded_model_is_saved_as_every_other(runs: Path) -> None:
    for task in ("pretrain", "classify", "instruct"):
        files = [
            sorted(
                p.relative_to(runs / how / task).as_posix() for p in (runs / how / task).rglob("*")
            )
            for how in ("one", "fsdp")
        ]
        assert files[0] == files[1]
    model, tokenizer = load_model(runs / "fsdp/pretrain")
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(runs / "fsdp/pretrain")
    ids = torch.tensor([tokenizer.encode("The quick brown")])
    with torch.no_grad():
        torch.testing.assert_close(
            model.eval()(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4, check_dtype=False
        )

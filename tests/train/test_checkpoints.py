import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.errors import UserError
from groundup.facts import Facts
from groundup.files import write_json
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora
from groundup.tasks.outdir import prepare_output
from groundup.tokenizers import BPETokenizer
from groundup.train import checkpoints
from groundup.train.best import Best
from groundup.train.checkpoints import (
    Checkpoints,
    can_resume,
    check_space,
    finish_publishing,
    kept_steps,
    last_checkpoint,
    load_last,
    sound_checkpoint,
)
from groundup.train.config import TrainConfig
from groundup.train.optim import build_optimizer
from groundup.train.state import save_training_state, training_tensors
from groundup.train.trainer import Progress
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model
from tests.conftest import tiny_config

CPU = torch.device("cpu")


class Run:
    """A run whose every step adds 1 to the weights of the last norm, which start at 0."""

    def __init__(self, out: Path, tokenizer: BPETokenizer, **more: Any) -> None:
        self.out, self.step, self.best = out, 0, Best()
        self.model = GPTModel(tiny_config(vocab_size=tokenizer.vocab_size))
        self.optimizer = build_optimizer(self.model, TrainConfig(learning_rate=1e-3))
        facts = Facts(task="pretrain", options={"seed": 7})
        self.tokenizer, self.facts = tokenizer, facts
        self.checkpoints = Checkpoints(
            out, self.model, tokenizer, facts, self.optimizer, CPU, **more
        )

    def train(self) -> None:
        """One step, which gives the optimizer its moments too."""
        for p in self.model.parameters():
            p.grad = torch.full_like(p, self.step + 1.0)
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            self.model.get_parameter("final_norm.shift").fill_(self.step)

    def save(self, val_loss: float | None = None, *, due: bool = True) -> None:
        """Train for a step, then save as the loop does after an evaluation."""
        self.train()
        record = {"step": self.step, "epoch": 0.5}
        if val_loss is not None:
            record["val_loss"] = val_loss
        best = self.best.update(record)
        if best or due:
            self.checkpoints.save(self.state(), record, best=best, due=due)

    def state(self) -> dict[str, Any]:
        return {
            "progress": asdict(Progress(self.step)),
            "data": {"epoch": 0, "batch": self.step},
            "best": asdict(self.best),
        }


def step_of(out: Path, checkpoint: str | None = None) -> int:
    """The step whose model a directory holds; its weights and what is said of it agree."""
    model, _ = load_model(out, checkpoint=checkpoint)
    assert model.facts is not None
    shift = model.get_parameter("final_norm.shift")
    assert model.facts.progress["step"] == shift[0] == shift.mean()
    return int(shift[0])


def test_the_root_is_the_best_model_and_last_has_the_training_state(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    out = tmp_path / "run"
    run = Run(out, tokenizer)
    assert not can_resume(out)
    for step, val_loss, best in ((1, 3.0, 1), (2, 2.0, 2), (3, 2.5, 2), (4, 2.2, 2), (5, 1.0, 5)):
        run.save(val_loss)
        assert (step_of(out), step_of(out, "last")) == (best, step)
    last = out / "checkpoints" / "last"
    assert (last / "training_state" / "optimizer.safetensors").exists()
    assert not (out / "training_state").exists()
    names = {path.name for path in last.iterdir()} - {"training_state"}
    assert names == {path.name for path in out.iterdir()} - {"checkpoints"}
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"last"}
    for folder in (out, last):
        assert (folder / "README.md").read_text("utf-8").count("run") and Facts.read(
            folder
        ) is not None
    assert can_resume(out) and last_checkpoint(out) == last


def test_a_better_model_is_kept_also_where_no_checkpoint_is_due(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    run = Run(tmp_path, tokenizer)
    run.save(3.0, due=False)
    assert step_of(tmp_path) == 1
    assert not (tmp_path / "checkpoints").exists()
    run.save(3.5)
    run.save(2.0, due=False)
    run.save(2.5, due=False)
    assert (step_of(tmp_path), step_of(tmp_path, "last")) == (3, 2)
    run.save(2.5)
    assert (step_of(tmp_path), step_of(tmp_path, "last")) == (3, 5)


def test_without_validation_the_root_is_the_last_model(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    run = Run(tmp_path, tokenizer)
    for step in (1, 2, 3):
        run.save()
        assert step_of(tmp_path) == step_of(tmp_path, "last") == step


def test_where_validation_says_nothing_the_root_is_the_last_model(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    run = Run(tmp_path, tokenizer)
    for step, val_loss in ((1, None), (2, float("nan")), (3, None)):
        run.save(val_loss)
        assert step_of(tmp_path) == step_of(tmp_path, "last") == step
    run.save(2.0)
    run.save()
    assert (step_of(tmp_path), step_of(tmp_path, "last")) == (4, 5)


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_the_newest_older_checkpoints_are_kept(
    tmp_path: Path, tokenizer: BPETokenizer, keep: int
) -> None:
    run = Run(tmp_path, tokenizer, keep=keep)
    run.step = 7  # so that 10 comes after 9 also by number
    mine = tmp_path / "checkpoints" / "step-of-mine"
    mine.mkdir(parents=True)
    for step in range(8, 12):
        run.save(1 / step)
    kept = kept_steps(tmp_path)
    assert [path.name for path in kept] == ["step-9", "step-10", "step-11"][3 - keep :]
    for path in kept:
        step = int(path.name.removeprefix("step-"))
        assert step_of(tmp_path, path.name) == step_of(path) == step
        again = Run(tmp_path, tokenizer)
        state = load_last(tmp_path, again.optimizer, CPU, checkpoint=path)
        assert state["progress"]["step"] == step
    assert mine.exists()


def test_files_are_linked_and_what_is_kept_never_changes(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    run, name = Run(tmp_path, tokenizer, keep=1), "model.safetensors"
    run.save(1.0)
    last, kept = (tmp_path / "checkpoints" / folder / name for folder in ("last", "step-1"))
    assert last.samefile(kept) and last.samefile(tmp_path / name)
    moments = "training_state/optimizer.safetensors"
    assert (last.parent / moments).samefile(kept.parent / moments)
    before = kept.read_bytes()
    run.checkpoints.keep = 2
    run.save(2.0)
    assert last.read_bytes() != before == kept.read_bytes() == (tmp_path / name).read_bytes()


def test_files_are_copied_where_they_cannot_be_linked(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError("this file system has no hard links")

    monkeypatch.setattr("os.link", refuse)
    run = Run(tmp_path, tokenizer, keep=1)
    add_lora(run.model)
    run.save(1.0)
    for folder in (tmp_path, tmp_path / "checkpoints" / "step-1"):
        for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
            ours, last = folder / name, tmp_path / "checkpoints" / "last" / name
            assert ours.read_bytes() == last.read_bytes() and not ours.samefile(last)


def test_an_adapter_goes_along(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    run = Run(tmp_path, tokenizer, keep=1)
    add_lora(run.model)
    run.save(1.0)
    names = {p.name for p in (tmp_path / "checkpoints" / "last" / "adapter").iterdir()}
    assert "adapter_config.json" in names
    for folder in (tmp_path, tmp_path / "checkpoints" / "step-1"):
        assert {p.name for p in (folder / "adapter").iterdir()} == names


def test_a_run_goes_on_with_moments_random_numbers_and_state(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    run = Run(tmp_path, tokenizer)
    run.save(2.0)
    run.save(3.0)
    expected = torch.rand(3)
    torch.manual_seed(99)
    again = Run(tmp_path, tokenizer)
    assert load_last(tmp_path, again.optimizer, CPU) == run.state()
    assert torch.equal(torch.rand(3), expected)
    before, after = (r.optimizer.state_dict()["state"] for r in (run, again))
    assert before.keys() == after.keys() and len(before) > 5
    for index, moments in before.items():
        assert moments.keys() == after[index].keys()
        assert all(torch.equal(value, after[index][key]) for key, value in moments.items())
    assert step_of(tmp_path) == 1


@pytest.mark.parametrize("earlier", [0, 1, 2])
def test_a_best_model_that_a_crash_left_unpublished_is_published(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch, earlier: int
) -> None:
    """The run died between writing its last checkpoint and calling it the best."""
    run = Run(tmp_path, tokenizer)
    for number in range(earlier):
        run.save(3.0 - number)

    class Crash(BaseException):
        """Nothing catches it."""

    def die(checkpoint: Path, target: Path) -> None:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(checkpoints, "publish", die)
        run.save(0.5)
    assert (tmp_path / "model.safetensors").exists() == (earlier > 0)
    assert not earlier or step_of(tmp_path) == earlier
    again = Run(tmp_path, tokenizer)
    state = load_last(tmp_path, again.optimizer, CPU)
    assert state == run.state() and state["best"]["step"] == earlier + 1
    finish_publishing(tmp_path, last_checkpoint(tmp_path), state)
    assert step_of(tmp_path) == step_of(tmp_path, "last") == earlier + 1


def test_there_must_be_a_state_and_it_must_fit(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    run = Run(tmp_path / "run", tokenizer)
    with pytest.raises(UserError, match="has no training_state to resume from; start a new run"):
        load_last(tmp_path / "run", run.optimizer, CPU)
    run.save(1.0)
    other = GPTModel(tiny_config(n_layers=1))
    optimizer = build_optimizer(other, TrainConfig())
    with pytest.raises(UserError, match=r"does not fit this model: it has moments of \d+ param"):
        load_last(tmp_path / "run", optimizer, CPU)


# A last checkpoint that is damaged.


def flip(path: Path) -> None:
    """Damage a file in its place, so that what is linked to it is damaged, too."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


STATE_FILE, MOMENTS = "training_state/state.json", "training_state/optimizer.safetensors"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", STATE_FILE, MOMENTS, "groundup.json"]
)
def test_of_a_damaged_last_checkpoint_the_one_before_is_gone_on_from(
    tmp_path: Path, tokenizer: BPETokenizer, name: str
) -> None:
    run = Run(tmp_path, tokenizer, keep=2)
    for val_loss in (3.0, 2.0, 1.0):
        run.save(val_loss)
    last, before = (tmp_path / "checkpoints" / folder for folder in ("last", "step-2"))
    assert sound_checkpoint(tmp_path) == (last, "")
    flip(last / name)
    found, warning = sound_checkpoint(tmp_path)
    assert found == before and f"{last} is not as it was saved ({name}" in warning
    assert f"goes on from {before} instead" in warning
    assert sound_checkpoint(tmp_path, verify=False) == (last, "")
    again = Run(tmp_path, tokenizer, keep=2)
    state = load_last(tmp_path, again.optimizer, CPU, checkpoint=found)
    finish_publishing(tmp_path, found, state)
    assert kept_steps(tmp_path) == [before]
    assert step_of(tmp_path) == 2  # the best one by then
    again.step, again.best = state["progress"]["step"], Best(**state["best"])
    again.save(0.5)
    assert sound_checkpoint(tmp_path) == (last, "")
    assert (step_of(tmp_path), step_of(tmp_path, "last")) == (3, 3)
    assert [path.name for path in kept_steps(tmp_path)] == ["step-2", "step-3"]


def test_a_last_checkpoint_that_is_gone_is_no_dead_end(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    run = Run(tmp_path, tokenizer, keep=2)
    for _ in range(3):
        run.save()
    shutil.rmtree(tmp_path / "checkpoints" / "last")
    assert can_resume(tmp_path)
    found, warning = sound_checkpoint(tmp_path)
    assert found.name == "step-3" and f"; {STATE_FILE}: it is missing)" in warning


def test_what_a_crash_left_half_deleted_is_not_gone_on_from(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, tokenizer, keep=2)
    run.save()
    run.save()

    class Crash(BaseException):
        """Nothing catches it."""

    def die(path: Path, **how: object) -> None:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(shutil, "rmtree", die)
        checkpoints.delete_kept(tmp_path / "checkpoints" / "step-1")
    flip(tmp_path / "checkpoints" / "last" / MOMENTS)
    with pytest.raises(UserError, match=r"nor is .*step-1 \(groundup.json: it is missing\)"):
        sound_checkpoint(tmp_path)
    with prepare_output(tmp_path, overwrite=False, resume=True)():
        assert [path.name for path in kept_steps(tmp_path)] == ["step-2"]


def test_where_nothing_is_as_it_was_saved_all_of_it_is_named(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    run = Run(tmp_path, tokenizer)
    run.save()
    flip(tmp_path / "checkpoints" / "last" / MOMENTS)
    with pytest.raises(UserError, match=r"--keep 2 would have kept the one before it.*no-verify"):
        sound_checkpoint(tmp_path)
    run.checkpoints.keep = 2
    run.save()
    run.save()
    flip(tmp_path / "checkpoints" / "last" / MOMENTS)
    (tmp_path / "checkpoints" / "step-2" / "config.json").unlink()
    with pytest.raises(UserError, match=r"nor is .*step-2 \(config.json: it is missing\)"):
        sound_checkpoint(tmp_path)


# Runs of the first version: one checkpoint, in the run's directory itself.


def first_versions_run(out: Path, tokenizer: BPETokenizer) -> Run:
    """A run that the first version saved after 4 steps."""
    run = Run(out, tokenizer)
    for _ in range(4):
        run.train()
    progress: dict[str, Any] = {"step": 4, "epoch": 1, "batch": 2, "tokens_seen": 640}
    progress |= {"examples_seen": 16, "seconds": 1.5}
    save_model(out, run.model, tokenizer)
    save_training_state(out, training_tensors(run.optimizer, CPU), {"progress": progress})
    facts = {"task": "pretrain", "config": dict(run.model.cfg) | {"seed": 7}, "progress": progress}
    write_json(out / "groundup.json", facts)
    return run


def test_a_state_of_the_first_version_is_read(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    run = first_versions_run(tmp_path, tokenizer)
    assert can_resume(tmp_path) and last_checkpoint(tmp_path) == tmp_path
    again = Run(tmp_path, tokenizer)
    state = load_last(tmp_path, again.optimizer, CPU)
    assert Progress(**state["progress"]) == Progress(4, 640, 16, 1.5)
    assert state["data"] == {"epoch": 1, "batch": 2}
    assert Best(**state["best"]) == Best()
    before, after = (r.optimizer.state_dict()["state"] for r in (run, again))
    assert all(torch.equal(before[i]["exp_avg"], after[i]["exp_avg"]) for i in before)
    assert step_of(tmp_path) == 4


def test_a_run_of_the_first_version_goes_on_in_todays_places(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    run = first_versions_run(tmp_path, tokenizer)
    run.save(1.0)
    assert not (tmp_path / "training_state").exists()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "last"
    run.save(2.0)
    assert (step_of(tmp_path), step_of(tmp_path, "last")) == (5, 6)


def test_a_first_versions_state_is_never_beside_another_steps_weights(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    """A better model must not replace the weights that the state in the same place belongs to."""
    run = first_versions_run(tmp_path, tokenizer)
    run.save(1.0, due=False)
    state = load_last(tmp_path, Run(tmp_path, tokenizer).optimizer, CPU)
    assert step_of(last_checkpoint(tmp_path)) == state["progress"]["step"] == 5
    assert step_of(tmp_path) == 5


# Room on the disk.


def test_too_little_space_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 28_000_000  # two checkpoints of a million parameters with moments, and the best one
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    new = tmp_path / "runs" / "new"
    check_space(new, 1_000_000)
    with pytest.raises(UserError, match="they need 27 MiB, 27 MiB are free; free some space"):
        check_space(new, 1_000_001)
    with pytest.raises(UserError, match="they need 38 MiB, 27 MiB are free"):
        check_space(new, 1_000_000, keep=2)
    with pytest.raises(UserError, match="they need 38 MiB"):
        check_space(new, 2_000_000, trained=1_000_000)
    check_space(new, 2_000_000, trained=250_000)  # the others have no moments
    check_space(new, 500_000, keep=3)
    state = tmp_path / "checkpoints" / "last" / "training_state" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({}), "utf-8")
    check_space(tmp_path, 2_333_333)  # one more: the other is there already
    with pytest.raises(UserError, match="no space for checkpoints"):
        check_space(tmp_path, 2_333_334)
    with pytest.raises(UserError, match="they need 53 MiB"):
        check_space(tmp_path, 2_333_333, keep=2)
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step-{step}").mkdir()
    check_space(tmp_path, 2_333_333, keep=2)

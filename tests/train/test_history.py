"""The history of a run: when a snapshot is due, what it holds, what a run that goes on does."""

import shutil
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from groundup.checkup import examine_directory
from groundup.errors import UserError
from groundup.facts import NAME
from groundup.files import read_json
from groundup.model.gpt import GPTModel
from groundup.tasks.config import ClassifyConfig, PretrainConfig
from groundup.tasks.pretrain import pretrain
from groundup.tokenizers import BPETokenizer
from groundup.train.checkpoints import step_of, steps_in
from groundup.train.history import history_steps, snapshots, superfluous
from groundup.train.interrupt import StopRequest
from groundup.train.trainer import Trainer
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model
from tests.conftest import TEXT, Run, facts_of, small, tiny_config

SHAPE = {
    "vocab_size": 300,
    "context_length": 16,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.1,
}
OPTIONS: dict[str, Any] = {
    "batch_size": 4,
    "max_steps": 20,
    "eval_freq": 5,
    "save_freq": 6,
    "keep_history": 6,
    "sample_tokens": 0,
    "precision": "fp32",
    "device": "cpu",
}


def trained(out: Path, resume: bool = False, stop: StopRequest | None = None, **more: Any) -> Path:
    how = {"resume": resume, "stop": stop, "say": lambda text: None}
    pretrain([TEXT * 20], out, OPTIONS | more, None if resume else SHAPE, **how)
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run, which nobody changes."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        without_pictures(patched)
        return trained(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy" / "run")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def without_pictures(patched: pytest.MonkeyPatch) -> None:
    """They take longer than the training."""
    for name in ("plot_run", "write_page"):
        patched.setattr(f"groundup.tasks.run.{name}", lambda *args: None)


def kept(out: Path) -> list[int]:
    return [step_of(path) for path in snapshots(out)]


def test_steps_are_evenly_spaced_on_a_logarithmic_scale() -> None:
    assert history_steps(11, 1024) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert history_steps(4, 1000) == [1, 10, 100, 1000]
    assert history_steps(10, 20) == [1, 2, 3, 4, 5, 6, 7, 10, 14, 20]
    assert history_steps(5, 3) == [1, 2, 3]
    assert history_steps(1, 9) == [9] and history_steps(0, 9) == [] == history_steps(3, 0)


@given(st.integers(2, 60), st.integers(2, 100_000))
def test_steps_begin_with_the_first_and_end_with_the_last(count: int, total: int) -> None:
    steps = history_steps(count, total)
    assert (steps[0], steps[-1], len(steps)) == (1, total, min(count, total))
    assert all(a < b for a, b in pairwise(steps))


def test_what_is_too_much_is_closest_to_its_neighbours() -> None:
    assert superfluous([1, 2, 4, 5, 8, 16, 32], 6) == [5]
    assert superfluous([1, 2, 3], 5) == [] and superfluous([1, 2, 3], 1) == [2]


def test_snapshots_are_model_directories_of_half_the_size(whole: Path, run: Run) -> None:
    out = whole
    assert kept(out) == history_steps(6, 20)
    assert [path.name for path in snapshots(out)][:2] == ["step-000001", "step-000002"]
    for path in snapshots(out):
        model, tokenizer = load_model(path)
        assert model.tok_emb.weight.dtype == torch.float32 and tokenizer.vocab_size == 300
        assert facts_of(path).progress["step"] == step_of(path)
        assert {t.dtype for t in load_file(path / "model.safetensors").values()} == {torch.half}
    last, _ = load_model(out, checkpoint="last")
    half, _ = load_model(out, checkpoint="history/step-000020")
    for a, b in zip(last.parameters(), half.parameters(), strict=True):
        assert torch.equal(a.half().float(), b)
    sizes = [path.stat().st_size for path in out.glob("*/*/model.safetensors")]
    assert min(sizes) < 0.6 * max(sizes)
    found = {check.name: check for check in examine_directory(out)}
    assert found["history"].found == "6 snapshots are whole"
    assert run("generate", out, "The", "--checkpoint", "history/step-000001").status == 0
    assert read_json(out / "history/step-000001/config.json")["dtype"] == "float16"


def test_a_run_without_a_history_keeps_none(tmp_path: Path) -> None:
    assert not (trained(tmp_path / "run", keep_history=0, max_steps=2) / "history").exists()


@pytest.mark.parametrize("stop_at", [3, 11])
def test_a_resumed_run_has_the_history_of_an_undisturbed_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Also where it died after its last checkpoint, in the middle of a snapshot."""
    stop = StopRequest()

    class Interrupted(Trainer):
        def _set_learning_rate(self) -> float:
            if self.progress.step + 1 == stop_at:
                stop.request()
            return super()._set_learning_rate()

    monkeypatch.setattr("groundup.tasks.run.Trainer", Interrupted)
    broken = trained(tmp_path / "broken" / "run", stop=stop)
    later = broken / "history" / "step-000019"
    save_model(later, load_model(broken)[0], load_model(broken)[1])
    half = broken / "history" / "step-000002" / ".saving-x"
    half.mkdir()
    (broken / "history" / "step-000018").mkdir()
    trained(broken, resume=True)
    assert not later.exists() and not half.exists()
    assert [p.name for p in steps_in(broken / "history")] == [p.name for p in snapshots(whole)]
    for a, b in zip(snapshots(whole), snapshots(broken), strict=True):
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (a / name).read_bytes() == (b / name).read_bytes(), (a, name)


def test_a_longer_run_keeps_as_many_and_the_last(copy: Path) -> None:
    out = copy
    trained(out, resume=True, max_steps=26)
    steps = kept(out)
    assert len(steps) == 6 and steps[0] == 1 and steps[-1] == 26
    trained(out, resume=True, max_steps=27, keep_history=0)  # leaves what is there
    assert kept(out) == steps


def test_a_run_that_gets_no_better_ends_with_a_snapshot(tmp_path: Path) -> None:
    how = {"learning_rate": 1e-9, "max_steps": 400, "patience": 1, "eval_freq": 1}
    out = trained(tmp_path / "run", **how)
    assert kept(out)[-1] == facts_of(out / "checkpoints" / "last").progress["step"] < 400


def test_what_is_half_written_is_no_snapshot_and_is_told(copy: Path) -> None:
    out = copy
    (snapshots(out)[1] / NAME).unlink()
    assert kept(out) == [1, *history_steps(6, 20)[2:]]
    (snapshots(out)[0] / "model.safetensors").write_bytes(b"damaged")
    found = {check.name: check for check in examine_directory(out)}
    assert found["history"].found == "4 snapshots are whole"
    assert found["history/step-000002"].level == "note"
    assert found["history/step-000001: files"].level == "problem"


def test_numbers_too_large_for_fp16_stay_as_they_are(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    model = GPTModel(tiny_config())
    with torch.no_grad():
        model.get_parameter("pos_emb.weight")[0, 0] = 1e6
    save_model(tmp_path, model, tokenizer, half=True)
    assert load_model(tmp_path)[0].get_parameter("pos_emb.weight")[0, 0] == 1e6
    types = {n: t.dtype for n, t in load_file(tmp_path / "model.safetensors").items()}
    assert types["transformer.wpe.weight"] == torch.float32
    assert types["transformer.wte.weight"] == torch.half


def test_a_mistake_is_told(whole: Path, fails: Any, text_file: Path) -> None:
    assert "keep_history" in asdict(ClassifyConfig())
    with pytest.raises(UserError, match="keep_history is -1; expected 0 or more"):
        PretrainConfig(keep_history=-1)
    assert "has no checkpoint" in fails("generate", whole, "a", "--checkpoint", "history/x")
    again = ["--out", whole, *small("--max-steps=2")]
    assert "exists" in fails("pretrain", text_file, *again)


def test_overwriting_begins_anew(copy: Path, run: Run, text_file: Path) -> None:
    done = run("pretrain", text_file, "--out", copy, "--overwrite", *small("--max-steps=2"))
    assert done.status == 0 and not (copy / "history").exists()

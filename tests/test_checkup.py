"""`groundup doctor MODEL` finds what is wrong with a directory, and changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.checkup import examine_directory
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.weights.checkpoint import save_model
from tests.conftest import LAST, Run, tiny_config, unvouched


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an older checkpoint; what is tested gets a copy."""
    from groundup.tasks.pretrain import pretrain
    from tests.conftest import TEXT

    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("trained") / "run"
    options = {"max_steps": 4, "eval_freq": 2, "save_freq": 2, "keep": 2, "batch_size": 4}
    options |= {"sample_tokens": 2, "precision": "fp32", "device": "cpu"}
    shape = {"emb_dim": 32, "n_heads": 4, "n_layers": 2, "context_length": 16, "vocab_size": 300}
    pretrain([TEXT * 30], out, options, shape, say=lambda text: None)
    return out


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    import shutil

    return shutil.copytree(trained, tmp_path / "run")


def problems(directory: Path) -> dict[str, str]:
    return {c.name: c.found for c in examine_directory(directory) if c.level == "problem"}


def test_all_of_a_run_is_in_order(trained: Path) -> None:
    checks = list(examine_directory(trained))
    assert {check.level for check in checks} == {"ok"}
    found = {check.name: check.found for check in checks}
    assert found["metrics"] == "4 steps" and found["files"] == "4 files are as they were saved"
    assert found["last: training state"] == "of step 4; a run can go on from here"
    assert found["step-2: training state"] == "of step 2; a run can go on from here"


@pytest.mark.parametrize("where", ["", LAST, "checkpoints/step-2"])
def test_a_changed_file_is_named_wherever_it_is(copy: Path, where: str) -> None:
    path = copy / where / "tokenizer.json"
    path.write_text(path.read_text("utf-8") + " ", "utf-8")
    name = Path(where).name
    expected = {f"{name}: files".removeprefix(": "): "tokenizer.json: its SHA-256 is another one"}
    assert problems(copy) == expected


def test_a_missing_training_state_and_a_damaged_one(copy: Path) -> None:
    (copy / LAST / "training_state" / "optimizer.safetensors").unlink()
    state = copy / "checkpoints" / "step-2" / "training_state" / "state.json"
    state.write_text("[", "utf-8")
    found = problems(copy)
    assert set(found) == {
        f"{n}: {w}" for n in ("last", "step-2") for w in ("files", "training state")
    }
    assert "optimizer.safetensors: it is missing" in found["last: files"]
    assert "state.json" in found["step-2: training state"]


def test_without_checksums_the_contents_are_looked_at(copy: Path) -> None:
    """As for a directory of the first version, or of another program."""
    for folder in (copy, copy / LAST, copy / "checkpoints" / "step-2"):
        unvouched(folder)
    config = json.loads((copy / "config.json").read_text("utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"n_layer": 3}), "utf-8")
    config["vocab_size"] = 290
    (copy / LAST / "config.json").write_text(json.dumps(config), "utf-8")
    weights = copy / "checkpoints" / "step-2" / "model.safetensors"
    tensors = load_file(weights)
    tensors["transformer.ln_f.bias"][0] = float("nan")
    save_file(tensors, weights)
    found = problems(copy)
    assert "transformer.h.2.ln_1.weight" in found["weights"]
    assert "transformer.wte.weight" in found["last: weights"]
    assert found["step-2: weights"] == "not all numbers are finite in final_norm.shift"


def test_a_state_of_other_weights_does_not_fit(copy: Path) -> None:
    for name in ("last", "step-2"):
        unvouched(copy / "checkpoints" / name)
    path = copy / LAST / "training_state" / "optimizer.safetensors"
    tensors = load_file(path)
    name = next(n for n, t in tensors.items() if n.endswith(".exp_avg") and t.dim() == 2)
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, path)
    state = copy / "checkpoints" / "step-2" / "training_state" / "state.json"
    values = json.loads(state.read_text("utf-8"))
    values["progress"]["step"] = 1
    state.write_text(json.dumps(values), "utf-8")
    found = problems(copy)
    assert "moments of shape" in found["last: training state"]
    assert found["step-2: training state"] == "it is of step 1, the weights are of step 2"


def test_measurements_with_a_gap_a_torn_end_or_too_few(copy: Path) -> None:
    path = copy / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines) + lines[-1][:9], "utf-8")
    ends = {c.name: c.found for c in examine_directory(copy)}["metrics"]
    assert ends == "4 steps; the last line is incomplete, and ignored"
    path.write_text("".join(line for line in lines if '"step": 3,' not in line), "utf-8")
    assert "step 4 does not follow" in problems(copy)["metrics"]
    path.write_text("".join(line for line in lines if '"step": 4,' not in line), "utf-8")
    assert "ends before step 4, which is saved" in problems(copy)["metrics"]
    (copy / "samples.jsonl").write_text("{}\n", "utf-8")
    assert "line 1 is no sample" in problems(copy)["samples"]


def test_a_classifier_alone(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model = to_classifier(GPTModel(tiny_config(vocab_size=tokenizer.vocab_size)), 3)
    save_model(tmp_path / "model", model, tokenizer)
    assert [c.level for c in examine_directory(tmp_path / "model")] == ["ok"] * 3


def test_the_command(run: Run, fails: Callable[..., str], tmp_path: Path, copy: Path) -> None:
    good = run("doctor", copy)
    assert good.status == 0 and "last: training state" in good.out
    (copy / "model.safetensors").write_bytes(b"")
    bad = run("doctor", copy)
    assert bad.status == 2 and "model.safetensors: its SHA-256 is another one" in bad.out
    assert "there is no model directory" in fails("doctor", tmp_path / "none")
    assert "is a file" in fails("doctor", copy / "config.json")
    assert "has no effect" in fails("doctor", copy, "--no-network")


def test_lora_whose_base_is_elsewhere(run: Run, model_dir: Path, tmp_path: Path) -> None:
    rows = [f"{kind},{kind} text number {n}" for n in range(10) for kind in ("ham", "spam")]
    (tmp_path / "t.csv").write_text("label,text\n" + "\n".join(rows), "utf-8")
    out, options = tmp_path / "out", ["--train=lora", "--max-steps=1", "--device=cpu"]
    command = ["classify", "train", "--data", tmp_path / "t.csv", "--model", model_dir]
    done = run(*command, "--out", out, *options)
    assert done.status == 0, done.err
    assert problems(out) == {}
    path = out / LAST / "training_state" / "optimizer.safetensors"
    unvouched(out / LAST)
    save_file({n: t for n, t in load_file(path).items() if not n.startswith("0.")}, path)
    assert "lacks a moment of the parameter number 0" in problems(out)["last: training state"]

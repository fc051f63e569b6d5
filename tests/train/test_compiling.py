"""Compiled where that pays, and never the end of a run."""

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from groundup.errors import UserError
from groundup.model.door import accepts, unwrapped
from groundup.model.gpt import GPTModel
from groundup.tasks.pretrain import pretrain
from groundup.train import compiling
from groundup.train.compiling import Compiled, compile_training
from groundup.train.objective import NextToken
from groundup.train.parallel import Parallel
from groundup.train.tracking import read_metrics
from tests.conftest import LAST, TEXT, facts_of, tiny_config
from tests.train.loops import CPU, loader

SHAPE = {"context_length": 16, "emb_dim": 32, "n_heads": 4, "n_layers": 1, "vocab_size": 300}
HOW: dict[str, Any] = {"batch_size": 4, "sample_tokens": 0, "threads": 1, "precision": "fp32"}
HOW |= {"max_steps": 4, "eval_freq": 2}
COMPILE = torch.compile


def broken(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no C++ compiler found\nmore of it")


def with_backend(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend=backend))


def run(out: Path, **changes: Any) -> list[str]:
    said: list[str] = []
    shape = {} if changes.get("resume") else SHAPE
    resume = changes.pop("resume", False)
    options = changes if resume else HOW | changes
    pretrain([TEXT * 20], out, options, shape, say=said.append, resume=resume)
    return said


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(out)]


def test_a_compiled_run_has_the_same_names_and_nearly_the_same_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    assert not any("compile" in line for line in run(plain))  # too short to pay
    assert facts_of(plain).options["compile"] == "off"
    graphs: list[int] = []
    aot = torch._dynamo.lookup_backend("aot_eager")

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return aot(graph, inputs)  # "eager" would draw other numbers for dropout's second time

    with_backend(monkeypatch, backend)
    said = run(compiled, compile="on", activation_checkpointing=True)
    assert any(line.startswith("compile: in ") for line in said) and sum(graphs) > 30
    assert losses(compiled) == pytest.approx(losses(plain), abs=1e-5)
    ours, theirs = (load_file(out / LAST / "model.safetensors") for out in (compiled, plain))
    assert ours.keys() == theirs.keys()
    assert facts_of(compiled).options["compile"] == "on"
    made: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda module: made.append(module) or module)
    run(compiled, resume=True, max_steps=6)
    assert len(made) == 1  # it goes on as it began
    with pytest.raises(UserError, match="would change compile 'on' to 'off'"):
        run(compiled, resume=True, max_steps=8, compile="off")


def test_a_failing_compiler_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, failed = tmp_path / "plain", tmp_path / "failed"
    run(plain)
    with_backend(monkeypatch, broken)
    notes = [line for line in run(failed, compile="on") if "compile" in line]
    assert len(notes) == 1 and "no C++ compiler found" in notes[0] and "\n" not in notes[0]
    assert losses(failed) == losses(plain)
    assert facts_of(failed).options["compile"] == "off"


def test_a_failure_in_the_middle_of_a_run_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    works = [True]
    with_backend(monkeypatch, lambda g, i: g.forward if works[0] else broken(g, i))
    said: list[str] = []
    model = GPTModel(tiny_config(drop_rate=0.0))
    compiled = Compiled(model, said.append)
    assert unwrapped(compiled) is model and accepts(compiled, "targets")
    idx = torch.randint(0, 300, (2, 8))
    assert torch.equal(compiled(idx), model(idx)) and compiled.works
    works[0] = False
    assert torch.equal(compiled(idx[:, :3]), model(idx[:, :3]))  # another shape
    assert not compiled.works and len(said) == 1
    compiled(idx[:, :4])
    assert len(said) == 1


def test_a_mistake_of_the_model_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, "eager")
    compiled = Compiled(GPTModel(tiny_config()), lambda text: None)
    with pytest.raises(UserError, match="the input has 17 tokens"):
        compiled(torch.zeros(1, 17, dtype=torch.long))
    assert compiled.works


def settled(steps: int) -> tuple[str, str]:
    said: list[str] = []
    parallel = Parallel(GPTModel(tiny_config()))
    what = loader(4), NextToken(), CPU, 1, steps, said.append
    found = compile_training(parallel, *what, asked=False)
    assert (found == "on") == isinstance(parallel.trained, Compiled)
    return found, "\n".join(said)


def test_by_itself_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"written": 1.0, "compiled": 0.9}

    @contextmanager
    def trial(*_: object) -> Any:
        yield lambda called: times["compiled" if isinstance(called, Compiled) else "written"]

    monkeypatch.setattr(compiling, "trial", trial)
    monkeypatch.setattr(torch, "compile", lambda module: module)
    assert settled(499) == ("off", "")  # few steps
    assert settled(1199) == ("off", "")  # of a second each: too short a run
    found, said = settled(1200)
    assert found == "on" and "0.90 s compiled, 1.00 s as written" in said
    times["compiled"] = 0.99
    found, said = settled(1200)
    assert found == "off" and said.endswith("it gains too little")

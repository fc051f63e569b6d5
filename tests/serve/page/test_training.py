"""What the training page asks: a run's files, and its snapshots, by a plain computation."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from groundup.errors import UserError
from groundup.files import write_json
from groundup.serve.asking import Problem
from groundup.serve.models import Served
from groundup.serve.page import training
from groundup.serve.page.training import Snapshots
from groundup.tokenizers import BPETokenizer
from groundup.train.history import snapshots
from groundup.weights.load import load_model
from groundup.xray.data import Packed
from tests.serve.conftest import asked_page, client_of, refused_page
from tests.serve.page.runs import EVIL, STEPS, append, record, served_run

TEXT = "The quick brown fox, the quick brown"


@pytest.fixture
def served(run: Path) -> Iterator[Served]:
    yield (found := served_run(run))
    found.runner.close()


@pytest.fixture
def client(served: Served) -> TestClient:
    return client_of(served)


asked, refused = partial(asked_page, model="demo"), partial(refused_page, model="demo")


def test_a_run_is_told_and_then_only_what_is_new(client: TestClient, run: Path) -> None:
    first = asked(client, "run")
    assert first["history"] == list(STEPS)
    told = {name: first[name] for name in ("task", "running", "steps", "prompt")}
    assert told == {"task": "pretrain", "running": False, "steps": 10, "prompt": "The quick"}
    rows = first["metrics"]["rows"]
    assert rows["step"] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]
    assert [x for x in rows["val_loss"] if x is not None] == [8.0 / 5, 8.0 / 10]
    texts = [row["text"] for row in first["samples"]["rows"]]
    assert len(texts) == 2 and "<script>" in texts[0] and "\u202e" not in texts[0]

    known: dict[str, Any] = {
        name: {key: first[name][key] for key in ("id", "offset")} for name in ("metrics", "samples")
    }
    append(run / "metrics.jsonl", record(11))
    second = asked(client, "run", **known)
    assert second["metrics"]["rows"]["step"] == [11] and second["samples"]["rows"] == []
    assert not second["metrics"]["anew"] and not second["samples"]["anew"]


@pytest.mark.parametrize("step", STEPS)
def test_a_snapshot_says_what_its_model_computes(
    client: TestClient, run: Path, step: int, tokenizer: BPETokenizer
) -> None:
    watch = [5, 290]
    told = asked(client, "run/at", step=step, text=TEXT, watch=watch)
    model: Any = load_model(run / "history" / f"step-{step:06}")[0]
    ids = tokenizer.encode(TEXT)
    with torch.no_grad():
        logs = model(torch.tensor([ids]))[0].log_softmax(-1)
    assert [token["id"] for token in told["tokens"]] == ids and told["step"] == step
    for at, token in enumerate(told["tokens"][1:]):
        assert token["surprise"] == pytest.approx(-float(logs[at, ids[at + 1]]), rel=1e-3, abs=1e-3)
        assert token["rank"] == int((logs[at] > logs[at, ids[at + 1]]).sum()) + 1
    for index, watched in zip(watch, told["watched"], strict=True):
        assert watched["logs"] == pytest.approx(logs[:, index].tolist(), rel=1e-3, abs=1e-3)
        assert watched["ranks"] == ((logs > logs[:, [index]]).sum(-1) + 1).tolist()
    for at, after in enumerate(told["next"]):
        assert after["ids"][:5] == logs[at].topk(5).indices.tolist()
    layers, heads, count = told["n_layers"], told["n_heads"], len(ids)
    weights = Packed(**told["attention"]).unpacked(layers, heads, count)
    # Spelled out: softmax of queries times keys of the first layer, below the diagonal.
    block = model.trf_blocks[0]
    hidden = model.tok_emb(torch.tensor(ids)) + model.pos_emb(torch.arange(count))
    normed = block.norm1(hidden)
    query, key = block.att.W_query(normed), block.att.W_key(normed)
    size = query.shape[-1] // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        found = query[:, part] @ key[:, part].T / size**0.5
        mask = torch.triu(torch.ones(count, count, dtype=torch.bool), 1)
        expected = found.masked_fill(mask, -torch.inf).softmax(-1)
        torch.testing.assert_close(
            torch.tensor(weights[0, head]).float(), expected, atol=1e-4, rtol=0
        )


def test_snapshots_differ(client: TestClient) -> None:
    found = [asked(client, "run/at", step=step, text=TEXT)["tokens"] for step in STEPS]
    assert found[0] != found[1] != found[2]


@pytest.mark.anyio
async def test_few_snapshots_stay_open(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(path: Path) -> Any:
        loaded.append(path.name[-2:])
        return load_model(path)

    opened = Snapshots(load)
    monkeypatch.setattr(training, "OPEN", 2)
    for step in (1, 3, 1, 10, 1, 3):
        await opened.get(run, step)
    assert loaded == ["01", "03", "10", "03"]
    monkeypatch.setattr(training, "BYTES", 1)  # one is open whatever its size
    for step in (3, 1, 1):
        await opened.get(run, step)
    assert loaded[4:] == ["01"]
    shutil.copytree(snapshots(run)[2], run / "other")  # a run that is begun anew
    shutil.rmtree(snapshots(run)[0])
    (run / "other").rename(run / "history" / "step-000001")
    await opened.get(run, 1)
    assert loaded[5:] == ["01"]


@pytest.mark.anyio
async def test_a_snapshot_that_is_deleted_meanwhile_is_told(run: Path) -> None:
    def load(path: Path) -> Any:
        shutil.rmtree(path)
        return load_model(path / "config.json")

    with pytest.raises(UserError, match="there is no|was deleted just now"):
        await Snapshots(load).get(run, 3)

    def gone(path: Path) -> Any:
        raise FileNotFoundError(path)

    with pytest.raises(Problem, match="step 1 was deleted just now") as told:
        await Snapshots(gone).get(run, 1)
    assert told.value.status == 404


def test_mistakes_are_told(client: TestClient, run: Path) -> None:
    at = "run/at"
    assert "no snapshot of step 2; there are: 1, 3, 10" in refused(client, at, step=2, text="a")
    assert "step is '../x'" in refused(client, at, step="../x", text="a")
    assert "the text is empty" in refused(client, at, step=1, text="")
    assert "through time 64 at most" in refused(client, at, step=1, text="one two " * 40)
    assert "2,001 characters" in refused(client, at, step=1, text="x" * 2001)
    assert "no token 300" in refused(client, at, step=1, text="a", watch=[300])
    assert "no token -1" in refused(client, at, step=1, text="a", watch=[-1])
    assert "at most 8" in refused(client, at, step=1, text="a", watch=[1] * 9)
    assert "there is no field path" in refused(client, "run", path="/etc")
    assert "there is no model" in client.post("/page/run", json={"model": EVIL}).text
    (run / "metrics.jsonl").unlink()
    assert "demo is no run" in refused(client, "run")


def test_a_run_without_snapshots_or_facts_has_curves(client: TestClient, run: Path) -> None:
    shutil.rmtree(run / "history")
    (run / "groundup.json").write_text("not JSON", "utf-8")
    told = asked(client, "run")
    assert told["history"] == [] and len(told["metrics"]["rows"]["step"]) == 12
    assert "none (--keep-history" in refused(client, "run/at", step=1, text="a")


def test_judged_runs_that_lie_in_a_run_are_told(client: TestClient, run: Path) -> None:
    assert "there is no judged run 0 of demo; there are 0" in refused(client, "judged")
    judged = run / "responses.judge"
    judged.mkdir()
    (judged / "results.json").write_text("{}", "utf-8")
    assert client.get("/page/models").json()[0]["judged"] == 1
    assert "is not what a run of `groundup judge` has written" in refused(client, "judged")
    row = {"entry": 1, "score": 70, "empty": False, "instruction": EVIL, "input": ""}
    row |= {"reference": "b", "response": EVIL, "answers": ["70"], "note": ""}
    summary = {"entries": 1, "scored": 1, "unscored": 0, "empty": 0, "mean": 70.0, "median": 70}
    results = {"against": None, "entries": [row], "summary": summary | {"interval": None}}
    results |= {"template": {"scale": [0, 100], "prompt": "?"}, "responses": "r", "judge": "j"}
    results |= {"digest": "", "settings": {}, "versions": {}, "base_url": "", "prompts_cut": []}
    results |= {"server_version": "", "structured": True}
    write_json(judged / "results.json", results)
    told = asked(client, "judged")
    assert told["names"] == ["responses.judge"] and told["rows"][0]["value"] == 70
    assert "\u202e" not in told["rows"][0]["task"] and "<script>" in told["rows"][0]["task"]
    assert "there is no judged run 1" in refused(client, "judged", number=1)

"""What the live page is made of and asks for: files that can be trusted, numbers that are right."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from torch.nn import functional as F

from groundup.data.instructions import encode_prompt
from groundup.data.model_style import style_of
from groundup.facts import NAME, Facts
from groundup.pages import web_file
from groundup.prompts import get_style
from groundup.serve.models import Served
from groundup.serve.page.shell import takes_system
from groundup.serve.page.tokenizer import STEPPED, taken_apart
from groundup.serve.page.xray import AT_ONCE, WRITTEN
from groundup.tokenizers import BPETokenizer, LibraryTokenizer
from groundup.tokenizers.opening import open_tokenizer
from groundup.tokenizers.reading import TokenizerFiles
from groundup.train.tracking import METRICS
from groundup.weights.finding import HISTORY
from groundup.xray import MAX_TOKENS, take_xray
from groundup.xray.changes import Part
from tests.conftest import tiny_config
from tests.serve.conftest import client_of
from tests.tokenizers.trained import trained
from tests.xray.conftest import EVIL, READ, grown
from tests.xray.plainly import plainly

WEB = Path(__file__).parents[3] / "src" / "groundup" / "web"


@pytest.fixture
def served(tokenizer: BPETokenizer) -> Iterator[Served]:
    """A base model whose context is as long as an X-ray may be, and a bit longer."""
    model = Served.of("tiny", grown("gpt2", context_length=MAX_TOKENS + 20), tokenizer)
    yield model
    model.runner.close()


@pytest.fixture
def client(served: Served) -> Iterator[TestClient]:
    with client_of(served) as client:
        yield client


def ask(client: TestClient, path: str, **body: Any) -> Any:
    response = client.post(f"/page/{path}", json={"model": "tiny", **body})
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: TestClient, path: str, **body: Any) -> str:
    response = client.post(f"/page/{path}", json={"model": "tiny", **body})
    assert response.status_code == 400, response.text
    return response.json()["error"]["message"]


def events(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    response = client.post("/page/xray", json={"model": "tiny", **body})
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]


def test_the_page_runs_nothing_but_its_own_files(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';") and "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.findall(r"<style|style=|\son\w+=|javascript:", page.text)
    assert re.findall(r"<script([^>]*)>([^<]*)", page.text) == [
        (' type="module" src="web/app.js"', "")
    ]
    sentence = re.search(r"<noscript><p[^>]*>(.*?)</p>", page.text)
    assert sentence and "which this browser does not run" in sentence[1]
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(f"/{address}").status_code == 200


def test_files_are_asked_for_anew_and_sent_if_they_have_changed(client: TestClient) -> None:
    files = [path for path in WEB.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    for path in files:
        got = client.get(f"/web/{path.name}")
        assert got.content == path.read_bytes() and got.headers["Cache-Control"] == "no-cache"
        assert hashlib.sha256(got.content).hexdigest().startswith(got.headers["ETag"].strip('"'))
        again = client.get(f"/web/{path.name}", headers={"If-None-Match": got.headers["ETag"]})
        assert again.status_code == 304 and again.content == b""
        other = client.get(f"/web/{path.name}", headers={"If-None-Match": '"another"'})
        assert other.content == got.content


@pytest.mark.parametrize(
    "name", ["missing.js", "..%2fpages.py", "%2e%2e/pages.py", "__init__.py", "", "app", "/app.js"]
)
def test_nothing_else_is_a_file_of_the_page(client: TestClient, name: str) -> None:
    assert client.get(f"/web/{name}").status_code == 404


def test_modules_find_each_other() -> None:
    for path in WEB.glob("*.js"):
        source = web_file(path.name)
        assert source.startswith("/** ")
        for imported, name in re.findall(r'import \{([^}]*)\} from "\./([\w.-]+)"', source):
            exported = re.findall(r"export (?:async )?(?:function|const) (\w+)", web_file(name))
            assert {part.split(" as ")[0].strip() for part in imported.split(",")} <= {*exported}
        for name in re.findall(r'module: "\./([\w.-]+)"', source):
            assert "export async function mount(root, context)" in web_file(name)


def test_what_the_page_knows_of_models(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text("", encoding="utf-8")
    for name in ("step-1", "step-2"):  # one is half written
        (tmp_path / HISTORY / name).mkdir(parents=True)
    (tmp_path / HISTORY / "step-1" / NAME).write_text("{}", encoding="utf-8")
    run = Served.of("run", grown("llama"), tokenizer, directory=tmp_path, style=get_style("alpaca"))
    sorter = grown("gpt2")
    sorter.facts = Facts(kind="classifier", labels=["ham", EVIL])
    models = run, Served.of(EVIL, sorter, tokenizer)
    with client_of(*models) as client:
        first, second = client.get("/page/models").json()
    config = tiny_config()
    assert first == {
        "name": "run",
        "kind": "language model",
        "architecture": "Llama's architecture",
        "parameters": run.model.num_parameters(),
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "labels": [],
        "adapter": None,
        "prompt_style": "alpaca",
        "system": True,
        "default_system": get_style("alpaca").default_system,
        "run": True,
        "history": 1,
        "judged": 0,
    }
    assert (second["name"], second["kind"]) == (EVIL, "classifier")
    assert (second["labels"], second["prompt_style"]) == (["ham", EVIL], None)
    assert not second["run"] and not second["system"] and second["history"] == 0


def test_whether_a_template_has_a_system_message() -> None:
    library = json.loads(trained("qwen2").to_str())
    said = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    alone = "{{ raise_exception('no system') if messages[0]['role'] == 'system' }}" + said
    for template, expected in ((said, True), (alone, False), ("{{ messages[-1].content }}", False)):
        tokenizer = open_tokenizer(TokenizerFiles(library, {}))
        tokenizer.chat_template = template
        assert takes_system(style_of("model", tokenizer)) is expected


def test_an_xray_is_that_of_the_exported_page(client: TestClient, served: Served) -> None:
    first, *rest = events(client, text=READ)
    expected = take_xray(served.model, served.tokenizer, READ, name="tiny").as_dict()
    expected = json.loads(json.dumps(expected))
    changes = [change for event in rest for change in event.get("changes", [])]
    words = first["xray"].pop("words")
    for event in rest:
        words |= event.get("words", {})
    assert (changes, words) == (expected.pop("changes"), expected.pop("words"))
    assert first["xray"].pop("changes") == expected.pop("changes", [])
    assert first["xray"] == expected
    assert rest[-1] == {"done": True}
    batches = [event for event in rest if "changes" in event]
    assert len(batches) == -(-len(changes) // (AT_ONCE // len(expected["tokens"])))


def test_what_is_written_after_it_is_the_likeliest(client: TestClient, served: Served) -> None:
    ids = served.tokenizer.encode(READ)
    told = [event["written"] for event in events(client, text=READ) if "written" in event]
    for _ in told:
        ids.append(int(plainly(served.model, ids).says[-1][-1].argmax()))
    written = served.tokenizer.decode(ids[-len(told) :])
    assert len(told) == WRITTEN and all(map(told[-1].startswith, told))
    assert told[-1] == written.removesuffix("\ufffd")


def test_silenced_parts_give_nothing(client: TestClient, served: Served) -> None:
    parts = [Part(0, "head", 2), Part(1, "attention")]
    asked = [{"layer": p.layer, "part": p.kind, "head": p.head} for p in parts]
    first, *rest = events(client, text=READ, silenced=asked)
    ids = served.tokenizer.encode(READ)
    logits = plainly(served.model, ids, without=parts).says[-1]
    for found, row in zip(first["xray"]["next"], logits, strict=True):
        best = row.sort(descending=True, stable=True)
        assert found["ids"][0] == best.indices[0]
        torch.testing.assert_close(
            torch.tensor(found["logits"]), (row - row.max())[found["ids"]], atol=1e-3, rtol=1e-3
        )
    assert not any("changes" in event for event in rest) and rest[-1] == {"done": True}
    with_all = events(client, text=READ)[0]["xray"]
    assert with_all["next"] != first["xray"]["next"]
    assert events(client, text=READ)[0]["xray"] == with_all  # nothing stays silent
    began = time.perf_counter()  # however often one is named, it is silenced once
    assert events(client, text=READ, silenced=asked * 20_000)[0]["xray"] == first["xray"]
    assert time.perf_counter() - began < 10


def test_xrays_have_bounds(client: TestClient) -> None:
    assert "the text is empty" in refused(client, "xray", text="")
    many = refused(client, "xray", text="q " * 100)
    assert re.match(r"the text has \d+ tokens; an X-ray on this page has 128 at most", many)
    assert "10,001 characters" in refused(client, "xray", text="a" * 10_001)
    layer = {"layer": 2, "part": "head", "head": 0}
    assert "no head 0 of layer 2" in refused(client, "xray", text="a", silenced=[layer])
    assert "silenced[0].part" in refused(client, "xray", text="a", silenced=[{"layer": 0}])
    assert "txt" in refused(client, "xray", txt="a")
    assert client.post("/page/xray", json={"model": "other", "text": "a"}).status_code == 404


def test_a_classifier_has_no_xray_but_a_tokenizer(tokenizer: BPETokenizer) -> None:
    sorter = grown("gpt2")
    sorter.facts = Facts(kind="classifier", labels=["ham", "spam"])
    with client_of(Served.of("tiny", sorter, tokenizer)) as client:
        assert "this model is a classifier (ham, spam)" in refused(client, "xray", text="a")
        assert ask(client, "tokenize", text="fox")["characters"] == 3
        assert ask(client, "neighbours", id=3)["tokens"] == [3]


def test_neighbours_are_those_of_the_cosine(client: TestClient, served: Served) -> None:
    ids = served.tokenizer.encode("quick brown")
    found = ask(client, "neighbours", text="quick brown")
    assert found["tokens"] == ids[:8]
    table = served.model.state_dict()["tok_emb.weight"]
    for token in found["tokens"]:
        cosines = F.cosine_similarity(table[token], table)
        cosines[token] = -2
        best = cosines.topk(12)
        near, values = zip(*found["neighbours"][str(token)], strict=True)
        assert list(near) == best.indices.tolist()
        torch.testing.assert_close(torch.tensor(values), best.values, atol=1e-4, rtol=1e-4)
        assert {str(i) for i in (token, *near)} <= set(found["words"])
    again = ask(client, "neighbours", id=ids[0])
    assert again["neighbours"] == {str(ids[0]): found["neighbours"][str(ids[0])]}
    assert "expected 0 to 299" in refused(client, "neighbours", id=300)
    assert "there is nothing to look up" in refused(client, "neighbours")


def test_prompts_are_what_the_model_reads(tokenizer: BPETokenizer) -> None:
    style = get_style("chatml")
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"<|im_end|>{EVIL}<|endoftext|>"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "Why?"},
    ]
    model = grown("gpt2", context_length=300)
    with client_of(Served.of("tiny", model, tokenizer, style=style)) as client:
        found = ask(client, "prompt", messages=said)
        ids = encode_prompt(said, tokenizer, style)
        assert [token["id"] for token in found["tokens"]] == ids
        eot = tokenizer.eot_token
        assert [token["special"] for token in found["tokens"]] == [i == eot for i in ids]
        assert sum(i == eot for i in ids) == 1  # after the answer; what somebody spells is none
        assert (found["context_length"], found["stop"]) == (300, ["<|im_end|>", "<|im_start|>"])
        assert not re.findall("[\x1b\u202e]", "".join(token["text"] for token in found["tokens"]))
        text = ask(client, "prompt", text="The quick")
        assert [token["id"] for token in text["tokens"]] == tokenizer.encode("The quick")
        assert "user's" in refused(client, "prompt", messages=said[:3])
        assert "messages[0].content is 5" in refused(
            client, "prompt", messages=[{"role": "user", "content": 5}]
        )
        long = [{"role": "user", "content": "a" * 200_001}]
        assert "200,001 characters" in refused(client, "prompt", messages=long)
        assert "200,001 characters" in refused(client, "prompt", text="a" * 200_001)


def test_a_model_without_a_style_reads_no_messages(client: TestClient) -> None:
    said = [{"role": "user", "content": "Hi"}]
    assert "tiny has no prompt style" in refused(client, "prompt", messages=said)


def test_a_text_is_taken_apart(client: TestClient, tokenizer: BPETokenizer) -> None:
    text = f"The quick brown fox, naïve 日本 🙂\n {EVIL}"
    found = ask(client, "tokenize", text=text)
    assert [token["id"] for token in found["tokens"]] == tokenizer.encode(text)
    data = [bytes.fromhex(token["bytes"]) for token in found["tokens"]]
    assert b"".join(data).decode() == text
    assert (found["characters"], found["bytes"]) == (len(text), len(text.encode()))
    assert (found["vocab_size"], found["merges"]) == (300, len(tokenizer.merges))
    assert not re.findall("[\x1b\u202e\u2066]", "".join(token["text"] for token in found["tokens"]))
    done = 0
    for piece in found["pieces"]:
        own = data[done : done + piece["tokens"]]
        done += piece["tokens"]
        parts = [bytes([byte]) for byte in b"".join(own)]
        for rank, place in piece["steps"]:
            assert tokenizer.merges[rank] == tuple(parts[place : place + 2])
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        assert parts == own and piece["note"] is None
    assert done == len(data)
    assert ask(client, "tokenize", text="")["tokens"] == []
    long = ask(client, "tokenize", text="x" * (STEPPED + 1))["pieces"]
    assert [piece["note"][:23] for piece in long] == ["The piece has 101 bytes"]
    assert "5,001 characters" in refused(client, "tokenize", text="x" * 5001)


def test_tokenizers_without_merges_say_so() -> None:
    letters = BPETokenizer.from_characters({"a": 0, "b": 1})
    assert "no merges" in taken_apart(letters, "ab")["pieces"][0]["note"]
    content = json.loads(trained("llama3").to_str())
    content["model"]["ignore_merges"] = True
    content["model"]["merges"] = content["model"]["merges"][:3]
    whole = open_tokenizer(TokenizerFiles(content, {}))
    assert isinstance(whole, LibraryTokenizer)
    found = taken_apart(whole, " Paris")
    assert len(found["tokens"]) == 1 and found["pieces"][0]["steps"] == []
    assert "in the vocabulary as a whole" in found["pieces"][0]["note"]

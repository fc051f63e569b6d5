from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora, lora_layers
from groundup.serve.config import ServeConfig
from groundup.serve.models import Models
from groundup.serve.opening import open_models
from groundup.tokenizers import BPETokenizer
from groundup.weights.load import load_model
from groundup.weights.lora import save_adapter
from groundup.weights.open_config import OpenConfig
from tests.assistants import save_assistant
from tests.labelled import save_classifier
from tests.serve.conftest import client_of
from tests.serve.test_openai import greedy


def opened(*sources: Any, said: list[str] | None = None, **how: Any) -> Models:
    opening = OpenConfig(device="cpu", precision="fp32", **how)
    say = (said if said is not None else []).append
    return open_models([str(source) for source in sources], opening, ServeConfig(), say)


@pytest.fixture
def base(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    torch.manual_seed(2)
    return save_assistant(tmp_path / "base", tokenizer, style=None)


def adapter_of(base: Path, name: str, seed: int, rank: int = 2) -> Path:
    model: GPTModel = load_model(base)[0]
    add_lora(model, rank=rank)
    torch.manual_seed(seed)
    for layer in lora_layers(model).values():
        layer.B.data += 0.3 * torch.randn_like(layer.B)
    save_adapter(base.parent / name, model, str(base))
    return base.parent / name


def test_adapters_of_one_base_share_its_weights_and_are_chosen_by_name(base: Path) -> None:
    one, two = adapter_of(base, "one", 5), adapter_of(base, "two", 6, rank=3)
    models = opened(one, base, f"second={two}")
    assert [served.name for served in models] == ["one", "base", "second"]
    assert len({id(served.model) for served in models}) == 1
    assert len({served.runner for served in models}) == 1
    with client_of(*models) as client:
        ids = models.get("base").tokenizer.encode("The fox")
        asked = {"prompt": "The fox", "temperature": 0, "max_tokens": 12}
        expected = {}
        for name, source in (("base", base), ("one", one), ("second", two)):
            alone = opened(source)
            expected[name] = greedy(next(iter(alone)), ids, 12)
            alone.close()
        assert len(set(expected.values())) == 3

        def written(name: str) -> str:
            answer = client.post("/v1/completions", json={**asked, "model": name}).json()
            return answer["choices"][0]["text"]

        many = [*expected] * 5
        with ThreadPoolExecutor(8) as pool:  # also when all ask at once
            assert [*pool.map(written, many)] == [expected[name] for name in many]
        for name in ("one", "second", "base", "one", "base", "second"):
            assert written(name) == expected[name], name
            asked_here = {"model": name, "input": "The fox"}
            vector = client.post("/v1/embeddings", json=asked_here).json()["data"][0]["embedding"]
            merged = load_model({"base": base, "one": one, "second": two}[name])[0]
            with torch.no_grad():
                mean = merged(torch.tensor([ids]), hidden=True)[0].mean(dim=0)
            torch.testing.assert_close(torch.tensor(vector), mean, atol=1e-4, rtol=1e-4)


def test_two_adapters_need_no_base_that_is_served(base: Path) -> None:
    models = opened(adapter_of(base, "one", 5), adapter_of(base, "two", 6))
    assert len({id(served.model) for served in models}) == 1
    models.close()


def test_a_classifier_classifies_and_does_not_chat(
    tmp_path: Path, tokenizer: BPETokenizer, base: Path
) -> None:
    folder = save_classifier(tmp_path / "spam", tokenizer)
    models = opened(f"filter={folder}", base)
    labels = models.get("filter").facts.labels
    with client_of(*models) as client:
        texts = {"model": "filter", "input": ["the fox", "a dog"]}
        data = client.post("/v1/classify", json=texts).json()["data"]
        assert [row["index"] for row in data] == [0, 1]
        for row in data:
            assert list(row["probabilities"]) == labels
            assert row["probability"] == max(row["probabilities"].values())
            assert abs(sum(row["probabilities"].values()) - 1) < 1e-5
        for path, more in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
            ("/v1/completions", {"prompt": "hi"}),
            ("/api/generate", {"prompt": "hi"}),
            ("/v1/embeddings", {"input": "hi"}),
        ):
            answer = client.post(path, json={"model": "filter", **more})
            assert answer.status_code == 400
            assert f"is a classifier ({', '.join(labels)})" in answer.text
            assert "/v1/classify" in answer.text
        answer = client.post("/v1/classify", json={"model": "base", "input": "hi"})
        assert answer.status_code == 400 and "is a language model" in answer.text
        answer = client.post("/v1/classify", json={"model": "filter", "input": [""]})
        assert answer.status_code == 400 and "empty" in answer.text
        listed = client.get("/api/tags").json()["models"]
        assert [model["name"] for model in listed] == ["base:latest"]


def test_a_style_is_for_those_that_say_none(
    tmp_path: Path, tokenizer: BPETokenizer, base: Path
) -> None:
    taught = save_assistant(tmp_path / "taught", tokenizer, style="alpaca")
    said: list[str] = []
    models = opened(base, taught, style="chatml", said=said)
    styles = {served.name: served.style.name for served in models if served.style}
    assert styles == {"base": "chatml", "taught": "alpaca"}
    assert len(said) == 1 and "does not say" in said[0]
    models.close()
    plain = opened(base)
    assert plain.get("base").style is None
    plain.close()
    with pytest.raises(UserError, match="was trained in the prompt style alpaca"):
        opened(taught, style="chatml")


def test_names(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserError, match=f"two models are called base: {base} and {base}"):
        opened(base, base)
    with pytest.raises(UserError, match="there is no model directory 'nowhere'"):
        opened("x=nowhere")
    for wrong in ("=x", f" ={base}", "a="):
        with pytest.raises(UserError, match=r"is no model; expected MODEL or NAME=MODEL"):
            opened(wrong)
    models = opened(f"org/mine:1b={base}")
    with client_of(*models) as client:
        assert client.get("/v1/models/org/mine:1b").status_code == 200
        assert client.get("/api/tags").json()["models"][0]["name"] == "org/mine:1b"


def test_quantized_adapters_are_merged(base: Path) -> None:
    models = opened(base, adapter_of(base, "one", 5), quantize="int8")
    assert len({id(served.model) for served in models}) == 2
    count = load_model(base)[0].num_parameters()
    with client_of(*models) as client:
        shown = client.post("/api/show", json={"model": "base"}).json()
        assert shown["details"]["quantization_level"] == "INT8"
        assert shown["model_info"]["general.parameter_count"] == count
        asked = {"model": "one", "prompt": "The fox", "max_tokens": 5}
        assert client.post("/v1/completions", json=asked).status_code == 200

"""What is read of a directory is one save's, and as it was saved."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup import snapshot
from groundup.errors import UserError
from groundup.evaluate.classifier import Classifier
from groundup.facts import NAME, Base, Facts
from groundup.files import KEPT
from groundup.model.classifier import to_classifier
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora, lora_layers
from groundup.staging import COMPLETE, STAGING, new_staging
from groundup.tasks.assistant import Assistant
from groundup.tokenizers import BPETokenizer
from groundup.train.config import TrainConfig
from groundup.train.optim import build_optimizer
from groundup.train.state import load_training_state, save_training_state, training_tensors
from groundup.weights.checkpoint import load_directory, save_model
from groundup.weights.load import load_model, read_facts, read_shape
from groundup.weights.lora import load_adapter
from tests.conftest import Run, facts_of, tiny_config, unvouched

Save = Callable[[int], None]


@contextmanager
def saving(save: Save) -> Iterator[None]:
    """Meanwhile somebody saves one checkpoint after the other."""
    done = threading.Event()
    problems: list[BaseException] = []
    save(1)

    def work() -> None:
        number = 1
        try:
            while not done.is_set():
                number += 1
                save(number)
        except BaseException as error:
            problems.append(error)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()
    assert problems == []


def filled(number: int, **changes: Any) -> GPTModel:
    """A model all of whose weights are one number."""
    model = GPTModel(tiny_config(n_layers=4, tie_weights=False, **changes))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(number)
    return model


def numbers(model: GPTModel) -> set[float]:
    assert model.facts is not None
    found = {float(v) for p in model.parameters() for v in (p.detach().min(), p.detach().max())}
    return found | {model.facts.progress["step"]}


def facts(number: int, **more: Any) -> Facts:
    return Facts(progress={"step": number}, **more)


# A reader during a save. Without the snapshot, most of what these read is of several saves.


@pytest.mark.parametrize("small", [1 << 24, 0])
def test_a_model_is_of_one_save(
    tmp_path: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(snapshot, "SMALL", small)
    seen = set()
    with saving(lambda n: save_model(tmp_path, filled(n), tokenizer, facts(n))):
        for _ in range(8):
            found = numbers(load_model(tmp_path)[0])
            assert len(found) == 1, found
            seen |= found
            cfg, said = read_shape(tmp_path)
            assert cfg.n_layers == 4 and said.progress["step"] >= max(seen)
    assert len(seen) > 1


def test_a_classifier_and_an_assistant_are_of_one_save(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    def save(number: int) -> None:
        name = ("spam", "ham")[number % 2]
        model = to_classifier(filled(number), 2)
        torch.nn.init.constant_(model.out_head.weight, number)
        save_model(tmp_path / "c", model, tokenizer, facts(number, labels=[name, "x"]))
        style = ("alpaca", "phi3")[number % 2]
        save_model(tmp_path / "a", filled(number), tokenizer, facts(number, prompt_style=style))

    with saving(save):
        for _ in range(4):
            classifier = Classifier.load(tmp_path / "c")
            assert len(found := numbers(classifier.model)) == 1
            assert classifier.labels[0] == ("spam", "ham")[int(found.pop()) % 2]
            assistant = Assistant.load(tmp_path / "a")
            assert len(found := numbers(assistant.model)) == 1
            assert assistant.style.name == ("alpaca", "phi3")[int(found.pop()) % 2]


def test_an_adapter_is_of_one_save(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    """It lies in a folder of the directory that is saved, with its config and its facts."""
    save_model(tmp_path / "base", filled(0), tokenizer)

    def save(number: int) -> None:
        model = add_lora(filled(0), rank=2, alpha=number)
        with torch.no_grad():
            for layer in lora_layers(model).values():
                layer.A.fill_(number)
                layer.B.fill_(number)
        said = facts(number, base=Base(str(tmp_path / "base")))
        save_model(tmp_path / "run", model, tokenizer, said)

    with saving(save):
        for _ in range(8):
            model = load_adapter(tmp_path / "run" / "adapter", filled(0))
            As = [layer.A.detach() for layer in lora_layers(model).values()]
            values = {float(v) for A in As for v in A.unique()}
            values |= {float(layer.alpha) for layer in lora_layers(model).values()}
            assert len(values) == 1
            merged = load_model(tmp_path / "run" / "adapter")[0]
            number = (merged.facts or Facts()).progress["step"]
            weight = merged.trf_blocks[0].att.W_query.weight.detach()  # pyright: ignore
            torch.testing.assert_close(weight, torch.full_like(weight, number**3))


def test_a_training_state_is_of_one_save(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model = GPTModel(tiny_config())
    optimizer = build_optimizer(model, TrainConfig())

    def save(number: int) -> None:
        for p in model.parameters():
            p.grad = torch.full_like(p, number)
        optimizer.step()
        for moments in optimizer.state_dict()["state"].values():
            moments["exp_avg"].fill_(number)
        state = {"progress": {"step": number}, "data": {}, "best": {}}
        device = torch.device("cpu")
        tensors = training_tensors(optimizer, device)
        extra = partial(save_training_state, tensors=tensors, state=state)
        save_model(tmp_path, model, tokenizer, facts(number), extra)

    with saving(save):
        for _ in range(8):
            theirs = build_optimizer(GPTModel(tiny_config()), TrainConfig())
            state = load_training_state(tmp_path, theirs, torch.device("cpu"))
            moments = theirs.state_dict()["state"].values()
            found = {float(v) for m in moments for v in m["exp_avg"].unique()}
            assert found == {state["progress"]["step"]}


def test_a_mistake_is_told_although_nothing_has_changed(model_dir: Path) -> None:
    tries: list[int] = []

    def read() -> None:
        tries.append(1)
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        snapshot.read_whole(model_dir, read)
    assert len(tries) == 1


def test_a_reader_who_may_not_finish_a_save_waits_for_who_may(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_staging(model_dir, model_dir, KEPT) as staging:
        (staging / COMPLETE).touch()

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(snapshot, "finish_update", refuse)
    monkeypatch.setattr(snapshot, "SECONDS", 0.2)
    with pytest.raises(UserError, match="was interrupted and cannot be finished from here"):
        load_model(model_dir)
    monkeypatch.undo()
    load_model(model_dir)
    assert not list(model_dir.glob(f"{STAGING}*"))


# A flipped bit.


def flip(path: Path, at: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "small"),
    [(name, 1 << 24) for name in ("config.json", "tokenizer.json", "model.safetensors")]
    + [("model.safetensors", 0)],
)
def test_a_flipped_bit_is_noticed_and_the_file_named(
    run: Run, model_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, small: int
) -> None:
    monkeypatch.setattr(snapshot, "SMALL", small)
    data = (model_dir / name).read_bytes()
    # In a digit, so that all is still valid as far as one can see.
    place = {"config.json": data.find(b"0.02") + 3, "tokenizer.json": data.find(b": 2") + 2}
    flip(model_dir / name, place.get(name, -3))
    for opens in (load_model, load_directory):
        with pytest.raises(UserError, match=f"{name} is not as it was saved: its SHA-256"):
            opens(model_dir)
    if name != "tokenizer.json":
        assert load_model(model_dir, verify=False)[0].cfg == tiny_config()
        begin = "generate", model_dir, "The", "--max-new-tokens", 2
        assert f"{model_dir / name} is not as it was saved" in run(*begin).err
        assert run(*begin, "--no-verify").status == 0


def test_a_flipped_bit_in_what_the_model_says_of_itself(model_dir: Path) -> None:
    path = model_dir / NAME
    path.write_text(
        path.read_text("utf-8").replace('"kind": "language model"', '"kind": "adapter"'), "utf-8"
    )
    for opens in (load_model, read_facts, read_shape):
        with pytest.raises(UserError, match=f"{NAME} is not as it was saved"):
            opens(model_dir)
        opens(model_dir, verify=False)
    assert facts_of(model_dir).kind == "adapter"  # without being asked to verify


def test_what_a_user_may_edit_and_another_layout_are_no_damage(model_dir: Path) -> None:
    for name in snapshot.FOR_OTHERS:
        if (model_dir / name).exists():
            (model_dir / name).write_text("{}", "utf-8")
    path = model_dir / NAME
    path.write_text(json.dumps(json.loads(path.read_text("utf-8"))), "utf-8")
    load_model(model_dir)
    vouched = facts_of(model_dir).digests
    assert vouched.keys() == {"config.json", "model.safetensors", "tokenizer.json"}


def test_what_an_earlier_groundup_wrote_is_opened(model_dir: Path) -> None:
    flip(unvouched(model_dir) / "model.safetensors")
    load_model(model_dir)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "state.json"])
def test_a_flipped_bit_in_a_training_state(
    tmp_path: Path, tokenizer: BPETokenizer, name: str
) -> None:
    model, cpu = GPTModel(tiny_config()), torch.device("cpu")
    optimizer = build_optimizer(model, TrainConfig())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    state = {"progress": {"step": 222}, "data": {}, "best": {}}
    extra = partial(save_training_state, tensors=training_tensors(optimizer, cpu), state=state)
    save_model(tmp_path, model, tokenizer, Facts(), extra)
    load_training_state(tmp_path, optimizer, cpu)
    path = tmp_path / "training_state" / name
    flip(path, path.read_bytes().find(b"222") + 1 if name == "state.json" else -3)
    load_model(tmp_path)  # which does not need it
    with pytest.raises(UserError, match=f"{name} is not as it was saved"):
        load_training_state(tmp_path, optimizer, cpu)
    load_training_state(tmp_path, optimizer, cpu, verify=False)


def test_a_flipped_bit_in_an_adapter(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model = add_lora(GPTModel(tiny_config()))
    save_model(tmp_path / "base", GPTModel(tiny_config()), tokenizer)
    said = Facts(base=Base(str(tmp_path / "base")))
    save_model(tmp_path / "run", model, tokenizer, said)
    flip(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    load_model(tmp_path / "run")
    for opens in (load_model, lambda path: load_adapter(path, GPTModel(tiny_config()))):
        with pytest.raises(UserError, match="adapter_model.safetensors is not as it was saved"):
            opens(tmp_path / "run" / "adapter")
    load_model(tmp_path / "run" / "adapter", verify=False)
    save_model(tmp_path / "run", model, tokenizer, said)
    load_model(tmp_path / "run" / "adapter")
    flip(tmp_path / "base" / "model.safetensors")
    with pytest.raises(UserError, match=r"base.*model.safetensors is not as it was saved"):
        load_model(tmp_path / "run" / "adapter")

"""The course's functions beside ours: same results, same printed text, same files."""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import groundup
from groundup import UserError, get_gpt2_tokenizer
from groundup.judge import course as our_judge
from groundup.tokenizers import BPETokenizer
from tests.conftest import TEXT
from tests.data.fault_server import FaultServer, allow_network, status
from tests.judge.conftest import llm, rows
from tests.judge.fake_llm import FakeLLM, says
from tests.lessons.course_package import chapter, compares
from tests.openai_files import write_openai_vocabulary
from tests.weights.data.make_openai_tiny import SETTINGS, shapes, values

ch02, ch04, ch05, ch06, ch07 = (chapter(f"ch0{n}") for n in (2, 4, 5, 6, 7))
appendix_d = chapter("appendix_d")

__all__ = ["llm"]  # a fixture

FIXTURE = Path(__file__).parents[1] / "weights" / "data" / "openai-tiny"  # TensorFlow's

CFG = {
    "vocab_size": 300,
    "context_length": 16,
    "emb_dim": 24,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": False,
}

Loader = DataLoader[Any]
Print = pytest.CaptureFixture[str]


def models(**changes: Any) -> tuple[Any, Any]:
    """The course's model and ours, with the same weights."""
    made = []
    for kind in (ch04.GPTModel, groundup.GPTModel):
        torch.manual_seed(123)
        made.append(kind(CFG | changes))
    return made[0], made[1]


def classifiers() -> tuple[Any, Any]:
    pair = models()
    for model in pair:
        torch.manual_seed(123)
        model.out_head = nn.Linear(24, 2)
    return pair


def loader(*tensors: Tensor, shuffle: bool = False) -> Loader:
    """Batches of two; as many whole ones as there are."""
    return DataLoader(TensorDataset(*tensors), 2, shuffle=shuffle, drop_last=True)


def token_loaders() -> tuple[Loader, Loader]:
    ids = torch.randint(0, 300, (14, 17), generator=torch.Generator().manual_seed(1))
    return loader(ids[:8, :-1], ids[:8, 1:], shuffle=True), loader(ids[8:, :-1], ids[8:, 1:])


def class_loaders() -> tuple[Loader, Loader]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 300, (14, 16), generator=generator)
    classes = torch.randint(0, 2, (14,), generator=generator)
    return loader(ids[:8], classes[:8], shuffle=True), loader(ids[8:], classes[8:])


def assert_close(here: Any, course: Any) -> None:
    torch.testing.assert_close(here, course, atol=1e-5, rtol=1e-5)


def both(call: Callable[[Any, Any], Any], pair: tuple[Any, Any], *modules: Any) -> list[Any]:
    """What the course's module and ours give, from the same state of the random generator."""
    found = []
    for module, model in zip((*modules, groundup), pair, strict=True):
        torch.manual_seed(7)
        found.append(call(module, model))
    return found


# Chapter 2


@compares("ch02.create_dataloader_v1")
@pytest.mark.parametrize("shuffle", [True, False])
def test_dataloader(monkeypatch: pytest.MonkeyPatch, shuffle: bool) -> None:
    def get_encoding(name: str) -> Any:  # tiktoken's own would ask the network
        assert name == "gpt2"
        return get_gpt2_tokenizer().encoding

    monkeypatch.setattr(ch02.tiktoken, "get_encoding", get_encoding)
    course, here = both(
        lambda module, _: list(module.create_dataloader_v1(TEXT * 3, 3, 8, 5, shuffle)),
        (None, None),
        ch02,
    )
    assert len(course) == len(here) > 3
    for theirs, ours in zip(course, here, strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


# Chapters 4 and 5


@compares("ch04.generate_text_simple")
def test_generate_text_simple() -> None:
    course, here = models()
    idx = torch.randint(0, 300, (2, 5))
    theirs = ch04.generate_text_simple(course.eval(), idx, 20, 16)  # further than the context
    assert torch.equal(groundup.generate_text_simple(here.eval(), idx, 20, 16), theirs)


@compares("ch05.generate")
@pytest.mark.parametrize(
    ("temperature", "top_k", "eos_id"), [(0.0, None, None), (1.4, 25, None), (0.7, 3, 299)]
)
def test_generate(temperature: float, top_k: int | None, eos_id: int | None) -> None:
    idx = torch.randint(0, 300, (1, 4))
    pair = tuple(model.eval() for model in models())
    course, here = both(
        lambda module, model: module.generate(model, idx, 20, 16, temperature, top_k, eos_id),
        (pair[0], pair[1]),
        ch05,
    )
    assert torch.equal(here, course)
    if temperature:  # the same end: ask for the token that came sixth to be the end
        end = int(course[0, 9])
        course, here = both(
            lambda module, model: module.generate(model, idx, 20, 16, temperature, top_k, end),
            (pair[0], pair[1]),
            ch05,
        )
        assert torch.equal(here, course) and course.shape[1] <= 9


@compares("ch05.text_to_token_ids", "ch05.token_ids_to_text")
def test_text_and_ids() -> None:
    tokenizer = get_gpt2_tokenizer()
    text = "Hello, I am<|endoftext|> a naïve 日本語 model"
    ids = ch05.text_to_token_ids(text, tokenizer)
    assert torch.equal(groundup.text_to_token_ids(text, tokenizer), ids) and 50256 in ids
    assert groundup.token_ids_to_text(ids, tokenizer) == ch05.token_ids_to_text(ids, tokenizer)
    assert groundup.token_ids_to_text(ids, tokenizer) == text


@compares("ch05.calc_loss_batch", "ch05.calc_loss_loader", "ch05.evaluate_model")
def test_losses_of_tokens() -> None:
    pair = models(drop_rate=0.0)
    train, val = token_loaders()
    x, y = next(iter(val))
    losses = both(lambda m, model: m.calc_loss_batch(x, y, model, "cpu"), pair, ch05)
    assert_close(losses[1], losses[0])
    gradients = []
    for loss, model in zip(losses, pair, strict=True):
        loss.backward()
        gradients.append(model.trf_blocks[0].att.W_key.weight.grad)
    assert_close(gradients[1], gradients[0])
    for count in (None, 2, 99):
        course, here = both(
            lambda m, model, n=count: m.calc_loss_loader(val, model, "cpu", n), pair, ch05
        )
        assert_close(here, course)
        course, here = both(
            lambda m, model, n=count: m.evaluate_model(model, train, val, "cpu", n or 3), pair, ch05
        )
        assert_close(here, course)
    assert all(model.training for model in pair)
    empty: Any = []
    assert np.isnan(ch05.calc_loss_loader(empty, pair[0], "cpu"))
    assert np.isnan(groundup.calc_loss_loader(empty, pair[1], "cpu"))


@compares("ch05.generate_and_print_sample")
def test_sample(tokenizer: BPETokenizer, capsys: Print) -> None:
    both(
        lambda m, model: m.generate_and_print_sample(model, tokenizer, "cpu", "The\nfox"),
        models(),
        ch05,
    )
    printed = capsys.readouterr().out
    half = len(printed) // 2
    assert printed[:half] == printed[half:] and printed.startswith("The fox")


@compares("ch05.train_model_simple")
def test_train_model_simple(tokenizer: BPETokenizer, capsys: Print) -> None:
    def train(module: Any, model: Any) -> tuple[Any, str]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
        found = module.train_model_simple(
            *(model, *token_loaders(), optimizer, "cpu", 2, 3, 2, "The fox", tokenizer)
        )
        return found, capsys.readouterr().out

    pair = models()
    (course, printed), (here, ours) = both(train, pair, ch05)
    assert_close(here, course)
    assert ours == printed and printed.count("Ep ") == 3
    assert_same_weights(*pair)


def assert_same_weights(course: nn.Module, here: nn.Module) -> None:
    trained = dict(course.named_parameters())
    for name, parameter in here.named_parameters():
        torch.testing.assert_close(parameter, trained[name], atol=1e-4, rtol=1e-4)


@compares("ch05.load_weights_into_gpt")
def test_weights_of_openai() -> None:
    changes = {"vocab_size": 50, "context_length": 12, "emb_dim": 8, "n_heads": 2}
    course, here = models(**changes, qkv_bias=True)
    params = groundup.load_gpt2_params_from_tf_ckpt(FIXTURE, SETTINGS)
    ch05.load_weights_into_gpt(course, params)
    groundup.load_weights_into_gpt(here, params)
    for name, tensor in here.state_dict().items():
        assert torch.equal(tensor, course.state_dict()[name])
    idx = torch.randint(0, 50, (2, 12))
    assert_close(here.eval()(idx), course.eval()(idx))


@pytest.fixture
def tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of TensorFlow as the course asks for, knowing what TensorFlow wrote there.

    (That the file holds just these values is a test of tests/weights/test_tensor_bundle.py.)
    """
    variables = shapes(SETTINGS)
    made: Any = ModuleType("tensorflow")
    made.__spec__ = ModuleSpec("tensorflow", None)  # torch asks for it
    made.train = SimpleNamespace(
        list_variables=lambda path: list(variables.items()),
        load_variable=lambda path, name: values(name, variables[name]),
        latest_checkpoint=lambda folder: f"{folder}/model.ckpt",
    )
    monkeypatch.setitem(sys.modules, "tensorflow", made)


def assert_same_params(here: dict[str, Any], course: dict[str, Any]) -> None:
    np.testing.assert_equal(here, course)  # through dicts and lists, exactly


@compares("ch05.load_gpt2_params_from_tf_ckpt")
def test_params_of_a_checkpoint(tensorflow: None) -> None:
    path = FIXTURE / "model.ckpt"
    course = ch05.load_gpt2_params_from_tf_ckpt(str(path), SETTINGS)
    assert_same_params(groundup.load_gpt2_params_from_tf_ckpt(str(path), SETTINGS), course)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    allow_network(monkeypatch)
    with FaultServer() as server:
        yield server


@compares("ch05.download_and_load_gpt2")
def test_gpt2_by_its_size(
    tensorflow: None, server: FaultServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served = Path(shutil.copytree(FIXTURE, tmp_path / "served"))
    write_openai_vocabulary(served, get_gpt2_tokenizer())
    (served / "model.ckpt.meta").write_bytes(b"not read")
    for path in served.iterdir():
        server.serve(f"/124M/{path.name}", path.read_bytes())
    monkeypatch.setattr("groundup.data.sources.OPENAI", (f"{server.url}/",))

    def from_server(url: str, path: str, backup_url: str) -> None:
        shutil.copyfile(served / url.rpartition("/")[2], path)

    monkeypatch.setattr(ch05, "download_file", from_server)
    course = ch05.download_and_load_gpt2("124M", str(tmp_path / "course"))
    here = groundup.download_and_load_gpt2("124M", str(tmp_path / "here"))
    assert here[0] == course[0] == SETTINGS
    assert_same_params(here[1], course[1])
    for path in (tmp_path / "course" / "124M").iterdir():
        if path.name != "model.ckpt.meta":  # which nobody reads
            assert (tmp_path / "here" / "124M" / path.name).read_bytes() == path.read_bytes()
    for module in (ch05, groundup):
        with pytest.raises(ValueError, match="355M"):
            module.download_and_load_gpt2("12M", tmp_path)


@compares("ch05.download_file")
def test_download_file(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Print
) -> None:
    monkeypatch.chdir(tmp_path)
    url = server.serve("/a.txt", b"All that glitters\n")
    gone = server.serve("/gone.txt", b"", *[status(404)] * 2)
    for module in (ch05, groundup):
        folder = tmp_path / module.__name__
        folder.mkdir()
        module.download_file(url, str(folder / "a.txt"))
        module.download_file(gone, str(folder / "b.txt"), url)  # the backup has it
        before = len(server.asked)
        module.download_file(url, str(folder / "a.txt"))
        assert len(server.asked) - before <= 1  # the course asks how long it is
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert files == {"a.txt": b"All that glitters\n", "b.txt": b"All that glitters\n"}
    # Where the course prints and goes on, which crashes whoever reads the file, ours says so.
    nowhere = f"{server.url}/nowhere.txt"
    ch05.download_file(nowhere, "c.txt", nowhere)
    assert "Failed to download" in capsys.readouterr().out
    with pytest.raises(UserError, match="404.*get it by hand and put it at c.txt"):
        groundup.download_file(nowhere, "c.txt", nowhere)
    assert not Path("c.txt").exists()


@compares("ch05.plot_losses", "ch06.plot_values")
def test_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    epochs, seen, train, val = [0.5, 1.0, 2.0], [100, 200, 400], [3.0, 2.0, 1.0], [3.1, 2.5, 2.2]
    plots: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
        (
            partial(ch05.plot_losses, epochs, seen, train, val),
            partial(groundup.plot_losses, epochs, seen, train, val),
        ),
        (
            partial(ch06.plot_values, epochs, seen, train, val, "accuracy"),
            partial(groundup.plot_values, epochs, seen, train, val, label="accuracy"),
        ),
    ]
    for theirs, ours in plots:
        with monkeypatch.context() as quiet:
            quiet.setattr(ch05.plt, "show", lambda: None)
            theirs()
        drawn = ch05.plt.gcf().axes[0]
        here = ours().axes[0]
        for course, line in zip(drawn.lines, here.lines, strict=False):
            np.testing.assert_allclose(line.get_xydata(), course.get_xydata())
            assert str(line.get_label()).lower() == str(course.get_label()).lower()
        assert len(here.lines) >= len(drawn.lines) == 2
        for axis in ("get_xlabel", "get_ylabel"):
            assert getattr(here, axis)().lower() == getattr(drawn, axis)().lower()
        ch05.plt.close("all")


# Chapter 6


@compares("ch06.download_and_unzip_spam_data")
def test_spam_data(server: FaultServer, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("SMSSpamCollection", "ham\tSee you\nspam\tWINNER!!\n")
        archive.writestr("readme", "about it")
    url = server.serve("/sms.zip", packed.getvalue())
    texts = []
    for module in (ch06, groundup):
        folder = tmp_path / module.__name__
        folder.mkdir()
        paths = folder / "sms.zip", folder / "unpacked", folder / "data.tsv"
        module.download_and_unzip_spam_data(url, *paths)
        asked = len(server.asked)
        module.download_and_unzip_spam_data(url, *paths)
        assert len(server.asked) == asked  # it is there
        texts.append(paths[2].read_bytes())
    assert texts[0] == texts[1] == b"ham\tSee you\nspam\tWINNER!!\n"


def spam_frame() -> pd.DataFrame:
    labels = ["spam" if n % 4 == 0 else "ham" for n in range(60)]
    return pd.DataFrame({"Label": labels, "Text": [f"text {n}" for n in range(60)]})


@compares("ch06.create_balanced_dataset")
def test_balance() -> None:
    course, here = (m.create_balanced_dataset(spam_frame()) for m in (ch06, groundup))
    pd.testing.assert_frame_equal(here, course)
    assert len(here) == 30


@compares("ch06.random_split")
@pytest.mark.parametrize("shares", [(0.7, 0.1), (0.33, 0.5), (0.5, 0.5)])
def test_split(shares: tuple[float, float]) -> None:
    course, here = (m.random_split(spam_frame(), *shares) for m in (ch06, groundup))
    for theirs, ours in zip(course, here, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


@compares(
    "ch06.calc_loss_batch",
    "ch06.calc_loss_loader",
    "ch06.evaluate_model",
    "ch06.calc_accuracy_loader",
)
def test_losses_and_accuracy_of_classes() -> None:
    pair = classifiers()
    for model in pair:
        model.eval()
    train, val = class_loaders()
    x, y = next(iter(val))
    course, here = both(lambda m, model: m.calc_loss_batch(x, y, model, "cpu"), pair, ch06)
    assert_close(here, course)
    for count in (None, 2, 99):
        for name in ("calc_loss_loader", "calc_accuracy_loader"):
            course, here = both(
                lambda m, model, f=name, n=count: getattr(m, f)(val, model, "cpu", n), pair, ch06
            )
            assert_close(here, course)
    course, here = both(lambda m, model: m.evaluate_model(model, train, val, "cpu", 2), pair, ch06)
    assert_close(here, course)


@compares("ch06.train_classifier_simple")
def test_train_classifier_simple(capsys: Print) -> None:
    def train(module: Any, model: Any) -> tuple[Any, str]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
        found = module.train_classifier_simple(
            model, *class_loaders(), optimizer, "cpu", 3, eval_freq=3, eval_iter=2
        )
        return found, capsys.readouterr().out

    pair = classifiers()
    (course, printed), (here, ours) = both(train, pair, ch06)
    assert_close(here, course)
    assert ours == printed and printed.count("Validation accuracy: ") == 3
    assert_same_weights(*pair)


@compares("ch06.classify_review")
def test_classify_review(tokenizer: BPETokenizer) -> None:
    pair = classifiers()
    found = set()
    for text in ("WINNER!! Call now", "See you at eight", "ok", "the quick brown fox " * 9, "日本"):
        for length in (4, 16):
            args = (tokenizer, "cpu", length, 299)
            course, here = both(
                lambda m, model, t=text, a=args: m.classify_review(t, model, *a), pair, ch06
            )
            assert here == course
            found.add(here)
    assert found == {"spam", "not spam"}


# Chapter 7


@compares("ch07.download_and_load_file")
def test_download_and_load_file(server: FaultServer, tmp_path: Path) -> None:
    entries = rows(3)
    url = server.serve("/data.json", json.dumps(entries).encode())
    for module in (ch07, groundup):
        path = str(tmp_path / f"{module.__name__}.json")
        assert module.download_and_load_file(path, url) == entries
        asked = len(server.asked)
        assert module.download_and_load_file(path, url) == entries
        assert len(server.asked) == asked


@compares("ch07.format_input")
def test_format_input() -> None:
    for entry in rows(4):
        assert groundup.format_input(entry) == ch07.format_input(entry)


@compares("ch07.custom_collate_draft_1", "ch07.custom_collate_draft_2", "ch07.custom_collate_fn")
def test_collate() -> None:
    draw = random.Random(1)
    for _ in range(50):
        sizes = [draw.randint(1, 9) for _ in range(draw.randint(1, 5))]
        batch = [[draw.randint(0, 50255) for _ in range(size)] for size in sizes]
        assert torch.equal(
            groundup.custom_collate_draft_1(batch), ch07.custom_collate_draft_1(batch)
        )
        pairs = [
            (m.custom_collate_draft_2(batch), m.custom_collate_fn(batch)) for m in (groundup, ch07)
        ]
        limit, pad = draw.randint(1, 9), 60000
        cut = [m.custom_collate_fn(batch, pad, -7, limit) for m in (groundup, ch07)]
        for ours, theirs in [*zip(*pairs, strict=True), cut]:
            assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


@compares("ch07.query_model")
def test_query_model(llm: FakeLLM) -> None:
    llm.answer = lambda prompt: f"Llamas eat 🌿 und Bäume; {prompt}"
    course, here = (
        m.query_model("What do llamas eat?", url=f"{llm.url}/api/chat") for m in (ch07, groundup)
    )
    assert here == course
    for part in ("model", "messages", "options"):
        assert llm.asked[0][part] == llm.asked[1][part]


@compares("ch07.generate_model_scores")
def test_scores(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: Print) -> None:
    url = f"{llm.url}/api/chat"
    monkeypatch.setattr(ch07, "query_model", partial(ch07.query_model, url=url))
    monkeypatch.setattr(our_judge, "query_model", partial(our_judge.query_model, url=url))
    llm.faults = [says(text) for text in ("80", "quite good", "100", "0")] * 2
    course = ch07.generate_model_scores(rows(4), "model_response")
    assert "Could not convert score: quite good" in capsys.readouterr().out
    assert groundup.generate_model_scores(rows(4), "model_response") == course == [80, 100, 0]
    assert "Could not convert score of entry 2: quite good" in capsys.readouterr().out
    assert [a["messages"] for a in llm.asked[:4]] == [a["messages"] for a in llm.asked[4:]]


# Appendix D


@compares("appendix_d.find_highest_gradient")
def test_highest_gradient() -> None:
    course, here = (m.find_highest_gradient(models()[1]) for m in (appendix_d, groundup))
    assert course is None and here is None
    _, model = models()
    model(torch.randint(0, 300, (2, 16))).square().mean().backward()
    highest = groundup.find_highest_gradient(model)
    assert highest is not None and highest == appendix_d.find_highest_gradient(model) > 0


@compares("appendix_d.train_model")
@pytest.mark.parametrize("first_printing", [False, True])
def test_train_model(tokenizer: BPETokenizer, capsys: Print, first_printing: bool) -> None:
    def train(module: Any, model: Any) -> tuple[Any, str]:
        # Plain SGD, since AdamW would hide whether a gradient was shortened.
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        found = module.train_model(
            *(model, *token_loaders(), optimizer, "cpu", 3, 4, 2, "The fox", tokenizer),
            warmup_steps=4,
            initial_lr=1e-3,
            min_lr=1e-4,
            orig_book_version=first_printing,
        )
        return found, capsys.readouterr().out

    pair = models()
    (course, printed), (here, ours) = both(train, pair, appendix_d)
    assert_close(here, course)
    assert len(here[3]) == 12 and max(here[3]) == here[3][4] == 0.3
    assert ours == printed and "(Iter 000004)" in printed
    assert_same_weights(*pair)

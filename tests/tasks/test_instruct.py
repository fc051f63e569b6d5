import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from groundup.config import ModelConfig, Train
from groundup.data.instruction_files import (
    entries_fingerprint,
    read_instructions,
    split_instructions,
)
from groundup.data.instructions import encode_prompt
from groundup.decoding.chat import Chat
from groundup.decoding.config import SamplingConfig
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.options import read_recipe
from groundup.prompts import PROMPT_STYLES, format_input, get_style
from groundup.tasks.assistant import Assistant
from groundup.tasks.config import InstructConfig
from groundup.tasks.instruct import train_assistant
from groundup.tasks.respond import choose_entries, respond
from groundup.tokenizers import BPETokenizer
from groundup.train.interrupt import StopRequest
from groundup.train.objective import NextToken
from groundup.train.tracking import SamplePrinter, is_evaluation, read_metrics
from groundup.train.trainer import Record, Trainer
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model
from tests.conftest import LAST, facts_of, tiny_config
from tests.labelled import perturbed, save_classifier

CONTEXT = 64
WORDS = ("fox", "dog", "the lazy dog", "a model", "quick", "brown", "café", "🙂")
ENTRIES = [
    {"instruction": f"Say {number}.", "input": "", "output": WORDS[number % len(WORDS)]}
    for number in range(40)
]
"""34 to train on, 4 to test, 2 to validate."""

Batch = tuple[torch.Tensor, ...]


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the training; the tests that ask for `pictures` get them."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("groundup.tasks.run.plot_run", lambda out: [])
        monkeypatch.setattr("groundup.tasks.run.write_page", lambda out: None)


@pytest.fixture
def pictures() -> None:
    """Let plots be written."""


@pytest.fixture
def base(tmp_path: Path, tokenizer: BPETokenizer) -> Path:
    """A language model to begin from."""
    return save_base(tmp_path / "base", tokenizer)


def save_base(directory: Path, tokenizer: BPETokenizer, **shape: Any) -> Path:
    cfg = tiny_config(**{"vocab_size": tokenizer.vocab_size, "context_length": CONTEXT} | shape)
    save_model(directory, perturbed(GPTModel(cfg).init_gpt2()), tokenizer)
    return directory


def options(base: Path, **changes: Any) -> InstructConfig:
    """Of a short run."""
    quick: dict[str, Any] = {"model": str(base), "style": "plain", "epochs": 1, "batch_size": 4}
    quick |= {"learning_rate": 1e-2, "precision": "fp32", "save_freq": 1000, "sample_answers": 0}
    return InstructConfig(**quick | changes)


def quiet(text: str) -> None:
    """Say nothing."""


def train(
    base: Path,
    out: Path,
    entries: Sequence[Mapping[str, Any]] = ENTRIES,
    *,
    shape: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    say: Callable[[str], None] = quiet,
    **changes: Any,
) -> Record:
    """Train with the options of a short run, changed so."""
    config = options(base, **changes)
    more: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "stop": stop, "say": say}
    return train_assistant(entries, out, config, shape, **more)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return sorted(ours) == sorted(theirs) and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Every batch that is trained on, in its order."""
    found: list[Batch] = []

    class Watched(Trainer):
        def fit(self) -> Record:
            inner = self.data.next

            def watched(count: int) -> list[Any]:
                found.extend(batches := inner(count))
                return batches

            self.data.next = watched
            return super().fit()

    monkeypatch.setattr("groundup.tasks.run.Trainer", Watched)
    return found


def learned(batches: Sequence[Batch], tokenizer: BPETokenizer) -> list[str]:
    """What the targets of each row say, sorted; tokens that are not learned are left out."""
    rows = [row for _, targets in batches for row in targets.tolist()]
    return sorted(tokenizer.decode([t for t in row if t != -100]) for row in rows)


# a whole run


def test_a_run_leaves_an_assistant_that_learned(
    tmp_path: Path, base: Path, tokenizer: BPETokenizer
) -> None:
    entries = [
        {"instruction": f"Say {WORDS[n % 5]}.", "input": "", "output": WORDS[n % 5]}
        for n in range(40)
    ]
    out, said = tmp_path / "bot", []
    record = train(base, out, entries, epochs=20, batch_size=8, eval_freq=100, say=said.append)
    losses = [r["loss"] for r in read_metrics(out) if not is_evaluation(r)]
    assert len(losses) == 5 * 20 and losses[-1] < 0.3 < 3 < losses[0]
    assert record["running_loss"] < 0.3 and record["val_loss"] < 0.5
    assert "entries: 34 to train on, 2 to validate, 4 to test\n" in said[0]
    assert "prompt style plain" in said[0]

    assistant = Assistant.load(out, say=quiet)
    assert assistant.style.name == "plain"
    reasons = respond(assistant, entries[34:], out / "r.json", SamplingConfig(20), say=quiet)
    answers = [row["model_response"] for row in json.loads((out / "r.json").read_text("utf-8"))]
    assert answers == [entry["output"] for entry in entries[34:]]
    assert reasons == {"end_of_text": 6}
    chat = Chat(assistant.model, tokenizer, assistant.style, SamplingConfig(8))
    assert "".join(chat.ask("Say quick.")) == "quick"


def test_what_a_models_directory_says(
    tmp_path: Path, tokenizer: BPETokenizer, seen: list[Batch]
) -> None:
    base = save_base(tmp_path / "base", tokenizer, context_length=160)
    out, data = tmp_path / "bot", tmp_path / "data.json"
    data.write_text(json.dumps(ENTRIES), "utf-8")
    shares = {"train_ratio": 0.6, "test_ratio": 0.3, "split_seed": 5}
    record = train(base, out, style="chatml", data=str(data), **shares)
    notes = facts_of(out)
    assert notes.task == "instruct" and notes.prompt_style == "chatml"
    expected = shares | {"data": str(data), "max_length": 160}
    assert {name: notes.options[name] for name in expected} == expected
    assert notes.shape["vocab_size"] == 300
    found = notes.data
    assert found.description == f"40 instructions ({data})" and found.train_examples == 24
    assert found.sha256 == entries_fingerprint(ENTRIES)
    assert facts_of(out / LAST).progress["val_loss"] == record["val_loss"]
    split = split_instructions(ENTRIES, 0.6, 0.3, seed=5)
    assert choose_entries(out, say=quiet) == split.test
    trained_on = "".join(learned(seen, tokenizer))
    assert {f"Say {n}." in trained_on for n in range(40) if ENTRIES[n] in split.train} == {True}
    assert {f"Say {n}." in trained_on for n in range(40) if ENTRIES[n] in split.test} == {False}
    assert (out / "chat_template.jinja").read_text("utf-8") == get_style("chatml").chat_template()


def test_transformers_opens_it(tmp_path: Path, base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "bot"
    train(base, out, style="phi3", max_steps=3)
    theirs = AutoModelForCausalLM.from_pretrained(out).eval()
    ours, tokenizer = load_model(out)
    ids = torch.tensor([tokenizer.encode("Say the lazy dog.")])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=0)
    messages = [{"role": "user", "content": "Hi"}]
    text = AutoTokenizer.from_pretrained(out).apply_chat_template(messages, tokenize=False)
    assert text == get_style("phi3").format_turns(messages)


# what is learned


def course_batch(items: list[list[int]], pad_token_id: int) -> Batch:
    """Chapter 7's ``custom_collate_fn``, in its own words."""
    batch_max_length = max(len(item) + 1 for item in items)
    inputs, targets = [], []
    for item in items:
        new_item = [*item, pad_token_id]
        padded = new_item + [pad_token_id] * (batch_max_length - len(new_item))
        target = torch.tensor(padded[1:])
        indices = torch.nonzero(target == pad_token_id).squeeze()
        if indices.numel() > 1:
            target[indices[1:]] = -100
        inputs.append(torch.tensor(padded[:-1]))
        targets.append(target)
    return torch.stack(inputs), torch.stack(targets)


def test_the_loss_is_the_courses_on_the_courses_batches(
    tmp_path: Path, tokenizer: BPETokenizer, seen: list[Batch]
) -> None:
    base = save_base(tmp_path / "base", tokenizer, context_length=320)
    entries = [entry | {"input": " ".join(WORDS[: n % 4])} for n, entry in enumerate(ENTRIES)]
    train(base, tmp_path / "bot", entries, style="alpaca", batch_size=16, max_steps=1)
    encoded = {
        tuple(tokenizer.encode(f"{format_input(entry)}\n\n### Response:\n{entry['output']}"))
        for entry in entries[:34]
    }
    inputs, targets = seen[0]
    lengths = (targets != -100).sum(dim=1).tolist()
    items = [row[:n] for row, n in zip(inputs.tolist(), lengths, strict=True)]
    assert len(set(lengths)) > 1 and all(tuple(item) in encoded for item in items)

    assert tokenizer.eot_token is not None
    idx, expected = course_batch(items, tokenizer.eot_token)
    with torch.no_grad():
        logits = load_model(base)[0](idx)
    loss = F.cross_entropy(logits.flatten(0, 1), expected.flatten()).item()
    assert read_metrics(tmp_path / "bot")[0]["loss"] == pytest.approx(loss, abs=1e-5)


UNEQUAL = [entry | {"output": "fox " * (1 + 7 * (n % 3 == 0))} for n, entry in enumerate(ENTRIES)]
"""Long responses and short ones, so that a mean of means is another than the mean."""


def test_every_token_weighs_the_same_in_whatever_batch(
    tmp_path: Path, base: Path, seen: list[Batch]
) -> None:
    train(base, tmp_path / "a", UNEQUAL, grad_accum_steps=2, max_steps=1)
    model, _ = load_model(base)
    with torch.no_grad():
        sums = [NextToken().loss(model, batch).item() for batch in seen]
    counts = [NextToken().count(batch) for batch in seen]
    record = read_metrics(tmp_path / "a")[0]
    assert len(counts) == 2 and counts[0] != counts[1]
    assert record["loss"] == pytest.approx(sum(sums) / sum(counts), abs=1e-5)

    # What is measured on the validation split does not depend on the batches either.
    shares: dict[str, Any] = {"train_ratio": 0.5, "test_ratio": 0.0, "max_steps": 1}
    losses = []
    for size in (1, 3):
        out = tmp_path / str(size)
        train(base, out, UNEQUAL, batch_size=size, learning_rate=1e-9, **shares)
        losses.append(read_metrics(out)[-1]["val_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


END = "<|endoftext|>"


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_learning_responses_only(
    tmp_path: Path, tokenizer: BPETokenizer, seen: list[Batch], style: str
) -> None:
    base = save_base(tmp_path / "base", tokenizer, context_length=320)
    train(base, tmp_path / "bot", style=style, train_on="response")
    expected = sorted(entry["output"] + END for entry in ENTRIES[:34])
    assert learned(seen, tokenizer) == expected


def chat(*texts: str, system: str | None = None) -> dict[str, Any]:
    """An entry of these messages, the user's and the assistant's in turn."""
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    first = [] if system is None else [{"role": "system", "content": system}]
    return {"messages": first + messages}


CHATS = [
    chat("Hi", "fox", f"More {n}", "dog", "More", "a")
    if n % 2
    else chat(f"Hi {n}", "b", system="S")
    for n in range(20)
]


def test_every_response_of_a_conversation_is_learned(
    tmp_path: Path, tokenizer: BPETokenizer, seen: list[Batch]
) -> None:
    base = save_base(tmp_path / "base", tokenizer, context_length=160)
    record = train(base, tmp_path / "bot", CHATS, train_on="response", style="phi3")
    expected = [f"fox{END}dog{END}a{END}" if n % 2 else f"b{END}" for n in range(17)]
    assert learned(seen, tokenizer) == sorted(expected)
    assert record["val_loss"] > 0

    seen.clear()
    train(base, tmp_path / "all", CHATS, train_on="all")
    texts = [
        f"Hi\nfox{END}\nMore {n}\ndog{END}\nMore\na{END}" if n % 2 else f"S\nHi {n}\nb{END}"
        for n in range(17)
    ]
    assert learned(seen, tokenizer) == sorted(text[1:] for text in texts)  # a first token of 1 byte


LONG = [{"instruction": "x" * 70 + str(n), "input": "", "output": "fox"} for n in range(3)]


def test_what_cannot_be_learned_is_left_out_and_counted(
    tmp_path: Path, base: Path, tokenizer: BPETokenizer, seen: list[Batch]
) -> None:
    said: list[str] = []
    entries = [
        *LONG,
        *ENTRIES[:37],
    ]
    train(base, tmp_path / "bot", entries, train_on="response", say=said.append)
    assert said[0] == (
        "note: 3 training entries are left out: their prompts alone have more than 64 tokens"
    )
    assert facts_of(tmp_path / "bot").data.train_examples == 31
    assert learned(seen, tokenizer) == sorted(entry["output"] + END for entry in entries[3:34])
    losses = [r["loss"] for r in read_metrics(tmp_path / "bot")]
    assert losses and all(loss > 0 for loss in losses)  # a NaN is not

    # Where prompts are learned too, what there is of them counts.
    seen.clear()
    said.clear()
    train(base, tmp_path / "all", entries, say=said.append)
    assert said[0] == "note: 3 training entries have more than 64 tokens; cut off"
    assert sum(len(inputs) for inputs, _ in seen) == 34
    assert max(inputs.shape[1] for inputs, _ in seen) == CONTEXT
    assert choose_entries_of(tmp_path / "bot", entries, tmp_path) == entries[34:38]


def choose_entries_of(model: Path, entries: Sequence[Any], folder: Path) -> list[dict[str, Any]]:
    """The test part of these entries, as ``respond`` finds it."""
    data = folder / "entries.json"
    data.write_text(json.dumps(entries), "utf-8")
    return choose_entries(model, str(data), "test")


def test_where_nothing_can_be_learned(tmp_path: Path, base: Path) -> None:
    short: dict[str, Any] = {"train_on": "response", "max_length": 3}
    with pytest.raises(UserError, match="34 of 34 entries to train on would lose their who"):
        train(base, tmp_path / "bot", **short)
    with pytest.raises(UserError, match=r"use a larger --max-length, or a model with a longer con"):
        train(base, tmp_path / "bot", max_length=3)  # where prompts are learned, too
    with pytest.raises(UserError, match="no validation entry has a response within 64 tokens"):
        train(base, tmp_path / "bot", [*ENTRIES[:38], *LONG[:2]], train_on="response")
    assert not (tmp_path / "bot").exists()


def test_entries_that_lose_their_response_are_warned_of(tmp_path: Path, base: Path) -> None:
    for lost, warned in ((1, False), (3, True), (17, True)):
        said: list[str] = []
        train(
            base,
            tmp_path / str(lost),
            [*LONG * 6, *ENTRIES][18 - lost : 58 - lost],
            say=said.append,
        )
        found = [line for line in said if line.startswith("warning")]
        assert found == warned * [
            f"warning: {lost} of 34 training entries ({lost / 34:.0%}) lose their whole response; "
            "a larger --max-length, or a model with a longer context, would keep them"
        ]
    with pytest.raises(UserError, match=r"18 of 34 entries .* more than 64 tokens \(half of all"):
        train(base, tmp_path / "none", [*LONG * 6, *ENTRIES][:40])


def test_without_validation_and_test_part(tmp_path: Path, base: Path, pictures: None) -> None:
    record = train(base, tmp_path / "bot", train_ratio=1.0, test_ratio=0.0, sample_answers=1)
    assert "val_loss" not in record and record["running_loss"] > 0
    assert facts_of(tmp_path / "bot").data.train_examples == 40
    assert (tmp_path / "bot" / "plots" / "loss.png").exists()


# what of the model trains


LORA = [f"att.{name}.weight" for name in ("W_query", "W_key", "W_value", "out_proj")]
LORA += ["ff.layers.0.weight", "ff.layers.2.weight"]


@pytest.mark.parametrize(
    ("part", "tie"), [("all", True), ("last-block", True), ("last-block", False), ("lora", True)]
)
def test_just_the_right_parameters_change(
    tmp_path: Path, tokenizer: BPETokenizer, part: Train, tie: bool
) -> None:
    base, out, said = save_base(tmp_path / "base", tokenizer, tie_weights=tie), tmp_path / "bot", []
    train(base, out, train=part, max_steps=3, say=said.append)
    before, after = (load_model(folder)[0].state_dict() for folder in (base, out))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if part == "lora":
        expected = {n for n in before if any(n.endswith(layer) for layer in LORA)}
        trained = sum(8 * sum(before[n].shape) for n in expected)
    else:
        places = ("trf_blocks.1.", "final_norm", *([] if tie else ["out_head"]))
        expected = {n for n in before if part == "all" or n.startswith(places)}
        shared = {"out_head.weight"} if tie else set()
        trained = sum(before[n].numel() for n in expected - shared)
    # A bias of the keys moves all scores of a softmax alike: it has no gradient but noise.
    ignored = {name for name in before if name.endswith("W_key.bias")}
    assert changed - ignored == expected - ignored
    assert f"of which {trained:,} train" in "\n".join(said)


def test_loras_update_is_saved_alone_too(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "bot"
    train(base, out, train="lora", lora_rank=3, lora_alpha=9.0)
    ids = torch.randint(0, 256, (2, 20))
    with torch.no_grad():
        scores = [load_model(folder)[0](ids) for folder in (base, out, out / "adapter")]
    torch.testing.assert_close(scores[1], scores[2], atol=1e-5, rtol=0)
    assert (scores[0] - scores[1]).abs().max() > 0.1
    assert Assistant.load(out / "adapter", say=quiet).style.name == "plain"
    train(base, out, max_steps=1, overwrite=True)
    assert not (out / "adapter").exists()


# resuming


@pytest.mark.parametrize(
    ("changes", "stop_at"),
    [
        ({"train": "all", "sample_answers": 2}, 5),
        ({"train": "all", "train_on": "response", "split_seed": 1, "max_length": 12}, 9),
        ({"train": "last-block", "grad_accum_steps": 3}, 2),
        ({"train": "lora", "lora_dropout": 0.1}, 13),
    ],
)
def test_a_resumed_run_is_the_same_as_an_unbroken_one(
    tmp_path: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    stop_at: int,
) -> None:
    """Bit for bit, within an epoch and between two: weights, optimizer, measurements."""
    changes |= {"epochs": 2, "eval_freq": 4}
    shape, stop = {"drop_rate": 0.1}, StopRequest()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(base, whole, shape=shape, **changes)

    class Interrupted(Trainer):
        """Is asked to stop during one step, as by Ctrl-C."""

        def _set_learning_rate(self) -> float:
            if self.progress.step + 1 == stop_at:
                stop.request()
            return super()._set_learning_rate()

    with monkeypatch.context() as patch:
        patch.setattr("groundup.tasks.run.Trainer", Interrupted)
        train(base, broken, shape=shape, stop=stop, **changes)
    assert facts_of(broken / LAST).progress["step"] == stop_at
    train(base, broken, resume=True, **changes)

    names = ["model.safetensors", "checkpoints/last/training_state/optimizer.safetensors"]
    names += ["adapter/adapter_model.safetensors"] if changes["train"] == "lora" else []
    for name in names:
        assert same(load_file(whole / name), load_file(broken / name)), name
    times = ("seconds", "tokens_per_second")
    a, b = (
        [{k: v for k, v in r.items() if k not in times} for r in read_metrics(d)]
        for d in (whole, broken)
    )
    assert a == b and a[-1]["val_loss"] > 0


def test_only_the_same_run_can_be_resumed(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "bot"
    train(base, out)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"style": "phi3"}, "would change style 'plain' to 'phi3'; leave these options out, or"),
        ({"train_on": "response"}, "would change train_on 'all' to 'response'"),
        ({"max_length": 5}, "would change max_length 64 to 5"),
        ({"split_seed": 1}, "would change split_seed None to 1"),
        ({"entries": ENTRIES[1:]}, "was trained on another text; .* use --model .*bot"),
        ({"shape": {"drop_rate": 0.5}}, "would change drop_rate 0.0 to 0.5"),
        ({"epochs": None, "max_steps": 8}, "has done its 9 steps already"),
    ]
    for changes, message in refused:
        with pytest.raises(UserError, match=message):
            train(base, out, resume=True, **changes)
    assert train(base, out, resume=True, epochs=2)["step"] == 18


# sample answers


def test_sample_answers_are_printed_and_disturb_nothing(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (0, 2):
        dropout = {"drop_rate": 0.2}
        train(base, tmp_path / str(count), shape=dropout, eval_freq=4, sample_answers=count)
        printed = [line for line in capsys.readouterr().err.splitlines() if " -> " in line]
        assert [line[:12] for line in printed] == ["  Say 38. ->", "  Say 39. ->"] * 4 * (count > 0)
    assert same(weights(tmp_path / "0"), weights(tmp_path / "2"))


def test_samples_are_asked_as_the_entries_are(
    tmp_path: Path, base: Path, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    class Watched(SamplePrinter):
        def on_evaluate(self, record: Record) -> None:
            asked.append(self.prompt_ids)

    monkeypatch.setattr("groundup.tasks.instruct.SamplePrinter", Watched)
    three = CHATS[17:]  # all of them validate
    shares: dict[str, Any] = {"train_ratio": 0.85, "test_ratio": 0.0, "max_steps": 1}
    train(base, tmp_path / "bot", CHATS, style="phi3", sample_answers=9, **shares)
    firsts = [entry["messages"][: 1 + (n % 2)] for n, entry in enumerate(three)]
    expected = [encode_prompt(messages, tokenizer, get_style("phi3")) for messages in firsts]
    assert asked == expected
    assert tokenizer.decode(asked[1]) == "<|system|>\nS\n<|user|>\nHi 18\n<|assistant|>\n"


def test_a_vocabulary_that_is_padded(
    tmp_path: Path, tokenizer: BPETokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model may score more ids than the tokenizer has, as nanoGPT's 50,304 of GPT-2's 50,257."""
    base = save_base(tmp_path / "base", tokenizer, vocab_size=320, tie_weights=False)
    model, _ = load_model(base)
    for name, value in (("final_norm.scale", 1.0), ("final_norm.shift", 1.0)):
        model.get_parameter(name).data.fill_(value)
    model.out_head.weight.data[300:] = 9.0  # by far the likeliest
    save_model(base, model, tokenizer)
    train(base, tmp_path / "bot", sample_answers=1, max_steps=1, learning_rate=1e-9)
    assert "Say 38. -> " in capsys.readouterr().err
    assistant = Assistant.load(tmp_path / "bot", say=quiet)
    assert (assistant.model(torch.zeros(1, 1, dtype=torch.long)).argmax(dim=-1) >= 300).all()
    respond(assistant, ENTRIES[:2], tmp_path / "r.json", SamplingConfig(5), say=quiet)
    talk = Chat(assistant.model, tokenizer, assistant.style, SamplingConfig(5, 1.0, seed=1))
    assert isinstance("".join(talk.ask("Hi")), str)


# refusals


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_length": 65}, "max_length is 65, but the model's context_length is 64"),
    ({"shape": {"context_length": 32}}, "context of its own .64 tokens.; leave context_length out"),
    ({"shape": {"emb_dim": 64}}, "emb_dim is 64, but the model has 32; leave"),
    ({"model": None}, "begins as a language model: name one with --model"),
    ({"model": "nowhere"}, "there is no model directory 'nowhere'"),
    ({"train": "head"}, "the output layer is the token embedding as well"),
    ({"warmup_steps": 9}, "warmup_steps is 9, but the run has only 9 steps"),
    ({"entries": ENTRIES[:1]}, "a share of 0.85 of 1 entries leaves none to train on"),
    ({"entries": [{"instruction": "a"}] * 3}, "has no response to learn from"),
    ({"resume": True}, "holds no run to resume"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_refusals_write_nothing(
    tmp_path: Path, base: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(base, tmp_path / "bot", **changes)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"style": "alpacka"}, "unknown prompt style 'alpacka'; did you mean 'alpaca'. there are: "),
    ({"train_ratio": 0.95}, "train_ratio 0.95 and test_ratio 0.1 are more than everything"),
    ({"train_ratio": 0.0}, "train_ratio is 0.0; expected more than 0"),
    ({"test_ratio": 1.0}, "test_ratio is 1.0; expected at least 0 and below 1"),
    ({"sample_answers": -1}, "sample_answers is -1; expected 0 or more"),
    ({"max_length": 0}, "max_length is 0; expected at least 1"),
    ({"split_seed": -1}, "split_seed is -1"),
    ({"train_on": "answers"}, "train_on is 'answers'; expected one of all, response"),
]


@pytest.mark.parametrize(("changes", "message"), OPTIONS)
def test_options_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        InstructConfig(**changes)


def test_a_classifier_is_no_model_to_begin_from(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    spam = save_classifier(tmp_path / "spam", tokenizer)
    with pytest.raises(UserError, match=r"is a classifier \(ham, spam\), not a language model"):
        train(spam, tmp_path / "bot")


def test_a_directory_that_is_there(tmp_path: Path, base: Path) -> None:
    train(base, tmp_path / "bot", max_steps=1)
    with pytest.raises(UserError, match="bot exists; use --resume .* --overwrite"):
        train(base, tmp_path / "bot")
    train(base, tmp_path / "bot", max_steps=2, overwrite=True)
    assert facts_of(tmp_path / "bot" / LAST).progress["step"] == 2


# the course's


def test_the_courses_recipe_is_the_courses_setting() -> None:
    values = read_recipe("instruct", "course", InstructConfig, ModelConfig)
    expected = {
        "model": "gpt2-medium",
        "drop_rate": 0.0,
        "data": "instructions",
        "style": "alpaca",
        "train": "all",
        "train_on": "all",
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 5e-5,
        "lr_schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.1,
        "decay": "all",  # torch.optim.AdamW(model.parameters(), ...) with its own betas
        "beta2": 0.999,
        "grad_clip": 0.0,
        "max_length": 1024,
        "seed": 123,
        "eval_freq": 5,
        "eval_iter": 5,
    }
    assert {name: values[name] for name in expected} == expected
    config = InstructConfig(**{n: v for n, v in values.items() if n != "drop_rate"})
    assert (config.train_ratio, config.test_ratio, config.split_seed) == (0.85, 0.1, None)
    assert config.beta1 == 0.9 and config.grad_accum_steps == 1


def test_the_courses_data(tmp_path: Path, base: Path, data_dir: Path) -> None:
    data, said = data_dir / "instruction-data.json", []
    entries, out = read_instructions(data), tmp_path / "bot"
    record = train(base, out, entries, data=str(data), max_steps=2, eval_iter=2, say=said.append)
    assert "entries: 935 to train on, 55 to validate, 110 to test\n" in "\n".join(said)
    assert record["val_loss"] > 0
    assert choose_entries(out, say=quiet) == entries[935:1045]

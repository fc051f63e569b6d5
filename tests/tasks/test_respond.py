import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from groundup.data.instructions import encode_prompt
from groundup.decoding.config import SamplingConfig
from groundup.decoding.texts import TextStream
from groundup.errors import UserError
from groundup.prompts import get_style
from groundup.tasks.assistant import Assistant
from groundup.tasks.kept_responses import KeptResponses, Response
from groundup.tasks.respond import choose_entries, describe, respond
from groundup.tokenizers import BPETokenizer
from tests.assistants import ENTRIES, Scripted, lively_model, save_assistant

SHORT = SamplingConfig(max_new_tokens=12)
WARM = SamplingConfig(max_new_tokens=12, temperature=1.0, seed=1)


@pytest.fixture
def assistant(tokenizer: BPETokenizer) -> Assistant:
    return Assistant(lively_model(tokenizer), tokenizer, get_style("alpaca"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def quiet(text: str) -> None:
    pass


def partial_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial.jsonl")


def test_every_entry_gets_what_the_model_writes_after_its_prompt(
    assistant: Assistant, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "responses.json"
    entries = [*ENTRIES, {"messages": [{"role": "user", "content": "Hi"}]}, {"instruction": "Go"}]
    reasons = respond(assistant, entries, out, SHORT, batch_size=3, say=quiet)
    found = read(out)
    assert [entry | {"model_response": 0, "finish_reason": 0} for entry in entries] == [
        row | {"model_response": 0, "finish_reason": 0} for row in found
    ]
    for entry, row in zip(entries, found, strict=True):
        messages = [m for m in assistant.style.conversation(entry) if m["role"] == "user"]
        ids = encode_prompt(messages, assistant.tokenizer, assistant.style)
        stream = TextStream(assistant.model, assistant.tokenizer, ids, SHORT)
        assert row["model_response"] == "".join(stream).strip()
        assert row["finish_reason"] == stream.finish_reason
    assert reasons == Counter(row["finish_reason"] for row in found)
    assert [path.name for path in out.parent.iterdir()] == ["responses.json"]


def test_responses_end_before_a_stop_string_and_are_stripped(
    tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    answers = ["\n the fox \n\n### Instruction:\nmore", " 🙂 ", "", "the lazy dog over"]
    model = Scripted(tokenizer, answers)
    # The longest prompt is asked first: these are asked in their order.
    entries = [{"instruction": "x" * (9 - n), "input": ""} for n in range(4)]
    assistant = Assistant(model, tokenizer, get_style("alpaca"))
    config = SamplingConfig(max_new_tokens=len(tokenizer.encode("\n the fox \n\n### Instruction:")))
    model.answers[3] = model.answers[3][:-1] * 20
    reasons = respond(assistant, entries, tmp_path / "r.json", config, batch_size=1, say=quiet)
    found = [(row["model_response"], row["finish_reason"]) for row in read(tmp_path / "r.json")]
    assert found[:3] == [("the fox", "stop"), ("🙂", "end_of_text"), ("", "end_of_text")]
    assert found[3][1] == "length" and found[3][0].startswith("the lazy dog over")
    told = describe(reasons)
    assert told.startswith("4 responses ended: 2 by end-of-text, 1 by a stop string, 1 by their le")
    assert describe(Counter(stop=2)) == "2 responses ended: 2 by a stop string"


def test_a_response_that_is_there_is_not_shown_to_the_model(
    tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    model = Scripted(tokenizer, ["new", "new"])
    assistant = Assistant(model, tokenizer, get_style("chatml"))
    asked = {"role": "user", "content": "Who?"}
    chat = {"messages": [asked, {"role": "assistant", "content": "fox"}]}
    entry = {"instruction": "Who?", "output": "fox", "model_response": "old"}
    said: list[str] = []
    respond(assistant, [chat, entry], tmp_path / "r.json", SHORT, batch_size=1, say=said.append)
    assert model.prompts == [encode_prompt([asked], tokenizer, assistant.style)] * 2
    assert [row["model_response"] for row in read(tmp_path / "r.json")] == ["new", "new"]
    assert any("the model_response that entries have" in text for text in said)


Kill = Callable[[int, BaseException], None]


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    """Kill a run after so many responses."""
    original = KeptResponses.add

    def after(count: int, error: BaseException) -> None:
        left = [count]

        def add(self: KeptResponses, index: int, response: Response) -> None:
            if not left[0]:
                raise error
            left[0] -= 1
            original(self, index, response)

        monkeypatch.setattr(KeptResponses, "add", add)

    return after


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("killed")])
def test_a_killed_run_goes_on_and_gives_the_same(
    assistant: Assistant, tmp_path: Path, kill: Kill, error: BaseException
) -> None:
    whole, out = tmp_path / "whole.json", tmp_path / "r.json"
    respond(assistant, ENTRIES, whole, SHORT, batch_size=2, say=quiet)
    said: list[str] = []
    for count, torn in ((2, b'{"entry": 3, "model_resp'), (0, b""), (3, b"\xf0\x9f")):
        kill(count, error)
        with pytest.raises(type(error)):
            respond(assistant, ENTRIES, out, SHORT, batch_size=2, say=said.append)
        assert not out.exists()
        with partial_of(out).open("ab") as file:
            file.write(torn)
    first = [json.loads(line) for line in partial_of(out).read_bytes().splitlines()[1:-1]]
    kill(len(ENTRIES) - 5, error)  # one more would be an entry that is answered twice
    respond(assistant, ENTRIES, out, SHORT, batch_size=2, say=said.append)
    assert out.read_bytes() == whole.read_bytes()
    assert len({row["entry"] for row in first}) == len(first) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "whole.json"]
    assert f"going on with {partial_of(out)}: 5 of 7 are there" in said
    kept = [text for text in said if "the same command goes on from there" in text]
    assert len(kept) == (3 if isinstance(error, KeyboardInterrupt) else 0)


def test_killed_before_the_end_is_written(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.json"
    with monkeypatch.context() as patch:
        patch.setattr("groundup.tasks.respond.write_json", lambda path, value: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            respond(assistant, ENTRIES, out, SHORT, say=quiet)
    assert not out.exists()
    monkeypatch.setattr(KeptResponses, "add", lambda *_: pytest.fail("answered twice"))
    respond(assistant, ENTRIES, out, SHORT, say=quiet)
    assert len(read(out)) == len(ENTRIES) and not partial_of(out).exists()


def test_only_the_same_run_goes_on(
    assistant: Assistant, tokenizer: BPETokenizer, tmp_path: Path, kill: Kill
) -> None:
    out = tmp_path / "r.json"
    kill(1, RuntimeError("killed"))
    with pytest.raises(RuntimeError):
        respond(assistant, ENTRIES, out, SHORT, say=quiet)
    before = partial_of(out).read_bytes()
    torch.manual_seed(5)
    other = Assistant(lively_model(tokenizer), tokenizer, assistant.style)
    plain = Assistant(assistant.model, tokenizer, get_style("plain"))
    for changed, message in (
        ((other, ENTRIES, SHORT), "other weights;"),
        ((assistant, ENTRIES[:-1], SHORT), "other prompts"),
        ((plain, ENTRIES, SHORT), "other prompts"),
        (
            (other, ENTRIES, WARM),
            r"other weights and temperature 0.0 \(now 1.0\) and seed None \(now 1\); give the same",
        ),
    ):
        who, entries, config = changed
        with pytest.raises(UserError, match=message):
            respond(who, entries, out, config, say=quiet)
    assert partial_of(out).read_bytes() == before
    # A batch of another size, or a seed where nothing is drawn, is no other run.
    kill(99, RuntimeError("killed"))
    unseeded = SamplingConfig(max_new_tokens=12, seed=3)
    respond(assistant, ENTRIES, out, unseeded, batch_size=1, say=quiet)


def test_refusals_write_nothing(assistant: Assistant, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with pytest.raises(UserError, match="batch_size is 0"):
        respond(assistant, ENTRIES, out, SHORT, batch_size=0)
    with pytest.raises(UserError, match="max_new_tokens is 0"):
        respond(assistant, ENTRIES, out, SamplingConfig(max_new_tokens=0))
    assert list(tmp_path.iterdir()) == []
    out.write_text("mine", "utf-8")
    with pytest.raises(UserError, match=r"r\.json exists; choose another --out"):
        respond(assistant, ENTRIES, out, SHORT)
    assert out.read_text("utf-8") == "mine"
    out.unlink()
    with FileLock(tmp_path / ".r.json.lock"), pytest.raises(UserError, match="another run is wri"):
        respond(assistant, ENTRIES, out, SHORT)
    for damage in (b"{}\n", b"[1]\n", b"\xff\n", b'{"settings": {}, "model": 1}\n', b"x\n"):
        partial_of(out).write_bytes(damage)
        with pytest.raises(UserError, match="is damaged; delete it to begin anew"):
            respond(assistant, ENTRIES, out, SHORT, say=quiet)
        assert partial_of(out).read_bytes() == damage


def test_prompts_longer_than_the_context_are_counted(
    tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    model = lively_model(tokenizer, context_length=150)
    said: list[str] = []
    entries = [ENTRIES[0], {"instruction": "long " * 99}, ENTRIES[4], {"instruction": "g" * 400}]
    assistant = Assistant(model, tokenizer, get_style("plain"))
    respond(assistant, entries, tmp_path / "r.json", SHORT, say=said.append)
    assert said == [
        "note: 2 of 4 prompts are longer than the model's context of 150 tokens; the model does "
        "not see their beginnings, and has room for one token (entries 2, 4)"
    ]


def data_file(folder: Path, count: int = 40) -> Path:
    path = folder / "data.json"
    rows = [{"instruction": f"{n}", "input": "", "output": "x"} for n in range(count)]
    path.write_text(json.dumps(rows), "utf-8")
    return path


def numbers(entries: list[dict[str, Any]]) -> list[int]:
    return [int(entry["instruction"]) for entry in entries]


def test_the_runs_own_split_is_answered(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    data = data_file(tmp_path)
    shares: dict[str, Any] = {"train_ratio": 0.5, "test_ratio": 0.25, "split_seed": None}
    model = save_assistant(tmp_path / "m", tokenizer, data=str(data), **shares)
    assert numbers(choose_entries(model)) == list(range(20, 30))
    assert numbers(choose_entries(model, part="train")) == list(range(20))
    assert numbers(choose_entries(model, part="validation", limit=3)) == [30, 31, 32]
    assert numbers(choose_entries(model, part="all")) == list(range(40))
    assert numbers(choose_entries(model, str(data))) == list(range(40))
    assert numbers(choose_entries(model, str(data), "test")) == list(range(20, 30))
    mixed = save_assistant(tmp_path / "s", tokenizer, data=str(data), **{**shares, "split_seed": 1})
    parts = [numbers(choose_entries(mixed, part=part)) for part in ("train", "test", "validation")]
    assert sorted(sum(parts, [])) == list(range(40)) and parts[1] != list(range(20, 30))


def test_a_model_that_does_not_say_its_data(tmp_path: Path, model_dir: Path) -> None:
    data, said = str(data_file(tmp_path)), []
    with pytest.raises(UserError, match="does not say what it was trained on; name entries with"):
        choose_entries(model_dir)
    with pytest.raises(UserError, match="limit is 0; expected at least 1"):
        choose_entries(model_dir, data, limit=0)
    assert numbers(choose_entries(model_dir, data, "test", say=said.append)) == [34, 35, 36, 37]
    assert said == [
        "entries: 40 in the format of Alpaca (instruction, input, output)",
        f"note: {model_dir} does not say how its data was split; this is the course's split",
    ]
    few = data_file(tmp_path, 5)
    with pytest.raises(UserError, match="the test part of .* is empty"):
        choose_entries(model_dir, str(few), "test", say=said.append)

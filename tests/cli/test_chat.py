import builtins
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groundup.cli import chat as module
from groundup.data.instruction_files import read_instructions
from groundup.data.instructions import encode_prompt
from groundup.prompts import get_style
from groundup.tasks.assistant import Assistant
from groundup.tokenizers import BPETokenizer
from tests.assistants import Scripted, save_assistant
from tests.conftest import Result, Run

Fails = Callable[..., str]
Type = Callable[[str | bytes], None]
Play = Callable[..., Scripted]


@pytest.fixture
def type_(monkeypatch: pytest.MonkeyPatch) -> Type:
    """Give the chat these lines, as from a pipe."""

    def give(text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return give


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tokenizer: BPETokenizer) -> Play:
    """Let a model with these answers be the one that is opened."""

    def load(*answers: str, interrupt_at: int | None = None, context: int = 640) -> Scripted:
        model = Scripted(tokenizer, answers, context, interrupt_at)
        assistant = Assistant(model, tokenizer, get_style("plain"))
        monkeypatch.setattr(Assistant, "load", lambda *args, **kwargs: assistant)
        return model

    return load


@pytest.fixture
def chat(run: Run, type_: Type) -> Callable[..., Result]:
    """Say these lines."""

    def say(*lines: str, options: tuple[str, ...] = ()) -> Result:
        type_("".join(line + "\n" for line in lines))
        result = run("instruct", "chat", ".", *options)
        assert result.status == 0, result.err
        return result

    return say


Chat = Callable[..., Result]


def test_a_saved_model_chats_in_its_own_style(
    run: Run, tmp_path: Path, tokenizer: BPETokenizer, type_: Type
) -> None:
    model = save_assistant(tmp_path / "m", tokenizer)
    outputs = []
    for seed in (1, 1, 2):
        type_("Who?\nAnd then?\n")
        result = run("instruct", "chat", model, "--max-new-tokens=6", f"--seed={seed}")
        assert (result.status, result.out.count(">")) == (0, 0), result.err
        assert "style" not in result.err
        outputs.append(result.out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_answers_are_printed_and_notes_are_not_among_them(play: Play, chat: Chat) -> None:
    model = play("the 🙂 fox", "日本語 café 👩‍🚀")
    result = chat("", "Who?", "   ", "Where 🙂?")
    assert result.out == "the 🙂 fox\n日本語 café 👩‍🚀\n"
    assert result.err == "" and len(model.prompts) == 2


def test_what_is_not_utf8_is_still_a_message(
    play: Play, chat: Chat, run: Run, type_: Type, tokenizer: BPETokenizer
) -> None:
    model = play("yes")
    type_(b"caf\xe9?\r\n")
    assert (
        run(
            "instruct",
            "chat",
            ".",
        ).out
        == "yes\n"
    )
    asked = encode_prompt([{"role": "user", "content": "caf�?"}], tokenizer, get_style("plain"))
    assert model.prompts == [asked]


def test_ctrl_c_stops_the_answer_only(
    play: Play, chat: Chat, tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    model = play("qwxyz", "qwxyz", interrupt_at=3)
    result = chat("one", "two", f"/save {tmp_path / 'c.json'}")
    assert result.out == "qw\nqw\n" and result.err.count("(stopped)\n") == 2
    roles = [("user", "one"), ("assistant", "qw"), ("user", "two"), ("assistant", "qw")]
    expected = [{"role": role, "content": content} for role, content in roles]
    assert read_instructions(tmp_path / "c.json")[0]["messages"] == expected
    assert model.prompts[1] == encode_prompt(expected[:3], tokenizer, get_style("plain"))


def test_ctrl_c_before_the_first_word_keeps_nothing(play: Play, chat: Chat) -> None:
    play("qwxyz", interrupt_at=1)
    result = chat("one", "/save nothing.json")
    assert result.out == "\n" and "(no answer; this turn is not kept)" in result.err
    assert "(there is nothing to save yet)" in result.err


def test_forgotten_turns_are_told(play: Play, chat: Chat) -> None:
    play(*["cd"] * 9, context=24)
    result = chat(*["ab"] * 6)
    assert "(the context is full: the oldest turn is forgotten)" in result.err
    assert result.out == "cd\n" * 6


def test_a_mistake_in_a_turn_does_not_end_the_conversation(play: Play, chat: Chat) -> None:
    play("yes", "ab" * 99, context=40)
    result = chat("long " * 50, "short", "again")
    assert result.out.startswith("yes\nabab")
    assert "shorten the message)" in result.err and "(cut off: longer than" in result.err


def test_commands(play: Play, chat: Chat, tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model = play("one", "two", "three", "four")
    saved, plain = tmp_path / "a b.json", get_style("plain")
    result = chat(
        "Hi",
        "/system You are a fox.  ",
        "Who?",
        f"/save {saved}",
        f"/save {saved}",
        "/save",
        "/reset",
        "Hi",
        "/system",
        " /etc is a folder",
        "/halp",
        "/help",
        "/exit",
        "never asked",
    )
    assert result.out == "one\ntwo\nthree\nfour\n"
    for text in (
        "(system message set)",
        f"(saved: {saved})",
        f"({saved} exists; choose another name)",
        "(/save needs the name of a file)",
        "(a new conversation)",
        "(no system message of yours any more)",
        "(unknown command /halp; did you mean '/help'?)",
    ):
        assert text in result.err
    assert result.err.count("/save FILE      write the conversation") == 2
    assert all(f"  {name} " in module.HELP for name in module.COMMANDS)
    system = {"role": "system", "content": "You are a fox."}
    first = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "one"}]
    who = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "two"}]
    assert json.loads(saved.read_text(encoding="utf-8")) == [{"messages": [system, *first, *who]}]
    read = [{"role": "user", "content": "/etc is a folder"}]
    third = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "three"}]
    assert model.prompts == [
        encode_prompt(messages, tokenizer, plain)
        for messages in (first[:1], [system, *first, *who[:1]], [system, *third[:1]], third + read)
    ]


def test_a_system_message_from_the_command_line(
    play: Play, chat: Chat, tokenizer: BPETokenizer
) -> None:
    model = play("one")
    chat("Hi", options=("--system", "Be kind."))
    assert tokenizer.decode(model.prompts[0]) == "Be kind.\nHi\n"


def test_in_a_terminal(play: Play, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the prompt asks, twice in a row leaves; Ctrl-D leaves."""
    model = play("one", "two")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    keys: Iterator[str | BaseException]

    def typed(prompt: str) -> str:
        assert prompt == "> "
        key = next(keys)
        if isinstance(key, BaseException):
            raise key
        return key

    monkeypatch.setattr(builtins, "input", typed)
    bad = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    stop = KeyboardInterrupt()
    keys = iter(["Hi", stop, "Half \ud83d", stop, bad, stop, "never asked"])
    lines = module._typed()
    assert list(lines) == ["Hi", "Half ?"]
    assert next(keys) == "never asked"
    keys = iter(["Hi", stop, "/help", EOFError(), "never asked"])
    result = run(
        "instruct",
        "chat",
        ".",
    )
    assert result.status == 0 and result.out == "one\n\n\n"
    assert "once more leaves" in result.err and "Ctrl-D leaves" in result.err
    assert len(model.prompts) == 1


def test_a_model_that_was_never_tuned_is_warned_of(
    run: Run, fails: Fails, model_dir: Path, type_: Type
) -> None:
    type_("Hi\n")
    result = run("instruct", "chat", model_dir, "--max-new-tokens=2", "--style=plain")
    assert result.status == 0 and "it continues texts and does not answer" in result.err
    type_("Hi\n")
    result = run("instruct", "chat", model_dir, "--max-new-tokens=2")
    assert "a language model continues texts" in result.err
    # The tiny model's context has no room for alpaca's words.
    assert result.status == 0 and "shorten the message" in result.err
    assert "unknown prompt style 'x'" in fails("instruct", "chat", model_dir, "--style=x")
    assert "top_p is 3.0" in fails("instruct", "chat", model_dir, "--top-p=3")

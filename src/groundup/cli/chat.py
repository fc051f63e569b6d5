"""``groundup instruct chat``: talk with a model in the terminal."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from groundup.cli.app import opening_of, pick, with_options
from groundup.cli.instruct import instruct
from groundup.decoding.answer_config import ChatConfig
from groundup.errors import UserError, did_you_mean
from groundup.output import say, show
from groundup.prompts import DEFAULT_STYLE
from groundup.weights.open_config import OpenConfig

if TYPE_CHECKING:
    from groundup.decoding.chat import Chat

COMMANDS = ("/reset", "/system", "/save", "/help", "/exit")

HELP = """\
  /reset          begin a new conversation
  /system [TEXT]  tell the model something before the conversation; no TEXT takes it back
  /save FILE      write the conversation as JSON
  /help           show this
  /exit           leave, as Ctrl-D does
  Ctrl-C          stop an answer
A space before a message's first / makes it no command."""


@instruct.command
@with_options(Opening=OpenConfig, Sampling=ChatConfig)
def chat(
    model: str,
    /,
    *,
    system: str | None = None,
    # One answer per message: there is no such flag.
    num_samples: Annotated[int, Parameter(parse=False)] = 1,
    given: dict[str, Any],
) -> None:
    """Talk with a model; it forgets the oldest turns when its context is full.

    /help in the chat lists what else one can do there. Lines from a pipe are messages too.

    Args:
        model: a model directory, a GGUF file, a .pth of the course, or the name of a downloaded or
            imported model.
        system: what the model is told before the conversation.
    """
    opening = opening_of(given, model)
    options = ChatConfig(**pick(given, ChatConfig))

    from groundup.decoding.chat import Chat
    from groundup.tasks.assistant import Assistant

    runtime = opening.runtime
    assistant = Assistant.load(
        model,
        runtime.device,
        style=opening.style,
        fallback=DEFAULT_STYLE,
        say=say,
        **opening.how,
    )
    assistant.model.to(runtime.dtype)
    conversation = Chat(
        assistant.model, assistant.tokenizer, assistant.style, options, system=system
    )
    if sys.stdin.isatty() and sys.stdout.isatty():
        say("Ask something; /help lists the commands, Ctrl-D leaves.")
        lines = _typed()
    else:
        lines = _piped()
    for line in lines:
        try:
            if line.startswith("/"):
                if not _command(conversation, line.strip()):
                    return
            elif line.strip():
                _answer(conversation, line.strip())
        except UserError as error:
            say(f"({error})")


def _typed() -> Iterator[str]:
    """Lines from a terminal, until Ctrl-D or the second Ctrl-C."""
    with suppress(ImportError):  # Windows has none
        importlib.import_module("readline")  # from now on input() edits lines
    interrupted = False
    while True:
        try:
            line = input("> ")
        except UnicodeDecodeError:
            say("(that was not UTF-8; type it again)")
            continue
        except EOFError:
            show()
            return
        except KeyboardInterrupt:
            show()
            if interrupted:
                return
            interrupted = True
            say("(once more leaves, as does Ctrl-D)")
            continue
        interrupted = False
        # Half of a character, which some terminals send, becomes a question mark.
        yield line.encode("utf-8", "replace").decode("utf-8")


def _piped() -> Iterator[str]:
    """Lines from a file or a pipe."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace")


def _answer(conversation: Chat, text: str) -> None:
    """Ask, and print the answer as it is written; Ctrl-C stops it."""
    before = conversation.forgotten
    answer = conversation.ask(text)
    if more := conversation.forgotten - before:
        turns = "turn is" if more == 1 else f"{more} turns are"
        say(f"(the context is full: the oldest {turns} forgotten)")
    stopped = False
    try:
        for piece in answer:
            show(piece, end="", flush=True)
    except KeyboardInterrupt:
        stopped = True
    finally:
        answer.stop()  # it may have been stopped while a piece was printed
        show(flush=True)
    if not answer.text.strip():
        say("(no answer; this turn is not kept)")
    elif stopped:
        say("(stopped)")
    elif answer.finish_reason == "length":
        say("(cut off: longer than --max-new-tokens or than the context has room for)")


def _command(conversation: Chat, line: str) -> bool:
    """Do what a line with a slash says; return whether the chat goes on."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/exit":
        return False
    if name == "/reset":
        conversation.reset()
        say("(a new conversation)")
    elif name == "/system":
        conversation.system = rest or None
        say("(system message set)" if rest else "(no system message of yours any more)")
    elif name == "/save":
        _save(conversation, rest)
    elif name == "/help":
        say(HELP)
    else:
        say(f"(unknown command {name}{did_you_mean(name, COMMANDS)})\n{HELP}")
    return True


def _save(conversation: Chat, name: str) -> None:
    """Write the conversation as an entry that instruction tuning reads."""
    from groundup.files import atomic_file, write_json

    if not name:
        raise UserError("/save needs the name of a file")
    if not conversation.turns:
        raise UserError("there is nothing to save yet")
    path = Path(name).expanduser()
    if path.exists():
        raise UserError(f"{path} exists; choose another name")
    with atomic_file(path) as temporary:
        write_json(temporary, [{"messages": conversation.messages()}])
    say(f"(saved: {path})")

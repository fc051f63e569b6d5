from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.instructions import encode_prompt
from groundup.errors import UserError
from groundup.prompts import (
    CONTENT,
    PROMPT_STYLES,
    Message,
    PromptStyle,
    get_style,
    message_problems,
)
from groundup.tokenizers import BPETokenizer

STYLES = sorted(PROMPT_STYLES)
EVERY_STYLE = pytest.mark.parametrize("style", PROMPT_STYLES.values(), ids=lambda style: style.name)

TEXTS = st.text(st.one_of(st.sampled_from("{}%'\" \n\té🙂<|#"), st.characters(codec="utf-8")))


def turns(*contents: str, system: str | None = None) -> list[Message]:
    """Messages from the user and the assistant in turn."""
    roles = ("user", "assistant")
    messages: list[Message] = [
        {"role": roles[i % 2], "content": content} for i, content in enumerate(contents)
    ]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


CONVERSATIONS = st.builds(
    lambda contents, system: turns(*contents, system=system),
    st.lists(TEXTS, min_size=1, max_size=5),
    st.none() | TEXTS,
)


def jinja(style: PromptStyle, messages: list[Message], **variables: str) -> str:
    """Render the chat template in the environment that transformers makes."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(style.chat_template())
    return template.render(messages=messages, **variables)


def test_alpaca_is_the_courses() -> None:
    alpaca = get_style("alpaca")
    entry = {"instruction": "Fix it.", "input": "freind", "output": "friend"}
    head = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nFix it."
    )
    assert alpaca.format(entry) == head + "\n\n### Input:\nfreind\n\n### Response:\n"
    for nothing in ({"input": ""}, {"input": None}, {}):
        prompt = alpaca.format({"instruction": "Fix it.", **nothing})
        assert prompt == head + "\n\n### Response:\n"


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("plain", "Be kind.\nHi\nyou\n", "\nBye\n"),
        (
            "alpaca",
            "Be kind.\n\n### Instruction:\nHi\n\n### Input:\nyou\n\n### Response:\n",
            "\n\n### Instruction:\nBye\n\n### Response:\n",
        ),
        (
            "phi3",
            "<|system|>\nBe kind.\n<|user|>\nHi\nyou\n<|assistant|>\n",
            "\n<|user|>\nBye\n<|assistant|>\n",
        ),
        (
            "chatml",
            "<|im_start|>system\nBe kind.<|im_end|>\n"
            "<|im_start|>user\nHi\nyou<|im_end|>\n<|im_start|>assistant\n",
            "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_a_conversation_in_every_style(name: str, first: str, second: str) -> None:
    style = get_style(name)
    question = style.conversation({"instruction": "Hi", "input": "you"})[0]["content"]
    messages = turns(question, "Hello!", "Bye", system="Be kind.")
    assert style.exchanges(messages) == [(first, "Hello!"), (second, None)]
    assert style.format_turns(messages) == first + "Hello!" + second


@EVERY_STYLE
@given(instruction=TEXTS)
def test_one_turn_is_the_entrys_prompt(style: PromptStyle, instruction: str) -> None:
    prompt = style.format_turns(turns(instruction))
    assert prompt == style.format({"instruction": instruction, "input": "", "output": "x"})
    assert prompt.count(instruction) >= 1 and prompt.endswith("\n")


@EVERY_STYLE
def test_an_entry_of_messages_is_asked_its_last_question(style: PromptStyle) -> None:
    asked = turns("Hi", "Hello!", "Bye")
    answered = turns("Hi", "Hello!", "Bye", "So long!")
    expected = style.format_turns(asked)
    assert style.format({"messages": answered}) == style.format({"messages": asked}) == expected


@EVERY_STYLE
def test_what_is_declared(style: PromptStyle) -> None:
    assert all(text.count(CONTENT) == 1 for text in (style.system, style.user))
    texts = (style.system, style.user, style.between, style.before_input)
    assert not any("{{" in text or "{%" in text for text in texts)  # Go's and Jinja's
    # A stop string is a marker that the style itself writes, or Phi-3's own.
    written = "".join(texts) + "<|end|>"
    assert all(stop in written for stop in style.stop)


def test_the_named_styles() -> None:
    assert list(PROMPT_STYLES) == ["plain", "alpaca", "phi3", "chatml"]
    assert all(get_style(name).name == name for name in PROMPT_STYLES)
    message = "unknown prompt style 'alpacca'; did you mean 'alpaca'. there are: plain, alpaca, ph"
    with pytest.raises(UserError, match=message):
        get_style("alpacca")
    with pytest.raises(UserError, match="'x'; there are: plain, alpaca, phi3, chatml, or model"):
        get_style("x")


@EVERY_STYLE
@given(messages=CONVERSATIONS)
def test_jinja_renders_the_chat_template_to_the_same_text(
    style: PromptStyle, messages: list[Message]
) -> None:
    pairs = style.exchanges(messages)
    plain = "".join(prompt + (response or "") for prompt, response in pairs)
    assert jinja(style, messages) == jinja(style, messages, eos_token="") == plain
    ended = [prompt + ("" if response is None else response + "<E>") for prompt, response in pairs]
    assert jinja(style, messages, eos_token="<E>") == "".join(ended)


@EVERY_STYLE
def test_transformers_gets_the_same_tokens_from_the_chat_template(
    style: PromptStyle, tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(style.chat_template(), encoding="utf-8")
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    for messages in (turns("Say the fox."), turns("A?", "B: 日本", "C? 🙂", system="Be brown.")):
        found = theirs.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert found == encode_prompt(messages, tokenizer, style)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "not a list of messages"),
        ("Hi", "not a list of messages"),
        (["Hi"], "message 1 is 'Hi'; expected {role, content}"),
        ([{"role": "tool", "content": "x"}], "message 1 has the role 'tool'; expected one of"),
        ([{"content": "x"}], "message 1 has the role None"),
        (turns("a", "b") + turns(system="s"), "message 3 is a system message; only the first"),
        (turns("a") + turns("b"), "message 2 is the user's, but it is the assistant's turn"),
        (turns("a", "b")[1:], "message 1 is the assistant's, but it is the user's turn"),
        ([{"role": "user", "content": 3}], "the content of message 1 is 3; expected a text"),
        ([{"role": "user"}], "the content of message 1 is None"),
    ],
)
def test_no_conversation(messages: Any, message: str) -> None:
    assert message in "; ".join(message_problems(messages))
    with pytest.raises(UserError, match=message):
        get_style("alpaca").format_turns(messages)


def test_every_problem_is_told_and_none_twice() -> None:
    messages = [*turns("a"), {"role": "bot", "content": None}, *turns("b"), *turns("c")]
    assert len(message_problems(messages)) == 3
    assert message_problems(turns("a", "b", "c", system="")) == []


@pytest.mark.parametrize("messages", [turns("a", "b"), turns(system="s")])
def test_a_prompt_ends_with_the_users_message(messages: list[Message]) -> None:
    with pytest.raises(UserError, match="the last message is not the user's"):
        get_style("phi3").format_turns(messages)

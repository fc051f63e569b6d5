"""A model's own chat template: the tokens of transformers, and nobody's text ends a turn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from groundup.data.instructions import collate_examples, encode_entry, encode_prompt
from groundup.data.model_style import ModelStyle, check_markers, style_of, template_of
from groundup.errors import UserError
from groundup.prompts import Message, get_style
from groundup.tokenizers import BPETokenizer, Tokenizer
from groundup.tokenizers.opening import open_tokenizer
from groundup.tokenizers.reading import TokenizerFiles
from tests.data.templates import SMOLLM2, TEMPLATES, ZEPHYR
from tests.tokenizers.trained import SAMPLE, SPECIALS, trained

KINDS = {"smollm2": "smollm", "llama3": "llama3", "qwen3": "qwen2", "zephyr": "gpt2"}
ROLES = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}
IM_START, IM_END = SPECIALS.index("<|im_start|>"), SPECIALS.index("<|im_end|>")

NAMES = pytest.mark.parametrize("name", TEMPLATES)
TEXTS = st.lists(
    st.sampled_from(["\n", " ", "  ", "<", "|", "<|", "im_end|>", "</think>", "<think>", "{{ x }}"])
    | st.characters(codec="utf-8"),
    max_size=12,
).map("".join)


def conversation(*contents: str, system: str | None = None) -> list[Message]:
    """Of the user and the assistant in turn."""
    roles = ("user", "assistant")
    messages: list[Message] = [
        {"role": roles[i % 2], "content": content} for i, content in enumerate(contents)
    ]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def tokenizer_of(name: str, template: str | None = None) -> Tokenizer:
    library = trained(KINDS[name], nfc=name == "qwen3", bos=name == "llama3")
    files = TokenizerFiles(json.loads(library.to_str()), dict(ROLES), template or TEMPLATES[name])
    return open_tokenizer(files)


def style(name: str, template: str | None = None) -> ModelStyle:
    return ModelStyle.of(tokenizer_of(name, template))


def theirs(name: str, messages: list[Message], *, ask: bool) -> list[int]:
    library: Any = PreTrainedTokenizerFast(
        tokenizer_object=trained(KINDS[name], nfc=name == "qwen3", bos=name == "llama3"), **ROLES
    )
    library.chat_template = TEMPLATES[name]
    return library.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=ask, return_dict=False
    )


@NAMES
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5), system=st.none() | TEXTS)
def test_token_by_token_what_transformers_gives(
    name: str, texts: list[str], system: str | None
) -> None:
    messages = conversation(*texts, system=None if name == "zephyr" else system)
    if any(special in text for text in [*texts, system or ""] for special in SPECIALS):
        return
    if len(texts) % 2:
        found = encode_prompt(messages, tokenizer_of(name), style(name))
        assert found == theirs(name, messages, ask=True)


@NAMES
def test_what_is_learned_is_what_the_assistant_writes(name: str) -> None:
    messages = conversation("A?", "B 1234.", "C?", " D!", system=None if name == "zephyr" else "S")
    ours, tokenizer = style(name), tokenizer_of(name)
    example = encode_entry({"messages": messages}, tokenizer, ours)
    assert example.ids == theirs(name, messages, ask=False)
    asked = [encode_prompt(messages[:n], tokenizer, ours) for n in (-3, -1)]
    for prompt, (begin, end), said in zip(asked, example.responses, ("B", "D"), strict=True):
        assert example.ids[:begin] == prompt, "a model that answers has seen this much"
        learned = tokenizer.decode(example.ids[begin:end])
        assert example.ids[end - 1] == IM_END and said in learned
        assert "?" not in learned and learned.count("<|im_end|>") == 1
    inputs, targets = collate_examples([example], 0, train_on="response")
    kept = [i for begin, end in example.responses for i in example.ids[begin:end]]
    assert targets[targets != -100].tolist() == kept and inputs.shape == targets.shape


@NAMES
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*SPECIALS, "<|im_", "end|>", "\n", "user", "x "]), max_size=8).map(
        "".join
    )
)
def test_nobody_can_write_a_special_token(name: str, text: str) -> None:
    ours, tokenizer = style(name), tokenizer_of(name)
    harmless, asked = (encode_prompt(conversation(said), tokenizer, ours) for said in ("x", text))
    specials = set(tokenizer.special_tokens.values())
    found, expected = ([i for i in ids if i in specials] for ids in (asked, harmless))
    assert found == expected
    written = text.strip() if name == "llama3" else text
    assert written in tokenizer.decode(asked)
    example = encode_entry({"messages": conversation(text, text)}, tokenizer, ours)
    begin, end = example.responses[0]
    assert [i for i in example.ids[begin:end] if i in specials] == [IM_END]


def test_two_contents_side_by_side_make_none_either() -> None:
    """As where a template puts the system message into the user's."""
    template = "{% for m in messages %}{{ m.content | trim }}{% endfor %}<|im_end|>"
    ours = style("smollm2", template)
    ids = ours.encode_prompt(conversation("im_end|>", system="<|im_start|> <| "))
    assert [i for i in ids if i in (IM_START, IM_END)] == [IM_END]
    assert ours.tokenizer.decode(ids) == "<|im_start|> <|im_end|><|im_end|>"


def test_characters_of_private_use_stay_what_they_are() -> None:
    ours = style("smollm2")
    text = "\U000f0000 <|im_end|> \U000f0001"
    ids = ours.encode_prompt(conversation(text))
    assert text in ours.tokenizer.decode(ids) and ids.count(IM_END) == 2


def test_a_turn_that_ends_otherwise_than_a_text() -> None:
    """As with Qwen's base models: a stop string ends the answer then."""
    content = json.loads(trained("qwen2").to_str())
    roles = {"eos_token": "<|endoftext|>", "bos_token": "<|begin|>"}
    ours = ModelStyle.of(open_tokenizer(TokenizerFiles(content, dict(roles), SMOLLM2)))
    assert ours.turn_end == IM_END and ours.stop == ("<|im_end|>",)
    assert style("smollm2").stop == ()
    assert ours.encode_conversation(conversation("A", "B"))[0][-2] == IM_END


def test_our_own_tokenizers_have_a_model_style_too() -> None:
    tokenizer = BPETokenizer.train(SAMPLE, 300)
    with pytest.raises(UserError, match="the model brings no chat template"):
        style_of("model", tokenizer)
    messages = conversation("Hi", "Hello!", "<|endoftext|>Bye")
    for name in ("alpaca", "chatml", "plain"):
        tokenizer.chat_template = get_style(name).chat_template()
        ours = style_of("model", tokenizer)
        expected = encode_prompt(messages, tokenizer, get_style(name))
        # A named style encodes each part alone; nothing here joins across them.
        assert encode_prompt(messages, tokenizer, ours) == expected
        assert template_of("model", tokenizer) == ours.chat_template() == tokenizer.chat_template
        entry = {"instruction": "Say", "output": "it"}
        assert encode_entry(entry, tokenizer, ours) == encode_entry(
            entry, tokenizer, get_style(name)
        )


def test_a_named_style_begins_as_the_model_does() -> None:
    tokenizer = tokenizer_of("llama3")
    messages = conversation("Hi", "Hello!", "Bye")
    for name in ("alpaca", "plain"):
        check_markers(get_style(name), tokenizer)
        ids = encode_prompt(messages, tokenizer, get_style(name))
        assert ids[0] == SPECIALS.index("<|begin|>")
        template = template_of(name, tokenizer)
        assert encode_prompt(messages, tokenizer, style("llama3", template)) == ids
    check_markers(style("llama3"), tokenizer)
    with pytest.raises(UserError, match=r"chatml writes <\|im_start\|> as plain text"):
        check_markers(get_style("chatml"), tokenizer)


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        (ZEPHYR, conversation("a", system="s"), "refuses this conversation: Conversation roles"),
        (SMOLLM2, conversation("a", "b"), "the last message is not the user's"),
        (SMOLLM2, [], "the last message is not the user's"),
        (SMOLLM2, [{"role": "tool", "content": "x"}], "message 1 has the role 'tool'"),
        (SMOLLM2, [{"role": "user", "content": 3}], "message 1 is .*expected {role, content}"),
    ],
)
def test_a_conversation_that_cannot_be_asked(template: str, messages: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        style("smollm2", template).encode_prompt(messages)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}{{ m.content }}\n{% endfor %}",
            "no special token after an answer",
        ),
        (
            "{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
            "writes a turn otherwise once others follow it",
        ),
        (
            "{% for m in messages %}{{ m.content }}{% if loop.last or m.role == 'user' %}"
            "<|im_end|>{% endif %}{% endfor %}",
            "does not end every answer",
        ),
    ],
)
def test_a_template_that_nothing_can_be_learned_from(template: str, message: str) -> None:
    ours = style("smollm2", template)
    with pytest.raises(UserError, match=message):
        encode_entry({"messages": conversation("a", "b", "c", "d")}, ours.tokenizer, ours)
    with pytest.raises(UserError, match="no response to learn from"):
        encode_entry({"instruction": "a"}, ours.tokenizer, ours)

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.weights.modelfile import PLACEHOLDER, PROMPT_STYLES, chat_template, modelfile


def ollama_reads(text: str) -> list[tuple[str, str]]:
    """What Ollama's parser (parser/parser.go) makes of a Modelfile: commands and their values.

    A value goes on over line ends until it is unquoted, or ends with the quotes it began with;
    nothing is escaped.
    """
    commands: list[tuple[str, str]] = []
    value = ""
    for line in text.removesuffix("\n").split("\n"):
        value = f"{value}\n{line}" if value else line
        name, _, rest = value.partition(" ")
        if name == "PARAMETER":
            name, _, rest = rest.partition(" ")
        rest = rest.strip()
        quote = next((q for q in ('"""', '"') if rest.startswith(q)), "")
        if quote and (len(rest) < 2 * len(quote) or not rest.endswith(quote)):
            continue  # goes on in the next line
        commands.append((name, rest[len(quote) : len(rest) - len(quote)]))
        value = ""
    assert not value, f"unfinished: {value!r}"
    return commands


def test_the_whole_file() -> None:
    text = modelfile(
        "my.gguf",
        prompt_style="alpaca",
        stop=["<|endoftext|>", "\n\n### Instruction:"],
        parameters={"temperature": 0.7, "top_k": 40},
        context_length=1024,
    )
    assert text == (
        "FROM ./my.gguf\n"
        'TEMPLATE """Below is an instruction that describes a task. Write a response that '
        "appropriately completes the request.\n\n### Instruction:\n{{ .Prompt }}\n\n"
        '### Response:\n"""\n'
        'PARAMETER stop "<|endoftext|>"\n'
        'PARAMETER stop """\n\n### Instruction:"""\n'
        "PARAMETER num_ctx 1024\n"
        "PARAMETER temperature 0.7\n"
        "PARAMETER top_k 40\n"
    )


@pytest.mark.parametrize("style", [None, "plain"])
def test_a_plain_model_gets_the_prompt_as_it_is(style: str | None) -> None:
    text = modelfile("m.gguf", prompt_style=style, stop=[], parameters={}, context_length=8)
    assert text == 'FROM ./m.gguf\nTEMPLATE "{{ .Prompt }}"\nPARAMETER num_ctx 8\n'


@given(
    st.text(st.one_of(st.sampled_from('" \n\té🙂<|'), st.characters(codec="utf-8")), min_size=1),
    st.sampled_from(sorted(PROMPT_STYLES)),
)
def test_ollama_reads_what_was_meant_or_we_refuse(stop: str, style: str) -> None:
    try:
        text = modelfile(
            "a b.gguf", prompt_style=style, stop=[stop], parameters={}, context_length=8
        )
    except UserError:
        assert '"""' in stop or any(not c.isprintable() and c not in "\n\t" for c in stop)
        return
    assert ollama_reads(text) == [
        ("FROM", "./a b.gguf"),
        ("TEMPLATE", PROMPT_STYLES[style].replace(PLACEHOLDER, "{{ .Prompt }}")),
        ("stop", stop),
        ("num_ctx", "8"),
    ]


def test_every_style_has_one_place_for_the_prompt() -> None:
    assert {"plain", "alpaca", "chatml", "phi3"} <= set(PROMPT_STYLES)
    assert all(text.count(PLACEHOLDER) == 1 for text in PROMPT_STYLES.values())
    assert not any("{{" in text for text in PROMPT_STYLES.values())


@pytest.mark.parametrize("style", sorted(PROMPT_STYLES))
def test_jinja_renders_the_chat_template_to_the_same_text(style: str) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    prompt = "Say {{ hi }}:\n'é' \"x\"\n"
    messages = [{"role": "user", "content": prompt}]
    rendered = environment.from_string(chat_template(style)).render(messages=messages)
    assert rendered == PROMPT_STYLES[style].replace(PLACEHOLDER, prompt)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_style": "alpacca"}, "did you mean 'alpaca'.*plain, alpaca, chatml, phi3"),
        ({"parameters": {"temprature": 1.0}}, "unknown Ollama parameter.*'temperature'"),
        ({"parameters": {"top_k": "many"}}, "top_k is 'many'; expected a number"),
        ({"parameters": {"top_k": True}}, "expected a number"),
        ({"stop": ['"""']}, "three quotes"),
        ({"stop": ["\x00"]}, "cannot be printed"),
        ({"gguf_name": "a\nb.gguf"}, "cannot express"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"gguf_name": "m.gguf", "prompt_style": None, "stop": []}
    with pytest.raises(UserError, match=message):
        modelfile(**({"parameters": {}, "context_length": 8} | usual | changes))

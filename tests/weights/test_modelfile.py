from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.prompts import PROMPT_STYLES, PromptStyle, get_style
from groundup.weights.modelfile import modelfile, ollama_template


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
        stop=["<|endoftext|>", "\n\nQ:"],
        parameters={"temperature": 0.7, "top_k": 40},
        context_length=1024,
    )
    assert text == (
        "FROM ./my.gguf\n"
        'TEMPLATE """{{ if .System }}{{ .System }}{{ else }}Below is an instruction that describes '
        "a task. Write a response that appropriately completes the request.{{ end }}"
        '{{ range .Messages }}{{ if eq .Role "user" }}\n\n### Instruction:\n{{ .Content }}\n\n'
        '### Response:\n{{ else if eq .Role "assistant" }}{{ .Content }}<|endoftext|>'
        '{{ end }}{{ end }}"""\n'
        'PARAMETER stop "<|endoftext|>"\n'
        'PARAMETER stop """\n\nQ:"""\n'
        'PARAMETER stop "### Instruction:"\n'
        "PARAMETER num_ctx 1024\n"
        "PARAMETER temperature 0.7\n"
        "PARAMETER top_k 40\n"
    )


def test_a_model_of_no_style_gets_the_prompt_as_it_is() -> None:
    text = modelfile("m.gguf", prompt_style=None, stop=[], parameters={}, context_length=8)
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
        ("TEMPLATE", ollama_template(get_style(style))),
        *(("stop", text) for text in dict.fromkeys([stop, *get_style(style).stop])),
        ("num_ctx", "8"),
    ]


GO_AS_JINJA = {
    "{{ if .System }}": "{% if System %}",
    "{{ .System }}": "{{ System }}",
    "{{ range .Messages }}": "{% for message in Messages %}",
    '{{ if eq .Role "user" }}': "{% if message.role == 'user' %}",
    '{{ else if eq .Role "assistant" }}': "{% elif message.role == 'assistant' %}",
    "{{ .Content }}": "{{ message.content }}",
    "{{ else }}": "{% else %}",
    "{{ end }}{{ end }}": "{% endif %}{% endfor %}",
    "{{ end }}": "{% endif %}",
}


@pytest.mark.parametrize("style", PROMPT_STYLES.values(), ids=lambda style: style.name)
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_ollamas_template_gives_the_styles_text(style: PromptStyle, system: str | None) -> None:
    """Go is not at hand: its actions are replaced by those of Jinja that do the same."""
    from jinja2 import Environment

    template = ollama_template(style)
    for action, same in GO_AS_JINJA.items():
        template = template.replace(action, same)
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in (("Say {{ hi }}:\n'é' \"x\"\n", "hi"), ("Bye", None)):
        messages.append({"role": "user", "content": question})
        if answer:
            messages.append({"role": "assistant", "content": answer + "<end>"})
    expected = style.format_turns(messages).replace("<end>", "<|endoftext|>")
    for message in messages:
        message["content"] = message["content"].removesuffix("<end>")
    environment = Environment(keep_trailing_newline=True)
    rendered = environment.from_string(template).render(System=system or "", Messages=messages)
    assert rendered == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_style": "alpacca"}, "did you mean 'alpaca'.*plain, alpaca, phi3, chatml"),
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


def test_a_very_long_context_is_not_paid_for_at_once() -> None:
    text = modelfile("m.gguf", prompt_style=None, stop=[], parameters={}, context_length=131_072)
    assert "PARAMETER num_ctx 8192\n" in text
    asked = {"num_ctx": 131_072}
    text = modelfile("m.gguf", prompt_style=None, stop=[], parameters=asked, context_length=131_072)
    assert "PARAMETER num_ctx 131072\n" in text

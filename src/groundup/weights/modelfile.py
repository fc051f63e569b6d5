"""The ``Modelfile`` that Ollama reads: the weights, the prompt style and the parameters.

ollama create my-model -f Modelfile
ollama run my-model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groundup.errors import UserError, did_you_mean
from groundup.prompts import CONTENT, OWN, PromptStyle, get_style
from groundup.tokenizers.byte_level import END_OF_TEXT

PARAMETERS = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "num_ctx", "num_predict"),
    *("num_keep", "repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty"),
)
"""The numbers that Ollama takes; any other name would make ``ollama create`` fail."""


LONGEST = 8192
"""Tokens of a conversation, unless told otherwise; Llama 3.2 could look at 131,072."""


def modelfile(
    gguf_name: str,
    *,
    prompt_style: str | None,
    stop: Sequence[str],
    parameters: Mapping[str, object],
    context_length: int,
) -> str:
    """The text of an Ollama ``Modelfile`` for a GGUF file in the same folder.

    Args:
        gguf_name: the file's name, without a folder.
        prompt_style: one of ``PROMPT_STYLES``; None for a model that was trained in none: it reads
            the user's words as they are.
        stop: strings at which a reply ends, besides those of the style.
        parameters: numbers among ``PARAMETERS``, such as ``{"temperature": 0.8}``; they come
            before ``context_length`` if ``num_ctx`` is among them.
        context_length: most tokens the model can look at; Ollama takes memory for so many at once,
            so it is told ``LONGEST`` at most.

    Raises:
        UserError: an unknown style or parameter, or a text that a Modelfile cannot express.
    """
    style = None if prompt_style in (None, OWN) else get_style(prompt_style)
    template = "{{ .Prompt }}" if style is None else ollama_template(style)
    stops = dict.fromkeys([*stop, *(style.stop if style else ())])
    numbers = {"num_ctx": min(context_length, LONGEST), **parameters}
    lines = [f"FROM {_checked('./' + gguf_name)}"]
    if prompt_style != OWN:  # else Ollama takes the template in the GGUF file
        lines += [f"TEMPLATE {_quoted(template)}"]
    lines += [f"PARAMETER stop {_quoted(text)}" for text in stops]
    lines += [f"PARAMETER {name} {_number(name, value)}" for name, value in numbers.items()]
    return "\n".join(lines) + "\n"


def ollama_template(style: PromptStyle) -> str:
    """A style as Ollama's template, in Go's template language, for a whole conversation."""
    default = style.default_system
    return "".join(
        [
            "{{ if .System }}",
            style.system.replace(CONTENT, "{{ .System }}"),
            "" if default is None else "{{ else }}" + style.system.replace(CONTENT, default),
            "{{ end }}{{ range .Messages }}",
            '{{ if eq .Role "user" }}',
            style.user.replace(CONTENT, "{{ .Content }}"),
            '{{ else if eq .Role "assistant" }}',
            "{{ .Content }}" + END_OF_TEXT + style.between,
            "{{ end }}{{ end }}",
        ]
    )


def _number(name: str, value: object) -> str:
    if name not in PARAMETERS:
        hint = did_you_mean(name, PARAMETERS) or ";"
        raise UserError(f"unknown Ollama parameter {name!r}{hint} known: {', '.join(PARAMETERS)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"Ollama's parameter {name} is {value!r}; expected a number")
    return str(value)


def _quoted(text: str) -> str:
    """Quote a text for Ollama's parser, which knows no escapes: it reads up to the last quote."""
    quote = '"""' if '"' in text or "\n" in text else '"'
    return f"{quote}{_checked(text, newlines=True)}{quote}"


def _checked(text: str, newlines: bool = False) -> str:
    """Refuse what Ollama's parser would end at or drop."""
    allowed = "\n\t" if newlines else ""
    if '"""' in text or not all(c.isprintable() or c in allowed for c in text):
        raise UserError(
            f'a Modelfile cannot express {text!r}: it has three quotes (""") in a row, or a '
            "character that cannot be printed; choose another text"
        )
    return text

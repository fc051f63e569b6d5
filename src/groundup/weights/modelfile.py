"""What a served model is told: the prompt styles, and the ``Modelfile`` that Ollama reads.

ollama create my-model -f Modelfile
ollama run my-model
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from groundup.errors import UserError, did_you_mean

PLACEHOLDER = "{prompt}"
"""Where a style's text takes what the user wrote."""

PROMPT_STYLES = {
    "plain": "{prompt}",
    # Stanford Alpaca's, and the course's. An input follows the instruction as
    # "\n\n### Input:\n...", which is part of the prompt here.
    "alpaca": (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{prompt}\n\n### Response:\n"
    ),
    "chatml": "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
    "phi3": "<|user|>\n{prompt}<|end|>\n<|assistant|>\n",
}
"""Style -> what the model reads before it answers."""

PARAMETERS = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "num_ctx", "num_predict"),
    *("num_keep", "repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty"),
)
"""The numbers that Ollama takes; any other name would make ``ollama create`` fail."""


def around_prompt(prompt_style: str | None) -> tuple[str, str]:
    """What a style puts before and after the user's words; None is ``"plain"``.

    Raises:
        UserError: there is no such style; the message lists them.
    """
    style = prompt_style or "plain"
    if style not in PROMPT_STYLES:
        hint = did_you_mean(style, PROMPT_STYLES) or ";"
        raise UserError(
            f"unknown prompt style {style!r}{hint} there are: {', '.join(PROMPT_STYLES)}"
        )
    before, _, after = PROMPT_STYLES[style].partition(PLACEHOLDER)
    return before, after


def chat_template(prompt_style: str) -> str:
    """A style as a Jinja chat template, with the last message as the prompt.

    It is one expression of quoted strings, because Jinja would drop a final newline of plain text.

    Raises:
        UserError: there is no such style.
    """
    before, after = (json.dumps(text) for text in around_prompt(prompt_style))
    return f"{{{{ {before} + messages[-1]['content'] + {after} }}}}"


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
        prompt_style: one of ``PROMPT_STYLES``; None is ``"plain"``.
        stop: strings at which a reply ends.
        parameters: numbers among ``PARAMETERS``, such as ``{"temperature": 0.8}``; they come
            before ``context_length`` if ``num_ctx`` is among them.
        context_length: most tokens the model can look at.

    Raises:
        UserError: an unknown style or parameter, or a text that a Modelfile cannot express.
    """
    before, after = around_prompt(prompt_style)
    numbers = {"num_ctx": context_length, **parameters}
    lines = [f"FROM {_checked('./' + gguf_name)}"]
    lines += [f"TEMPLATE {_quoted(before + '{{ .Prompt }}' + after)}"]
    lines += [f"PARAMETER stop {_quoted(text)}" for text in stop]
    lines += [f"PARAMETER {name} {_number(name, value)}" for name, value in numbers.items()]
    return "\n".join(lines) + "\n"


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

"""Templates by strangers: rendered as transformers does, and kept within bounds."""

from __future__ import annotations

import time
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from groundup.chat_template import Refusal, render
from groundup.errors import UserError
from tests.data.templates import TEMPLATES

MESSAGES = [{"role": "user", "content": " A <b> & 'c' é "}, {"role": "assistant", "content": "B"}]
ROLES = {"bos_token": "<s>", "eos_token": "</s>"}

CONSTRUCTS = {
    **TEMPLATES,
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2, sort_keys=true) }}",
    "controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}x{% endfor %}",
    "loop": "{% for m in messages if m.role %}{{ loop.last, loop.length, loop.revindex }}"
    "{% else %}none{% endfor %}"
    "{% for m in messages | selectattr('role') %}{{ loop.last }}{% endfor %}",
    "macro": "{% macro f(x, n=2) %}{{ x * n }}{% endmacro %}{{ f('ab') }}{{ f('c', n=3) }}",
    "space": "a\n    {% if true %}\n  b\n    {% endif %}\n{%- set x = dict(a=1) %}{{ x.a }}  \n",
    "generation": "{% for m in messages %}{% generation %}{% set y = 1 %}{{ m.content }}"
    "{% endgeneration %}{{ y is defined }}{% endfor %}",
    "given": "{{ tools is none }}{{ documents is none }}{{ eos_token }}{{ add_generation_prompt }}"
    "{{ pad_token is defined }}{{ range(3) | list }}{{ '%s-%d' % ('a', 2) }}{{ 2 ** 5 + 1 }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ ns.n }}",
}


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize("name", CONSTRUCTS)
def test_it_renders_as_transformers_does(name: str, ask: bool) -> None:
    template = CONSTRUCTS[name]
    asked: dict[str, Any] = {"chat_template": template, "add_generation_prompt": ask, **ROLES}
    rendered, _ = render_jinja_template([MESSAGES], **asked)
    assert render(template, MESSAGES, ROLES, ask=ask) == rendered[0]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a\n{% for %}", "is damaged: line 2: "),
        ("{% generation %}", "is damaged: line 1: "),
        ("{{ raise_exception('Only\n user \t please') }}", "conversation: Only user please$"),
        ("{{ nothing.at_all }}", "fails: 'nothing' is undefined"),
        ("{{ 1 / 0 }}", "fails: division"),
        ("{{ messages[0].content.nope() }}", "fails: "),
        ("{{ ''.__class__.__mro__ }}", "fails: "),
        ("{{ cycler.__init__.__globals__ }}", "fails: "),
        ("{% set ns = namespace() %}{% set ns._x = 1 %}", "fails: "),
        ("{{ messages.append(1) }}", "fails: "),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% for a in 'x' * 9999999 %}{% endfor %}", "takes more than 1,000,000 steps"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "Recursion|recursion|steps"),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
            "{{ f(60) }}",
            "takes more than 1,000,000 steps",
        ),
        ("{{ 'x' * 99999999 }}", "puts together more than 16,777,216 characters"),
        ("{{ 99999999 * 'x' }}", "puts together more than"),
        ("{{ 9 ** 9 ** 9 ** 9 }}", "the numbers of a power are too large"),
        ("{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}", "puts together more than"),
        (
            "{% set ns = namespace(x='xx') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}"
            "{% endfor %}",
            "puts together more than",
        ),
        (
            "{% set ns = namespace(x='xx') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
            "{% endfor %}",
            "puts together more than",
        ),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_soon(template: str, message: str) -> None:
    begun = time.monotonic()
    with pytest.raises(UserError, match=message) as told:
        render(template, MESSAGES, ROLES, ask=True)
    assert time.monotonic() - begun < 10
    assert "\n" not in str(told.value) and str(told.value).startswith("the model's chat template ")
    assert isinstance(told.value, Refusal) == ("raise_exception" in template)
    assert render("{{ bos_token }}", MESSAGES, ROLES, ask=True) == "<s>", "the next one is fine"

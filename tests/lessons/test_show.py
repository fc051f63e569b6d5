import ast

import pytest

from groundup.lessons.show import show
from groundup.lessons.source import raw_source
from groundup.model.attention import MultiHeadAttention, attend


def test_what_is_shown_is_python_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    show(attend, MultiHeadAttention)
    shown = capsys.readouterr().out
    assert [getattr(part, "name", "") for part in ast.parse(shown).body] == [
        "attend",
        "MultiHeadAttention",
    ]
    assert "\n    T = q.shape[2]\n" in shown


def test_a_method_begins_at_the_margin() -> None:
    text = raw_source(MultiHeadAttention.forward)
    assert text.startswith("def forward(\n    self") and ast.parse(text)

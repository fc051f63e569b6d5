"""Source code fitted to 80 columns is the same program."""

import ast
import inspect
import io
import textwrap
import tokenize
from pathlib import Path

import pytest

import groundup
from groundup.lessons import examples
from groundup.lessons.source import fit, source_of
from groundup.lessons.topics import TOPICS
from groundup.model.attention import attend

PARTS = [part for topic in TOPICS.values() for _, part in topic.sources()]
EXAMPLES = [getattr(examples, name) for name in TOPICS]


def program(source: str) -> str:
    """The program, without its line ends: those of docstrings do not count either."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = " ".join(node.value.split())
    return ast.dump(tree)


def remarks(source: str) -> list[str]:
    """The words of all comments, in their order."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return " ".join(comments).replace("#", " ").split()


@pytest.mark.parametrize("part", [*PARTS, *EXAMPLES], ids=lambda part: part.__qualname__)
def test_it_is_narrow_and_the_same_program(part: type) -> None:
    before, after = textwrap.dedent(inspect.getsource(part)), source_of(part)
    assert max(map(len, after.splitlines())) <= 80
    assert program(after) == program(before)
    assert remarks(after) == remarks(before)


def test_whole_files_stay_the_same_programs() -> None:
    folder = Path(groundup.__file__).parent
    wide, total = 0, 0
    for path in sorted([*folder.glob("model/*.py"), *folder.glob("decoding/*.py")]):
        source = path.read_text("utf-8")
        after = fit(source)
        assert program(after) == program(source), path
        assert remarks(after) == remarks(source), path
        wide += sum(len(line) > 80 for line in after.splitlines())
        total += sum(len(line) > 80 for line in source.splitlines())
    assert total > 300 and wide < total / 100


def test_how_it_breaks() -> None:
    shown = source_of(attend)
    assert shown.startswith(
        "def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,\n"
        "        dropout: nn.Dropout) -> Tensor:\n"
    )
    code = (
        "def f(x):\n"
        "    y = a_function_of(x, some_more=1)  # a comment that goes beyond the eighty columns\n"
        "    # One comment\n"
        "    return y\n"
    )
    assert fit(code) == (
        "def f(x):\n"
        "    # a comment that goes beyond the eighty columns\n"
        "    y = a_function_of(x, some_more=1)\n"
        "    # One comment\n"
        "    return y\n"
    )
    assert fit(fit(code)) == fit(code)

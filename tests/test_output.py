"""Nothing that anybody wrote steers a terminal, and no encoding of a stream is an error."""

import ast
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import groundup as package
from groundup import output
from groundup.output import console, inline, say, shell, show, table, visible
from groundup.tokenizers import BPETokenizer
from tests.conftest import Run
from tests.labelled import save_classifier
from tests.terminal import GROUNDUP, groundup, in_terminal

EVIL = "\x1b]0;title\x07\x1b[31mred\x9b2J\rback\x08 \u202etxt.exe\u2066 \x00"
SHOWN = "\\x1b]0;title\\x07\\x1b[31mred\\x9b2J\\rback\\x08 \\u202etxt.exe\\u2066 \\x00"
NICE = "Näive café, 日本語, 👩‍🚀 \t x\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_steers_is_shown_by_its_code_and_nothing_else_changes() -> None:
    assert visible(EVIL) == SHOWN
    assert visible(NICE) == NICE
    assert visible("\ud83d \x85 \u2028") == "\\ud83d \\x85 \\u2028"
    assert inline("a|b\n<i> & `c` \\| *d* # e") == (
        "a\\|b &lt;i&gt; &amp; \\`c\\` \\\\\\| \\*d\\* \\# e"
    )
    assert inline(EVIL).startswith("\\\\x1b\\]0;title\\\\x07")


def test_a_pipe_is_exact_and_a_terminal_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, expected in ((io.StringIO(), EVIL), (Terminal(), SHOWN)):
        monkeypatch.setattr("sys.stdout", stream)
        show(EVIL, end="")
        assert stream.getvalue() == expected
    monkeypatch.setattr("sys.stderr", io.StringIO())
    say(EVIL)  # remarks are for people, wherever they end
    assert sys.stderr.getvalue() == SHOWN + "\n"  # pyright: ignore


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437"])
def test_no_encoding_is_an_error(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding, newline="\n"))
    show("café 日本 🙂 \udcff", flush=True)
    said = raw.getvalue().decode(encoding)
    assert said.endswith("\\u65e5\\u672c \\U0001f642 \\udcff\n")
    assert said.startswith("caf\\xe9" if encoding == "ascii" else "café")


def test_names_that_are_no_text_are_written_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, "utf-8"))
    output.prepare_streams()
    show("r\udcff.png", flush=True)
    assert raw.getvalue() == b"r\xff.png\n"


def test_no_console_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    show("x")
    say("x")


def test_tables_show_texts_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", stream := Terminal())
    with console() as out:
        out.width = 200
        out.print(table(("label",), [("[red]",), (":smile:",), (EVIL,)]))
        out.print(EVIL)
    lines = [line.strip() for line in stream.getvalue().splitlines()[1:]]
    assert lines == ["[red]", ":smile:", SHOWN, SHOWN]


def test_only_one_module_prints() -> None:
    """What is printed by another way would not be safe, or would not suit every stream."""
    root = Path(str(package.__file__)).parent
    allowed = {root / "output.py", root / "cli" / "__init__.py"}
    allowed |= set((root / "lessons").glob("*.py"))  # which print numbers of their own
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in root.rglob("*.py")
        if path not in allowed
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "print")
        or (
            isinstance(node, ast.Attribute)
            and ast.unparse(node)
            in ("sys.stdout.write", "sys.stderr.write", "tqdm.write", "Console.print")
        )
    ]
    assert found == []


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252:strict"])
def test_commands_write_to_streams_of_any_encoding(
    model_dir: Path, tmp_path: Path, tokenizer: BPETokenizer, encoding: str
) -> None:
    text = "café 日本 🙂"
    spam = save_classifier(tmp_path / "spam", tokenizer)
    rows = tmp_path / "new.csv"
    rows.write_text(f"text\n{text}\n", encoding="utf-8")
    commands = {
        "generate": ("generate", model_dir, text, "--max-new-tokens=3"),
        "pieces": ("tokenizer", "encode", model_dir, text, "--pieces"),
        "predict": ("classify", "predict", spam, "--file", rows),
        "help": ("generate", "--help"),
        "mistake": ("generate", f"{text}.pth"),
    }
    done = {name: groundup(*c, PYTHONIOENCODING=encoding) for name, c in commands.items()}
    assert {name: d.returncode for name, d in done.items()} == {
        name: 2 * (name == "mistake") for name in commands
    }
    assert not any(b"Traceback" in d.stderr for d in done.values())
    assert b"\\u65e5\\u672c" in done["generate"].stdout
    assert b"\\u65e5\\u672c" in done["mistake"].stderr
    assert text in done["predict"].stdout.decode("utf-8")  # rows are data: exact, as in a file


def test_a_terminal_is_not_steered_by_a_prompt_and_a_pipe_is_exact(model_dir: Path) -> None:
    evil = EVIL.rstrip("\0")
    command = ("generate", model_dir, evil, "--max-new-tokens=1")
    status, written = in_terminal(*GROUNDUP, *command)
    assert status == 0 and visible(evil) in written and "\x1b" not in written
    assert groundup(*command).stdout.decode().startswith(evil)


def test_rows_and_labels_do_not_steer_a_terminal(
    tmp_path: Path, tokenizer: BPETokenizer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spam = save_classifier(tmp_path / "spam", tokenizer)
    rows = tmp_path / "new.tsv"
    rows.write_text("text\n\x1b[31mred\n", encoding="utf-8")
    exact = run("classify", "predict", spam, "--file", rows).out
    assert "\x1b[31mred" in exact
    monkeypatch.setattr("sys.stdout", stream := Terminal())
    assert run("classify", "predict", spam, "--file", rows).status == 0
    assert "\\x1b[31mred" in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_mistakes_do_not_steer_a_terminal(fails: Callable[..., str]) -> None:
    assert "\\x1b[31m" in fails("generate", "\x1b[31mred.pth")


def test_names_of_modules_are_whole_in_a_narrow_terminal() -> None:
    status, written = in_terminal(*GROUNDUP, "inspect", "gpt2-small", columns=80)
    assert status == 0
    for name in ("trf_blocks.0.att.out_proj", "trf_blocks.0.drop_shortcut", "MultiHeadAttention"):
        assert name in written
    assert "…" not in written and "38,597,376" in written


def test_a_notebook_has_progress_bars_and_a_pipe_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import nbclient
    import nbformat.v4 as v4

    code = "from groundup.output import progress_bar\nfor _ in progress_bar(range(3)):\n    pass"
    notebook = v4.new_notebook(cells=[v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    drawn = [shown.get("text", "") for shown in notebook.cells[0].outputs]
    assert "3/3" in "".join(drawn)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert list(output.progress_bar(range(3))) == [0, 1, 2]
    assert sys.stderr.getvalue() == ""  # pyright: ignore


def test_a_line_for_the_shell() -> None:
    words = "groundup", "inspect", "my runs/demo"
    assert shell(*words, windows=False) == "groundup inspect 'my runs/demo'"
    assert shell(*words, windows=True) == 'groundup inspect "my runs/demo"'
    assert shell(r"runs\demo", windows=True) == r"runs\demo"  # not as a text in quotes

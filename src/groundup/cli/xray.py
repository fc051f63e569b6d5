"""``groundup xray``: look inside a model while it reads a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.cli.app import Flag, WholeNumber, app, opening_of, with_options
from groundup.data.finding import STDIN
from groundup.data.text import read_stdin
from groundup.errors import UserError
from groundup.output import say
from groundup.weights.open_config import OpenConfig


@app.command
@with_options(hide=["style", "precision", "quantize"], Opening=OpenConfig)
def xray(
    model: str,
    text: str,
    /,
    *,
    out: Path,
    max_tokens: WholeNumber | None = None,
    overwrite: Flag = False,
    given: dict[str, Any],
) -> None:
    """Write one page that shows what a model computes while it reads a text.

    How surprised each token was, what comes next, what each layer would have said, who looks at
    whom, and which heads made the answer. The page needs no network; mail it.

    Args:
        model: a model directory, a .pth of the course, or the name of a downloaded model.
        text: what the model reads; "-" reads it from stdin.
        out: the page to write, a name that ends in .html.
        max_tokens: how many tokens the text may have (128); the page grows with their square.
        overwrite: replace the page that is there.
    """
    opening = opening_of(given, model)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out} is no name of a page; expected --out NAME.html")
    if out.is_dir():
        raise UserError(f"{out} is a directory; --out takes a file")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; use --overwrite to replace it, or another --out")
    if text == STDIN:
        text = read_stdin()

    from groundup.weights.load import expect_language_model, load_model
    from groundup.xray import MAX_TOKENS, take_xray, write_xray

    where = opening.runtime.device
    gpt, tokens = load_model(model, where, expect=expect_language_model, **opening.how)
    name = Path(model).resolve().name or model
    name += f", {opening.checkpoint}" if opening.checkpoint else ""
    most = MAX_TOKENS if max_tokens is None else max_tokens
    write_xray(out, take_xray(gpt, tokens, text, name=name, max_tokens=most))
    say(f"{out}: {out.stat().st_size / 1000:,.0f} kB in one file; open it in a browser")

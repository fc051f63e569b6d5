"""``groundup xray``: look inside a model while it reads a text."""

from __future__ import annotations

from pathlib import Path

from groundup.cli.app import Flag, WholeNumber, app
from groundup.data.finding import STDIN
from groundup.data.text import read_stdin
from groundup.errors import UserError
from groundup.output import say


@app.command
def xray(
    model: str,
    text: str,
    /,
    *,
    out: Path,
    max_tokens: WholeNumber | None = None,
    device: str = "auto",
    tokenizer: str | None = None,
    n_heads: WholeNumber | None = None,
    checkpoint: str | None = None,
    no_verify: Flag = False,
    overwrite: Flag = False,
) -> None:
    """Write one page that shows what a model computes while it reads a text.

    How surprised each token was, what comes next, what each layer would have said, who looks at
    whom, and which heads made the answer. The page needs no network; mail it.

    Args:
        model: a model directory, a .pth of the course, or the name of a downloaded model.
        text: what the model reads; "-" reads it from stdin.
        out: the page to write, a name that ends in .html.
        max_tokens: how many tokens the text may have (128); the page grows with their square.
        device: auto, cpu, cuda, cuda:1, mps.
        tokenizer: gpt2 or a directory, for a .pth that brings none.
        n_heads: attention heads, for a .pth that cannot say it.
        checkpoint: of a run: last, step-N, or history/step-N (its best one unless given).
        no_verify: open it though a file is not as it was saved.
        overwrite: replace the page that is there.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out} is no name of a page; expected --out NAME.html")
    if out.is_dir():
        raise UserError(f"{out} is a directory; --out takes a file")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; use --overwrite to replace it, or another --out")
    if text == STDIN:
        text = read_stdin()

    from groundup.runtime import resolve_device
    from groundup.weights.load import expect_language_model, load_model
    from groundup.xray import MAX_TOKENS, take_xray, write_xray

    gpt, tokens = load_model(
        model,
        resolve_device(device),
        n_heads=n_heads,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        expect=expect_language_model,
        verify=not no_verify,
    )
    name = (Path(model).resolve().name or model) + (f", {checkpoint}" if checkpoint else "")
    most = MAX_TOKENS if max_tokens is None else max_tokens
    write_xray(out, take_xray(gpt, tokens, text, name=name, max_tokens=most))
    say(f"{out}: {out.stat().st_size / 1000:,.0f} kB in one file; open it in a browser")

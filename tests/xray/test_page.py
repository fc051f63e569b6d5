"""The page: one small file that loads nothing, whose texts are text."""

import html
import re
from pathlib import Path

import pytest

from groundup import BPETokenizer
from groundup.errors import UserError
from groundup.pages import bundled, fingerprint, web_file
from groundup.xray import XRay, take_xray, write_xray
from groundup.xray.page import render
from tests.xray.conftest import EVIL, READ, grown

WEB = Path(__file__).parents[2] / "src" / "groundup" / "web"


def script_of(page: str) -> str:
    return page[page.index('<script type="module">') + 22 : page.rindex("</script>")]


def test_a_page_is_small_and_loads_nothing(xray: XRay) -> None:
    page = render(xray)
    assert len(page.encode("utf-8")) - len(xray.json()) < 100_000
    assert not re.findall(r"""(?:src|href|action)\s*=|url\(|@import|\bfetch\(|XMLHttp""", page)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "JavaScript, which this browser does not run" in page
    assert xray.json() in page


def test_only_the_page_s_own_script_may_run(xray: XRay) -> None:
    page = render(xray)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    assert html.unescape(policy[1]) == (
        "default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src '{fingerprint(script_of(page))}'"
    )


def test_texts_are_text(tokenizer: BPETokenizer) -> None:
    model = grown("gpt2", context_length=300)
    page = render(take_xray(model, tokenizer, EVIL, name="<i>\x1b", max_tokens=300))
    body = page[: page.index('<script type="application/json"')]
    assert "<title>X-ray of &lt;i&gt;\\x1b</title>" in body
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert not re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_the_numbers_stand_in_the_page_too(xray: XRay) -> None:
    page = render(xray)
    rows = re.findall(r"<tr><td>(.*?)</tr>", page)
    assert len(rows) == len(xray.tokens)
    cells = [[html.unescape(c) for c in re.findall(r"<bdi>(.*?)</bdi>", row)] for row in rows]
    assert [row[0] for row in cells] == [str(i + 1) for i in range(len(rows))]
    assert "".join(row[1] for row in cells) == READ.replace(" ", "·").replace("\n", "↵")
    assert cells[0][3:6] == ["–"] * 3
    for row, token in zip(cells[1:], xray.tokens[1:], strict=True):
        assert row[2] == str(token.id) and row[5] == f"{token.surprise:.3f}"


def test_modules_become_one_script() -> None:
    names, waiting = {"xray.js"}, ["xray.js"]
    while waiting:
        imported = re.findall(r'from "\./([\w.-]+)"', web_file(waiting.pop()))
        waiting += set(imported) - names
        names.update(imported)
    assert {"dom.js", "heat.js", "sampling.js"} < names
    script = bundled("xray.js")
    assert not re.findall(r"(?m)^(?:import|export)\b", script) and "</" not in script
    for name in names:
        first = web_file(name).splitlines()[0]
        assert first.startswith("/** ") and script.count(first) == 1
    # Each before those that use it: `const`s at the top of a module are not there earlier.
    assert script.index("const SIGNS") < script.index("function unpacked")
    assert script.index("function unpacked") < script.index("function mount(")


@pytest.mark.parametrize("name", sorted(path.name for path in WEB.glob("*.js")))
def test_no_module_makes_markup_of_texts(name: str) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
    assert not re.findall(forbidden, web_file(name))


def test_a_page_is_written_whole_or_not_at_all(xray: XRay, tmp_path: Path) -> None:
    path = write_xray(tmp_path / "new" / "page.html", xray)
    assert path.read_text(encoding="utf-8") == render(xray)
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError):
        write_xray(tmp_path / "file" / "page.html", xray)

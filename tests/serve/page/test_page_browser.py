"""The live page in a real browser: its frame, its X-ray, its tokenizer; texts stay texts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import Browser, expect

from groundup import BPETokenizer
from groundup.output import visible
from groundup.prompts import get_style
from groundup.serve.models import Served
from groundup.serve.page.tokenizer import taken_apart
from groundup.xray import XRay, take_xray
from groundup.xray.changes import Part
from groundup.xray.page import quoted
from tests.browser import without_javascript
from tests.serve.live import live
from tests.serve.page.visits import Visit
from tests.xray.conftest import EVIL, READ, grown
from tests.xray.plainly import plainly

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def small(tokenizer: BPETokenizer) -> Served:
    return Served.of("small", grown("gpt2", context_length=60), tokenizer)


@pytest.fixture(scope="module")
def address(small: Served, tokenizer: BPETokenizer) -> Iterator[str]:
    model = grown("llama", context_length=300)
    evil = Served.of(EVIL, model, tokenizer, style=get_style("alpaca"))
    with live(small, evil) as server:
        yield server.url


@pytest.fixture(scope="module")
def xray(small: Served) -> XRay:
    return take_xray(small.model, small.tokenizer, READ.strip(), name="small")


def read(visit: Visit, text: str) -> None:
    """Let the model read a text, and wait until all of it is known."""
    visit.panel.get_by_label("a text for the model to read").fill(text)
    visit.panel.get_by_role("button", name="Read", exact=True).click()
    visit.panel.locator(".state", has_text="Reading").or_(
        visit.panel.locator(".state", has_text="Trying")
    ).or_(visit.panel.locator(".state", has_text="tokens read")).first.wait_for()
    expect(visit.panel.locator(".state")).to_have_text(re.compile("tokens read"), timeout=20_000)


def section(visit: Visit, title: str):
    return visit.panel.locator("section", has=visit.page.get_by_role("heading", name=title))


def test_tabs_by_address_mouse_and_keyboard(browser: Browser, address: str) -> None:
    visit = Visit(browser, address, "#tokenizer")
    expect(visit.tab("Tokenizer")).to_have_attribute("aria-selected", "true")
    assert visit.page.title() == "Tokenizer · groundup"
    expect(visit.panel.get_by_role("heading", name="Tokens")).to_be_visible()
    visit.tab("Tokenizer").press("Home")
    expect(visit.tab("Chat")).to_be_focused()
    expect(visit.tab("Chat")).to_have_attribute("aria-selected", "true")
    assert visit.page.url.endswith("#chat") and visit.panel.count() == 1
    visit.page.keyboard.press("ArrowRight")
    expect(visit.tab("X-ray")).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert visit.page.evaluate(outline) == "solid"
    visit.page.keyboard.press("Tab")  # of the tabs only the chosen one is a stop
    assert visit.page.evaluate("document.activeElement.tagName") == "SELECT"
    visit.page.go_back()
    expect(visit.tab("Chat")).to_have_attribute("aria-selected", "true")
    visit.check()


def test_light_and_dark(browser: Browser, address: str) -> None:
    visit = Visit(browser, address, "#tokenizer", color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = visit.page.evaluate(paper)
    visit.page.get_by_role("button", name="light colours").click()
    light = visit.page.evaluate(paper)
    assert sum(map(int, re.findall(r"\d+", light))) > 600 > sum(map(int, re.findall(r"\d+", dark)))
    visit.page.reload()
    assert visit.page.evaluate(paper) == light  # it is remembered
    visit.page.get_by_role("button", name="dark colours").click()
    assert visit.page.evaluate(paper) == dark
    visit.check()


def test_without_javascript_a_sentence_says_so(browser: Browser, address: str) -> None:
    with without_javascript(browser) as plain:
        page = plain.new_page()
        page.goto(address)
        assert "JavaScript, which this browser does not run" in page.locator("main").inner_text()


def test_an_xray_as_it_becomes_known(browser: Browser, address: str, xray: XRay) -> None:
    visit = Visit(browser, address, "#xray")
    read(visit, READ.strip())
    assert f"{len(xray.tokens)} tokens read" in visit.panel.inner_text()
    names = section(visit, "What comes next?").locator(".bars .name").all_inner_texts()
    assert names[:12] == [quoted(xray.words[i]) for i in xray.next[-1].ids[:12]]
    bars = section(visit, "Which parts made the answer?").locator(".effect")
    widths = bars.evaluate_all("all => all.map(each => parseFloat(each.style.width))")
    lost = [100 * min(1, abs(1 - math.exp(change.effect[-1]))) for change in xray.changes]
    assert widths == pytest.approx(lost, abs=0.01)
    written = visit.panel.locator(".story .writes").first.inner_text()
    assert written  # compared with the model's in test_page.py
    lens = section(visit, "When did it know?").locator("tbody tr")
    assert lens.count() == xray.n_layers
    visit.check()


def test_a_part_is_silenced_with_a_click_and_speaks_again(
    browser: Browser, address: str, small: Served, xray: XRay
) -> None:
    visit = Visit(browser, address, "#xray")
    read(visit, READ.strip())
    place, coming = section(visit, "Which parts made the answer?"), "What comes next?"
    before = section(visit, coming).locator(".bars").inner_text()
    parts = [Part(1, "head", 2), Part(0, "feed_forward")]
    ids, answer = small.tokenizer.encode(READ.strip()), xray.next[-1].ids[0]
    told = xray.words | {}
    for count in (1, 2):
        number = next(
            i
            for i, change in enumerate(xray.changes)
            if (change.layer, change.part, change.head)
            == (parts[count - 1].layer, parts[count - 1].kind, parts[count - 1].head)
        )
        place.get_by_role("radio").nth(number).click()
        place.get_by_role("button", name="Silence it").click()
        logits = plainly(small.model, ids, without=parts[:count]).says[-1][-1]
        best = quoted(told.get(int(logits.argmax()), "?"))
        what = "head 3 of layer 2" if count == 1 else "2 silenced parts"
        expect(place.get_by_role("heading", name=f"Without {what}")).to_be_visible()
        verb = "stays" if int(logits.argmax()) == answer else "becomes"
        expect(place.locator(".told")).to_contain_text(f"The answer {verb} “{best}”")
        top = logits.softmax(-1).max()
        first = section(visit, coming).locator(".bars .number").first
        expect(first).to_have_text(f"{100 * top:.0f}%" if top >= 0.0995 else f"{100 * top:.1f}%")
    assert place.locator(".silenced").count() == 2
    assert "silenced parts:" in visit.panel.locator(".story").inner_text()
    for button in reversed(visit.panel.get_by_role("button", name="speak again").all()):
        if "let" in (button.get_attribute("aria-label") or ""):
            button.click()
    expect(place.locator(".silenced")).to_have_count(0)
    expect(section(visit, coming).locator(".bars")).to_have_text(re.compile(r"\d"))
    assert section(visit, coming).locator(".bars").inner_text() == before
    visit.check()


def test_mistakes_are_told(browser: Browser, address: str) -> None:
    visit = Visit(browser, address, "#xray")
    visit.panel.get_by_label("a text for the model to read").fill("q " * 200)
    visit.panel.get_by_role("button", name="Read", exact=True).click()
    expect(visit.panel.get_by_role("alert")).to_contain_text("an X-ray on this page has 128")
    assert [text for text in visit.complaints if "400" not in text] == []
    visit.complaints.clear()  # the browser's own note of the status
    read(visit, READ.strip())
    expect(visit.panel.get_by_role("alert")).to_be_hidden()
    visit.check()


def test_neighbours_lead_to_others(browser: Browser, address: str, small: Served) -> None:
    visit = Visit(browser, address, "#xray")
    place = section(visit, "Look up any token")
    place.get_by_label("a word").fill("fox")
    place.get_by_label("a word").press("Enter")
    table = small.model.state_dict()["tok_emb.weight"]

    def nearest(token: int) -> int:
        cosines = torch.nn.functional.cosine_similarity(table[token], table)
        cosines[token] = -2
        return int(cosines.argmax())

    def name(token: int) -> str:
        return quoted(
            visible(small.tokenizer.token_bytes(token).decode("utf-8", "backslashreplace"))
        )

    token = small.tokenizer.encode("fox")[0]
    for _ in range(3):
        expect(place.locator(".path")).to_contain_text(f"nearest to {name(token)}")
        token = nearest(token)
        expect(place.locator(".bars .name").first).to_have_text(name(token))
        place.locator(".bars .name button").first.click()
    visit.check()


def test_the_tokenizer_steps_through_its_merges(
    browser: Browser, address: str, tokenizer: BPETokenizer
) -> None:
    visit = Visit(browser, address, "#tokenizer")
    text = "the quick brown fox 日"
    visit.panel.get_by_label("a text to take apart").fill(text)
    found = taken_apart(tokenizer, text)
    chips = visit.panel.get_by_role("radio")
    ids = visit.panel.locator(".chip .id")
    expect(ids).to_have_text([str(token["id"]) for token in found["tokens"]])
    piece = max(range(len(found["pieces"])), key=lambda i: len(found["pieces"][i]["steps"]))
    first = sum(each["tokens"] for each in found["pieces"][:piece])
    chips.nth(first).click()
    facts = visit.panel.locator(".facts").inner_text()
    assert re.sub(r"\s", "", facts).endswith("bytes" + found["tokens"][first]["bytes"]) or (
        "byte" in facts
    )
    steps = found["pieces"][piece]["steps"]
    rungs = visit.panel.locator(".ladder li")
    assert rungs.count() == len(steps) + 1
    ranks = [rung.locator(".rank").inner_text() for rung in rungs.all()[1:]]
    assert ranks == [f"merge {rank + 1}" for rank, _ in steps]
    made = rungs.last.locator(".box").count()
    assert made == found["pieces"][piece]["tokens"]
    visit.panel.get_by_role("button", name="the merge before").click()
    expect(rungs.last).to_be_hidden()
    output = visit.panel.locator("output")
    expect(output).to_have_text(f"after {len(steps) - 1} of {len(steps)} merges: {made + 1} parts")
    visit.panel.locator("#merge-step").press("Home")
    expect(output).to_have_text(f"{made + len(steps)} bytes")
    chips.nth(first).press("End")
    expect(chips.last).to_be_focused()
    visit.check()


def test_texts_are_text_wherever_they_stand(browser: Browser, address: str) -> None:
    visit = Visit(browser, address, viewport={"width": 400, "height": 800})
    chooser = visit.page.get_by_role("combobox", name="model")
    expect(chooser.get_by_role("option")).to_have_text(["small", visible(EVIL)])
    chooser.select_option(index=1)
    expect(visit.panel.locator(".about")).to_contain_text(visible(EVIL)[:40])
    visit.tab("X-ray").click()
    read(visit, EVIL)
    assert "</script><script>" in visit.panel.locator(".tokens").inner_text().replace("·", " ")
    visit.tab("Tokenizer").click()
    visit.panel.get_by_label("a text to take apart").fill(EVIL)
    expect(visit.panel.locator(".chip").first).to_contain_text("<")
    for tab in ("Chat", "X-ray", "Tokenizer"):
        visit.tab(tab).click()
        assert not STEERING.search(visit.text())
    assert visit.page.locator("main img, main script").count() == 0
    assert visit.page.title() == "Tokenizer · groundup"
    visit.check()


def test_what_steers_is_shown_as_on_the_command_line(browser: Browser, address: str) -> None:
    visit = Visit(browser, address, "#tokenizer")
    signs = [chr(i) for i in (*range(0x500), *range(0x2000, 0x2100), 0xFFFD, 0x1F642)]
    text = json.dumps(f"{''.join(signs)}\ud83d a\udc00\udc00")
    shown = visit.page.evaluate(
        f"import('{address}/web/dom.js').then(dom => JSON.stringify(dom.visible({text})))"
    )
    assert json.loads(shown) == visible(json.loads(text))
    visit.check()

"""The page in a real browser: what it shows is what the X-ray says, and it can be steered."""

import html
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Locator

from groundup import BPETokenizer
from groundup.decoding.sampling import keep_top_k, keep_top_p
from groundup.xray import XRay, take_xray, write_xray
from groundup.xray.page import quoted
from tests.browser import Opened
from tests.xray.conftest import EVIL, grown

SLIDERS = [(1.0, None, 1.0), (0.5, None, 1.0), (2.0, 7, 1.0), (1.3, None, 0.6), (0.7, 20, 0.35)]
"""Temperature, top-k, top-p."""


@pytest.fixture
def opened(browser: Browser, xray: XRay, tmp_path: Path) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1100, "height": 800}, reduced_motion="reduce")
    yield (found := Opened(page, write_xray(tmp_path / "page.html", xray)))
    found.check()
    page.close()


def section(opened: Opened, title: str) -> Locator:
    return opened.page.locator("section", has=opened.page.get_by_role("heading", name=title))


def widths(bars: Locator) -> list[float]:
    """What style sheets get to see, in percent."""
    read = "all => all.map(each => parseFloat(each.style.width))"
    return bars.evaluate_all(read)


def sampled(xray: XRay, position: int, temperature: float, k: int | None, p: float) -> torch.Tensor:
    """Probabilities as ``make_sampler`` has them: top-k, temperature, top-p."""
    logits = torch.tensor([xray.next[position].logits])
    logits = (logits if k is None else keep_top_k(logits, k)) / temperature
    return keep_top_p(logits, p).softmax(-1)[0]


def slide(opened: Opened, name: str, value: float) -> None:
    opened.page.locator(f"#{name}").fill(f"{value:g}")


def test_bars_move_with_the_sliders(opened: Opened, xray: XRay) -> None:
    place = section(opened, "What comes next?")
    bars, shown = place.locator(".bars .fill"), 12
    names = place.locator(".bars .name").all_inner_texts()
    assert names[:shown] == [quoted(xray.words[i]) for i in xray.next[-1].ids[:shown]]
    assert names[-1] == f"{xray.vocab_size - shown} others"
    before: list[float] = []
    for temperature, k, p in SLIDERS:
        slide(opened, "temperature", temperature)
        slide(opened, "topK", k or 51)
        slide(opened, "topP", p)
        expected = sampled(xray, -1, temperature, k, p)
        if k is None:  # the others count, too
            tail = math.exp(xray.next[-1].tails[round(temperature * 10) - 1])
            weights = (torch.tensor(xray.next[-1].logits) / temperature).exp()
            total = float(weights.sum()) + tail
            ahead = weights.cumsum(0) - weights
            kept = weights * (ahead < p * total)
            others = min(tail, max(0.0, p * total - float(weights.sum()))) if p < 1 else tail
            expected = kept / (kept.sum() + others)
        found = torch.tensor(widths(bars)[:shown])
        scale = float(found[0] / expected[0])
        torch.testing.assert_close(found / scale, expected[:shown], atol=1e-3, rtol=0)
        assert found.tolist() != before
        before = found.tolist()
    assert place.locator(".bars li.out").count() > 0  # top-p has cut some off
    slide(opened, "temperature", 0)
    assert widths(bars)[:2] == [100, 0]
    opened.page.get_by_role("button", name="as trained").click()
    assert opened.page.locator("#temperature").input_value() == "1"


def test_a_token_is_chosen_by_mouse_and_by_keyboard(opened: Opened, xray: XRay) -> None:
    page, last = opened.page, len(xray.tokens) - 1
    tokens = page.get_by_role("radiogroup", name="the text, token by token").get_by_role("radio")
    assert tokens.count() == last + 1
    strengths = tokens.evaluate_all(
        "all => all.map(each => each.style.getPropertyValue('--surprise'))"
    )
    most = math.log(xray.vocab_size)
    for told, token in zip(strengths[1:], xray.tokens[1:], strict=True):
        assert float(told) == pytest.approx(min(1, (token.surprise or 0) / most), abs=1e-3)
    assert page.get_by_text("There the text ends.").is_visible()

    tokens.nth(2).click()
    follows = xray.tokens[3]
    story = page.locator("#story").inner_text()
    assert quoted(xray.words[xray.next[2].ids[0]]) in story
    assert f"its choice {follows.rank} (" in story or "and so it is" in story
    assert "◂ the text" in section(opened, "What comes next?").inner_text()

    page.keyboard.press("ArrowRight")
    assert tokens.nth(3).get_attribute("aria-checked") == "true"
    assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert tokens.first.get_attribute("aria-checked") == "true"
    page.get_by_role("button", name="the token after").click()
    assert f"2 of {last + 1}" in page.locator(".compass").inner_text()
    page.keyboard.press("Tab")  # goes on to the first slider
    assert page.evaluate("document.activeElement.id") == "temperature"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#temperature").input_value() == "0.9"


def test_a_head_is_chosen_and_seen(opened: Opened, xray: XRay) -> None:
    page, last = opened.page, len(xray.tokens) - 1
    place = section(opened, "Which parts made the answer?")
    parts = place.get_by_role("radio")
    assert parts.count() == len(xray.changes) == 12
    effects = widths(place.locator(".effect"))
    lost = [min(1, abs(1 - math.exp(change.effect[last]))) for change in xray.changes]
    assert effects == pytest.approx([100 * each for each in lost], abs=0.01)
    gains = place.locator(".effect").evaluate_all(
        "all => all.map(each => each.classList.contains('gains'))"
    )
    assert gains == [change.effect[last] >= 0 for change in xray.changes]

    number = next(
        i for i, change in enumerate(xray.changes) if (change.layer, change.head) == (1, 2)
    )
    parts.nth(number).click()
    assert place.get_by_role("heading", name="Without head 3 of layer 2").is_visible()
    change, answer = xray.changes[number], xray.next[last].ids[0]
    verb = "stays" if change.guesses[last][0][0] == answer else "becomes"
    assert f"The answer {verb} “{quoted(xray.words[change.guesses[last][0][0]])}”" in (
        place.locator(".told").inner_text()
    )
    looks = section(opened, "Who looks at whom?")
    assert looks.get_by_role("heading", name="Layer 2, head 3").is_visible()
    weights = xray.attention.unpacked(2, 4, last + 1)[1, 2]
    assert widths(looks.locator(".looks .fill")) == pytest.approx(100 * weights[last], abs=0.01)
    picture, row = (looks.locator(each).first.bounding_box() for each in (".arcs svg", ".looks li"))
    assert picture and row and picture["height"] == row["height"] * (last + 1)
    arcs = [
        float(w)
        for w in looks.locator("path.strong").evaluate_all(
            "all => all.map(each => each.getAttribute('stroke-width'))"
        )
    ]
    assert arcs == pytest.approx([0.6 + 9 * w for w in weights[last][:last] if w > 0.004])

    parts.nth(number).press("ArrowRight")
    assert looks.get_by_role("heading", name="Layer 2, head 4").is_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert place.get_by_role("heading", name="Without attention of layer 1").is_visible()

    page.locator(".heat canvas").focus()
    page.keyboard.press("ArrowUp")
    told = page.locator("#heat-told")
    assert "cannot look at" in told.inner_text()  # from the end of the last row, up into the mask
    page.keyboard.press("ArrowLeft")
    weights = xray.attention.unpacked(2, 4, last + 1)[0, 3]
    assert told.inner_text().endswith(percent(weights[last - 1, last - 1]))


def percent(p: float) -> str:
    return f"{100 * p:.0f}%" if p >= 0.0995 else f"{100 * p:.1f}%" if p >= 0.001 else "<0.1%"


def test_tables_and_neighbours_say_what_was_computed(opened: Opened, xray: XRay) -> None:
    rows = opened.page.locator(".lens tbody tr")
    assert rows.count() == xray.n_layers
    for row, lens in zip(rows.all(), xray.lens, strict=True):
        text = row.inner_text()
        for token, p in lens.guesses[-1]:
            assert quoted(xray.words[token]) in text and percent(p) in text
    assert "it says" in rows.last.inner_text() and "first" in rows.last.inner_text()
    stream = opened.page.locator(".stream tbody tr").all_inner_texts()
    assert len(stream) == xray.n_layers + 1
    norms = [float(row.split()[-1]) for row in stream]
    assert norms == pytest.approx([each[-1] for each in xray.norms.stream], rel=5e-3)
    near = xray.neighbours[xray.tokens[-1].id]
    shown = section(opened, "Who are its neighbours?").locator(".bars li")
    assert shown.count() == len(near)
    assert shown.first.inner_text().split() == [quoted(xray.words[near[0][0]]), f"{near[0][1]:.2f}"]


def test_markup_stays_text_on_a_narrow_page(
    browser: Browser, tokenizer: BPETokenizer, tmp_path: Path
) -> None:
    model = grown("gpt2", context_length=300)
    evil = take_xray(model, tokenizer, EVIL, name=EVIL, max_tokens=300)
    page = browser.new_page(viewport={"width": 400, "height": 800})
    opened = Opened(page, write_xray(tmp_path / "page.html", evil))
    assert "</script><script>" in page.locator(".tokens").inner_text().replace("·", " ")
    assert page.title().startswith("X-ray of </script>") and page.locator("img").count() == 0
    assert not re.search("[\x1b\x07\u202e\u2066]", page.locator("body").inner_text())
    opened.check()
    page.emulate_media(color_scheme="dark")  # canvases are drawn anew
    page.get_by_text("The text in numbers").click()
    opened.check()
    page.close()


def test_without_javascript_a_sentence_says_so_and_the_numbers_are_there(
    browser: Browser, xray: XRay, tmp_path: Path
) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(write_xray(tmp_path / "page.html", xray).as_uri())
    assert page.get_by_text("JavaScript, which this browser does not run").is_visible()
    last = xray.tokens[-1]
    row = page.locator("#numbers tr").last.inner_text()
    assert f"{last.id}" in row and f"{last.surprise:.3f}" in html.unescape(row)
    page.close()

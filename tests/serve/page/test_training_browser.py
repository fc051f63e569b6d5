"""The training page in a real browser: curves that live, and a model through time."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request

from groundup.files import JsonLines
from tests.browser import check_width, complaints_of
from tests.serve.conftest import client_of
from tests.serve.page.runs import EVIL, STEPS, append, listening, record, served_run
from tests.xray.test_browser import percent, widths

TEXT = "The quick brown fox. The quick brown fox. The quick"


@pytest.fixture
def address(run: Path) -> Iterator[str]:
    with listening(served_run(run, EVIL)) as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1100, "height": 900}, reduced_motion="reduce")
    complaints = complaints_of(page)
    page.add_init_script("window.setTimeout = ((old) => (f, ms) => old(f, ms / 10))(setTimeout)")
    page.goto(f"{address}/#training")
    yield page
    check_width(page)
    refusals = "Failed to load resource: the server responded with a status of 4"
    assert [told for told in complaints if not told.startswith(refusals)] == []
    assert page.locator("main img, main script").count() == 0
    page.close()


def read(page: Page, title: str, *keys: str) -> str:
    """What a chart says at the place that keys lead to."""
    chart = page.locator("figure", has=page.get_by_text(title, exact=True))
    chart.locator(".plot").focus()
    for key in keys:
        page.keyboard.press(key)
    return chart.locator(".reading").inner_text()


def test_curves_live_while_the_run_trains(page: Page, run: Path) -> None:
    page.get_by_text("step 10 of 10").wait_for()
    assert read(page, "Loss", "End") == (
        "step 10: validation 0.8, training, mean of 20 steps 0.7, each step 0.6"
    )
    assert read(page, "Loss", "ArrowLeft") == f"step 9: each step {6 / 9:.3f}"
    samples = page.locator(".samples li")
    assert samples.count() == 2
    assert (
        samples.first.inner_text().startswith("step 10")
        and "<script>" in samples.first.inner_text()
    )

    append(run / "metrics.jsonl", record(11), record(12))
    append(run / "samples.jsonl", {"step": 12, "epoch": 1, "prompt": "New", "text": "s"})
    page.get_by_text("step 12 of 10").wait_for()
    assert samples.first.inner_text().split() == ["step", "12", "News"]
    assert page.locator(".clock input").get_attribute("max") == "2"
    shutil.copytree(run / "history" / "step-000010", run / "history" / "step-000012")
    page.locator(".clock input[max='3']").wait_for()
    JsonLines(run / "metrics.jsonl").rewrite([record(1), record(2)])  # begun anew
    page.get_by_text("step 2 of 10").wait_for()
    assert read(page, "Loss", "End") == "step 2: each step 3"
    shutil.rmtree(run)
    page.get_by_text("is no run").wait_for()


def test_a_text_is_read_at_every_step(page: Page, run: Path) -> None:
    page.locator("#time-text").fill(TEXT)
    page.get_by_role("button", name="Read it").click()
    told = seen_at(run, TEXT)
    slider = page.get_by_label("step of the training")
    page.locator(".charts figure:visible", has_text="before").wait_for()
    repeats = repeated([token["id"] for token in told[10]["tokens"]])
    best = max(
        ((layer, head) for layer in range(2) for head in range(4)),
        key=lambda place: copying(told[10], repeats, *place),
    )
    assert page.get_by_role("heading", name=f"Layer {best[0] + 1}, head {best[1] + 1}").is_visible()
    at = len(told[10]["tokens"]) - 2
    for step in (10, 3, 1):
        assert slider.get_attribute("aria-valuetext") == f"step {step}"
        found = told[step]
        follows = found["tokens"][at + 1]
        sentence = f"is choice {follows['rank']} of 300 ({percent(math.exp(-follows['surprise']))})"
        page.locator(".clock .quiet", has_text=sentence).wait_for()
        surprises = page.locator(".tokens .token").evaluate_all(
            "all => all.map(each => Number(each.style.getPropertyValue('--surprise')))"
        )
        assert surprises[1:] == pytest.approx(
            [min(1, token["surprise"] / math.log(300)) for token in found["tokens"][1:]], abs=1e-3
        )
        weights = [unpack(found)[best[0], best[1], at, column] for column in range(at + 1)]
        assert widths(page.locator(".looks .fill"))[: at + 1] == pytest.approx(
            [100 * w for w in weights], abs=0.01
        )
        slider.focus()
        page.keyboard.press("ArrowLeft")
    for number, step in enumerate(STEPS):
        keys = ("Home", *["ArrowRight"] * number)
        expected = percent(copying(told[step], repeats, *best))
        title = "Looking for what came after the same token before"
        name = f"layer {best[0] + 1}, head {best[1] + 1} (the most)"
        assert read(page, title, *keys) == f"step {step}: {name} {expected}"
        loss = [token["surprise"] for token in told[step]["tokens"][1:]]
        assert read(page, "Surprise per token of this text", *keys).endswith(
            f"{sum(loss) / len(loss):.2f}"
        )


def test_another_token_is_followed_and_time_runs(page: Page, run: Path) -> None:
    page.get_by_label("the token to follow").wait_for()
    told = seen_at(run, "The quick")
    last = told[10]["next"][0]["ids"][2]
    page.get_by_label("the token to follow").select_option(str(last))
    page.locator(".bars .tag", has_text="followed").first.wait_for()
    told = seen_at(run, "The quick", watch=[last])
    page.get_by_role("button", name="play").click()
    for step in STEPS:
        ranks = told[step]["watched"][0]["ranks"][len(told[step]["tokens"]) - 2]
        page.locator(".clock", has_text=f"choice {ranks} of 300").wait_for()
    page.get_by_role("button", name="play").wait_for()  # at the end it stops by itself
    page.get_by_label("layer", exact=True).select_option("2")
    page.get_by_label("head", exact=True).select_option("3")
    assert page.get_by_role("heading", name="Layer 2, head 3").is_visible()
    page.locator("figure", has_text="How likely").locator(".plot").click(
        position={"x": 54, "y": 50}
    )
    assert page.locator(".clock output").inner_text() == "step 1"

    page.locator("#time-text").fill("one two " * 60)
    page.get_by_role("button", name="Read it").click()
    page.get_by_text("through time 64 at most are shown").wait_for()
    page.set_viewport_size({"width": 400, "height": 800})
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="something that repeats").click()
    page.get_by_text("through time 64 at most").wait_for(state="hidden")


def test_a_run_without_snapshots_says_how_to_keep_some(page: Page, run: Path) -> None:
    page.get_by_label("step of the training").wait_for()
    shutil.rmtree(run / "history")
    page.reload()
    page.get_by_text("keeps no snapshots. With --keep-history 10").wait_for()
    assert page.locator(".clock").count() == 0


def test_nothing_is_asked_of_others(browser: Browser, address: str) -> None:
    page, requests = browser.new_page(), []

    def note(request: Request) -> None:
        requests.append(request.url)

    page.on("request", note)
    page.goto(f"{address}/#training")
    page.locator(".samples li").first.wait_for()
    assert all(url.startswith(address) for url in requests)
    page.close()


def seen_at(run: Path, text: str, **more: Any) -> dict[int, Any]:
    """What the server says of a text at each step (compared with PyTorch in test_training.py)."""
    served = served_run(run)
    client, found = client_of(served), {}
    for step in STEPS:
        body = {"model": "demo", "step": step, "text": text, **more}
        found[step] = client.post("/page/run/at", json=body).json()
    served.runner.close()
    return found


def unpack(told: Any) -> Any:
    from groundup.xray.data import Packed

    count = len(told["tokens"])
    return Packed(**told["attention"]).unpacked(told["n_layers"], told["n_heads"], count)


def repeated(ids: list[int]) -> list[tuple[int, int]]:
    """Each place of a token that was there before, and the place after the newest of those."""
    return [
        (i, max(j for j in range(i) if ids[j] == ids[i]) + 1)
        for i in range(len(ids))
        if ids[i] in ids[:i]
    ]


def copying(told: Any, places: list[tuple[int, int]], layer: int, head: int) -> float:
    weights = unpack(told)[layer, head]
    return sum(weights[place] for place in places) / len(places)

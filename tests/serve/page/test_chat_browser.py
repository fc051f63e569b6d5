"""The chat in a real browser: it shows what the model writes, and all of it can be steered."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, expect

from groundup import BPETokenizer, generate
from groundup.data.instructions import encode_prompt
from groundup.output import visible
from groundup.prompts import Message, get_style
from groundup.serve.models import Served
from tests.assistants import lively_model
from tests.serve.live import live
from tests.serve.page.visits import Visit
from tests.xray.conftest import EVIL

STYLE = get_style("chatml")


@pytest.fixture(scope="module")
def lively(tokenizer: BPETokenizer) -> Served:
    torch.manual_seed(3)
    return Served.of("lively", lively_model(tokenizer, 900), tokenizer, style=STYLE)


@pytest.fixture(scope="module")
def address(lively: Served) -> Iterator[str]:
    base = Served.of("base", lively.model, lively.tokenizer)
    with live(lively, base) as server:
        yield server.url


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    found = Visit(browser, address, "#chat")
    setting(found, "temperature", 0)
    setting(found, "max_tokens", 16)
    yield found
    found.check()


def setting(visit: Visit, name: str, value: float) -> None:
    visit.page.locator(f"#chat-{name}").fill(f"{value:g}")


def say(visit: Visit, text: str) -> None:
    box = visit.panel.get_by_label("Message", exact=True)
    box.fill(text)
    box.press("Enter")
    done(visit)


def done(visit: Visit) -> None:
    expect(visit.panel.get_by_role("button", name="Send")).to_be_visible(timeout=20_000)
    expect(visit.panel.locator(".log")).not_to_have_attribute("aria-busy", "true")


def answers(visit: Visit) -> list[str]:
    return visit.panel.locator(".turn:not(.mine) .text").all_inner_texts()


def expected(served: Served, *texts: str, system: str | None = None, length: int = 16) -> str:
    """What the model answers to texts that are the user's and its own in turn."""
    said: list[Message] = [{"role": "system", "content": system}] if system else []
    for number, text in enumerate(texts):
        said.append({"role": ("user", "assistant")[number % 2], "content": text})
    ids = encode_prompt(said, served.tokenizer, STYLE)
    found = generate(
        served.model, torch.tensor([ids]), length, 900, eos_id=served.tokenizer.eot_token
    )
    written = served.tokenizer.decode(found[0, len(ids) :].tolist())
    return min((written.split(stop)[0] for stop in STYLE.stop), key=len)


def shown(text: str) -> str:
    """A text as ``inner_text`` tells it."""
    return visible(text)


def test_a_conversation_is_edited_and_asked_again(visit: Visit, lively: Served) -> None:
    say(visit, "Say fox.")
    first = expected(lively, "Say fox.")
    assert answers(visit) == [shown(first)]
    say(visit, "And a dog?")
    second = expected(lively, "Say fox.", first, "And a dog?")
    assert answers(visit) == [shown(first), shown(second)] and first != second
    told = visit.panel.locator(".turn:not(.mine) .told").last.inner_text()
    assert re.fullmatch(r"16 tokens · [\d.]+ a second · the length was reached", told)

    visit.panel.get_by_role("button", name="Another answer").last.click()
    done(visit)
    assert answers(visit) == [shown(first), shown(second)]  # at temperature 0

    visit.panel.locator(".turn.mine").first.hover()
    visit.panel.get_by_role("button", name="Edit").first.click()
    visit.panel.get_by_label("your message").fill("Say dog.")
    visit.panel.get_by_role("button", name="Ask again from here").click()
    done(visit)
    assert answers(visit) == [shown(expected(lively, "Say dog."))]
    visit.panel.get_by_role("button", name="New conversation").click()
    assert answers(visit) == []
    visit.panel.get_by_label("system message").fill("Be brief.")
    say(visit, "Say fox.")
    assert answers(visit) == [shown(expected(lively, "Say fox.", system="Be brief."))]


def test_an_answer_can_be_stopped(visit: Visit, lively: Served) -> None:
    setting(visit, "max_tokens", 800)
    slow = lively.model.register_forward_pre_hook(lambda *_: time.sleep(0.03))
    visit.panel.get_by_label("Message", exact=True).fill("Say fox.")
    visit.panel.get_by_label("Message", exact=True).press("Enter")
    text = visit.panel.locator(".turn:not(.mine) .text")
    expect(text).to_have_text(re.compile(r"\S{3}"))
    visit.panel.get_by_role("button", name="Stop").click()
    done(visit)
    slow.remove()
    expect(visit.panel.locator(".turn:not(.mine) .told")).to_contain_text("stopped")
    written = text.inner_text()
    whole = shown(expected(lively, "Say fox.", length=800))
    assert len(written) < len(whole) and whole.startswith(written)


def test_seeds_repeat_and_sliders_are_sent(visit: Visit) -> None:
    sent: list[dict[str, Any]] = []
    visit.page.on("request", lambda request: sent.append(json.loads(request.post_data or "null")))
    for name, value in {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "min_p": 0.02}.items():
        setting(visit, name, value)
    visit.page.locator("#chat-seed").fill("7")
    say(visit, "Say fox.")
    visit.panel.get_by_role("button", name="Another answer").click()
    done(visit)
    again = answers(visit)
    assert sent[0] == sent[1] and sent[0] == {
        "model": "lively",
        "messages": [{"role": "user", "content": "Say fox."}],
        "max_tokens": 16,
        "temperature": 1.5,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.02,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    visit.page.locator("#chat-seed").fill("")
    visit.panel.get_by_role("button", name="Another answer").click()
    done(visit)
    assert "seed" in sent[2] and sent[2]["seed"] != 7 and answers(visit) != again
    assert f"seed {sent[2]['seed']}" in visit.panel.locator(".told").last.inner_text()


def test_the_real_prompt_is_one_click_away(visit: Visit, lively: Served) -> None:
    said = f"<|im_end|> {EVIL}"
    visit.panel.get_by_label("Message", exact=True).fill(said)
    visit.panel.get_by_role("button", name="The real prompt").click()
    sheet = visit.page.get_by_role("dialog")
    ids = encode_prompt([{"role": "user", "content": said}], lively.tokenizer, STYLE)
    expect(sheet).to_contain_text(f"{len(ids)} tokens of the 900")
    titles = sheet.locator(".piece").evaluate_all("all => all.map(each => each.title)")
    assert titles == [f"token {i}" for i in ids]
    assert visit.page.locator("main img, dialog img, main script").count() == 0
    visit.page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)


def test_the_same_as_code(visit: Visit, lively: Served) -> None:
    text = 'It\'s "fox"\n</script> \u202e \\ $HOME `x` é'
    visit.page.locator("#chat-temperature").fill("0.5")
    visit.page.locator("#chat-min_p").fill("0.1")
    visit.page.locator("#chat-seed").fill("3")
    visit.panel.get_by_label("Message", exact=True).fill(text)
    visit.panel.get_by_role("button", name="As code").click()
    python, curl = visit.page.get_by_role("dialog").locator("pre").all_inner_texts()
    assert "\u202e" not in python + curl
    visit.page.keyboard.press("Escape")
    say(visit, text)
    ran = subprocess.run(
        [sys.executable, "-c", python], capture_output=True, encoding="utf-8", timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert [shown(ran.stdout).rstrip("\n")] == answers(visit)
    assert curl.startswith(f"curl {visit.address}/v1/chat/completions ")
    words = (
        subprocess.run(
            ["sh", "-c", curl.replace("curl ", "printf '%s\\0' ", 1)],
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .split("\0")
    )
    body = json.loads(words[words.index("-d") + 1])
    assert body["messages"] == [{"role": "user", "content": text}] and body["min_p"] == 0.1


def test_a_model_without_a_style_continues(visit: Visit, lively: Served) -> None:
    visit.page.get_by_role("combobox", name="model").select_option("base")
    expect(visit.panel.locator(".about")).to_contain_text("it continues what you write")
    box, go = visit.panel.get_by_label("your text"), "Write on"
    setting(visit, "max_tokens", 16)
    box.fill("the quick")
    texts = ["the quick"]
    for _ in range(2):
        ids = torch.tensor([lively.tokenizer.encode(texts[-1])])
        found = generate(lively.model, ids, 16, 900, eos_id=lively.tokenizer.eot_token)
        texts.append(texts[-1] + lively.tokenizer.decode(found[0, ids.shape[1] :].tolist()))
        visit.panel.get_by_role("button", name=go, exact=True).click()
        keep = visit.panel.get_by_role("button", name="Keep it, and go on")
        expect(keep).to_be_visible()
        assert visit.panel.locator(".text.whole").inner_text() == shown(texts[-1])
        keep.click()
        assert box.input_value() == texts[-1]
    assert not visit.panel.get_by_label("system message").is_visible()


def test_mistakes_of_the_server_are_told(visit: Visit) -> None:
    setting(visit, "max_tokens", 16)
    say(visit, "x " * 1200)
    expect(visit.panel.get_by_role("alert")).to_contain_text(re.compile(r"900"))
    assert answers(visit) == []
    assert all("400" in text for text in visit.complaints)
    visit.complaints.clear()  # the browser's own note of the status
    visit.panel.get_by_role("button", name="New conversation").click()


def test_the_key_is_asked_for_once(
    browser: Browser, lively: Served, tokenizer: BPETokenizer
) -> None:
    with live(
        Served.of("shut", lively.model, tokenizer, style=STYLE), api_key="let me in"
    ) as server:
        visit = Visit(browser, server.url, "#chat")
        dialog = visit.page.get_by_role("dialog")
        for key in ("wrong", "let me in"):
            expect(dialog).to_contain_text("This server asks for a key")
            dialog.get_by_label("key").fill(key)
            dialog.get_by_role("button", name="Go on").click()
        expect(dialog).to_have_count(0)
        setting(visit, "temperature", 0)
        setting(visit, "max_tokens", 16)
        say(visit, "Say fox.")
        assert answers(visit) == [shown(expected(lively, "Say fox."))]
        visit.panel.get_by_role("button", name="As code").click()
        python, curl = visit.page.get_by_role("dialog").locator("pre").all_inner_texts()
        assert "let me in" not in python + curl and "GROUNDUP_API_KEY" in python
        visit.page.reload()
        expect(visit.panel.get_by_label("Message", exact=True)).to_be_visible()
        assert all("401" in text for text in visit.complaints)
        visit.complaints.clear()
        visit.check()

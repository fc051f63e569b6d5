"""Answers side by side: what is told of them, and the report's page in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from groundup.errors import UserError
from groundup.judge.beside import beside, read_beside, reports_in
from groundup.judge.config import JudgeConfig
from groundup.judge.run import judge_responses
from tests.browser import Opened
from tests.judge.conftest import Write, rows
from tests.judge.fake_llm import FakeLLM

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\u202e\x1b[31m"


def entries(count: int, answer: str) -> list[dict[str, str]]:
    return [
        row | {"model_response": f"{answer} {i} {EVIL}", "instruction": f"Task {i}: {EVIL}"}
        for i, row in enumerate(rows(count), 1)
    ]


@pytest.fixture
def pairwise(llm: FakeLLM, write: Write) -> Path:
    """A, B and the order decide in turns; one entry has no verdict."""

    def verdict(prompt: str) -> str:
        number = int(prompt.split("Task ")[1].split(":")[0])
        first_is_ours = prompt.index("ours") < prompt.index("theirs")
        if number == 4:
            return "neither"
        if number % 3 == 0:
            return '{"winner": "A"}'  # whichever stands first
        return json.dumps({"winner": "A" if first_is_ours == (number % 3 == 1) else "B"})

    llm.answer = verdict
    ours, theirs = write(entries(30, "ours")), write(entries(30, "theirs"), "theirs.json")
    judge_responses(ours, JudgeConfig(base_url=llm.url), against=theirs)
    (found,) = reports_in(ours.parent)
    return found


@pytest.fixture
def compared(llm: FakeLLM, write: Write) -> Path:
    def verdict(prompt: str) -> str:
        number = int(prompt.split("Task ")[1].split(":")[0])
        return json.dumps({"score": number * 10 + 5 * ("new" in prompt and number > 3)})

    llm.answer = verdict
    config = JudgeConfig(base_url=llm.url)
    judge_responses(write(entries(6, "old"), "old.json"), config)
    new = write(entries(6, "new"), "new.json")
    judge_responses(new, config, compare_with=new.parent / "old.judge")
    return new.parent / "new.judge"


def test_a_pair_and_whether_its_verdict_depends_on_the_order(pairwise: Path) -> None:
    told = read_beside(pairwise)
    assert told["pairwise"] and "order" in told["disagreement"]
    values = [row["value"] for row in told["rows"]]
    assert values[:6] == ["A", "B", "tie", None, "B", "tie"]
    for row in told["rows"]:
        number = row["entry"]
        assert row["disagree"] == (number % 3 == 0)
        assert row["texts"]["response A"].startswith(f"ours {number} ")
        assert row["texts"]["response B"].startswith(f"theirs {number} ")
    assert told["rows"][2]["said"] == ['A first: {"winner": "A"}', 'B first: {"winner": "A"}']
    everything = json.dumps(told, ensure_ascii=False)
    assert "\u202e" not in everything and "\x1b" not in everything and "<script>" in everything


def test_two_runs_and_how_far_apart_their_scores_are(compared: Path) -> None:
    told = read_beside(compared)
    assert told["disagreement"] == "the two runs got different scores" and not told["pairwise"]
    assert [row["disagree"] for row in told["rows"]] == [0, 0, 0, 5, 5, 5]
    assert told["rows"][4]["words"] == "55, then 50"
    assert told["rows"][4]["texts"]["response then"].startswith("old 5 ")


def test_a_single_run_has_nothing_to_disagree_with(compared: Path) -> None:
    told = read_beside(compared.parent / "old.judge")
    assert told["disagreement"] is None and {row["disagree"] for row in told["rows"]} == {0}
    assert set(told["rows"][0]["texts"]) == {"reference", "response"}


@pytest.mark.parametrize("content", ["{}", "[]", '{"entries": 3}', "no JSON"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content, "utf-8")
    with pytest.raises(UserError, match="results.json"):
        read_beside(tmp_path)


# In a browser


def numbers(page: Page) -> list[int]:
    texts = page.locator(".judged > li .verdict b").all_inner_texts()
    return [int(text.strip().rstrip(".")) for text in texts]


def test_the_reports_page_filters(browser: Browser, pairwise: Path) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
    opened = Opened(page, pairwise / "report.html")
    assert numbers(page) == list(range(1, 21))
    page.get_by_role("button", name="show more").press("Enter")
    assert numbers(page) == list(range(1, 31))
    page.get_by_label("only where the judge's verdict changed").check()
    assert numbers(page) == list(range(3, 31, 3))
    assert page.get_by_text("10 of 30 entries").is_visible()
    page.get_by_label("only where the judge's verdict changed").uncheck()
    page.get_by_label("verdict", exact=True).select_option("B is better")
    assert numbers(page) == [n for n in range(1, 31) if n % 3 == 2]
    first = page.locator(".judged > li").first
    assert first.locator(".better h4").inner_text() == "response B ✓"
    assert "theirs 2 </script><script>" in first.locator(".better").inner_text()
    page.get_by_label("words").fill("OURS 11")
    assert numbers(page) == [11]
    page.get_by_label("verdict", exact=True).select_option("unscored")
    assert page.get_by_text("0 of 30 entries").is_visible()
    assert page.title() == "Which response is better"
    assert page.locator("img").count() == 0
    opened.check()
    page.close()


def test_scores_are_filtered_and_sorted(browser: Browser, compared: Path) -> None:
    page = browser.new_page()
    opened = Opened(page, compared / "report.html")
    page.get_by_label("order").select_option("best first")
    assert numbers(page) == [6, 5, 4, 3, 2, 1]
    page.get_by_label("order").select_option("largest disagreement first")
    assert numbers(page) == [4, 5, 6, 1, 2, 3]
    page.get_by_label("lowest score").fill("30")
    page.get_by_label("highest score").fill("55")
    assert numbers(page) == [4, 5, 3]
    page.get_by_label("only where the two runs").check()
    assert numbers(page) == [4, 5]
    opened.check()
    page.close()


def test_without_javascript_a_sentence_says_so(browser: Browser, compared: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto((compared / "report.html").as_uri())
    assert page.get_by_text("JavaScript, which this browser does not run").is_visible()
    page.get_by_text("show", exact=True).click()
    assert "new 6" in page.locator("details table").inner_text()
    page.close()


def test_plain_results_without_extras_are_told(compared: Path) -> None:
    results: dict[str, Any] = json.loads((compared / "results.json").read_text("utf-8"))
    results.pop("comparison")
    assert beside(results)["disagreement"] is None

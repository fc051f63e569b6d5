import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from matplotlib.patches import Rectangle

from groundup.judge.config import JudgeConfig
from groundup.judge.report import bins
from groundup.judge.run import judge_responses
from groundup.plots import plot_counts, svg
from tests.judge.conftest import Write, rows
from tests.judge.fake_llm import FakeLLM

EVIL = "</td><script>alert(1)</script> | ![x](http://evil.example/x.png) **b** ``` &lt; <img src=x>"


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "onload")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def evil(llm: FakeLLM, write: Write) -> Path:
    """The directory of a run over 12 entries, everything in which tries to break out."""
    entries = [{**row, "instruction": f"{row['instruction']} {EVIL}"} for row in rows(12)]
    for row in entries:
        row["model_response"] += EVIL
        row["output"] += f"\n\n{EVIL}"
    entries[10]["model_response"] = ""

    def verdict(prompt: str) -> str:
        number = int(prompt.split("number ")[1].split(".")[0])
        return f"<script>none</script>{EVIL}" if number == 12 else f'{{"score": {number * 8}}}'

    llm.answer = verdict
    responses = write(entries)
    judge_responses(responses, JudgeConfig(base_url=llm.url))
    return responses.parent / "responses.judge"


def test_the_page_is_one_file_with_its_own_script_only(evil: Path) -> None:
    text = (evil / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert {"img", "link", "iframe", "a"}.isdisjoint(page.tags)
    assert page.links == [] and page.tags.count("script") == 2
    script = text.split('<script type="module">')[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text) and EVIL not in script
    assert page.tags.count("svg") == 1
    shown = "".join(text for text in page.texts if not text.startswith("{"))
    assert shown.count(f"The number is 9.{EVIL}") == 2  # among the best, and in the whole list
    assert "unscored (the judge said ['<script>none</script>" in shown
    assert "0 (empty response, not asked)" in shown


def test_best_and_worst_stand_beside_their_reference(evil: Path) -> None:
    text = (evil / "report.md").read_text(encoding="utf-8")
    sections = {part.split("\n")[0]: part for part in text.split("\n## ")[1:]}
    numbers = {
        title: re.findall(r"^\| (\d+) \| (.*?) \|", part, re.MULTILINE)
        for title, part in sections.items()
    }
    best = [("10", "80"), ("9", "72"), ("8", "64"), ("7", "56"), ("6", "48")]
    assert numbers["Best answers"] == best
    assert [entry for entry, _ in numbers["Worst answers"]] == ["11", "1", "2", "3", "4"]
    assert "| entry | verdict | task | reference | response |" in sections["Best answers"]
    assert "Unscored" in sections and numbers["Unscored"][0][0] == "12"
    assert "Given the input `{prompt}`" in sections["The question"]


def test_nothing_in_the_markdown_is_markup(evil: Path) -> None:
    text = (evil / "report.md").read_text(encoding="utf-8")
    html = MarkdownIt("commonmark").enable("table").render(text)
    page = Page(html.replace("&lt;br&gt;", ""))
    assert "script" not in page.tags
    assert page.links == ["distribution.svg"]
    assert page.tags.count("tr") == 3 + 5 + 5 + 1  # heads, best, worst, unscored


def test_the_figures_are_told(evil: Path) -> None:
    text = (evil / "report.md").read_text(encoding="utf-8")
    assert "mean 40.00 (95% interval " in text and "median 40" in text
    assert "11 of 12 scored, 1 unscored, 1 empty" in text
    assert "unscored entries: 1;" in text and "empty responses: 1;" in text
    assert "the mean without them is 44.00" in text
    assert "ollama:llama3" in text and "temperature 0, seed 123" in text


def test_the_picture_is_well_formed(evil: Path) -> None:
    picture = ElementTree.parse(evil / "distribution.svg").getroot()
    assert picture.get("role") == "img"
    assert "distribution of the scores: 0 to 9: 2" in (picture[0].text or "")
    labels = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert labels[:2] == ["0 to 9", "10 to 19"] and labels[10:12] == ["2", "1"]


def test_nothing_in_a_report_steers_a_terminal(llm: FakeLLM, write: Write, tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\x9b2J\u202e"
    llm.answer = lambda prompt: evil
    entries = rows(2, instruction=f"a{evil}", output=f"b{evil}", model_response=f"c{evil}")
    template = tmp_path / "question.txt"
    template.write_text(f"{{response}}{evil}", encoding="utf-8")
    judge_responses(write(entries), JudgeConfig(base_url=llm.url), template=template)
    for name in ("report.md", "report.html"):
        text = (tmp_path / "responses.judge" / name).read_text(encoding="utf-8")
        assert not set(evil) & set("\x1b\x07\x9b\u202e") & set(text)
        assert "x1b" in text and "u202e" in text and "<svg" in text + "<svg" * (name == "report.md")
    answers = (tmp_path / "responses.judge" / "answers.jsonl").read_text(encoding="utf-8")
    assert json.loads(answers.splitlines()[0])["texts"][0] == evil  # data is exact


def test_bars_are_as_high_as_their_counts() -> None:
    bars = [("a<b", 4), ("c", 2), ("d", 0)]
    drawn = plot_counts(bars).axes[0].patches
    high, half, none = (bar.get_height() for bar in drawn if isinstance(bar, Rectangle))
    assert high == 2 * half > none == 0
    picture = svg(plot_counts(bars), "x & y")
    assert ElementTree.fromstring(picture)[0].text == "x & y"
    assert picture == svg(plot_counts(bars), "x & y")
    assert ElementTree.fromstring(svg(plot_counts([]), "nothing")) is not None


def test_scores_are_counted_in_ranges() -> None:
    counted = bins([0, 9, 10, 89, 90, 99, 100, 100], 0, 100)
    assert counted[0] == ("0 to 9", 2) and counted[1] == ("10 to 19", 1)
    assert counted[-1] == ("90 to 100", 4) and len(counted) == 10
    assert bins([1, 5, 5], 1, 5) == [("1", 1), ("2", 0), ("3", 0), ("4", 0), ("5", 2)]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 100), (1, 100), (0, 50), (-10, 10), (0, 12), (1, 99)]
)
def test_every_score_is_counted_once(low: int, high: int) -> None:
    counted = bins(range(low, high + 1), low, high)
    assert sum(count for _, count in counted) == high - low + 1
    assert counted[0][0].startswith(f"{low}") and counted[-1][0].endswith(f"{high}")
    for label, count in counted:
        first, _, last = label.partition(" to ")
        assert count == int(last or first) - int(first) + 1

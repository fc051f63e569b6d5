from typing import Any

import pytest
import torch

from groundup.data.instructions import custom_collate_fn
from groundup.data.windows import TokenWindows
from groundup.errors import UserError
from groundup.plots import plot_collate, plot_merges, plot_tokens, plot_windows
from groundup.plots.tokens import END, IGNORED, LEARNED, PADDING
from groundup.tokenizers import BPETokenizer
from tests.conftest import TEXT
from tests.plots.look import boxes, check_texts, lightness

EVIL = ["$x", "_y_$", "\n", "日本", "\U0001f9ff", b"\xe6\x97", " " * 40, "", "\x1b[0m"]


def test_a_text_in_its_tokens(tokenizer: BPETokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    tokens = [tokenizer.token_bytes(i) for i in ids]
    figure = plot_tokens(tokens, ids)
    drawn = boxes(figure)
    assert len(drawn) == len(tokens)
    fills = [box.get_facecolor() for box in drawn]
    assert all(a != b for a, b in zip(fills, fills[1:], strict=False))
    assert min(lightness(fill[:3]) for fill in fills) > 70  # letters are dark
    texts = check_texts(figure)
    assert texts.count("A") == tokens.count(b"A") and "·" in texts
    assert [text for text in texts if text.isdecimal()].count(str(ids[0])) >= ids.count(ids[0])
    spans = [(box.get_y(), box.get_x(), box.get_x() + box.get_width()) for box in drawn]
    for (line, _, end), (other, begin, _) in zip(spans, spans[1:], strict=False):
        assert other > line or (other == line and begin >= end)
    assert max(end for _, _, end in spans) <= 88


def test_odd_tokens_and_a_line_end() -> None:
    figure = plot_tokens(EVIL)
    texts = check_texts(figure)
    assert "E6 97" in texts and "$x" in texts and "∅" in texts and "\\x1b[0m" in texts
    assert len({box.get_y() for box in boxes(figure)}) >= 2


def test_windows_are_those_of_the_data_set() -> None:
    words = [f" w{i}" for i in range(11)]
    figure = plot_windows(words, 4, 3)
    data = TokenWindows(list(range(11)), 4, 3)
    rows: dict[float, list[str]] = {}
    texts = [t for t in figure.axes[0].texts if t.get_text().startswith("·w")]
    for text in texts:
        rows.setdefault(round(text.get_position()[1], 2), []).append(text.get_text())
    whole, *parts = (row for _, row in sorted(rows.items()))
    assert whole == [f"·w{i}" for i in range(11)]
    expected = [[f"·w{i}" for i in part.tolist()] for pair in data for part in pair]
    assert parts == expected and len(data) == 3
    places = {t.get_text(): set() for t in texts}
    for text in texts:
        places[text.get_text()].add(round(text.get_position()[0], 3))
    assert all(len(place) == 1 for place in places.values())  # each token below itself
    check_texts(figure)


@pytest.mark.parametrize(
    ("count", "length", "stride", "said"),
    [
        (5, 0, 1, "max_length is 0"),
        (5, 2, 0, "stride is 0"),
        (4, 4, 1, "4 tokens; one window needs max_length \\+ 1 = 5"),
        (60, 4, 1, "give a shorter text"),
    ],
)
def test_windows_that_cannot_be_drawn(count: int, length: int, stride: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plot_windows(["x"] * count, length, stride)


def test_the_batch_of_the_course() -> None:
    inputs, targets = custom_collate_fn([[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]])
    figure = plot_collate(inputs, targets)
    looks = [(box.get_edgecolor(), box.get_hatch() or "") for box in boxes(figure)[:30]]
    looks = [looks[i : i + 5] for i in range(0, 30, 5)]
    names = {}
    sample = boxes(figure)[30:]  # the legend
    for name, box in zip("LEIP", sample, strict=True):
        names[box.get_edgecolor(), box.get_hatch() or ""] = name
    drawn = ["".join(names[look] for look in row) for row in looks]
    assert drawn == ["LLLLL", "LLPPP", "LLLPP", "LLLLE", "LEPPP", "LLEPP"]
    texts = check_texts(figure)
    assert texts.count("-100") == 5 and texts.count("50256") == 5 + 3
    assert len({look.hatch for look in (LEARNED, IGNORED, PADDING)}) == 3
    assert END.width > LEARNED.width


def test_a_masked_prompt_differs_from_padding() -> None:
    inputs, targets = torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([[-100, -100, 9, 0, -100]])
    figure = plot_collate(inputs, targets, pad_token_id=0, decode=lambda ids: f" $<{ids[0]}>_")
    hatches = [box.get_hatch() or "" for box in boxes(figure)[:10]]
    learned, ignored, padding = LEARNED.hatch, IGNORED.hatch, PADDING.hatch
    assert hatches[:5] == [learned] * 3 + [padding] * 2
    assert hatches[5:] == [ignored, ignored, learned, END.hatch, padding]
    assert "·$<9>_" in check_texts(figure)


@pytest.mark.parametrize(
    ("inputs", "targets", "said"),
    [
        ([[1, 2]], [[1]], "expected the same"),
        ([1, 2], [1, 2], "inputs is of shape"),
        ([[1] * 200], [[1] * 200], "choose some"),
        ([[]], [[]], "choose some"),
    ],
)
def test_batches_that_cannot_be_drawn(inputs: Any, targets: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plot_collate(inputs, targets)


def test_tokens_that_cannot_be_drawn() -> None:
    with pytest.raises(UserError, match="tokens has 1, ids has 2"):
        plot_tokens(["a"], [1, 2])
    with pytest.raises(UserError, match="there are 601 tokens"):
        plot_tokens(["a"] * 601)
    with pytest.raises(UserError, match="columns is 3"):
        plot_tokens(["a"], columns=3)


@pytest.mark.parametrize("word", [" quick", "The", "x", " 日本語!", "fox", " jumps", "$_" * 10])
def test_the_roots_of_the_tree_are_the_words_tokens(tokenizer: BPETokenizer, word: str) -> None:
    figure = plot_merges(word, tokenizer.merges)
    thick = [box for box in boxes(figure) if box.get_linewidth() > 1]
    assert len(thick) == len(tokenizer.encode(word))
    count = len(word.encode())
    assert len(boxes(figure)) == 2 * count - len(thick)  # every merge makes two into one
    assert len(figure.axes[0].lines) == 2 * (count - len(thick))
    check_texts(figure)


def test_merges_are_numbered_as_they_were_learned() -> None:
    merges = [(b"l", b"o"), (b"lo", b"w"), (b"e", b"r")]
    texts = check_texts(plot_merges("lower", merges))
    assert {"lo", "low", "er", "#1", "#2", "#3"} <= set(texts)


def test_words_that_cannot_be_drawn() -> None:
    with pytest.raises(UserError, match="the word has 0 bytes"):
        plot_merges("", [])
    with pytest.raises(UserError, match="the word has 41 bytes"):
        plot_merges("a" * 41, [])
    with pytest.raises(UserError, match="no pairs of bytes"):
        plot_merges("a", ["ab", "abc"])  # pyright: ignore[reportArgumentType]

"""``groundup explain``: sources and worked examples, 80 columns wide."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from groundup.lessons.topics import TOPICS
from groundup.model.attention import MultiHeadAttention
from tests.conftest import Run


def test_the_topics(run: Run) -> None:
    result = run("explain")
    lines = result.out.splitlines()
    assert result.status == 0 and len(lines) == len(TOPICS) >= 14
    assert [line.split()[0] for line in lines] == list(TOPICS)
    asked = "attention layernorm gelu cache loss bpe lora collate embedding softmax block sampling"
    assert {*asked.split(), "windows"} <= TOPICS.keys()
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic(run: Run, topic: str) -> None:
    result = run("explain", topic)
    assert result.status == 0 and not result.err
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out and "False" not in result.out.partition("# which prints")[2]
    for part in TOPICS[topic].parts:
        module, _, name = part.partition(":")
        assert f"# groundup/{module.replace('.', '/')}.py" in result.out
        assert re.search(rf"^(class|def) {name}\b", result.out, re.MULTILINE)
    assert result.out.count(f"def {topic}() -> None:") == 1
    assert len(result.out.partition("# which prints")[2].split()) > 15


def printed(run: Run, topic: str) -> str:
    return run("explain", topic).out.partition("# which prints\n")[2]


def numbers(text: str, after: str, rows: int) -> torch.Tensor:
    """The decimal numbers in the lines that follow this one."""
    lines = text[text.index(after) :].splitlines()[1 : rows + 1]
    return torch.tensor([[float(n) for n in re.findall(r"-?\d+\.\d+", line)] for line in lines])


def test_the_lectures_numbers(run: Run) -> None:
    """As printed in the course's notebooks of chapters 2 to 5 and 7."""
    found = numbers(printed(run, "attention"), "output  (6, 2)", 6)
    expected = [[0.3190, 0.4858], [0.2943, 0.3897], [0.2856, 0.3593]]
    expected += [[0.2693, 0.3873], [0.2639, 0.3928], [0.2575, 0.4028]]
    assert torch.equal(found, torch.tensor(expected))
    found = numbers(printed(run, "embedding"), "looked up", 4)[:2]
    assert torch.equal(
        found, torch.tensor([[1.2753, -0.2010, -0.1606], [-0.4015, 0.9666, -1.1481]])
    )
    found = numbers(printed(run, "layernorm"), "before  (2, 6)", 2)
    expected = [[0.2260, 0.3470, 0.0, 0.2216, 0.0, 0.0], [0.2133, 0.2394, 0.0, 0.5198, 0.3297, 0.0]]
    assert torch.equal(found, torch.tensor(expected))
    drawn = printed(run, "sampling")
    assert "73 x closer\n" in drawn and "582 x forward\n" in drawn and "343 x toward\n" in drawn
    collated = printed(run, "collate")
    assert "6    50256     -100     -100     -100" in collated
    assert "0.000201735" in printed(run, "shortcuts") and "1.32585" in printed(run, "shortcuts")


def test_numbers_computed_another_way(run: Run) -> None:
    text = printed(run, "attention")
    weights = numbers(text, "journey   starts", 6)
    torch.manual_seed(123)
    layer = MultiHeadAttention(3, 2, 6, 0.0, 2)
    words = [[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64]]
    words += [[0.22, 0.58, 0.33], [0.77, 0.25, 0.10], [0.05, 0.80, 0.55]]
    x = torch.tensor(words)
    query, key = (
        x @ w.weight[0].detach() for w in (layer.W_query, layer.W_key)
    )  # head 0 is one wide
    scores = query[:, None] * key[None]
    expected = [
        [scores[i, j].exp() / scores[i, : i + 1].exp().sum() if j <= i else 0.0 for j in range(6)]
        for i in range(6)
    ]
    torch.testing.assert_close(weights, torch.tensor(expected), atol=6e-5, rtol=0)
    x = numbers(printed(run, "gelu"), "x     GELU", 13)
    erf = x[:, 0] * 0.5 * (1 + torch.erf(x[:, 0] / 2**0.5))
    torch.testing.assert_close(x[:, 1], erf, atol=6e-4, rtol=0)  # the tanh form is that near
    assert torch.equal(x[:, 2], x[:, 0].clamp(min=0))
    after = numbers(printed(run, "layernorm"), "after  (2, 6)", 2)
    before = numbers(printed(run, "layernorm"), "before  (2, 6)", 2)
    normal = (before - before.mean(1, keepdim=True)) / before.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(after, normal, atol=2e-3, rtol=0)
    text = printed(run, "loss")
    logits, per_token = numbers(text, "logits  (2, 5)", 2), numbers(text, "their -log", 1)[0]
    expected = logits.logsumexp(1) - logits[[0, 1], [1, 4]]
    torch.testing.assert_close(per_token, expected, atol=2e-4, rtol=0)
    assert f"loss per token {expected.mean():.3f}" in text
    text = printed(run, "sampling")
    table = numbers(text, "T = 1 ", 9)
    given = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
    for column, temperature in enumerate((1, 0.1, 5)):
        expected = (given / temperature).exp() / (given / temperature).exp().sum()
        torch.testing.assert_close(table[:, column], expected, atol=6e-5, rtol=0)
    assert (table[:, 3] > 0).sum() == 3 and (table[:, 4] > 0).sum() == 2
    torch.testing.assert_close(table.sum(0), torch.ones(5), atol=3e-4, rtol=0)


def test_bpe_and_windows(run: Run) -> None:
    assert printed(run, "bpe").splitlines()[1:3] == ["merge 'w' + 'e'", "merge 'l' + 'o'"]
    lines = printed(run, "windows").splitlines()
    assert "[6109, 3626, 6100, 345] 'Every effort moves you'" in lines
    assert "[3626, 6100, 345, 530] ' effort moves you one'" in lines


def test_an_unknown_topic(fails: Callable[..., str]) -> None:
    assert fails("explain", "atention").startswith(
        "unknown topic 'atention'; did you mean 'attention'? there are: bpe, windows, "
    )


def test_in_colour_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run("explain", "gelu").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = run("explain", "gelu").out
    assert "\x1b[" in coloured
    bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert max(map(len, bare.splitlines())) <= 80
    assert bare.split() == plain.split()


def test_help_and_the_list_load_no_torch() -> None:
    code = (
        "import sys; from groundup.cli import main; main([sys.argv[1]]); "
        "assert 'torch' not in sys.modules, 'torch'"
    )
    for word in ("--help", "explain"):
        done = subprocess.run(
            [sys.executable, "-c", code, word], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "explain" in done.stdout or "attention" in done.stdout

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.errors import UserError
from groundup.plots import plot_losses, save_figure
from groundup.plots.style import HATCHES, MARKERS, SERIES, STYLES, numbers, plain, token_text
from tests.plots.look import check_texts, lightness


def test_importing_loads_no_matplotlib_and_no_torch() -> None:
    code = (
        "import sys, groundup.plots\n"
        "assert not {'matplotlib', 'torch', 'jinja2'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_first_colours_differ_in_lightness_and_all_in_style() -> None:
    levels = [lightness(color) for color in SERIES[:4]]
    gaps = np.diff(sorted(levels))
    assert min(gaps) > 10 and max(levels) < 85  # legible on white
    assert len(set(SERIES)) == len(set(map(str, STYLES))) == len(set(MARKERS)) == len(set(HATCHES))


@pytest.mark.parametrize(
    ("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")]
)
def test_pictures_are_saved_as_their_names_say(tmp_path: Path, suffix: str, begins: bytes) -> None:
    path = tmp_path / "new" / f"a{suffix}"
    assert save_figure(plot_losses([0, 1], [0, 5], [2, 1], []), path) == path
    first = path.read_bytes()
    assert first.startswith(begins)
    save_figure(plot_losses([0, 1], [0, 5], [2, 1], []), path)
    assert path.read_bytes() == first  # no dates, no random names
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_another_kind_of_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.png, \.svg, \.pdf, but this is .*a\.gif"):
        save_figure(plot_losses([0], [0], [1], []), tmp_path / "a.gif")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="cannot write to"):
        save_figure(plot_losses([0], [0], [1], []), tmp_path / "a.png")


def test_what_no_font_has_is_replaced() -> None:
    assert plain("a_$x$ é") == "a_$x$ é"
    assert plain("\U0001f9ff\x00\x1b") == "▯\\x00\\x1b"
    assert plain("\ud800") == "▯"
    assert plain(1.5) == "1.5"


def test_tokens_show_what_is_invisible() -> None:
    assert token_text(" the") == token_text(b" the") == "·the"
    assert token_text("\n\t") == "↵→"
    assert token_text(b"\xe6\x97") == "E6 97"
    assert token_text("") == "∅"


def test_numbers_come_from_anything() -> None:
    tensor = torch.tensor([1.0, 2.0], requires_grad=True, dtype=torch.bfloat16)
    for given in ([1, 2], (1.0, 2.0), np.array([1, 2]), tensor, range(1, 3)):
        assert numbers("x", given).tolist() == [1.0, 2.0]
    for given in (["a"], [[1], [1, 2]], [None, {}]):
        with pytest.raises(UserError, match="x holds what is no number"):
            numbers("x", given)
    with pytest.raises(UserError, match=r"x is of shape \(1, 2\); expected 1 dimension"):
        numbers("x", [[1, 2]])


@pytest.mark.parametrize("label", ["_hidden_", "$\\frac{$ & <b>", "日本語 \U0001f9ff", "x" * 300])
def test_labels_are_no_formulas_and_never_left_out(label: str) -> None:
    from groundup.plots import plot_values

    texts = check_texts(plot_values([0, 1], [0, 5], [2, 1], [3, 2], label[:20]))
    assert f"training {plain(label[:20])} (last 1)" in texts

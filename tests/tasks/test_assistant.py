from pathlib import Path

import pytest

from groundup.errors import UserError
from groundup.tasks.assistant import Assistant
from groundup.tokenizers import BPETokenizer
from groundup.weights.load import load_model
from groundup.weights.torch_files import save_course_file
from tests.assistants import save_assistant


def test_the_saved_style_is_used_and_no_other(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    model, said = save_assistant(tmp_path / "m", tokenizer, "chatml"), []
    assert Assistant.load(model, fallback="alpaca", say=said.append).style.name == "chatml"
    assert Assistant.load(model, style="chatml", say=said.append).style.name == "chatml"
    assert said == []
    with pytest.raises(UserError, match="trained in the prompt style chatml .* leave out --style"):
        Assistant.load(model, style="alpaca")
    with pytest.raises(UserError, match="unknown prompt style 'chatlm'; did you mean 'chatml'"):
        Assistant.load(model, style="chatlm")


def test_a_model_without_a_style(model_dir: Path) -> None:
    said = []
    with pytest.raises(UserError, match="never instruction-tuned.* name its style with --style"):
        Assistant.load(model_dir, say=said.append)
    assert said == []
    assert Assistant.load(model_dir, fallback="alpaca", say=said.append).style.name == "alpaca"
    assert "continues texts and does not answer" in said[0]
    asked = Assistant.load(model_dir, style="phi3", fallback="alpaca", say=said.append)
    assert asked.style.name == "phi3"
    assert "it is asked in phi3" in said[1]


def test_the_courses_files_have_no_style_and_others_may_have_their_own(
    tmp_path: Path, tokenizer: BPETokenizer
) -> None:
    model = save_assistant(tmp_path / "m", tokenizer)
    save_course_file(load_model(model)[0], tmp_path / "m.pth")
    (model / "groundup.json").unlink()
    with pytest.raises(UserError, match="names no prompt style"):
        Assistant.load(tmp_path / "m.pth", tokenizer=str(model), n_heads=4)
    assert Assistant.load(model).style.name == "model", "what is left is its chat template"
    (model / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="names no prompt style"):
        Assistant.load(model)
    found = Assistant.load(
        tmp_path / "m.pth", style="plain", tokenizer=str(model), n_heads=4, say=lambda text: None
    )
    assert found.style.name == "plain" and found.model.cfg.n_heads == 4

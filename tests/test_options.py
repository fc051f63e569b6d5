from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from groundup.cli.app import pick
from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.options import option, option_fields, read_recipe, read_toml, recipe_names
from groundup.tasks.config import ClassifyConfig, InstructConfig, PretrainConfig


@dataclass
class Sample:
    steps: int = option(3, "how many")
    rate: float = option(0.1, "how fast")
    shape: Literal["round", "square"] = option("round", "which shape")
    name: str | None = option(None, "what to call it")
    loud: bool = option(False, "whether to shout")


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_tables_are_only_headings_and_dashes_are_underscores(tmp_path: Path) -> None:
    path = toml(tmp_path, 'loud = true\n[a]\nsteps = 5\nrate = 1\n[b.c]\nshape = "square"\n')
    assert read_toml(path, Sample) == {"loud": True, "steps": 5, "rate": 1, "shape": "square"}
    path = toml(tmp_path, "batch-size = 2")
    assert read_toml(path, PretrainConfig) == {"batch_size": 2}


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = toml(tmp_path, 'stepz = 1\nrate = "fast"\nshape = "oval"\nsteps = true\n')
    with pytest.raises(UserError) as error:
        read_toml(path, Sample)
    message = str(error.value)
    assert "unknown key 'stepz'; did you mean 'steps'?" in message
    assert "rate is 'fast'; expected a number" in message
    assert "shape is 'oval'; expected one of round, square" in message
    assert "steps is True; expected a whole number" in message


@pytest.mark.parametrize("text", ["steps =", "[a", "steps = 1\nsteps = 2"])
def test_what_is_not_toml_says_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="not valid TOML"):
        read_toml(toml(tmp_path, text), Sample)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the config file"):
        read_toml(tmp_path / "none.toml", Sample)


def test_every_option_has_help() -> None:
    configs = (PretrainConfig, ClassifyConfig, InstructConfig, ModelConfig)
    for name, (field, _) in option_fields(*configs).items():
        assert field.metadata.get("help"), name


def test_the_packaged_recipes_are_valid() -> None:
    assert recipe_names("pretrain") == ["course", "demo", "speedrun"]
    assert recipe_names("classify") == ["course", "small"]
    assert recipe_names("instruct") == ["course"]
    for config in (PretrainConfig, ClassifyConfig, InstructConfig):
        for name in recipe_names(config.TASK):
            config(**pick(read_recipe(config.TASK, name, config, ModelConfig), config))
    with pytest.raises(UserError, match="did you mean 'course'"):
        read_recipe("pretrain", "cours", PretrainConfig, ModelConfig)


def test_an_option_that_may_hold_a_password_is_not_shown() -> None:
    from groundup.judge.config import JudgeConfig

    config = JudgeConfig(judge="ollama:llama3", base_url="http://user:secret@host:1")
    assert config.base_url is not None and "secret" not in repr(config)

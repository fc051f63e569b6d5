"""What may change when a run goes on is the same from Python as from the command line."""

from pathlib import Path
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.facts import Facts
from groundup.tasks.config import InstructConfig, PretrainConfig
from groundup.tasks.pretrain import pretrain
from groundup.tasks.resume import settle
from groundup.train.tracking import is_evaluation, read_metrics
from tests.conftest import LAST, TEXT, facts_of

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "context_length": 16,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
}
OPTIONS: dict[str, Any] = {
    "batch_size": 4,
    "max_steps": 6,
    "learning_rate": 3e-4,
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "precision": "fp32",
    "sample_tokens": 0,
}
SAVED = Facts(
    task="pretrain",
    options={"batch_size": 4, "epochs": 3, "max_steps": None, "learning_rate": 3e-4, "seed": 7},
    shape={"emb_dim": 32, "vocab_size": 280},
)


def settled(given: Any, shape: dict[str, Any] | None = None) -> tuple[PretrainConfig, list[str]]:
    said: list[str] = []
    config, _ = settle(PretrainConfig, given, shape or {}, SAVED, Path("runs/a"), said.append)
    return config, said


@pytest.mark.parametrize("given", [PretrainConfig(max_steps=20), {"max_steps": 20}])
def test_what_was_not_given_stays_as_it_was_saved(given: Any) -> None:
    config, said = settled(given)
    assert (config.learning_rate, config.batch_size, config.seed) == (3e-4, 4, 7)
    assert (config.epochs, config.max_steps) == (None, 20)  # of the two limits, the one given now
    assert said == ["note: from here on the run changes max_steps None to 20"] or said == []


def test_a_default_that_is_named_is_given() -> None:
    config, said = settled(PretrainConfig(learning_rate=1e-3))
    assert config.learning_rate == 1e-3 == PretrainConfig().learning_rate
    assert said == ["note: from here on the run changes learning_rate 0.0003 to 0.001"]


def test_what_would_make_another_run_of_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"would change batch_size 4 to 16, seed 7 to 1; leave"):
        settled(PretrainConfig(batch_size=16, seed=1))
    with pytest.raises(UserError, match="would change emb_dim 32 to 64"):
        settled({}, {"emb_dim": 64})
    assert settled({}, {"emb_dim": 32, "vocab_size": 5000})[1] == []  # what was asked for then


def test_the_library_keeps_learning_rate_schedule_and_precision(tmp_path: Path) -> None:
    """It used to begin with the defaults of all three."""
    quiet: dict[str, Any] = {"say": lambda text: None}
    pretrain([TEXT * 20], tmp_path, OPTIONS, SHAPE, overwrite=False, **quiet)
    pretrain([TEXT * 20], tmp_path, PretrainConfig(max_steps=9), resume=True, **quiet)
    rates = [r["learning_rate"] for r in read_metrics(tmp_path) if not is_evaluation(r)]
    assert rates == [3e-4] * 9
    options = facts_of(tmp_path / LAST).options
    assert options["precision"] == "fp32" and options["lr_schedule"] == "constant"


def test_options_that_have_no_place_are_not_those_of_an_assistant() -> None:
    names = {*InstructConfig.SHAPE, *InstructConfig.__dataclass_fields__}
    assert {"drop_rate", "n_heads", "style"} <= names
    assert not {"preset", "tokenizer", "init", "emb_dim", "vocab_size"} & names

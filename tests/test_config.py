import pytest

from groundup.config import PRESETS, ModelConfig, preset
from groundup.errors import UserError


def test_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown model config key 'emb_dmi'; did you mean 'emb_"):
        ModelConfig.of({"emb_dmi": 768})


def test_indivisible_heads_name_both_numbers_and_what_would_do() -> None:
    with pytest.raises(UserError) as error:
        ModelConfig(emb_dim=768, n_heads=13)
    message = str(error.value)
    assert "emb_dim (768) is not divisible by n_heads (13)" in message
    assert "n_heads 12" in message and "emb_dim 780" in message


def test_all_problems_come_at_once() -> None:
    with pytest.raises(UserError) as error:
        ModelConfig(vocab_size=0, n_layers=-1, drop_rate=1.0)
    assert all(name in str(error.value) for name in ("vocab_size", "n_layers", "drop_rate"))


@pytest.mark.parametrize("value", [True, 2.5, "12"])
def test_counts_must_be_whole_numbers(value: object) -> None:
    with pytest.raises(UserError, match="n_heads is"):
        ModelConfig.of({"n_heads": value})


def test_it_reads_like_the_courses_dict() -> None:
    cfg = ModelConfig()
    assert cfg["emb_dim"] == 768 and {**cfg} == dict(cfg)
    with pytest.raises(KeyError, match="did you mean 'n_heads'"):
        cfg["n_head"]


def test_every_preset_is_valid_and_unknown_ones_are_listed() -> None:
    assert all(preset(name) is cfg for name, cfg in PRESETS.items())
    with pytest.raises(UserError, match="did you mean 'gpt2-small'"):
        preset("gpt2-smal")

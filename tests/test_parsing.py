"""Whatever a small file holds: a value, or one sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.files import JsonLines
from groundup.options import read_toml
from groundup.parsing import DEEPEST, from_json, from_toml, read_json, read_text
from groundup.train.config import TrainConfig
from tests.systems import needs

DEEP = ["[" * 90_000, '{"a":' * 90_000, "[" * 5000 + "]" * 5000, "[" * 150 + "]" * 150]
DIGITS = "1" * 100_000


@pytest.mark.parametrize("text", DEEP)
def test_deep_json(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="nested more than 100 deep|Expecting value"):
        from_json(text)
    (tmp_path / "config.json").write_text(f'{{"a": {text}}}', "utf-8")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_json(tmp_path / "config.json")
    (tmp_path / "metrics.jsonl").write_text(f'{{"a": 1}}\n{{"a": {text}}}\n', "utf-8")
    with pytest.raises(UserError, match="line 2 is no record"):
        JsonLines(tmp_path / "metrics.jsonl").read()


def test_as_deep_as_allowed() -> None:
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(from_json(text)) == text
    assert from_json(json.dumps([[1]] * 5000)) == [[1]] * 5000  # many brackets, but not deep


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 5000, "a = " + "[" * 150 + "]" * 150, f"[{'.'.join('a' * 3000)}]\nb = 1"],
)
def test_deep_toml(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        from_toml(text)
    (tmp_path / "run.toml").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"run\.toml is not valid TOML: it is nested"):
        read_toml(tmp_path / "run.toml", TrainConfig)


def test_long_numbers(tmp_path: Path) -> None:
    for read, text in ((from_json, DIGITS), (from_toml, f"a = {DIGITS}")):
        with pytest.raises(ValueError, match=r"^Exceeds the limit \(4300 digits\).*100000 digits$"):
            read(text)


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the key 'a' is there twice"):
        from_json('[{"a": 1, "b": 2, "a": 1}]')
    began = time.process_time()
    many = ",".join(f'"{i}": 1' for i in range(50_000))
    with pytest.raises(ValueError, match="the key '49999' is there twice"):
        from_json(f'{{{many}, "49999": 1}}')
    assert time.process_time() - began < 2
    for text in (
        "seed = 1\nseed = 2",
        "[model]\nseed = 1\n[training]\nseed = 2",
        "batch-size = 1\nbatch_size = 1",
    ):
        (tmp_path / "run.toml").write_text(text, "utf-8")
        with pytest.raises(UserError, match="twice|overwrite"):
            read_toml(tmp_path / "run.toml", TrainConfig)


def test_byte_order_marks(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("seed = 5\n", encoding="utf-8-sig")
    (tmp_path / "a.json").write_text('{"a": 5}', encoding="utf-8-sig")
    assert read_toml(tmp_path / "a.toml", TrainConfig) == {"seed": 5}
    assert read_json(tmp_path / "a.json") == {"a": 5}
    assert from_json((tmp_path / "a.json").read_bytes()) == {"a": 5}
    assert from_json('\ufeff{"a": 5}') == {"a": 5}


@needs("/dev/zero")
def test_a_file_without_end(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="larger than 16 MiB"):
        read_json(tmp_path / "config.json")
    with pytest.raises(UserError, match="larger than 1 MiB"):
        read_toml(Path("/dev/zero"), TrainConfig)
    with pytest.raises(ValueError, match="larger"):
        read_text(Path("/dev/zero"), 10)


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}":,.=-0123456789eatrufl\n\\ ', max_size=80))
def test_garbage(data: bytes | str) -> None:
    for parse in (from_json, lambda text: from_toml(str(text))):
        try:
            parse(data)
        except ValueError:
            pass

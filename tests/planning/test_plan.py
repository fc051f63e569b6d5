"""Ways to train are compared, and the first that fits is taken."""

from typing import Any

import pytest

from groundup.config import preset
from groundup.errors import UserError
from groundup.planning.config import PlanConfig
from groundup.planning.plan import devices_needed, plan

XL = preset("gpt2-xl")


def planned(**changes: Any) -> Any:
    options = {"devices": 8, "device_memory": "80GB", "flops": "400T"} | changes
    return plan(XL, PlanConfig(**options))


def test_the_largest_micro_batch_fits_and_one_more_does_not() -> None:
    made = planned(batch_tokens="4M")
    assert [way.need.strategy for way in made.ways] == ["ddp", "fsdp"] * 2
    way = made.chosen
    assert way.need.strategy == "ddp" and way.memory.peak <= made.budget < 80e9
    most = way.need.largest(made.budget, 10**6)
    assert way.need.at(most, accumulating=True).peak <= made.budget
    assert way.need.at(most + 1, accumulating=True).peak > made.budget
    assert way.batch_size <= most
    # The global batch is kept, up to rounding.
    texts = 8 * way.batch_size * way.micro_batches
    assert texts * 1024 == pytest.approx(4e6, rel=0.03)


def test_the_batch_in_texts_and_the_micro_batch_as_asked() -> None:
    way = planned(batch_sequences=512, batch_size=4).chosen
    assert (way.batch_size, way.micro_batches) == (4, 16)
    assert planned(batch_sequences=8).chosen.micro_batches == 1


def test_what_does_not_fit_is_tried_in_shares_and_by_checkpointing() -> None:
    shared = planned(device_memory="24GB", batch_sequences=16)
    assert shared.chosen.need.strategy == "fsdp" and not shared.ways[0].fits
    assert not planned(device_memory="4GB").chosen.fits
    number = devices_needed(planned(device_memory="16GB").chosen, 10e9)
    assert number is not None
    need = planned(devices=number, parallel="fsdp").chosen.need
    assert need.at(1, accumulating=False).peak <= 10e9
    half = planned(devices=number // 2, parallel="fsdp").chosen.need
    assert half.at(1, accumulating=False).peak > 10e9
    assert devices_needed(planned().chosen, 1e9) is None


def test_time_by_assumed_and_by_measured_speed() -> None:
    assumed = planned(tokens="10B").work
    flops = 3 * assumed.forward
    assert assumed.seconds(1e10) == pytest.approx(1e10 * flops / (8 * 400e12 * 0.4))
    measured = planned(tokens_per_second="10k").work
    assert measured.seconds(8e4) == pytest.approx(1.0)
    assert measured.mfu == pytest.approx(1e4 * flops / 400e12)
    assert planned(flops=None).work is None


def test_this_machine_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.planning.devices.total_memory", lambda device: 1e11)
    assert plan(preset("nano")).budget == pytest.approx(0.93e11)
    monkeypatch.setattr("groundup.planning.devices.total_memory", lambda device: None)
    with pytest.raises(UserError, match="give --device-memory"):
        plan(preset("nano"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "devices is 0; expected at least 1"),
        ({"mfu": 1.5}, "mfu is 1.5"),
        ({"price": -1.0}, "price is -1.0"),
        ({"devices": 1, "parallel": "fsdp"}, "--devices 2 or more"),
        ({"tokens_per_second": "5k", "flops": None}, "give --flops too"),
        ({"tokens_per_second": "1M"}, "times as fast as it is"),
        ({"batch_tokens": "many"}, "batch_tokens is 'many'"),
        ({"device_memory": "80XB"}, "device_memory is '80XB'"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned(**options)

import pytest

from groundup.errors import UserError
from groundup.planning.sizes import (
    human_flops,
    human_time,
    parse_bandwidth,
    parse_bytes,
    parse_count,
    parse_flops,
)


def test_sizes_as_people_write_them() -> None:
    counts = {"10B": 1e10, "1e10": 1e10, "300 M": 3e8, "1_000": 1e3, "2,500": 2.5e3, ".5k": 500}
    assert {text: parse_count("tokens", text) for text in counts} == counts
    sizes = {"80GB": 8e10, "80 gb": 8e10, "80G": 8e10, "80GiB": 80 * 2**30, "512Mi": 2**29, "7": 7}
    assert {text: parse_bytes("device_memory", text) for text in sizes} == sizes
    speeds = dict.fromkeys(("400T", "400TFLOPS", "400 TFLOP/s", "4e14", "0.4P"), 4e14)
    assert {text: parse_flops("flops", text) for text in speeds} == speeds
    rates = dict.fromkeys(("50GB", "50GB/s", "50G/s", "400Gbit", "400Gbit/s", "5e10"), 5e10)
    assert {text: parse_bandwidth("bandwidth", text) for text in rates} == rates


@pytest.mark.parametrize("text", ["", "ten", "10X", "-1B", "0", "1e", "1e400", "nan", "10B B", "B"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UserError, match=r"^tokens is .*; expected .*(10B|more than 0)"):
        parse_count("tokens", text)


def test_bits_are_not_taken_for_bytes() -> None:
    with pytest.raises(UserError, match="bits or bytes"):
        parse_bandwidth("bandwidth", "400Gb/s")
    with pytest.raises(UserError, match="expected a size such as 80GB"):
        parse_bytes("device_memory", "80Gbit")
    with pytest.raises(UserError, match="flops is '400X'; expected"):
        parse_flops("flops", "400X")


def test_for_people() -> None:
    assert human_flops(1.03e10) == "10.3 GFLOP" and human_flops(12) == "12 FLOP"
    times = {90: "1.5 minutes", 7200: "2.0 hours", 864000: "10.0 days", 0.218: "218 ms"}
    assert {seconds: human_time(seconds) for seconds in times} == times
    assert human_time(5) == "5.0 seconds" and human_time(3 * 365 * 86400) == "3.0 years"

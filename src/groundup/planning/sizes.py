"""Sizes as people write them: ``10B`` tokens, ``80GB`` of memory, ``400T`` operations a second."""

from __future__ import annotations

import re

from groundup.errors import UserError

_COUNTS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15}
_NUMBER = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?\s*([^\s0-9]*)\s*", re.I)


def parse_count(name: str, text: str) -> float:
    """``10B``, ``300k``, ``1e10``: a number of things.

    Raises:
        UserError: it is none, or not more than 0.
    """
    return _parsed(name, text, _COUNTS, "10B, 300M or 1e10")


def parse_bytes(name: str, text: str) -> float:
    """``80GB`` (80 * 10**9 bytes), ``80GiB`` (80 * 2**30), ``80G`` (as GB).

    Raises:
        UserError: it is none of these, or not more than 0.
    """
    return _parsed(name, text, _BYTES, "80GB, 80GiB or 8e10")


def parse_bandwidth(name: str, text: str) -> float:
    """``50GB``, ``50GB/s``, ``400Gbit/s``: bytes per second.

    Raises:
        UserError: it is none of these (a ``b`` may be a bit or a byte), or not more than 0.
    """
    if re.fullmatch(r"[0-9.e_,]+\s*[KMGT]b(ps|/s)?", text.strip()):
        raise UserError(f"{name} is {text!r}: bits or bytes? Write 50GB/s or 400Gbit/s")
    units = _BYTES | {f"{p}bit": n / 8 for p, n in _COUNTS.items()}
    return _parsed(name, text.strip().removesuffix("/s"), units, "50GB/s or 400Gbit/s")


def parse_flops(name: str, text: str) -> float:
    """``400T``, ``400TFLOPS``, ``400TFLOP/s``, ``4e14``: floating-point operations per second.

    Raises:
        UserError: it is none of these, or not more than 0.
    """
    short = re.sub(r"flop(s|/s)?$", "", text.strip(), flags=re.IGNORECASE)
    return _parsed(name, short, _COUNTS, "400T, 400TFLOPS or 4e14", given=text)


def _byte_units() -> dict[str, float]:
    units: dict[str, float] = {"": 1, "b": 1}
    for power, prefix in enumerate("kmgtp", start=1):
        units |= {prefix: 10.0 ** (3 * power), f"{prefix}b": 10.0 ** (3 * power)}
        units |= {f"{prefix}ib": 2.0 ** (10 * power), f"{prefix}i": 2.0 ** (10 * power)}
    return units


_BYTES = _byte_units()


def _parsed(
    name: str, text: str, units: dict[str, float], expected: str, given: str | None = None
) -> float:
    found = _NUMBER.fullmatch(text)
    if found is None or found[3].lower() not in units:
        raise UserError(f"{name} is {given or text!r:.40}; expected a size such as {expected}")
    value = float(re.sub("[_,]", "", found[1]) + (found[2] or "")) * units[found[3].lower()]
    if not 0 < value < 1e30:
        raise UserError(f"{name} is {given or text!r:.40}; expected more than 0, and below 1e30")
    return value


def human_flops(value: float) -> str:
    """``1.03e10`` as ``10.3 GFLOP``."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:,.3g} {unit}FLOP"
    return f"{value:,.0f} FLOP"


def human_time(seconds: float) -> str:
    """``97200`` as ``27.0 hours``."""
    for least, size, unit in (
        (2 * _YEAR, _YEAR, "years"),
        (2 * 86400, 86400, "days"),
        (3600, 3600, "hours"),
        (60, 60, "minutes"),
    ):
        if seconds >= least:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} seconds" if seconds >= 1 else f"{seconds * 1000:,.3g} ms"


_YEAR = 365 * 86400

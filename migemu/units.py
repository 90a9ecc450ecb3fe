"""Quantities: nanoseconds, byte sizes, bit rates - read from text, printed as text, integers in between.

Rules of this file
    1. Inside the program a quantity is an `int` in its base unit (ns, bytes, bits per second) and its name ends in
       that unit: `latency_ns`, `memory_bytes`, `rate_bps`. No floats for time.
    2. Sizes are binary, as everywhere in mm: 4K = 4096, 1G = 2**30. Rates are decimal, as everywhere in networking:
       25Gbit = 25 * 10**9 bits per second.
    3. Rates are written as in tc(8), RATES, capitals or not: `bit` counts bits and `bps` **bytes** per second, both
       with k, m, g, t (decimal) or ki, mi, gi, ti (binary) in front: 10Gbps = 80Gbit. Beside these, for other tools
       print them: `Mbit/s`, and with a capital B `B/s`, `MB/s`, `MiB/s`. What could be meant in two ways is refused:
       `Mb/s`, and a bare number, which is bits for tc and bytes for QEMU.
    4. `parse_x(format_x(n)) == n` for every n that is printed exactly.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final, NewType

Ns = NewType("Ns", int)

US: Final = 1_000
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40

_QUANTITY = re.compile(r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)\s*([A-Za-zµ/]*)\s*\Z")

_TIME_UNITS: Final = {"ns": 1, "us": US, "µs": US, "ms": MS, "s": SECOND, "min": 60 * SECOND}
_SIZE_UNITS: Final = {
    "": 1, "b": 1,
    "k": KIB, "kb": KIB, "kib": KIB,
    "m": MIB, "mb": MIB, "mib": MIB,
    "g": GIB, "gb": GIB, "gib": GIB,
    "t": TIB, "tb": TIB, "tib": TIB,
}  # fmt: skip
_PREFIXES: Final = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": KIB, "mi": MIB, "gi": GIB, "ti": TIB,
}  # fmt: skip
_RATE_UNITS: Final = {
    prefix + unit: scale * bits
    for prefix, scale in _PREFIXES.items()
    for unit, bits in (("bit", 1), ("bit/s", 1), ("bps", 8))
}

#: A rate of 0, in words.
UNLIMITED: Final = "unlimited"

TIME_ACCEPTED: Final = 'a time such as "50us", "1.5ms", "2s" (units: ns us ms s min)'
SIZE_ACCEPTED: Final = 'a size such as "4K", "2M", "1G", "64G" (binary; units: K M G T)'
RATE_ACCEPTED: Final = (
    'a rate such as "10Mbit", "25Gbit" (bits per second), "400MB/s", "400Mbps" (bytes per second, as in tc), or 0 for '
    "no limit"
)


def parse_time(value: str | int) -> Ns:
    """Nanoseconds of `"50us"`, `"1.5ms"`, `"2s"`; `0` needs no unit. ValueError says what is accepted."""
    return Ns(_parse(value, _TIME_UNITS, TIME_ACCEPTED, bare_zero_only=True))


def parse_size(value: str | int) -> int:
    """Bytes of `"4K"`, `"2M"`, `"1G"` (binary), or of a bare number. ValueError says what is accepted."""
    return _parse(value, _SIZE_UNITS, SIZE_ACCEPTED)


def parse_rate(value: str | int) -> int:
    """Bits per second of `"25Gbit"`, `"10Gbps"` (bytes, as in tc), `"1GiB/s"`; `0` or `"unlimited"` is no limit.

    ValueError says what is accepted.
    """
    if value == UNLIMITED:
        return 0
    return _parse(value, _RATE_UNITS, RATE_ACCEPTED, bare_zero_only=True)


def _parse(value: str | int, units: dict[str, int], accepted: str, bare_zero_only: bool = False) -> int:
    if isinstance(value, int) and value.bit_length() > 256:
        raise ValueError(f"a number of {value.bit_length()} bits is not accepted here: give {accepted}")
    refusal = ValueError(f"{value!r} is not accepted here: give {accepted}")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise refusal
    match = _QUANTITY.match(str(value))
    if match is None or len(str(value)) > 64:
        raise refusal
    number, unit = Fraction(match[1].replace("_", "")), match[2]
    if unit.endswith("B/s"):  # bytes beyond doubt, for its capital
        unit = unit.removesuffix("B/s") + "bps"
    unit = unit.lower()
    if unit == "" and bare_zero_only:
        if number != 0:
            raise refusal
        return 0
    if unit not in units:
        raise refusal
    scaled = number * units[unit]
    if scaled.denominator != 1:
        raise ValueError(f"{value!r} is not a whole number of base units: give {accepted}")
    return int(scaled)


def format_time(ns: int) -> str:
    """`1500000` -> `"1.5ms"`: the largest unit of ns us ms s in which the number is at least one."""
    for unit, scale in (("s", SECOND), ("ms", MS), ("us", US)):
        if abs(ns) >= scale:
            return _trimmed(ns, scale) + unit
    return f"{ns}ns"


def format_size(size_bytes: int) -> str:
    """`2097152` -> `"2M"`: the largest binary unit in which the number is at least one."""
    for unit, scale in (("T", TIB), ("G", GIB), ("M", MIB), ("K", KIB)):
        if abs(size_bytes) >= scale:
            return _trimmed(size_bytes, scale) + unit
    return str(size_bytes)


def format_rate(rate_bps: int) -> str:
    """`25000000000` -> `"25Gbit"`; `0` -> `"unlimited"`."""
    if rate_bps == 0:
        return UNLIMITED
    for unit, scale in (("Gbit", 10**9), ("Mbit", 10**6), ("kbit", 10**3)):
        if rate_bps >= scale:
            return _trimmed(rate_bps, scale) + unit
    return f"{rate_bps}bit"


def exact_time(ns: int) -> str:
    """`1500000` -> `"1500us"`: nothing is rounded; the largest unit in which it is a whole number."""
    return _exact(ns, (("s", SECOND), ("ms", MS), ("us", US), ("ns", 1))) if ns else "0s"


def exact_size(size_bytes: int) -> str:
    """`1536` -> `"1536"`, `2048` -> `"2K"`: nothing is rounded; the largest unit in which it is a whole number."""
    return _exact(size_bytes, (("T", TIB), ("G", GIB), ("M", MIB), ("K", KIB), ("", 1))) if size_bytes else "0"


def exact_rate(rate_bps: int) -> str:
    """`1500` -> `"1500bit"`: nothing is rounded; the largest unit in which it is a whole number; 0 is `"unlimited"`."""
    units = (("Gbit", 10**9), ("Mbit", 10**6), ("kbit", 10**3), ("bit", 1))
    return _exact(rate_bps, units) if rate_bps else UNLIMITED


def _exact(value: int, units: tuple[tuple[str, int], ...]) -> str:
    return next(f"{value // scale}{unit}" for unit, scale in units if value % scale == 0 and value >= scale)


def _trimmed(value: int, scale: int) -> str:
    """`value / scale` with at most three decimals and no trailing zeros."""
    return f"{value / scale:.3f}".rstrip("0").rstrip(".")

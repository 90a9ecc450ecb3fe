"""Quantities: what is read, what is printed, what is refused with an answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.units import (
    GIB,
    KIB,
    MIB,
    MS,
    SECOND,
    TIB,
    US,
    format_rate,
    format_size,
    format_time,
    parse_rate,
    parse_size,
    parse_time,
)  # fmt: skip

TIMES = [
    ("0ns", 0), ("1ns", 1), ("999ns", 999), ("1us", US), ("50us", 50 * US), ("1.5ms", 1_500_000), ("2s", 2 * SECOND),
    ("1000s", 1000 * SECOND),
]  # fmt: skip
SIZES = [
    ("0", 0), ("1", 1), ("1023", 1023), ("4K", 4 * KIB), ("1.5K", 1536), ("2M", 2 * MIB), ("1G", GIB),
    ("64G", 64 * GIB), ("1T", TIB), ("4096T", 4096 * TIB),
]  # fmt: skip
RATES = [
    ("unlimited", 0), ("1bit", 1), ("999bit", 999), ("1kbit", 1000), ("1.5Mbit", 1_500_000), ("25Gbit", 25 * 10**9),
    ("1000Gbit", 10**12),
]  # fmt: skip


@pytest.mark.parametrize(("text", "ns"), TIMES)
def test_times_are_read_and_printed(text: str, ns: int) -> None:
    assert parse_time(text) == ns
    assert format_time(ns) == text


@pytest.mark.parametrize(("text", "size_bytes"), SIZES)
def test_sizes_are_read_and_printed(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(("text", "bps"), RATES)
def test_rates_are_read_and_printed(text: str, bps: int) -> None:
    assert parse_rate(text) == bps
    assert format_rate(bps) == text


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_time, 0, 0), (parse_time, "0", 0), (parse_time, "0.0", 0), (parse_time, " 3 us ", 3 * US),
        (parse_time, "3µs", 3 * US), (parse_time, "2min", 120 * SECOND), (parse_time, "1_000ns", 1000),
        (parse_size, 4096, 4096), (parse_size, "4k", 4096), (parse_size, "4KiB", 4096), (parse_size, "4 KB", 4096),
        (parse_size, "0.5M", 512 * KIB), (parse_size, "7b", 7), (parse_size, "1_000", 1000),
        (parse_rate, 0, 0), (parse_rate, "0", 0), (parse_rate, "10mbit", 10**7), (parse_rate, "10Mbit/s", 10**7),
        (parse_rate, "0.5kbit", 500), (parse_rate, "1Tbit", 10**12),
    ],
)  # fmt: skip
def test_other_spellings_are_read(parse: Callable[[str | int], int], text: str | int, value: int) -> None:
    assert parse(text) == value


#: tc(8), RATES: `bit` is bits and `bps` bytes per second; k, m, g, t are decimal, ki, mi, gi, ti binary; no capitals.
RATES_OF_TC = [
    ("1bit", 1), ("10gbit", 10**10), ("10Gbit", 10**10), ("1kibit", KIB), ("3mibit", 3 * MIB), ("10gibit", 10 * GIB),
    ("2tibit", 2 * TIB), ("1bps", 8), ("5kbps", 40_000), ("100mbps", 8 * 10**8), ("10Gbps", 80 * 10**9),
    ("1tbps", 8 * 10**12), ("1kibps", 8 * KIB), ("2Mibps", 16 * MIB), ("1gibps", 8 * GIB), ("1tibps", 8 * TIB),
    ("0.5gbit", 5 * 10**8),
]  # fmt: skip
#: What other tools print, where a capital B says bytes.
RATES_OF_OTHERS = [
    ("1B/s", 8), ("1kB/s", 8000), ("400MB/s", 32 * 10**8), ("1GB/s", 8 * 10**9), ("1KiB/s", 8 * KIB),
    ("1.5 MiB/s", 12 * MIB), ("2GiB/s", 16 * GIB), ("10Gbit/s", 10**10), ("1Mibit/s", MIB),
]  # fmt: skip


@pytest.mark.parametrize(("text", "bps"), [*RATES_OF_TC, *RATES_OF_OTHERS])
def test_rates_are_read_as_tc_reads_them(text: str, bps: int) -> None:
    assert parse_rate(text) == bps


@pytest.mark.parametrize("text", ["10Mb/s", "10mb/s", "10MB", "10Gb", "10Gbps/s", "10MBit/s/s", "10", "10G", "5MB/m"])
def test_a_rate_that_could_be_meant_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"bits per second.*bytes per second"):
        parse_rate(text)


@pytest.mark.parametrize("parse", [parse_time, parse_size, parse_rate])
@pytest.mark.parametrize(
    "text",
    [
        "", " ", "K", "-1K", "+1K", "1,5K", "1e3", ".5K", "1.K", "1 K K", "0x10", "1__0", "inf", "nan", "one", "1\x00",
        "٣", -1, True, False, 1.5, None, [], "1" * 65, 10**100, 10**5000,
    ],
    ids=lambda value: f"{value.bit_length()} bits" if isinstance(value, int) else repr(value)[:12],
)  # fmt: skip
def test_what_is_no_quantity_is_refused(parse: Callable[[object], int], text: object) -> None:
    with pytest.raises(ValueError, match="is not accepted here: give a "):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text", "accepted"),
    [
        (parse_time, "5", "50us"), (parse_time, 5, "50us"), (parse_time, "5K", "50us"), (parse_time, "5Gbit", "50us"),
        (parse_size, "5us", "64G"), (parse_size, "5Gbit", "64G"), (parse_size, "5K/m", "64G"),
        (parse_rate, "5", "25Gbit"), (parse_rate, 5, "25Gbit"), (parse_rate, "5G", "25Gbit"),
        (parse_rate, "5us", "25Gbit"), (parse_time, "0.5ns", "50us"), (parse_size, "0.3K", "64G"),
        (parse_rate, "1.5bit", "25Gbit"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_accepted(parse: Callable[[str | int], int], text: str | int, accepted: str) -> None:
    with pytest.raises(ValueError, match=accepted) as refusal:
        parse(text)
    assert repr(text) in str(refusal.value)


@given(st.sampled_from([US, MS, SECOND]), st.integers(0, 10**6 - 1))
def test_times_with_three_decimals_come_back(unit: int, thousandths: int) -> None:
    ns = unit // 1000 * thousandths
    assert parse_time(format_time(ns)) == ns


@given(st.sampled_from([KIB, MIB, GIB, TIB]), st.integers(0, 1024))
def test_sizes_in_eighths_come_back(unit: int, eighths: int) -> None:
    size_bytes = unit // 8 * eighths
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.sampled_from([10**3, 10**6, 10**9]), st.integers(0, 10**6 - 1))
def test_rates_with_three_decimals_come_back(unit: int, thousandths: int) -> None:
    bps = unit // 1000 * thousandths
    assert parse_rate(format_rate(bps)) == bps


@given(st.integers(0, 10**60))
def test_a_whole_number_of_base_units_is_read_exactly(number: int) -> None:
    assert parse_size(str(number)) == number
    assert parse_size(f"{number}K") == number * KIB
    assert parse_time(f"{number}ns") == number
    assert parse_rate(f"{number}bit") == number


@given(st.integers(0, 10**24))
def test_what_is_printed_is_within_a_thousandth_of_its_unit(number: int) -> None:
    assert abs(parse_time(format_time(number)) - number) <= number // 1000
    assert abs(parse_rate(format_rate(number)) - number) <= number // 1000


@given(st.text(max_size=80) | st.text("0123456789.KMGT _us/bit-", max_size=12))
def test_any_text_is_read_or_refused_with_an_answer(text: str) -> None:
    for parse in (parse_time, parse_size, parse_rate):
        try:
            value = parse(text)
        except ValueError as error:
            value, answer = 0, str(error)
        else:
            answer = ": give a "
        assert value >= 0
        assert ": give a " in answer

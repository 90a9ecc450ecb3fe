"""Gates: what they mean, and how they come out."""

from __future__ import annotations

import math

import pytest

from migemu.errors import InputError
from migemu.experiment.bootstrap import Interval
from migemu.experiment.gate import GateVerdict, parse_gate


@pytest.mark.parametrize(
    ("text", "about", "limit", "shown"),
    [
        ("fault.p99_ns > +5%", "relative", 0.05, "fault.p99_ns > +5%"),
        (" fault.p99_ns>=+ 0.5 % ", "relative", 0.005, "fault.p99_ns >= +0.5%"),
        ("throughput_bytes_per_s < -3%", "relative", -0.03, "throughput_bytes_per_s < -3%"),
        ("fault.p99_ns > +50us", "difference", 50_000, "fault.p99_ns > +50us"),
        ("time_ns.total > 2s", "value", 2_000_000_000, "time_ns.total > 2s"),
        ("modelled.collapse_stall_ns_max > 10ms", "value", 10_000_000, "modelled.collapse_stall_ns_max > 10ms"),
        ("blocktime_ns.per_vcpu.3 <= -1ms", "difference", -1_000_000, "blocktime_ns.per_vcpu.3 <= -1ms"),
        ("bytes.wire > +1M", "difference", 2**20, "bytes.wire > +1M"),
        ("page_table.table_bytes_max > 4K", "value", 4096, "page_table.table_bytes_max > 4K"),
        ("fault.count > +10", "difference", 10, "fault.count > +10"),
        ("fault.count > 0", "value", 0, "fault.count > 0"),
    ],
)
def test_what_a_gate_means(text: str, about: str, limit: float, shown: str) -> None:
    gate = parse_gate(text)
    assert (gate.about, gate.limit, str(gate)) == (about, limit, shown)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a gate"),
        ("fault.p99_ns", "is not a gate"),
        ("fault.p99_ns = 5%", "is not a gate"),
        ("> 5%", "is not a gate"),
        ("fault.p99_ns > +5% or more", "is not a gate"),
        ("fault.p99_ns > 5%", "write +5% or -5%"),
        ("fault.p99_ns > +5", "give a time such as"),
        ("fault.p99_ns > +5M", "give a time such as"),
        ("bytes.wire > +5ms", "give a size such as"),
        ("fault.count > +5ms", "fault.count has no unit"),
        ("fault.count > +5..5", "is not a number"),
        ("fault.count > +1e999", "is not a number"),
    ],
)
def test_a_wrong_gate_is_told(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_gate(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("point", "interval", "verdict"),
    [
        (0.06, Interval(0.051, 0.07), GateVerdict.FAILS),
        (0.06, Interval(0.04, 0.08), GateVerdict.UNSURE),
        (0.04, Interval(0.03, 0.06), GateVerdict.UNSURE),
        (0.04, Interval(0.03, 0.05), GateVerdict.HOLDS),
        (-0.2, Interval(-0.3, -0.1), GateVerdict.HOLDS),
        (0.06, None, GateVerdict.FAILS),
        (0.05, None, GateVerdict.HOLDS),
        (math.inf, None, GateVerdict.FAILS),
    ],
)
def test_the_interval_decides_and_the_point_only_where_there_is_none(
    point: float, interval: Interval | None, verdict: GateVerdict
) -> None:
    assert parse_gate("fault.p99_ns > +5%").verdict(point, interval) is verdict


def test_a_gate_downwards_looks_at_the_other_side() -> None:
    gate = parse_gate("throughput_bytes_per_s < -3%")
    assert gate.verdict(-0.05, Interval(-0.06, -0.04)) is GateVerdict.FAILS
    assert gate.verdict(0.05, Interval(0.04, 0.06)) is GateVerdict.HOLDS

"""The account of what collapses make the vCPUs wait."""

from __future__ import annotations

import pytest

from migemu.guest.stall import Stalls, StallStatistics, VcpuStall

Events = list[tuple[str, int, int]]


def play(vcpus: int, events: Events, end: int | None = None) -> StallStatistics:
    """B: a stall of the vCPU begins; E: it ends; (what, vCPU, time)."""
    stalls = Stalls(vcpus)
    for what, vcpu, now in events:
        (stalls.began if what == "B" else stalls.ended)(vcpu, now)
    if end is not None:
        stalls.finish(end)
    return stalls.statistics()


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], [(0, 0, 0), (0, 0, 0)]),
        ([("B", 0, 10), ("E", 0, 25)], [(1, 15, 15), (0, 0, 0)]),
        ([("B", 0, 10), ("B", 1, 10), ("E", 0, 25), ("E", 1, 30)], [(1, 15, 15), (1, 20, 20)]),
        ([("B", 0, 10), ("E", 0, 20), ("B", 0, 20), ("E", 0, 25)], [(2, 15, 10), (0, 0, 0)]),
        # Two collapses at once are one stall, whichever ends first.
        ([("B", 0, 10), ("B", 0, 15), ("E", 0, 20), ("E", 0, 40)], [(1, 30, 30), (0, 0, 0)]),
        # Open at the end, at 100.
        ([("B", 1, 60), ("B", 1, 70), ("E", 1, 80)], [(0, 0, 0), (1, 40, 40)]),
    ],
)
def test_stalls(events: Events, expected: list[tuple[int, int, int]]) -> None:
    statistics = play(2, events, end=100)
    assert statistics.vcpus == tuple(VcpuStall(vcpu, *row) for vcpu, row in enumerate(expected))
    assert statistics.stalls == sum(row[0] for row in expected)
    assert statistics.stalled_ns == sum(row[1] for row in expected)
    assert statistics.stall_ns_max == max(row[2] for row in expected)


def test_an_open_stall_is_not_in_a_snapshot() -> None:
    assert play(1, [("B", 0, 10)]).stalls == 0


def test_lengths() -> None:
    stalls = Stalls(2)
    for ns in (1_000, 3_000, 1_500_000):
        stalls.add(ns % 2, ns)
    lengths = stalls.statistics().lengths
    assert lengths is not None
    assert (lengths.count, lengths.p50_ns, lengths.max_ns) == (3, 3_000, 1_500_000)
    assert stalls.lengths.histogram() == {1: 1, 2: 1, 1024: 1}
    assert Stalls(1).statistics().lengths is None


def test_what_cannot_happen_is_refused() -> None:
    with pytest.raises(ValueError, match="0 vCPUs"):
        Stalls(0)
    stalls = Stalls(1)
    with pytest.raises(ValueError, match="without a stall"):
        stalls.ended(0, 5)
    stalls.began(0, 10)
    with pytest.raises(ValueError, match="5 ns before it began"):
        stalls.ended(0, 5)
    stalls.finish(20)
    for action in (stalls.began, stalls.ended, stalls.add):
        with pytest.raises(ValueError, match="closed"):
            action(0, 30)


def test_repr() -> None:
    stalls = Stalls(3)
    stalls.add(0, 5)
    stalls.began(2, 7)
    assert repr(stalls) == "<Stalls of 3 vCPUs: 1, 1 open>"

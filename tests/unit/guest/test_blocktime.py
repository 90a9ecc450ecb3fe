"""Blocktime on hand-made rows of events, QEMU's own drawing among them."""

from __future__ import annotations

import pytest

from migemu.guest.blocktime import Blocktime, BlocktimeStatistics, OpenFault
from migemu.guest.latency import LatencySummary

Events = list[tuple[str, int, int]]


def play(vcpus: int, events: Events, end: int | None, start: int = 0) -> BlocktimeStatistics:
    """S: the vCPU faults; E: it is woken; (what, vCPU, time). `end` None leaves the books open."""
    blocktime = Blocktime(vcpus)
    blocktime.started(start)
    for what, vcpu, now in events:
        if what == "S":
            blocktime.faulted(vcpu, 100 + vcpu, now)
        else:
            blocktime.woken(vcpu, now)
    if end is not None:
        blocktime.finish(end)
    return blocktime.statistics()


@pytest.mark.parametrize(
    ("vcpus", "events", "per_vcpu", "overlapped"),
    [
        (1, [], [0], 0),
        (1, [("S", 0, 10), ("E", 0, 25)], [15], 15),  # a single vCPU: blocked is all blocked
        (2, [("S", 0, 10), ("E", 0, 25)], [15, 0], 0),
        (2, [("S", 0, 10), ("E", 0, 20), ("S", 1, 20), ("E", 1, 30)], [10, 10], 0),  # they meet in a point
        (2, [("S", 0, 10), ("S", 1, 15), ("E", 0, 25), ("E", 1, 40)], [15, 25], 10),
        (2, [("S", 0, 10), ("S", 1, 10), ("E", 1, 20), ("E", 0, 20)], [10, 10], 10),
        # Twice all: 15..20 and 22..30.
        (2, [("S", 0, 10), ("S", 1, 15), ("E", 0, 20), ("S", 0, 22), ("E", 1, 30), ("E", 0, 33)], [21, 15], 13),
        # Never all three at once.
        (3, [("S", 0, 0), ("S", 1, 5), ("E", 0, 10), ("S", 2, 12), ("E", 1, 20), ("E", 2, 30)], [10, 15, 18], 0),
        # The drawing above mark_postcopy_blocktime_end in QEMU's migration/postcopy-ram.c, one column a ns: all
        # three are down from the second S1 to E2.
        (3, [("S", 0, 5), ("S", 1, 12), ("E", 0, 16), ("S", 2, 24), ("S", 0, 28), ("E", 1, 31), ("E", 2, 39),
             ("E", 0, 46)], [29, 19, 15], 3),
    ],
)  # fmt: skip
def test_blocktime(vcpus: int, events: Events, per_vcpu: list[int], overlapped: int) -> None:
    statistics = play(vcpus, events, end=100)
    assert [vcpu.blocktime_ns for vcpu in statistics.vcpus] == per_vcpu
    assert statistics.blocktime_ns == sum(per_vcpu)
    assert statistics.overlapped_blocktime_ns == overlapped
    assert statistics.open_faults == ()
    assert statistics.faults == sum(vcpu.faults for vcpu in statistics.vcpus) == len(events) // 2
    assert statistics.duration_ns == 100


def test_latencies() -> None:
    blocktime = Blocktime(2)
    blocktime.started(1000)
    blocktime.faulted(0, 7, 1010)
    blocktime.faulted(1, 7, 1015)
    assert blocktime.woken(0, 1030) == 20
    assert blocktime.woken(1, 1030) == 15
    assert list(blocktime.latency) == [20, 15]
    assert blocktime.statistics().latency == LatencySummary(2, 17, 15, 20, 20, 20, 20)


def test_open_faults_cost_blocktime_but_have_no_latency() -> None:
    statistics = play(2, [("S", 0, 10), ("E", 0, 30), ("S", 0, 40), ("S", 1, 60)], end=100)
    assert statistics.open_faults == (OpenFault(0, 100, 60), OpenFault(1, 101, 40))
    assert [vcpu.blocktime_ns for vcpu in statistics.vcpus] == [20 + 60, 40]
    assert [vcpu.faults for vcpu in statistics.vcpus] == [1, 0]
    assert statistics.overlapped_blocktime_ns == 40
    assert statistics.latency == LatencySummary(1, 20, 20, 20, 20, 20, 20)


def test_a_snapshot_before_the_end_leaves_open_faults_out_of_the_sums() -> None:
    statistics = play(2, [("S", 0, 10), ("S", 1, 60)], end=None)
    assert statistics.open_faults == (OpenFault(0, 100, 50), OpenFault(1, 101, 0))
    assert (statistics.blocktime_ns, statistics.overlapped_blocktime_ns, statistics.duration_ns) == (0, 0, 60)


@pytest.mark.parametrize(
    ("accesses", "end", "due", "silence"),
    [
        # (due, completed); the guest starts at 1000. Silence as (length, when it began).
        ([(1000, 1005), (1005, 1007)], 1007, None, (5, 1000)),
        ([(1000, 1005), (1005, 1045), (1045, 1050)], 1050, None, (40, 1005)),
        # Paced: due long after the access before. Idling is not silence; being late is.
        ([(1000, 1001), (2000, 2003), (3000, 3001)], 3001, None, (3, 2000)),
        # After standing still the workload is behind: due times lie in the past and hide nothing.
        ([(1100, 1100), (1200, 1900), (1300, 1901), (1400, 1950)], 1950, None, (700, 1200)),
        # Still silent at the end: since the last completion ...
        ([(1000, 1010)], 1500, None, (490, 1010)),
        # ... or since the time the next access was due, when that is known,
        ([(1000, 1010)], 1500, [1400], (100, 1400)),
        ([(1000, 1010)], 1500, [900], (490, 1010)),
        # ... or not at all: not due yet, or nothing left to do.
        ([(1000, 1010)], 1500, [1600], (10, 1000)),
        ([(1000, 1010)], 1500, [None], (10, 1000)),
        # A guest that never did anything was silent from its start.
        ([], 1500, None, (500, 1000)),
    ],
)
def test_silence(
    accesses: list[tuple[int, int]], end: int, due: list[int | None] | None, silence: tuple[int, int]
) -> None:
    blocktime = Blocktime(1)
    blocktime.started(1000)
    for due_ns, now in accesses:
        blocktime.progressed(0, due_ns, now)
    blocktime.finish(end, due)
    (vcpu,) = blocktime.statistics().vcpus
    assert (vcpu.silence_ns_max, vcpu.silence_began_ns) == silence
    assert vcpu.accesses == len(accesses)


def test_silence_without_a_fault_is_no_blocktime_and_the_longest_of_all_vcpus_counts() -> None:
    blocktime = Blocktime(2)
    blocktime.started(0)
    blocktime.progressed(0, 0, 10)
    blocktime.progressed(1, 0, 400)  # a collapse, say, kept it waiting
    blocktime.progressed(0, 10, 410)
    blocktime.finish(420)
    statistics = blocktime.statistics()
    assert statistics.blocktime_ns == 0
    assert [vcpu.silence_ns_max for vcpu in statistics.vcpus] == [400, 400]
    assert statistics.silence_ns_max == 400


def test_what_cannot_happen_is_refused() -> None:
    with pytest.raises(ValueError, match="a guest of 0 vCPUs"):
        Blocktime(0)
    blocktime = Blocktime(2)
    with pytest.raises(ValueError, match="has not been started"):
        blocktime.faulted(0, 5, 10)
    blocktime.started(10)
    with pytest.raises(ValueError, match="started twice"):
        blocktime.started(11)
    blocktime.faulted(0, 5, 20)
    with pytest.raises(ValueError, match="vCPU 0 faulted on page 6 while it sleeps on page 5"):
        blocktime.faulted(0, 6, 21)
    with pytest.raises(ValueError, match="vCPU 1 was woken without a fault"):
        blocktime.woken(1, 22)
    with pytest.raises(ValueError, match="time went back by 2 ns"):
        blocktime.woken(0, 20)
    with pytest.raises(ValueError, match="due times of 1 vCPUs"):
        blocktime.finish(30, [None])
    blocktime.finish(30)
    with pytest.raises(ValueError, match="closed by finish"):
        blocktime.woken(0, 31)
    with pytest.raises(ValueError, match="closed by finish"):
        blocktime.finish(31)


def test_shows_itself() -> None:
    blocktime = Blocktime(2)
    blocktime.started(0)
    blocktime.faulted(1, 5, 3)
    assert repr(blocktime) == "<Blocktime of 2 vCPUs, 1 blocked, 0 faults resolved>"

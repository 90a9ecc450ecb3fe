"""Blocktime against the plain definition: intervals, counted nanosecond by nanosecond."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.guest.blocktime import Blocktime
from migemu.guest.latency import FaultLatency, merge_histograms

END = 120


@settings(derandomize=True, deadline=None, max_examples=300)
@given(vcpus=st.integers(1, 4), events=st.integers(0, 40), rng=st.randoms(use_true_random=False))
def test_any_row_of_events(vcpus: int, events: int, rng: Random) -> None:
    """Faults and wake-ups at any times, several at one time among them; some faults stay open."""
    blocktime = Blocktime(vcpus)
    blocktime.started(0)
    since: dict[int, int] = {}
    intervals: list[list[tuple[int, int]]] = [[] for _ in range(vcpus)]
    latencies = []
    for now in sorted(rng.randrange(END) for _ in range(events)):
        vcpu = rng.randrange(vcpus)
        if vcpu in since:
            latency_ns = blocktime.woken(vcpu, now)
            assert latency_ns == now - since[vcpu]
            latencies.append(latency_ns)
            intervals[vcpu].append((since.pop(vcpu), now))
        else:
            blocktime.faulted(vcpu, 7, now)
            since[vcpu] = now
    blocktime.finish(END)
    for vcpu, began in since.items():
        intervals[vcpu].append((began, END))

    statistics = blocktime.statistics()
    blocked = [{ns for began, ended in mine for ns in range(began, ended)} for mine in intervals]
    assert [vcpu.blocktime_ns for vcpu in statistics.vcpus] == [len(mine) for mine in blocked]
    assert statistics.overlapped_blocktime_ns == len(set.intersection(*blocked))
    assert {(fault.vcpu, fault.waited_ns) for fault in statistics.open_faults} == {
        (vcpu, END - began) for vcpu, began in since.items()
    }
    assert list(blocktime.latency) == latencies
    assert statistics.faults == len(latencies)
    assert statistics.overlapped_blocktime_ns <= min(vcpu.blocktime_ns for vcpu in statistics.vcpus)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(gaps=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30), at_end=st.integers(0, 60))
def test_silence_is_the_longest_wait_that_was_not_idling(gaps: list[tuple[int, int]], at_end: int) -> None:
    """Each access is due `idle` after the one before and done `wait` after that."""
    blocktime = Blocktime(1)
    blocktime.started(0)
    now = 0
    for idle, wait in gaps:
        due = now + idle
        now = due + wait
        blocktime.progressed(0, due, now)
    blocktime.finish(now + at_end)
    statistics = blocktime.statistics()
    assert statistics.silence_ns_max == max([wait for _, wait in gaps] + [at_end])
    assert statistics.vcpus[0].accesses == len(gaps)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(values=st.lists(st.integers(0, 10**12), min_size=1, max_size=80), per_mille=st.integers(0, 1000))
def test_percentiles_keep_the_nearest_rank_rule(values: list[int], per_mille: int) -> None:
    """The smallest value that at least that share of the values does not exceed."""
    found = FaultLatency(values).percentile(per_mille)
    assert found == min(
        candidate
        for candidate in values
        if 1000 * sum(value <= candidate for value in values) >= per_mille * len(values)
    )


@settings(derandomize=True, deadline=None, max_examples=100)
@given(parts=st.lists(st.lists(st.integers(0, 10**12), max_size=20), max_size=5))
def test_merging_is_exact(parts: list[list[int]]) -> None:
    whole = FaultLatency(value for part in parts for value in part)
    merged = FaultLatency()
    for part in parts:
        merged.merge(FaultLatency(part))
    assert merged.summary() == whole.summary()
    assert merged.histogram() == whole.histogram()
    assert merge_histograms(FaultLatency(part).histogram() for part in parts) == whole.histogram()
    assert sum(whole.histogram().values()) == len(whole)

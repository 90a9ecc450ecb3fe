"""Fault latency: every fault's time from raised to woken, told exactly.

What this models
    The row of latencies of a run or of several. All are kept (8 bytes each), so percentiles are those of the values
    and not of buckets.

Rules
    1. Percentiles are nearest-rank: the p-th percentile of n values is the smallest of them that at least p percent of
       the values do not exceed, that is number ceil(n * p / 100) in ascending order. It is always a value that was
       seen, never one between two. The p99.9 of fewer than 1000 values is thus their maximum.
    2. The mean is rounded down to a whole nanosecond, as QEMU's is.
    3. Buckets of the histogram are powers of two in microseconds, keyed by their lower bound: [64, 128) us -> 64, and
       [0, 1) us -> 0. There is no last bucket that takes in everything longer.
    4. Merging is exact: what is told of a merged row is what would be told had all faults been of one run.

Sources
    QEMU 10.1 `postcopy-latency-dist`: bucket N holds [2**N, 2**(N+1)) us; there are 24, the last one takes longer ones
    too, and a fault below 1 us counts in bucket 0. So our 0 and 1 together are QEMU's first.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from migemu.units import US


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Nanoseconds of `count` faults, at least one."""

    count: int
    mean_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int


class FaultLatency:
    """The latencies of faults that were resolved."""

    __slots__ = ("_values",)

    def __init__(self, latencies_ns: Iterable[int] = ()) -> None:
        self._values = array("q")
        for latency_ns in latencies_ns:
            self.add(latency_ns)

    def add(self, latency_ns: int) -> None:
        """One more fault. ValueError when it took less than no time."""
        if latency_ns < 0:
            raise ValueError(f"a fault was woken {-latency_ns} ns before it was raised")
        self._values.append(latency_ns)

    def merge(self, other: FaultLatency) -> None:
        """Take in all faults of `other`."""
        self._values.extend(other._values)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[int]:
        """The latencies in ns, in the order in which they were added."""
        return iter(self._values)

    def percentile(self, per_mille: int) -> int | None:
        """The nearest-rank percentile in ns: 500 is p50, 999 is p99.9, 1000 the maximum. None of no faults."""
        return _nearest_rank(sorted(self._values), per_mille) if self._values else None

    def summary(self) -> LatencySummary | None:
        """Count, mean, percentiles, maximum; None when there was no fault."""
        if not self._values:
            return None
        values = sorted(self._values)
        count = len(values)
        return LatencySummary(
            count=count,
            mean_ns=sum(values) // count,
            p50_ns=_nearest_rank(values, 500),
            p90_ns=_nearest_rank(values, 900),
            p99_ns=_nearest_rank(values, 990),
            p999_ns=_nearest_rank(values, 999),
            max_ns=values[-1],
        )

    def histogram(self) -> dict[int, int]:
        """Faults per bucket, keyed by its lower bound in us, ascending; empty buckets are left out."""
        lengths = Counter((value // US).bit_length() for value in self._values)
        return {1 << length >> 1: lengths[length] for length in sorted(lengths)}

    def __repr__(self) -> str:
        return f"<FaultLatency of {len(self._values)} faults>"


def _nearest_rank(ascending: list[int], per_mille: int) -> int:
    if not 0 <= per_mille <= 1000:
        raise ValueError(f"{per_mille} per mille is no percentile: give 0 to 1000")
    return ascending[max(0, -(-len(ascending) * per_mille // 1000) - 1)]


def merge_histograms(histograms: Iterable[dict[int, int]]) -> dict[int, int]:
    """The histogram of all faults of several histograms."""
    merged: Counter[int] = Counter()
    for histogram in histograms:
        merged.update(histogram)
    return {bound: merged[bound] for bound in sorted(merged)}

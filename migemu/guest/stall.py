"""Stalls: what a collapse makes the vCPUs wait, kept apart from what faults make them wait.

What this models
    A vCPU that a collapse shuts out, on the lock or in the notifier window (SEMANTICS 2.3): it has no fault open
    in userfaultfd, nobody is asked for a page, and no blocktime is counted (`migemu.guest.blocktime` has that). For the
    guest it is lost time all the same.

Rules
    1. A stall of a vCPU begins and ends; calls that overlap are one stall, from the first beginning to the last end.
    2. `add` is for those who know the length of a stall without having watched it, such as a model.
    3. `finish(now)` closes the books: open stalls count up to now, in the totals and among the lengths.
    4. Times are ns of one clock. What cannot happen raises ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from migemu.guest.latency import FaultLatency, LatencySummary


class VcpuStall(NamedTuple):
    """What collapses have cost one vCPU."""

    vcpu: int
    stalls: int
    stalled_ns: int
    stall_ns_max: int


@dataclass(frozen=True, slots=True)
class StallStatistics:
    """A snapshot of the stalls that have ended; after `finish` the final account."""

    vcpus: tuple[VcpuStall, ...]
    stalls: int
    stalled_ns: int
    """The sum over all vCPUs."""
    stall_ns_max: int
    lengths: LatencySummary | None
    """Of single stalls; None when there were none."""


#: Of a guest without vCPUs.
NO_STALLS: Final = StallStatistics((), 0, 0, 0, None)


class Stalls:
    """Keeps the stalls of one guest. `lengths` holds each of them, for histograms and for merging."""

    __slots__ = ("_began", "_count", "_depth", "_finished", "_longest", "_total", "lengths", "vcpus")

    def __init__(self, vcpus: int) -> None:
        """A guest of `vcpus` vCPUs that nothing has stalled yet."""
        if vcpus < 1:
            raise ValueError(f"a guest of {vcpus} vCPUs cannot run: give 1 or more")
        self.vcpus = vcpus
        self.lengths = FaultLatency()
        self._began = [0] * vcpus
        self._depth = [0] * vcpus
        self._count = [0] * vcpus
        self._total = [0] * vcpus
        self._longest = [0] * vcpus
        self._finished = False

    def began(self, vcpu: int, now: int) -> None:
        """`vcpu` waits for a collapse from now on, maybe for one more of them."""
        self._open()
        if not self._depth[vcpu]:
            self._began[vcpu] = now
        self._depth[vcpu] += 1

    def ended(self, vcpu: int, now: int) -> None:
        """One collapse that `vcpu` waited for is over."""
        self._open()
        if not self._depth[vcpu]:
            raise ValueError(f"vCPU {vcpu} was let go without a stall")
        if self._depth[vcpu] == 1:
            self.add(vcpu, now - self._began[vcpu])
        self._depth[vcpu] -= 1

    def add(self, vcpu: int, stalled_ns: int) -> None:
        """Count a stall of `vcpu` that took `stalled_ns`. ValueError when that is below 0."""
        self._open()
        if stalled_ns < 0:
            raise ValueError(f"a stall of vCPU {vcpu} ended {-stalled_ns} ns before it began")
        self.lengths.add(stalled_ns)
        self._count[vcpu] += 1
        self._total[vcpu] += stalled_ns
        self._longest[vcpu] = max(self._longest[vcpu], stalled_ns)

    def finish(self, now: int) -> None:
        """End the account at `now`: stalls that are still open count up to then."""
        for vcpu, depth in enumerate(self._depth):
            if depth:
                self._depth[vcpu] = 0
                self.add(vcpu, now - self._began[vcpu])
        self._finished = True

    def statistics(self) -> StallStatistics:
        """A snapshot; stalls that are still open are not in it."""
        return StallStatistics(
            tuple(
                VcpuStall(vcpu, self._count[vcpu], self._total[vcpu], self._longest[vcpu]) for vcpu in range(self.vcpus)
            ),
            sum(self._count),
            sum(self._total),
            max(self._longest),
            self.lengths.summary(),
        )

    def _open(self) -> None:
        if self._finished:
            raise ValueError("the books were closed by finish()")

    def __repr__(self) -> str:
        return f"<Stalls of {self.vcpus} vCPUs: {sum(self._count)}, {sum(1 for depth in self._depth if depth)} open>"

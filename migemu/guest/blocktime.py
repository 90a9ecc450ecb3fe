"""Blocktime: what waiting for faults costs the guest, in QEMU's terms, and how long a vCPU stood still at worst.

What this models
    The measurements of the destination while the guest runs there. Two of them answer different questions. Blocktime
    is the time that vCPUs slept on faults. Silence is the time without progress for whatever cause: a fault, but also
    a collapse that shuts the vCPU out, a handler that never came to it, a processor it did not get.

Rules
    1. A fault's latency is the time from raised to woken. A vCPU has at most one fault open.
    2. Blocktime of a vCPU: the sum of its latencies. Overlapped blocktime: the time in which ALL vCPUs were blocked at
       once, i.e. from the moment the last running one fell asleep to the first wake-up after it.
    3. Silence of an access: the time of its completion minus the later of (completion of the access before, the time
       it was due). A vCPU that idles because its workload paces it is not silent; one that is late is. The first
       access counts from `started`.
    4. `finish(now)` closes the books: open faults count as blocktime up to now and are listed; a latency they have
       not, so percentiles leave them out: look at `open_faults` before quoting any. Silence counts up to now too.
    5. Times are ns of one clock and never go back, over all vCPUs. What cannot happen raises ValueError: it is a
       mistake of the caller, and would be a wrong number otherwise.

Sources
    QEMU migration/postcopy-ram.c of 10.1: `mark_postcopy_blocktime_begin` and `_end`, and the drawing above the latter.
    Its names: `postcopy-blocktime` is our overlapped_blocktime_ns, `postcopy-vcpu-blocktime` our blocktime_ns per vCPU,
    `postcopy-latency` our mean, all there in ms or ns. QEMU counts faults that needed a request to the source, and
    never those still open at the end; here it counts what `faulted` is told, so tell it the same.

Simplified
    No asynchronous page faults (several open faults on one vCPU), no faults of threads that are not vCPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from migemu.guest.latency import FaultLatency, LatencySummary
from migemu.mm.pages import PageIndex


class OpenFault(NamedTuple):
    """A fault that nobody had woken at the end. `waited_ns` is what it has cost so far."""

    vcpu: int
    page: PageIndex
    waited_ns: int


class VcpuBlocktime(NamedTuple):
    """Accesses, faults and waiting times of one vCPU; times in ns."""

    vcpu: int
    accesses: int
    """Accesses completed."""
    faults: int
    """Faults resolved; an open one is not among them."""
    blocktime_ns: int
    """Time asleep on faults, an open one included."""
    silence_ns_max: int
    """The longest time without progress."""
    silence_began_ns: int
    """When that began, on the caller's clock."""


@dataclass(frozen=True, slots=True)
class BlocktimeStatistics:
    """A snapshot; after `finish` the final account."""

    vcpus: tuple[VcpuBlocktime, ...]
    duration_ns: int
    """From `started` to `finish`, or to the last event so far."""
    faults: int
    """Faults resolved, of all vCPUs."""
    blocktime_ns: int
    """The sum over all vCPUs."""
    overlapped_blocktime_ns: int
    """Time in which all vCPUs were asleep at once."""
    silence_ns_max: int
    """The longest silence of any vCPU."""
    open_faults: tuple[OpenFault, ...]
    """Faults without a wake-up."""
    latency: LatencySummary | None
    """Of the resolved faults; None when there were none."""


#: Of a guest without vCPUs.
NO_BLOCKTIME: Final = BlocktimeStatistics((), 0, 0, 0, 0, 0, (), None)


class Blocktime:
    """Keeps the books of one guest."""

    __slots__ = (
        "_accesses", "_blocked", "_blocked_vcpus", "_completed", "_faults", "_finished", "_last", "_overlap_began",
        "_overlapped_ns", "_page", "_raised", "_silence_began", "_silence_max", "_started", "latency", "vcpus",
    )  # fmt: skip

    def __init__(self, vcpus: int) -> None:
        """A guest of `vcpus` vCPUs that has not run yet."""
        if vcpus < 1:
            raise ValueError(f"a guest of {vcpus} vCPUs cannot run: give 1 or more")
        self.vcpus = vcpus
        #: Of the resolved faults, for histograms and for merging.
        self.latency = FaultLatency()
        self._accesses = [0] * vcpus
        self._faults = [0] * vcpus
        self._blocked = [0] * vcpus
        self._raised: list[int | None] = [None] * vcpus
        self._page = [0] * vcpus
        self._completed = [0] * vcpus
        self._silence_max = [0] * vcpus
        self._silence_began = [0] * vcpus
        self._blocked_vcpus = 0
        self._overlap_began = 0
        self._overlapped_ns = 0
        self._started: int | None = None
        self._finished = False
        self._last = 0

    def started(self, now: int) -> None:
        """The guest runs from now on."""
        if self._started is not None:
            raise ValueError("the guest was started twice")
        self._started = self._last = now
        self._completed = [now] * self.vcpus
        self._silence_began = [now] * self.vcpus

    def faulted(self, vcpu: int, page: PageIndex, now: int) -> None:
        """`vcpu` falls asleep in a fault on `page` at `now`. ValueError when it sleeps already."""
        self._advance(now)
        if self._raised[vcpu] is not None:
            raise ValueError(f"vCPU {vcpu} faulted on page {page} while it sleeps on page {self._page[vcpu]}")
        self._raised[vcpu] = now
        self._page[vcpu] = page
        self._blocked_vcpus += 1
        if self._blocked_vcpus == self.vcpus:
            self._overlap_began = now

    def woken(self, vcpu: int, now: int) -> int:
        """`vcpu` runs again; the latency of its fault in ns."""
        self._advance(now)
        raised = self._raised[vcpu]
        if raised is None:
            raise ValueError(f"vCPU {vcpu} was woken without a fault")
        if self._blocked_vcpus == self.vcpus:
            self._overlapped_ns += now - self._overlap_began
        self._blocked_vcpus -= 1
        self._raised[vcpu] = None
        latency_ns = now - raised
        self._blocked[vcpu] += latency_ns
        self._faults[vcpu] += 1
        self.latency.add(latency_ns)
        return latency_ns

    def progressed(self, vcpu: int, due_ns: int, now: int) -> None:
        """`vcpu` completed an access that was due at `due_ns` (at once: any time not after the last completion)."""
        # The one method that every access of the guest passes: nothing here but what rule 3 needs.
        completed = self._completed
        since = completed[vcpu]
        if due_ns > since:
            since = due_ns
        if now - since > self._silence_max[vcpu]:
            self._silence_max[vcpu] = now - since
            self._silence_began[vcpu] = since
        completed[vcpu] = now
        self._accesses[vcpu] += 1

    def finish(self, now: int, due_ns: Sequence[int | None] | None = None) -> None:
        """Close the books at `now`.

        `due_ns` says for each vCPU when the access that it has not completed was due, or None when it has none (its
        workload ended): its silence counts from then. Left out, silence counts from the last completion, which is too
        long for a vCPU that only waited for its next access to become due: never too short.
        """
        self._advance(now)
        if due_ns is not None and len(due_ns) != self.vcpus:
            raise ValueError(f"due times of {len(due_ns)} vCPUs were given to a guest of {self.vcpus}")
        self._finished = True
        if self._blocked_vcpus == self.vcpus:
            self._overlapped_ns += now - self._overlap_began
        for vcpu in range(self.vcpus):
            raised = self._raised[vcpu]
            if raised is not None:
                self._blocked[vcpu] += now - raised
            due = self._completed[vcpu] if due_ns is None else due_ns[vcpu]
            if due is not None:
                since = max(due, self._completed[vcpu])
                if now - since > self._silence_max[vcpu]:
                    self._silence_max[vcpu] = now - since
                    self._silence_began[vcpu] = since

    def statistics(self) -> BlocktimeStatistics:
        """A snapshot as of the last event, open faults excepted; after `finish` the final account."""
        return BlocktimeStatistics(
            vcpus=tuple(
                VcpuBlocktime(
                    vcpu, self._accesses[vcpu], self._faults[vcpu], self._blocked[vcpu],
                    self._silence_max[vcpu], self._silence_began[vcpu],
                )
                for vcpu in range(self.vcpus)
            ),
            duration_ns=0 if self._started is None else max(self._last, *self._completed) - self._started,
            faults=sum(self._faults),
            blocktime_ns=sum(self._blocked),
            overlapped_blocktime_ns=self._overlapped_ns,
            silence_ns_max=max(self._silence_max),
            open_faults=tuple(
                OpenFault(vcpu, self._page[vcpu], self._last - raised)
                for vcpu, raised in enumerate(self._raised)
                if raised is not None
            ),
            latency=self.latency.summary(),
        )  # fmt: skip

    def _advance(self, now: int) -> None:
        if self._started is None:
            raise ValueError("the guest has not been started")
        if self._finished:
            raise ValueError("the books were closed by finish()")
        if now < self._last:
            raise ValueError(f"time went back by {self._last - now} ns")
        self._last = now

    def __repr__(self) -> str:
        return f"<Blocktime of {self.vcpus} vCPUs, {self._blocked_vcpus} blocked, {len(self.latency)} faults resolved>"

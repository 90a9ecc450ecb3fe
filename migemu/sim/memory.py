"""The guest's memory in virtual time: every system call takes time, and a collapse holds vCPUs.

What this models
    The destination's service is one thread. What it copies, maps and collapses is charged to its processor; whoever is
    woken runs when the thread has got that far. A fault reaches it as late as an event reaches a handler; by then its
    waiter may have been woken, and its message is gone, as in the kernel.

    What the thread maps exists from the moment it has got that far: a vCPU that comes earlier sleeps until then.

Rules (sections of kernel-semantics)
    1. A run of neighbours is continued by one UFFDIO_CONTINUE (1.3): an ioctl, then an entry a piece.
    2. A collapse takes what the cost model says (2.4). Meanwhile (2.3) a vCPU that faults waits for the lock: anywhere
       in the process with mmap_lock, and there is but one mapping for the VMA lock to matter less; one that touches the
       range spins until the notifier window is over. Neither is a fault of userfaultfd: `Stalled` says so.

Simplified
    EPT violations on fresh entries, locks between threads of the handler, and page faults of the handler take no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass

from migemu.mm.costs import CostModel
from migemu.mm.fault_costs import HANDLER_NS, FaultCosts
from migemu.mm.operations import of_steps
from migemu.mm.pages import Geometry, PageIndex, PieceRun, Span
from migemu.ports import Collapsed, Continued, Stalled
from migemu.sim.loop import VirtualLoop
from migemu.sim.processor import Processor
from migemu.store.model import Contents, ModelledMemory, PageContent


@dataclass(frozen=True, slots=True)
class MemoryCosts:
    """What the destination pays, in ns. `faults` and `collapses` say where their figures come from."""

    faults: FaultCosts
    collapses: CostModel
    #: Receive a byte in its place, in ns per KiB: uvloop into a warm mapping does 4.5 GB/s (measured, +-30 %).
    receive_ns_per_kib: int = 228


class TimedMemory(ModelledMemory):
    """ports.GuestMemory of a node whose service runs on `processor`. Made in the context of that node."""

    def __init__(
        self, geometry: Geometry, memory_bytes: int, content: PageContent, loop: VirtualLoop, processor: Processor,
        costs: MemoryCosts,
    ) -> None:  # fmt: skip
        super().__init__(geometry, memory_bytes, content)
        self._loop = loop
        self._processor = processor
        self._costs = costs
        self._service = copy_context()
        self._scheduler = Context()  # the kernel's, which no processor of ours holds up
        self._event_ns = costs.faults.event_ns + HANDLER_NS[costs.faults.handler]
        self._fault_until_ns = 0
        self._touch_until_ns = 0
        self._touch_spans: list[tuple[PageIndex, PageIndex]] = []
        self._appearing: list[tuple[int, PageIndex, PageIndex]] = []  # (when, first, end), by time
        self._appeared_ns = 0

    # --- the service's thread ---

    def landed(self, start: int, end: int, contents: Contents, offset: int) -> None:
        """See `ModelledMemory`; receiving takes time."""
        self._charge((end - start) * self._costs.receive_ns_per_kib >> 10)
        super().landed(start, end, contents, offset)

    def uffdio_continue(self, run: PieceRun) -> Continued:
        """One ioctl for the run, an entry a piece."""
        entry_ns = self._costs.collapses.entry_ns
        self._charge(self._costs.faults.continue_ns + (run.count - 1) * entry_ns)
        self._appeared_ns = self._processor.free_ns
        self._appearing = [each for each in self._appearing if each[0] > self._loop.now_ns]
        end = run.first + run.count * self.geometry.pages(run.level)
        self._appearing.append((self._appeared_ns, run.first, end))
        return super().uffdio_continue(run)

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """An ioctl."""
        self._charge(self._costs.collapses.syscall_ns)
        super().uffdio_wake(first, count)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """The calls take their time, and hold vCPUs."""
        result = super().madvise_collapse(spans)
        began_ns = max(self._loop.now_ns, self._processor.free_ns)
        stall = self._costs.collapses.stall(of_steps(result.steps))
        self._charge(stall.call_ns)
        if began_ns >= self._touch_until_ns:
            self._touch_spans.clear()
        self._touch_spans += [(span.first, span.first + self.geometry.pages(span.level)) for span in spans]
        self._fault_until_ns = max(self._fault_until_ns, began_ns + stall.fault_ns)
        self._touch_until_ns = max(self._touch_until_ns, began_ns + stall.access_ns)
        return result

    def _charge(self, ns: int) -> None:
        self._processor.charge(self._loop.now_ns, ns)

    # --- vCPUs ---

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        """See ports.GuestMemory; a collapse may hold the vCPU."""
        now_ns = self._loop.now_ns
        if now_ns < self._touch_until_ns and any(first <= page < end for first, end in self._touch_spans):
            return Stalled(self._touch_until_ns)
        if now_ns < self._fault_until_ns and not self._is_mapped(page):
            return Stalled(self._fault_until_ns)
        if now_ns < self._appeared_ns and (waiter := self._too_early(vcpu, page, stamp is not None)) is not None:
            return waiter
        return super().touch(vcpu, page, offset, stamp)

    def _too_early(self, vcpu: int, page: PageIndex, write: bool) -> asyncio.Future[None] | None:
        """What a vCPU waits for that touches `page` while the service is about to map it; None if it is not."""
        for when_ns, first, end in self._appearing:
            if first <= page < end and when_ns > self._loop.now_ns:
                self._slept(vcpu, page, write)
                waiter: asyncio.Future[None] = self._loop.create_future()
                self._loop.call_at_ns(when_ns + self._costs.faults.wake_ns, _let, waiter, context=self._scheduler)
                return waiter
        return None

    def _raised(self) -> None:
        """An event takes its time to reach the handler, and is gone if its waiter was woken before."""
        self._loop.call_at_ns(self._loop.now_ns + self._event_ns, self._read_events, context=self._service)

    def _woken(self, vcpu: int, _address: int) -> None:
        """It runs when the service has got that far, and the scheduler has noticed."""
        when_ns = max(self._loop.now_ns, self._processor.free_ns) + self._costs.faults.wake_ns
        waiter = self._waiting.pop(vcpu, None)
        if waiter is not None:
            self._loop.call_at_ns(when_ns, _let, waiter, context=self._scheduler)


def _let(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

"""The guest's memory in virtual time: every system call takes time, and a collapse holds vCPUs.

What this models
    The destination's service is one thread. What it copies, maps and collapses is charged to its processor; whoever is
    woken runs when the thread has got that far. A fault reaches it as late as an event reaches a handler; by then its
    waiter may have been woken, and its message is gone, as in the kernel.

    What the thread maps exists from the moment it has got that far: a vCPU that comes earlier sleeps until then.
    With several threads each has a processor, and pays for what it does; the context says which one it is.

Rules
    1. A run of neighbours is mapped as `mm.fault_costs.Place` says; while a collapse has the lock, other threads wait.
    2. A collapse takes what the cost model says (SEMANTICS 2.4). Meanwhile (SEMANTICS 2.3) a vCPU that faults waits for
       the lock: anywhere in the process with mmap_lock, and there is but one mapping for the VMA lock to matter less;
       one that touches the range spins until the notifier window is over. Neither is a fault of userfaultfd: `Stalled`
       says so.
    3. A call begins when the thread gets to it, and holds nobody before that; each of several holds its own range, for
       its own time.

Simplified
    EPT violations on fresh entries, locks between threads of the handler, and page faults of the handler take no time.
    A handler that reads an event reads all that wait then, those too that have just been raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import NamedTuple

from migemu.costs.collapse_cost import CostModel
from migemu.costs.fault_cost import HANDLER_NS, FaultCosts, Place
from migemu.costs.operations import calls_of, of_steps
from migemu.mm.pages import Geometry, PageIndex, PieceRun, Span
from migemu.ports import Collapsed, Installed, MinorFault, Stalled
from migemu.sim.contents import Contents, ModelledMemory, PageContent
from migemu.sim.loop import VirtualLoop
from migemu.sim.processor import Processor


@dataclass(frozen=True, slots=True)
class MemoryCosts:
    """What the destination pays, in ns. `faults` and `collapses` say where their figures come from."""

    faults: FaultCosts
    collapses: CostModel
    #: Receive a byte in its place, in ns per KiB: uvloop into a warm mapping does 4.5 GB/s (measured, +-30 %).
    receive_ns_per_kib: int = 228
    place: Place = "run"


class _Hold(NamedTuple):
    """A collapse under way: whom it holds from `began_ns` on, and until when."""

    began_ns: int
    fault_until_ns: int
    touch_until_ns: int
    first: PageIndex
    end: PageIndex


class TimedMemory(ModelledMemory):
    """ports.GuestStore of a node whose service runs on `processor`. Made in the context of that node."""

    def __init__(
        self, geometry: Geometry, memory_bytes: int, content: PageContent, loop: VirtualLoop, processor: Processor,
        costs: MemoryCosts, handler: Context | None = None, hgm: bool = True,
    ) -> None:  # fmt: skip
        """Faults are read in the context of `handler`; without one, in that in which this is made."""
        super().__init__(geometry, memory_bytes, content, hgm)
        self._loop = loop
        self._processor = processor
        self._costs = costs
        self._handler_context = copy_context() if handler is None else handler
        self._scheduler = Context()  # the kernel's, which no processor of ours holds up
        self._event_ns = costs.faults.event_ns + HANDLER_NS[costs.faults.handler]
        self._handler_comes = False
        self._holds: list[_Hold] = []
        self._appearing: list[tuple[int, PageIndex, PageIndex]] = []  # (when, first, end), by time
        self._settled_ns = 0  # from then on everything is as the page table says

    # --- the service's thread ---

    def landed(self, start: int, end: int, contents: Contents, offset: int) -> None:
        """Take in contents as `ModelledMemory` does, and charge the processor for receiving them."""
        self._charge((end - start) * self._costs.receive_ns_per_kib >> 10)
        super().landed(start, end, contents, offset)

    def install(self, run: PieceRun) -> Installed:
        """It takes what mapping the run takes, in the way it is done."""
        costs, now_ns, pages = self._costs, self._loop.now_ns, self.geometry.pages(run.level)
        begins_ns = now_ns
        for began_ns, locked_ns, _, _, _ in self._holds:
            if began_ns <= now_ns and locked_ns > begins_ns:
                begins_ns = locked_ns
        map_ns = costs.faults.map_ns(costs.place, run.count, pages, costs.collapses.entry_ns)
        mapped_ns = self._thread.charge(begins_ns, map_ns)
        if mapped_ns > self._settled_ns:
            self._settled_ns = mapped_ns
        self._appearing = [each for each in self._appearing if each[0] > now_ns]
        self._appearing.append((mapped_ns, run.first, run.first + run.count * pages))
        return super().install(run)

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        """UFFDIO_WAKE, charged as one system call."""
        self._charge(self._costs.collapses.syscall_ns)
        super().uffdio_wake(first, count)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        """The calls take their time, and hold vCPUs."""
        result = super().madvise_collapse(spans)
        self._holds = [each for each in self._holds if max(each[1:3]) > self._loop.now_ns]
        for steps in calls_of(result.steps):
            began_ns = max(self._loop.now_ns, self._thread.free_ns)
            stall = self._costs.collapses.stall(of_steps(steps))
            self._charge(stall.call_ns)
            first, end = steps[0].start // self._page_bytes, steps[0].end // self._page_bytes
            self._holds.append(_Hold(began_ns, began_ns + stall.fault_ns, began_ns + stall.access_ns, first, end))
            self._settled_ns = max(self._settled_ns, began_ns + stall.longest_ns)
        return result

    def _charge(self, ns: int) -> None:
        self._thread.charge(self._loop.now_ns, ns)

    @property
    def _thread(self) -> Processor:
        """Whose work this is."""
        return self._loop.processor or self._processor

    # --- vCPUs ---

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        """See ports.GuestAccess; a collapse may hold the vCPU."""
        now_ns = self._loop.now_ns
        mapped = self._reachable(self._start + page * self._page_bytes)
        if now_ns < self._settled_ns:
            appears_ns = 0  # when the service will have mapped what the page table has mapped already
            for when_ns, first, end in self._appearing:
                if first <= page < end:
                    appears_ns = when_ns
                    break
            missing = not mapped or appears_ns > now_ns
            for began_ns, fault_until_ns, touch_until_ns, first, end in self._holds:
                if now_ns < touch_until_ns and first <= page < end and began_ns <= now_ns:
                    return Stalled(touch_until_ns)
                if missing and began_ns <= now_ns < fault_until_ns:
                    return Stalled(fault_until_ns)
            if appears_ns > now_ns:
                self._handler.fault_raised(MinorFault(vcpu, page, stamp is not None))
                waiter: asyncio.Future[None] = self._loop.create_future()
                self._loop.call_at_ns(appears_ns + self._costs.faults.wake_ns, _let, waiter, context=self._scheduler)
                return waiter
        return self._access(page, offset, stamp) if mapped else super().touch(vcpu, page, offset, stamp)

    def _raised(self) -> None:
        """An event takes its time to reach the handler, unless that is on its way for another one already."""
        if not self._handler_comes:
            self._handler_comes = True
            self._loop.call_at_ns(self._loop.now_ns + self._event_ns, self._read_events, context=self._handler_context)

    def _read_events(self) -> None:
        """All that wait; what a waiter left behind that was woken meanwhile is gone."""
        self._handler_comes = False
        super()._read_events()

    def _woken(self, vcpu: int, _address: int) -> None:
        """It runs when the service has got that far, and the scheduler has noticed."""
        when_ns = max(self._loop.now_ns, self._thread.free_ns) + self._costs.faults.wake_ns
        waiter = self._waiting.pop(vcpu, None)
        if waiter is not None:
            self._loop.call_at_ns(when_ns, _let, waiter, context=self._scheduler)


def _let(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

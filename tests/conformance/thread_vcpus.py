"""vCPUs that are threads, over a memory in which a fault puts the thread to sleep: a second kind of vCPUs, for tests.

It shows that the seam is enough for vCPUs that the loop knows nothing of. As with a userfaultfd, the loop is woken when
an event can be read, and the thread sleeps until what maps the page wakes it.

Simplified: no rate (`guest.rate=0`), and no stalls, which this memory does not model.
"""

from __future__ import annotations

import asyncio
import mmap
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dest_node.core.effects import NODE
from dest_node.guest.ledger import SLOT_BYTES, SLOTS, Ledger
from dest_node.guest.tasks import stamp_key, workloads_of
from migemu.errors import InputError
from migemu.guest.blocktime import NO_BLOCKTIME, Blocktime
from migemu.guest.stall import NO_STALLS, Stalls
from migemu.guest.workload import Workload, WorkloadFiles
from migemu.mm import FaultOutcome
from migemu.mm.pages import Geometry, PageIndex, PieceRun, Span
from migemu.ports import Clock, Collapsed, GuestMemory, GuestStatistics, Installed, MinorFault, Tracer, Word
from migemu.scenario.scenario import Scenario
from migemu.store.mapped import MappedMemory
from migemu.trace.events import Event, Happening

#: A thread that nobody wakes in that time hangs the test, which then fails.
_HANG_S = 20.0


class BlockingMemory(MappedMemory):
    """ports.GuestStore that threads access. Its lock is the kernel's mmap_lock; made in the loop of the service."""

    def __init__(self, geometry: Geometry, memory_bytes: int, memory: mmap.mmap | bytearray) -> None:
        super().__init__(geometry, memory_bytes, memory)
        self._lock = threading.RLock()
        self._loop = asyncio.get_running_loop()
        self._asleep: dict[int, threading.Event] = {}

    def access(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | threading.Event:
        """Called in a vCPU's thread: the word as it was before, or, after a fault, what to sleep in before retrying."""
        with self._lock:
            if self._reachable(self._start + page * self._page_bytes):
                return self._access(page, offset, stamp)
            outcome = self._mapping.fault(vcpu, page, stamp is not None)
            assert outcome is FaultOutcome.WAITING
            woken = self._asleep[vcpu] = threading.Event()
        self._loop.call_soon_threadsafe(self._read_events)  # the descriptor has become readable
        return woken

    def _read_events(self) -> None:
        while True:
            with self._lock:
                event = self._mapping.read()
            if event is None:
                return
            self._handler.fault_raised(MinorFault(*event))
            self._handler.fault_read(MinorFault(*event))

    def _woken(self, vcpu: int, _page: PageIndex) -> None:
        if (woken := self._asleep.pop(vcpu, None)) is not None:
            woken.set()

    def install(self, run: PieceRun) -> Installed:
        with self._lock:
            return super().install(run)

    def uffdio_wake(self, first: PageIndex, count: int) -> None:
        with self._lock:
            super().uffdio_wake(first, count)

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        with self._lock:
            return super().madvise_collapse(spans)


class ThreadAccelerator:
    """ports.Accelerator: each vCPU is a thread of this process."""

    def __init__(self, scenario: Scenario, clock: Clock, files: WorkloadFiles) -> None:
        self._scenario, self._clock, self._files = scenario, clock, files

    def create_vcpus(self, memory: GuestMemory, tracer: Tracer | None) -> ThreadVcpus:
        """See ports.Accelerator."""
        access = memory.access
        if self._scenario.guest.rate or not isinstance(access, BlockingMemory):
            raise InputError("threads run without a rate, over a memory in which they can sleep")
        pages = access.memory_bytes // access.geometry.page_bytes
        return ThreadVcpus(
            self._scenario, access, self._clock, workloads_of(self._scenario, pages, self._files), tracer
        )  # fmt: skip


class ThreadVcpus:
    """ports.Vcpus. What the threads share they touch under one lock; what they tell is told in the loop."""

    def __init__(
        self, scenario: Scenario, memory: BlockingMemory, clock: Clock, programs: Sequence[Workload],
        tracer: Tracer | None,
    ) -> None:  # fmt: skip
        vcpus = len(programs)
        self._accesses_max = scenario.guest.accesses_max
        self._memory, self._clock, self._programs, self._tracer = memory, clock, programs, tracer
        self._blocktime = Blocktime(vcpus) if vcpus else None
        self._stalls = Stalls(vcpus) if vcpus else None
        self._ledger = Ledger(scenario.limits.written_words_max)
        self._stamp_key = stamp_key(0)
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._sleeping: dict[int, threading.Event] = {}
        self._due_ns: list[int | None] = [0] * vcpus
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def restore(self, words: Iterable[Word], generation: int) -> None:
        """See ports.Vcpus."""
        self._ledger.restore(words)
        self._stamp_key = stamp_key(generation)

    def start(self) -> None:
        """See ports.Vcpus."""
        if self._blocktime is None:
            return
        now = self._clock.now_ns()
        self._blocktime.started(now)
        self._due_ns = [now] * len(self._programs)
        for vcpu, program in enumerate(self._programs):
            arguments = (vcpu, program, self._blocktime)
            self._threads.append(threading.Thread(target=self._guarded, args=arguments, name=f"vCPU {vcpu}"))
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """See ports.Vcpus."""
        if self._blocktime is None or self._stopping.is_set():
            return
        self._stopping.set()
        with self._lock:
            for woken in self._sleeping.values():  # as a signal interrupts a fault
                woken.set()
        await self._ended()
        if self._threads:
            self._blocktime.finish(self._clock.now_ns(), self._due_ns)

    async def join(self) -> None:
        """See ports.Vcpus."""
        await self._ended()
        for error in self._errors:
            raise error

    async def _ended(self) -> None:
        for thread in self._threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join)

    def statistics(self) -> GuestStatistics:
        """See ports.Vcpus."""
        blocktime, ledger = self._blocktime, self._ledger
        with self._lock:
            return GuestStatistics(
                blocktime=blocktime.statistics() if blocktime else NO_BLOCKTIME,
                latency_histogram=blocktime.latency.histogram() if blocktime else {},
                stalls=self._stalls.statistics() if self._stalls else NO_STALLS,
                reads=ledger.reads,
                writes=ledger.writes,
                unchecked=ledger.unrecorded,
                mistakes=ledger.mistakes,
                first_mistake=str(ledger.first_mistake or ""),
            )

    def words(self) -> Iterator[Word]:
        """See ports.Vcpus."""
        return self._ledger.words()

    # --- in the threads ---

    def _guarded(self, *arguments: Any) -> None:
        try:
            self._run(*arguments)
        except BaseException as error:
            self._errors.append(error)

    def _run(self, vcpu: int, program: Workload, blocktime: Blocktime) -> None:
        left = self._accesses_max or -1
        while left and not self._stopping.is_set():
            access = program.next_access()
            if access is None:
                break
            if not self._done(vcpu, access.page, access.write, left, blocktime):
                return
            left -= 1
        if not self._stopping.is_set():
            self._due_ns[vcpu] = None

    def _done(self, vcpu: int, page: PageIndex, write: bool, left: int, blocktime: Blocktime) -> bool:
        """Make an access, however often it faults; whether it was done before `stop`."""
        while True:
            with self._lock:
                stamp = None
                if write and self._ledger.may_write(vcpu, page):
                    stamp = (vcpu << 48 | left & 0xFFFF_FFFF_FFFF) ^ self._stamp_key
                found = self._memory.access(vcpu, page, vcpu % SLOTS * SLOT_BYTES, stamp)
                now = self._clock.now_ns()
                if isinstance(found, int):
                    self._ledger.accessed(vcpu, page, found, stamp)
                    if stamp is not None:
                        self._tell(now, Happening.WRITTEN, page, vcpu)
                    blocktime.progressed(vcpu, self._due_ns[vcpu] or 0, now)
                    self._due_ns[vcpu] = now
                    return True
                blocktime.faulted(vcpu, page, now)
                self._sleeping[vcpu] = found
                if self._stopping.is_set():
                    return False
            assert found.wait(_HANG_S), f"nobody has woken vCPU {vcpu}, which sleeps on page {page}"
            with self._lock:
                del self._sleeping[vcpu]
                if self._stopping.is_set():
                    return False
                blocktime.woken(vcpu, now := self._clock.now_ns())
                self._tell(now, Happening.WOKEN, page, vcpu)

    def _tell(self, now: int, happening: Happening, page: PageIndex, vcpu: int) -> None:
        if self._tracer is not None:
            event = Event(now, NODE, happening, page, None, None, vcpu)
            self._loop.call_soon_threadsafe(self._tracer.emit, event)

"""vCPUs as tasks of the service's own loop: the accelerator that needs nothing of the machine.

When an access is due, a vCPU touches its word of the page; where the page is not mapped it faults and waits until it is
woken, then tries again, as the hardware would. A vCPU that was stopped by a fault does not make up for lost accesses
afterwards: it goes on at its rate. It is late for one access at most, and that lateness, whatever caused it, is what
`Blocktime` counts as silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from contextvars import copy_context
from random import Random

from dest_node.core.effects import NODE
from dest_node.guest.ledger import SLOT_BYTES, SLOTS, Ledger
from migemu.errors import InputError
from migemu.guest.blocktime import NO_BLOCKTIME, Blocktime
from migemu.guest.stall import NO_STALLS, Stalls
from migemu.guest.workload import Workload, WorkloadContext, WorkloadFiles, workloads
from migemu.mm.pages import PageIndex
from migemu.ports import THREAD, Clock, GuestAccess, GuestMemory, GuestStatistics, Stalled, Tracer, Word
from migemu.scenario.scenario import Scenario
from migemu.trace.events import Event, Happening
from migemu.units import MS, SECOND, US

#: A vCPU gives the loop a turn after this many accesses, however far behind it is; and all vCPUs together take no more
#: than this time for one, or what comes from the source would wait for them (time that does not pass in virtual time).
_ACCESSES_PER_TURN = 32
_TURN_NS = 500 * US
#: How far behind its rate a vCPU may fall for other reasons than faults and still catch up (timers are coarse).
_CATCH_UP_NS = 10 * MS

#: Mixed into every stamp, so that it cannot be taken for a small number of the image.
_STAMP_KEY = 0x5A5A_0000_0000_0000
#: Above the count of 2^40 accesses (guest.accesses_max), below the vCPU's number.
_GENERATION_BIT = 40


def workloads_of(scenario: Scenario, memory_pages: int, files: WorkloadFiles) -> list[Workload]:
    """A workload for each vCPU of `scenario.guest`, over a memory of `memory_pages` base pages.

    InputError when the workload refuses this memory, or a file that it names.
    """
    settings, seed = scenario.guest, scenario.scenario.seed
    try:
        return [
            workloads.create(
                settings.workload,
                WorkloadContext(
                    memory_pages, vcpu, settings.vcpus, Random(f"{seed} vcpu {vcpu}"), settings.write_share, files
                ),
            )
            for vcpu in range(settings.vcpus)
        ]
    except (ValueError, OSError) as error:
        raise InputError(f"guest.workload={settings.workload}: {error}") from None


def stamp_key(generation: int) -> int:
    """What the vCPUs of the `generation`-th start of a guest (0: the first) mix into every word that they write."""
    return _STAMP_KEY ^ (generation & 0xFF) << _GENERATION_BIT


class TaskAccelerator:
    """ports.Accelerator: the vCPUs are tasks of the running loop."""

    def __init__(self, scenario: Scenario, clock: Clock, files: WorkloadFiles) -> None:
        """`files` opens what `guest.workload` names."""
        self._scenario = scenario
        self._clock = clock
        self._files = files

    def create_vcpus(self, memory: GuestMemory, tracer: Tracer | None) -> TaskVcpus:
        """See ports.Accelerator."""
        access = memory.access
        pages = access.memory_bytes // access.geometry.page_bytes
        return TaskVcpus(self._scenario, access, self._clock, workloads_of(self._scenario, pages, self._files), tracer)

    def __repr__(self) -> str:
        return f"<TaskAccelerator for {self._scenario.guest.vcpus} vCPUs>"


class TaskVcpus:
    """ports.Vcpus: each vCPU is a task that runs its workload over `memory`."""

    def __init__(
        self, scenario: Scenario, memory: GuestAccess, clock: Clock, programs: list[Workload],
        tracer: Tracer | None = None,
    ) -> None:  # fmt: skip
        """`programs` holds a workload for each vCPU of `scenario.guest`; none runs before `start`."""
        self.settings = scenario.guest
        #: What the guest has read and written here, for the comparison at the end.
        self.ledger = Ledger(scenario.limits.written_words_max)
        self._blocktime = Blocktime(self.settings.vcpus) if self.settings.vcpus else None
        self._stalls = Stalls(self.settings.vcpus) if self.settings.vcpus else None
        self._memory = memory
        self._clock = clock
        self._tracer = tracer
        self._due_ns: list[int | None] = [0] * self.settings.vcpus
        self._stopped = False
        self._stamp_key = stamp_key(0)
        self._tasks: list[asyncio.Task[None]] = []
        self._programs = programs

    def restore(self, words: Iterable[Word], generation: int) -> None:
        """See ports.Vcpus."""
        self.ledger.restore(words)
        self._stamp_key = stamp_key(generation)

    def start(self) -> None:
        """See ports.Vcpus."""
        loop = asyncio.get_running_loop()
        if self._blocktime is None:
            return
        now = self._clock.now_ns()
        self._blocktime.started(now)
        self._due_ns = [now] * self.settings.vcpus
        for vcpu, workload in enumerate(self._programs):
            context = copy_context()
            context.run(THREAD.set, f"vCPU {vcpu}")
            vcpu_task = self._vcpu(vcpu, workload, self._blocktime)
            self._tasks.append(loop.create_task(vcpu_task, name=f"vCPU {vcpu}", context=context))

    async def stop(self) -> None:
        """See ports.Vcpus."""
        if self._stopped or self._blocktime is None or not self._tasks:
            return
        self._stopped = True
        now = self._clock.now_ns()
        self._blocktime.finish(now, self._due_ns)
        if self._stalls is not None:
            self._stalls.finish(now)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # what one of them raised is for `join`

    async def join(self) -> None:
        """See ports.Vcpus."""
        for task in self._tasks:
            if not task.done():
                await asyncio.gather(asyncio.shield(task), return_exceptions=True)
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def statistics(self) -> GuestStatistics:
        """See ports.Vcpus."""
        blocktime, ledger = self._blocktime, self.ledger
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
        return self.ledger.words()

    async def _vcpu(self, vcpu: int, workload: Workload, blocktime: Blocktime) -> None:
        clock, due = self._clock, self._due_ns
        interval_ns = SECOND // self.settings.rate if self.settings.rate else 0
        tick_ns = self.settings.tick
        remaining = self.settings.accesses_max or -1
        due_ns = due[vcpu] or 0
        turn_ns, in_turn = _TURN_NS // self.settings.vcpus, 0
        touch, ledger, tracer = self._memory.touch, self.ledger, self._tracer
        offset = vcpu % SLOTS * SLOT_BYTES
        now = began_ns = clock.now_ns()
        while remaining:
            if due_ns > now:
                await clock.sleep_until(max(due_ns, now + tick_ns))
                now = began_ns = clock.now_ns()
                in_turn = 0
                continue
            access = workload.next_access()
            if access is None:
                break
            page, write = access
            stamp = None
            if write and ledger.may_write(vcpu, page):
                stamp = (vcpu << 48 | remaining & 0xFFFF_FFFF_FFFF) ^ self._stamp_key
            blocked = False
            found = touch(vcpu, page, offset, stamp)
            while not isinstance(found, int):
                blocked |= await self._wait(vcpu, page, now, found, blocktime)
                now = began_ns = clock.now_ns()
                if stamp is not None and not ledger.may_write(vcpu, page):
                    stamp = None  # others have written meanwhile, and that was all there may be
                found = touch(vcpu, page, offset, stamp)
            ledger.accessed(vcpu, page, found, stamp)
            now = clock.now_ns()
            if stamp is not None and tracer is not None:
                tracer.emit(Event(now, NODE, Happening.WRITTEN, page, None, None, vcpu))
            remaining -= 1
            blocktime.progressed(vcpu, due_ns, now)
            due_ns = now + interval_ns if blocked else due_ns + interval_ns
            if due_ns < now - _CATCH_UP_NS:
                due_ns = now - _CATCH_UP_NS
            due[vcpu] = due_ns
            in_turn += 1
            if in_turn >= _ACCESSES_PER_TURN or now - began_ns > turn_ns:
                await asyncio.sleep(0)
                now = began_ns = clock.now_ns()
                in_turn = 0
        due[vcpu] = None

    async def _wait(
        self, vcpu: int, page: PageIndex, now: int, cause: Stalled | Awaitable[None], blocktime: Blocktime
    ) -> bool:
        """Wait for what keeps an access, tried at `now`, from being done; whether that was a fault."""
        if isinstance(cause, Stalled):
            await self._stall(vcpu, now, cause.until_ns)
            return False
        blocktime.faulted(vcpu, page, now)
        await cause
        now = self._clock.now_ns()
        blocktime.woken(vcpu, now)
        if self._tracer is not None:
            self._tracer.emit(Event(now, NODE, Happening.WOKEN, page, None, None, vcpu))
        return True

    async def _stall(self, vcpu: int, now: int, until_ns: int) -> None:
        """Wait for a collapse."""
        assert self._stalls is not None
        self._stalls.began(vcpu, now)
        await self._clock.sleep_until(until_ns)
        self._stalls.ended(vcpu, self._clock.now_ns())

    def __repr__(self) -> str:
        return f"<TaskVcpus, {self.settings.vcpus} of them, {self.ledger!r}>"

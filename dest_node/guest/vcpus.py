"""The guest: vCPUs that run a workload over the migrated memory, stall on faults, check what they read.

A vCPU is a task. When an access is due it touches its word of the page; where the page is not mapped it faults and
waits until it is woken, then tries again, as the hardware would. A vCPU that was stopped by a fault does not make up
for lost accesses afterwards: it goes on at its rate. It is late for one access at most, and that lateness, whatever
caused it, is what `Blocktime` keeps as silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from random import Random

from dest_node.core.effects import NODE
from dest_node.guest.ledger import SLOT_BYTES, SLOTS, Ledger
from migemu.guest.blocktime import Blocktime
from migemu.guest.recording import Recorded
from migemu.guest.stall import Stalls
from migemu.guest.workload import Workload, WorkloadContext, workloads
from migemu.mm.pages import PageIndex
from migemu.ports import THREAD, Clock, GuestAccess, Stalled, Tracer, Word
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
_LIFE_BIT = 40


class Guest:
    """All vCPUs of one guest."""

    def __init__(
        self, scenario: Scenario, memory: GuestAccess, clock: Clock, read_text: Callable[[str], str],
        tracer: Tracer | None = None, recorded: Recorded | None = None,
    ) -> None:  # fmt: skip
        """`read_text` and `recorded` open what a workload names; ValueError when the workload refuses it."""
        self.settings = scenario.guest
        self.blocktime = Blocktime(self.settings.vcpus) if self.settings.vcpus else None
        #: What collapses make vCPUs wait, where the memory models that.
        self.stalls = Stalls(self.settings.vcpus) if self.settings.vcpus else None
        self.ledger = Ledger(scenario.limits.written_words_max)
        self._memory = memory
        self._clock = clock
        self._tracer = tracer
        self._due_ns: list[int | None] = [0] * self.settings.vcpus
        self._stopped = False
        self._stamp_key = _STAMP_KEY
        self._tasks: list[asyncio.Task[None]] = []
        pages = memory.memory_bytes // memory.geometry.page_bytes
        seed = scenario.scenario.seed
        self._workloads: list[Workload] = [
            workloads.create(
                self.settings.workload,
                WorkloadContext(
                    pages,
                    vcpu,
                    self.settings.vcpus,
                    Random(f"{seed} vcpu {vcpu}"),
                    self.settings.write_share,
                    read_text,
                    recorded,
                ),
            )
            for vcpu in range(self.settings.vcpus)
        ]

    def restore(self, words: Iterable[Word], life: int) -> None:
        """The guest had lived before, and left `words`; before `start`. What it writes from now on is of `life`."""
        self.ledger.restore((word.page, word.offset // SLOT_BYTES, word.original, word.current) for word in words)
        self._stamp_key = _STAMP_KEY ^ (life & 0xFF) << _LIFE_BIT

    def start(self) -> None:
        """The guest runs from now on."""
        loop = asyncio.get_running_loop()
        if self.blocktime is None:
            return
        now = self._clock.now_ns()
        self.blocktime.started(now)
        self._due_ns = [now] * self.settings.vcpus
        for vcpu, workload in enumerate(self._workloads):
            context = copy_context()
            context.run(THREAD.set, f"vCPU {vcpu}")
            vcpu_task = self._vcpu(vcpu, workload, self.blocktime)
            self._tasks.append(loop.create_task(vcpu_task, name=f"vCPU {vcpu}", context=context))

    async def stop(self) -> None:
        """Stop every vCPU between two accesses, or where it sleeps on a fault."""
        if self._stopped or self.blocktime is None or not self._tasks:
            return
        self._stopped = True
        now = self._clock.now_ns()
        self.blocktime.finish(now, self._due_ns)
        if self.stalls is not None:
            self.stalls.finish(now)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # what they died of is told by `error`

    @property
    def error(self) -> BaseException | None:
        """What a vCPU's task died of; a bug of ours."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    async def _vcpu(self, vcpu: int, workload: Workload, blocktime: Blocktime) -> None:
        clock, due = self._clock, self._due_ns
        interval_ns = SECOND // self.settings.rate if self.settings.rate else 0
        tick_ns = self.settings.tick
        left = self.settings.accesses_max or -1
        due_ns = due[vcpu] or 0
        turn_ns, in_turn = _TURN_NS // self.settings.vcpus, 0
        touch, ledger, tracer = self._memory.touch, self.ledger, self._tracer
        offset = vcpu % SLOTS * SLOT_BYTES
        now = began_ns = clock.now_ns()
        while left:
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
                stamp = (vcpu << 48 | left & 0xFFFF_FFFF_FFFF) ^ self._stamp_key
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
            left -= 1
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
        assert self.stalls is not None
        self.stalls.began(vcpu, now)
        await self._clock.sleep_until(until_ns)
        self.stalls.ended(vcpu, self._clock.now_ns())

    def __repr__(self) -> str:
        return f"<Guest of {self.settings.vcpus} vCPUs, {self.ledger!r}>"

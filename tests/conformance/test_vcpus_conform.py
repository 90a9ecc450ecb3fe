"""Vcpus: whatever a vCPU is, it runs between start and stop, sleeps in faults, and gives account of what it did.

The suite runs over tasks of the loop, which the destination has, and over threads that sleep in a fault, which no loop
knows of. Another kind is one more in `vcpu_kinds`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dest_node.guest.ledger import SLOT_BYTES
from migemu.guest.blocktime import NO_BLOCKTIME
from migemu.guest.stall import NO_STALLS
from migemu.guest.workload import NO_FILES
from migemu.mm.pages import TINY, Level, PageIndex, PieceRun
from migemu.ports import GuestMemory, GuestStatistics, MinorFault, Word
from migemu.scenario.scenario import load
from migemu.store.mapped import MappedMemory
from migemu.trace.events import Happening
from migemu.trace.recorder import MemoryRecorder
from migemu.transport.clock import MonotonicClock
from tests.conformance.guest import turns
from tests.conformance.stores import Noise
from tests.conformance.vcpu_kinds import KINDS, Kind

PAGES = 2 * TINY.pages(Level.PUD)
HALF = PAGES // 2
SIZE = PAGES * TINY.page_bytes
#: A test that takes longer hangs.
HANG_S = 20
_Test = Callable[..., Coroutine[Any, Any, None]]


def every_kind(test: _Test) -> Callable[..., None]:
    """Make of `async def test(kind, ...)` a test that runs over each of `KINDS`."""

    @functools.wraps(test)
    def run(kind: Kind, **arguments: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(HANG_S):
                await test(kind, **arguments)

        asyncio.run(bounded())

    return pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])(run)


class Machine:
    """ports.FaultHandler of a guest under test: a page comes when a test, or `resolves`, says so."""

    def __init__(self, kind: Kind, *settings: str, memory: type[MappedMemory] | None = None) -> None:
        scenario = load(None, ["memory.geometry=tiny", "guest.rate=0", "guest.workload=sequential", *settings])
        self.image = Noise(TINY, SIZE)
        self.memory = (memory or kind.memory)(TINY, SIZE, bytearray(SIZE))
        self.memory.register(self)
        self.recorder = MemoryRecorder()
        accelerator = kind.accelerator(scenario, MonotonicClock(), NO_FILES)
        self.vcpus = accelerator.create_vcpus(GuestMemory.of(self.memory), self.recorder)
        self.faults: list[MinorFault] = []
        #: The vCPUs whose faults are resolved at once.
        self.resolves: set[int] = set()
        self._news = asyncio.Event()

    def fault_raised(self, fault: MinorFault) -> None: ...

    def fault_read(self, fault: MinorFault) -> None:
        self.faults.append(fault)
        self._news.set()
        if fault.vcpu in self.resolves:
            self.bring(fault.page)

    def bring(self, page: PageIndex) -> None:
        """A page arrives, and is mapped."""
        self.image.land(self.memory, page, 1)
        self.memory.install(PieceRun(page, 1, Level.PTE))

    async def until(self, faults: int) -> list[MinorFault]:
        """The faults whose events have been read, as soon as there are so many."""
        while len(self.faults) < faults:
            self._news.clear()
            await self._news.wait()
        return self.faults

    async def run(self) -> GuestStatistics:
        """All vCPUs to the end of their workloads, with each page brought as it is asked for."""
        self.resolves = set(range(64))
        self.vcpus.start()
        await self.vcpus.join()
        await self.vcpus.stop()
        return self.vcpus.statistics()

    def holds(self, word: Word) -> int:
        """What the memory has where the word is."""
        _, (found,) = self.memory.digests(word.page, 1, [word])
        return found


def accesses(statistics: GuestStatistics) -> list[int]:
    """Of each vCPU, those that were completed."""
    assert statistics.blocktime is not None
    return [each.accesses for each in statistics.blocktime.vcpus]


@every_kind
async def test_nothing_is_accessed_before_the_start(kind: Kind) -> None:
    machine = Machine(kind, "guest.vcpus=2")
    await turns()
    assert machine.faults == []
    await machine.vcpus.stop()
    await machine.vcpus.join()
    statistics = machine.vcpus.statistics()
    assert (statistics.reads, statistics.writes, accesses(statistics)) == (0, 0, [0, 0])
    assert list(machine.vcpus.words()) == []


@every_kind
async def test_each_vcpu_sleeps_in_its_first_fault(kind: Kind) -> None:
    machine = Machine(kind, "guest.vcpus=2", "guest.write_share=1")
    machine.vcpus.start()
    assert sorted(await machine.until(2)) == [(0, 0, True), (1, HALF, True)]
    await turns()
    assert len(machine.faults) == 2
    await machine.vcpus.stop()
    blocktime = machine.vcpus.statistics().blocktime
    assert blocktime is not None
    assert sorted((fault.vcpu, fault.page) for fault in blocktime.open_faults) == [(0, 0), (1, HALF)]
    assert blocktime.faults == 0
    assert blocktime.blocktime_ns > blocktime.overlapped_blocktime_ns > 0, "up to the stop, of both, and together"
    assert accesses(machine.vcpus.statistics()) == [0, 0]
    assert machine.holds(Word(0, 0, 0, 0)) == 0, "a write that has not been done is not there"


@every_kind
async def test_one_that_is_woken_goes_on_to_its_next_page(kind: Kind) -> None:
    machine = Machine(kind, "guest.vcpus=1", "guest.write_share=0")
    machine.vcpus.start()
    for page in range(5):
        assert (await machine.until(page + 1))[page] == (0, page, False)
        machine.bring(page)
    await machine.until(6)
    await machine.vcpus.stop()
    assert accesses(machine.vcpus.statistics()) == [5]
    expected = [Word(page, 0, word, word) for page in range(5) for word in [machine.image.word(page, 0)]]
    assert list(machine.vcpus.words()) == expected


@every_kind
async def test_one_that_sleeps_holds_up_no_other(kind: Kind) -> None:
    """The second one goes through its whole share while the first one sleeps in its first fault."""
    machine = Machine(kind, "guest.vcpus=2", f"guest.accesses_max={HALF}")
    machine.resolves = {1}
    machine.vcpus.start()
    faults = await machine.until(1 + HALF)
    assert [fault.page for fault in faults if fault.vcpu == 0] == [0]
    assert [fault.page for fault in faults if fault.vcpu == 1] == list(range(HALF, PAGES))
    machine.resolves = {0, 1}
    machine.bring(0)
    await machine.vcpus.join()
    assert accesses(machine.vcpus.statistics()) == [HALF, HALF]


@every_kind
async def test_a_wake_without_a_mapping_makes_it_fault_again(kind: Kind) -> None:
    machine = Machine(kind, "guest.vcpus=1", "guest.write_share=1")
    machine.vcpus.start()
    for number in range(1, 4):
        assert await machine.until(number) == [(0, 0, True)] * number
        machine.memory.uffdio_wake(0, PAGES)
    await machine.until(4)
    await machine.vcpus.stop()
    assert machine.vcpus.statistics().writes == 0


@every_kind
async def test_all_that_was_accessed_is_accounted_for(kind: Kind) -> None:
    """Four vCPUs, two rounds: each page faults once, and every word is in the memory as the vCPUs say."""
    machine = Machine(kind, "guest.vcpus=4", "guest.accesses_max=16", "guest.write_share=0.5")
    statistics = await machine.run()
    assert accesses(statistics) == [16] * 4
    assert statistics.reads + statistics.writes == 64
    assert statistics.writes > 0
    assert (statistics.unchecked, statistics.mistakes, statistics.first_mistake) == (0, 0, "")
    assert statistics.blocktime is not None
    assert statistics.blocktime.faults == sum(statistics.latency_histogram.values()) == PAGES
    assert statistics.blocktime.open_faults == ()
    words = list(machine.vcpus.words())
    assert [word.page for word in words] == list(range(PAGES))
    for word in words:
        assert word.offset == word.page // (PAGES // 4) * SLOT_BYTES, "each vCPU has a word of its own in a page"
        assert word.original == machine.image.word(word.page, word.offset)
        assert machine.holds(word) == word.current


@every_kind
async def test_what_vcpus_do_is_traced(kind: Kind) -> None:
    machine = Machine(kind, "guest.vcpus=2", "guest.accesses_max=20", "guest.write_share=0.5")
    statistics = await machine.run()
    await turns()
    happened = [event.event for event in machine.recorder.events]
    assert happened.count(Happening.WRITTEN) == statistics.writes
    assert happened.count(Happening.WOKEN) == PAGES
    assert len(happened) == statistics.writes + PAGES
    for vcpu in range(2):
        times = [event.t for event in machine.recorder.events if event.vcpu == vcpu]
        assert times == sorted(times)


@every_kind
async def test_after_stop_nothing_is_accessed(kind: Kind) -> None:
    """Whatever is mapped, and whoever is woken then. To stop again, or to join, changes nothing."""
    machine = Machine(kind, "guest.vcpus=2", "guest.write_share=1")
    machine.resolves = {0}
    machine.vcpus.start()
    await machine.until(5)
    await machine.vcpus.stop()
    before, faults = machine.vcpus.statistics(), list(machine.faults)
    for page in range(PAGES):
        machine.bring(page)
    machine.memory.uffdio_wake(0, PAGES)
    await turns()
    await machine.vcpus.stop()
    await machine.vcpus.join()
    assert machine.vcpus.statistics() == before
    assert machine.faults == faults
    assert machine.holds(Word(HALF, SLOT_BYTES, 0, 0)) == machine.image.word(HALF, SLOT_BYTES)


@every_kind
async def test_join_raises_what_an_access_has_raised(kind: Kind) -> None:
    """And `stop` does not: who stops a guest may have another error to tell of."""

    class Failing(kind.memory):  # type: ignore[name-defined,misc]
        def _access(self, page: PageIndex, offset: int, stamp: int | None) -> int:
            if page == 3:
                raise OSError(14, "bad address")
            return int(super()._access(page, offset, stamp))

    machine = Machine(kind, "guest.vcpus=1", memory=Failing)
    machine.resolves = {0}
    machine.vcpus.start()
    with pytest.raises(OSError, match="bad address"):
        await machine.vcpus.join()
    await machine.vcpus.stop()
    assert accesses(machine.vcpus.statistics()) == [3]


@every_kind
async def test_a_guest_that_comes_back_has_its_words(kind: Kind) -> None:
    """Those of an earlier destination, where the guest does not go again too; each generation has stamps of its own."""
    settings = ("guest.vcpus=1", "guest.accesses_max=4", "guest.write_share=1")
    first = Machine(kind, *settings)
    await first.run()
    earlier = [*first.vcpus.words(), Word(9, SLOT_BYTES, 1, 2)]
    second = Machine(kind, *settings)
    second.vcpus.restore(earlier, 1)
    for page, offset, _, current in earlier:
        second.bring(page)
        second.memory.landing(page, 1)[offset : offset + 8] = current.to_bytes(8, "little")
    statistics = await second.run()
    assert (statistics.writes, statistics.mistakes) == (4, 0)
    words = list(second.vcpus.words())
    assert words[-1] == earlier[-1]
    assert [word.original for word in words] == [word.original for word in earlier]
    assert not {word.current for word in words[:-1]} & {word.current for word in earlier}


@every_kind
async def test_a_word_that_changes_by_itself_is_a_mistake(kind: Kind) -> None:
    """A late piece over what the guest has written: the next access finds it."""
    machine = Machine(kind, "guest.vcpus=1", f"guest.accesses_max={PAGES + 1}", "guest.write_share=1")
    machine.vcpus.start()
    for page in range(PAGES):
        await machine.until(page + 1)
        if page == 1:
            machine.image.land(machine.memory, 0, 1)
        machine.bring(page)
    await machine.vcpus.join()
    statistics = machine.vcpus.statistics()
    assert statistics.mistakes == 1
    assert statistics.first_mistake.startswith("vCPU 0 found 0x")
    assert "in base page 0 instead of" in statistics.first_mistake


@every_kind
async def test_what_may_be_written_is_bounded(kind: Kind) -> None:
    """Whether the pages are mapped before, or faulted in: what is not written is read, and goes unchecked."""
    for mapped_before in (True, False):
        machine = Machine(
            kind, "guest.vcpus=2", "guest.accesses_max=16", "guest.write_share=1", "limits.written_words_max=5"
        )  # fmt: skip
        for page in range(PAGES if mapped_before else 0):
            machine.bring(page)
        statistics = await machine.run()
        assert len(machine.faults) == (0 if mapped_before else PAGES)
        assert statistics.writes == 5
        assert statistics.reads == statistics.unchecked == 27
        assert len(list(machine.vcpus.words())) == 5


@every_kind
async def test_what_may_be_written_is_bounded_for_those_that_sleep_too(kind: Kind) -> None:
    """Both fall asleep while there is room for one word; the second to wake finds none."""
    settings = ("guest.vcpus=2", "guest.accesses_max=1", "guest.write_share=1", "limits.written_words_max=1")
    machine = Machine(kind, *settings)
    machine.vcpus.start()
    await machine.until(2)
    machine.bring(0)
    machine.bring(HALF)
    await machine.vcpus.join()
    statistics = machine.vcpus.statistics()
    assert (statistics.writes, statistics.reads, statistics.unchecked) == (1, 1, 1)


@every_kind
async def test_a_guest_without_vcpus_is_stopped_as_any_other(kind: Kind) -> None:
    machine = Machine(kind, "guest.vcpus=0")
    statistics = await machine.run()
    assert statistics == GuestStatistics(NO_BLOCKTIME, {}, NO_STALLS, 0, 0, 0, 0, "")
    assert machine.faults == []

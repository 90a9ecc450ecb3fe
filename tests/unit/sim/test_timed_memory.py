"""The guest's memory in virtual time, against nanoseconds worked out by hand.

Prices here: receiving a base page 4, an event to its handler 100, UFFDIO_CONTINUE 50 and 3 for each further entry, a
wake-up 20, UFFDIO_WAKE 5. A collapse of a 2M of TINY, which is 4 base pages: system call 5, lock 10, notifier 40, five
entries 15, a table freed 11; 81 in all, of which it holds who faults for 66, and who touches the range for 55.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from migemu.costs.collapse_cost import CostModel
from migemu.costs.fault_cost import FaultCosts
from migemu.mm.pages import TINY, Level, PageIndex, PieceRun, Span
from migemu.ports import THREAD, Installed, MinorFault, Stalled
from migemu.sim.contents import Contents, ModelledSource
from migemu.sim.loop import VirtualLoop
from migemu.sim.processor import PROCESSOR, Processor
from migemu.sim.timed_memory import MemoryCosts, TimedMemory
from migemu.sim.virtual_clock import VirtualClock

T = TypeVar("T")

PAGES = 2 * TINY.pages(Level.PUD)
SIZE = PAGES * TINY.page_bytes
COSTS = MemoryCosts(
    FaultCosts("same_core", event_ns=100, continue_ns=50, wake_ns=20),
    CostModel(
        geometry=TINY, entry_ns=3, line_ns=0, own_line_ns=0, free_ns=11, flush_ns=0, interrupt_ns=0, notifier_ns=40,
        spte_ns=0, lock_ns=10, syscall_ns=5,
    ),
    receive_ns_per_kib=1,
)  # fmt: skip
COLLAPSE, HELD_FAULT, HELD_TOUCH = 81, 66, 55
PMD = TINY.pages(Level.PMD)


class Played:
    """A memory, its service, and the diary of its vCPUs: (vCPU, what, when)."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.processor = Processor("destination")
        self.context = copy_context()
        self.context.run(PROCESSOR.set, self.processor)
        self.source = ModelledSource(TINY, SIZE, 1, zero_share=0.0)
        self.memory = self.context.run(
            TimedMemory, TINY, SIZE, self.source.content, loop, self.processor, COSTS
        )  # fmt: skip
        self.diary: list[tuple[int, str, int]] = []
        self.clock = VirtualClock(loop)
        self.memory.register(self)

    def fault_raised(self, fault: MinorFault) -> None:
        self.diary.append((fault.vcpu, "sleeps", self.clock.now_ns()))

    def fault_read(self, fault: MinorFault) -> None:
        self.diary.append((fault.vcpu, "is read", self.clock.now_ns()))

    # --- the service ---

    async def at(self, when_ns: int, work: Callable[..., T], *arguments: Any) -> T:
        """The service does `work` at `when_ns`, or when it is free; what comes out, with the time when it is done."""

        async def do() -> T:
            await self.clock.sleep_until(when_ns)
            return work(*arguments)

        return await self.loop.create_task(do(), context=self.context.copy())

    def map(self, first: PageIndex, count: int = 1, level: Level = Level.PTE) -> Installed:
        return self.memory.install(PieceRun(first, count, level))

    def collapse(self, first: PageIndex, level: Level = Level.PMD) -> Any:
        return self.memory.madvise_collapse([Span(first, level)])

    # --- vCPUs ---

    def vcpu(self, vcpu: int, when_ns: int, page: PageIndex, stamp: int | None = None) -> asyncio.Task[None]:
        """It touches `page` at `when_ns`, until it gets it."""

        async def run() -> None:
            await self.clock.sleep_until(when_ns)
            while not isinstance(got := self.memory.touch(vcpu, page, 0, stamp), int):
                if isinstance(got, Stalled):
                    self.diary.append((vcpu, "stalls", self.clock.now_ns()))
                    await self.clock.sleep_until(got.until_ns)
                else:
                    await got
                    self.diary.append((vcpu, "wakes", self.clock.now_ns()))
            self.diary.append((vcpu, "has it", self.clock.now_ns()))

        context = Context()
        context.run(PROCESSOR.set, self.processor)
        context.run(THREAD.set, f"vCPU {vcpu}")
        return self.loop.create_task(run(), context=context)


def play(test: Callable[[Played], Coroutine[Any, Any, None]]) -> list[tuple[int, str, int]]:
    """Run `test`; the diary in the order of time, of equal times in the order of the vCPUs."""
    loop = VirtualLoop()
    played: list[Played] = []

    async def main() -> None:
        played.append(Played(loop))
        await test(played[0])

    loop.run(main())
    return sorted(played[0].diary, key=lambda entry: (entry[2], entry[0]))


# --- what the service does takes time ---


def test_receiving_mapping_and_waking_are_charged_to_the_service() -> None:
    async def test(played: Played) -> None:
        free = lambda: played.processor.free_ns  # noqa: E731
        contents = Contents(0, 4, TINY.page_bytes)
        await played.at(1000, lambda: played.memory.landing(0, 4).take(contents, 0))
        assert free() == 1000 + 4 * 4
        assert await played.at(2000, played.map, 0, 4) == Installed(4, 0)
        assert free() == 2000 + 50 + 3 * 3
        await played.at(3000, played.map, 8, 2, Level.PMD)
        assert free() == 3000 + 50 + 3
        await played.at(4000, played.memory.uffdio_wake, 0, 4)
        assert free() == 4000 + 5
        await played.at(5000, played.collapse, 0)
        assert free() == 5000 + COLLAPSE
        assert played.processor.busy_ns == 16 + 59 + 53 + 5 + COLLAPSE

    play(test)


def test_a_collapse_that_is_refused_takes_its_call_its_lock_and_its_notifier() -> None:
    """It is refused when it looks at the first entry."""

    async def test(played: Played) -> None:
        await played.at(1000, played.map, 0, 1, Level.PMD)
        await played.at(2000, played.collapse, 0, Level.PUD)
        busy_ns = played.processor.busy_ns
        assert (await played.at(3000, played.collapse, 4)).errno == errno.EEXIST
        assert played.processor.busy_ns == busy_ns + 5 + 10 + 40

    play(test)


# --- faults ---


def test_a_fault_is_read_when_the_event_has_reached_the_handler_and_its_vcpu_wakes_when_it_is_mapped() -> None:
    async def test(played: Played) -> None:
        vcpu = played.vcpu(0, 1000, 3)
        await played.at(2000, played.map, 3)
        await vcpu

    assert play(test) == [(0, "sleeps", 1000), (0, "is read", 1100), (0, "wakes", 2070), (0, "has it", 2070)]


def test_a_busy_handler_reads_an_event_late() -> None:
    async def test(played: Played) -> None:
        vcpu = played.vcpu(0, 1000, 3)
        await played.at(1050, played.processor.charge, 1050, 400)
        await played.at(2000, played.map, 3)
        await vcpu

    assert play(test)[1] == (0, "is read", 1450)


def test_the_event_of_a_vcpu_that_was_woken_before_it_was_read_is_never_read() -> None:
    async def test(played: Played) -> None:
        vcpu = played.vcpu(0, 1000, 3)
        await played.at(1050, played.map, 3)
        await vcpu

    assert play(test) == [(0, "sleeps", 1000), (0, "wakes", 1120), (0, "has it", 1120)]


def test_a_handler_that_reads_one_event_reads_all_that_wait() -> None:
    async def test(played: Played) -> None:
        vcpus = [played.vcpu(0, 1000, 3), played.vcpu(1, 1099, 5), played.vcpu(2, 1101, 6)]
        await played.at(2000, played.map, 3, 5)
        await asyncio.gather(*vcpus)

    assert [entry for entry in play(test) if entry[1] == "is read"] == [
        (0, "is read", 1100), (1, "is read", 1100), (2, "is read", 1201),
    ]  # fmt: skip


def test_every_sleeper_of_a_run_wakes_when_the_whole_run_is_mapped() -> None:
    async def test(played: Played) -> None:
        vcpus = [played.vcpu(vcpu, 1000, 4 + vcpu) for vcpu in range(3)]
        await played.at(1500, played.map, 4, 4)
        await asyncio.gather(*vcpus)

    assert [entry for entry in play(test) if entry[1] == "wakes"] == [
        (vcpu, "wakes", 1500 + 50 + 3 * 3 + 20) for vcpu in range(3)
    ]


def test_a_wake_lets_a_vcpu_look_again_when_the_service_has_got_to_it() -> None:
    """The service is busy until 1230; the system call takes 5, the vCPU notices 20 later, and faults again."""

    async def test(played: Played) -> None:
        vcpu = played.vcpu(0, 1000, 3)
        await played.at(1200, played.processor.charge, 1200, 30)
        await played.at(1200, played.memory.uffdio_wake, 3, 1)
        await played.at(2000, played.map, 3)
        await vcpu

    assert play(test) == [
        (0, "sleeps", 1000), (0, "is read", 1100), (0, "wakes", 1255), (0, "sleeps", 1255), (0, "is read", 1355),
        (0, "wakes", 2070), (0, "has it", 2070),
    ]  # fmt: skip


# --- pages that are about to appear ---


def test_who_comes_while_the_service_maps_sleeps_until_it_has_and_nobody_reads_of_it() -> None:
    """A run of 3 from 1000 on: there at 1056. Before it a fault, which ends 20 after it; from then on none."""

    async def test(played: Played) -> None:
        vcpus = [played.vcpu(0, 1010, 4), played.vcpu(1, 1055, 6, stamp=7), played.vcpu(2, 1056, 5)]
        await played.at(1000, played.map, 4, 3)
        await asyncio.gather(*vcpus)

    assert play(test) == [
        (0, "sleeps", 1010), (1, "sleeps", 1055), (2, "has it", 1056), (0, "wakes", 1076), (0, "has it", 1076),
        (1, "wakes", 1076), (1, "has it", 1076),
    ]  # fmt: skip


def test_neighbours_of_what_is_about_to_appear_fault_as_ever_and_what_was_there_is_there() -> None:
    async def test(played: Played) -> None:
        await played.at(500, played.map, 3)
        vcpus = [played.vcpu(0, 1010, 3), played.vcpu(1, 1010, 7)]
        await played.at(1000, played.map, 4, 3)
        await played.at(2000, played.map, 7)
        await asyncio.gather(*vcpus)

    assert play(test) == [
        (0, "has it", 1010), (1, "sleeps", 1010), (1, "is read", 1110), (1, "wakes", 2070), (1, "has it", 2070),
    ]  # fmt: skip


def test_what_is_mapped_behind_other_work_appears_when_that_and_it_are_done() -> None:
    """Two runs in one go: the first is there at 1050, the second at 1100."""

    async def test(played: Played) -> None:
        vcpus = [played.vcpu(0, 1049, 4), played.vcpu(1, 1050, 4), played.vcpu(2, 1050, 9), played.vcpu(3, 1100, 9)]
        await played.at(1000, lambda: (played.map(4), played.map(9)))
        await asyncio.gather(*vcpus)

    assert play(test) == [
        (0, "sleeps", 1049), (1, "has it", 1050), (2, "sleeps", 1050), (0, "wakes", 1070), (0, "has it", 1070),
        (3, "has it", 1100), (2, "wakes", 1120), (2, "has it", 1120),
    ]  # fmt: skip


# --- collapses ---


async def four_mapped(played: Played) -> None:
    await played.at(100, played.map, 0, 8)


def test_a_collapse_holds_who_touches_its_range_and_who_faults_anywhere_each_for_its_own_time() -> None:
    """From 1000 on: the range until 1055, faults until 1066. Neither sleeps in userfaultfd while it is held."""

    async def test(played: Played) -> None:
        await four_mapped(played)
        vcpus = [
            played.vcpu(0, 1001, 2), played.vcpu(1, 1054, 3), played.vcpu(2, 1055, 3), played.vcpu(3, 1010, 5),
            played.vcpu(4, 1001, 20), played.vcpu(5, 1065, 21), played.vcpu(6, 1066, 22),
        ]  # fmt: skip
        await played.at(1000, played.collapse, 0)
        await played.at(2000, played.map, 20, 3)
        await asyncio.gather(*vcpus)

    assert [entry for entry in play(test) if entry[2] <= 1066] == [
        (0, "stalls", 1001), (4, "stalls", 1001), (3, "has it", 1010), (1, "stalls", 1054), (0, "has it", 1055),
        (1, "has it", 1055), (2, "has it", 1055), (5, "stalls", 1065), (4, "sleeps", 1066), (5, "sleeps", 1066),
        (6, "sleeps", 1066),
    ]  # fmt: skip
    assert 1000 + HELD_TOUCH == 1055
    assert 1000 + HELD_FAULT == 1066


def test_of_two_collapses_in_a_row_each_holds_its_own_range_while_it_lasts() -> None:
    """The first from 1000 to 1081, the second from then on: its range is free until it begins, and the first's is free
    after its own window."""

    async def test(played: Played) -> None:
        await four_mapped(played)
        vcpus = [
            played.vcpu(0, 1010, 0), played.vcpu(1, 1010, 4), played.vcpu(2, 1060, 1), played.vcpu(3, 1090, 5),
            played.vcpu(4, 1090, 2), played.vcpu(5, 1081 + HELD_TOUCH, 6),
        ]  # fmt: skip
        await played.at(1000, lambda: (played.collapse(0), played.collapse(4)))
        await asyncio.gather(*vcpus)

    assert play(test) == [
        (0, "stalls", 1010), (1, "has it", 1010), (0, "has it", 1055), (2, "has it", 1060), (3, "stalls", 1090),
        (4, "has it", 1090), (3, "has it", 1136), (5, "has it", 1136),
    ]  # fmt: skip


def test_a_collapse_that_waits_for_the_service_holds_nobody_before_it_begins() -> None:
    async def test(played: Played) -> None:
        await four_mapped(played)
        vcpus = [played.vcpu(0, 1100, 2), played.vcpu(1, 1100, 20), played.vcpu(2, 1300, 2)]
        await played.at(1000, lambda: (played.memory.uffdio_wake(30, 1), played.processor.charge(1000, 295),
                                       played.collapse(0)))  # fmt: skip
        await played.at(2000, played.map, 20)
        await asyncio.gather(*vcpus)

    assert play(test) == [
        (0, "has it", 1100), (1, "sleeps", 1100), (2, "stalls", 1300), (2, "has it", 1355), (1, "is read", 1381),
        (1, "wakes", 2070), (1, "has it", 2070),
    ]  # fmt: skip


def test_who_waits_for_a_page_behind_a_collapse_is_held_first_and_sleeps_for_the_rest() -> None:
    """Its page will be mapped at 1131, after the collapse: until 1066 it waits for the lock, then it sleeps."""

    async def test(played: Played) -> None:
        await four_mapped(played)
        vcpu = played.vcpu(0, 1010, 20)
        await played.at(1000, lambda: (played.collapse(0), played.map(20)))
        await vcpu

    assert play(test) == [
        (0, "stalls", 1010), (0, "sleeps", 1066), (0, "wakes", 1151), (0, "has it", 1151),
    ]  # fmt: skip


def test_of_one_call_over_several_ranges_each_is_held_in_its_turn() -> None:
    """process_madvise takes the lock anew for each."""

    async def test(played: Played) -> None:
        await four_mapped(played)
        spans = [Span(0, Level.PMD), Span(4, Level.PMD)]
        vcpus = [played.vcpu(vcpu, when_ns, 1 + 4 * vcpu) for vcpu, when_ns in ((0, 1001), (1, 1001))]
        vcpus += [played.vcpu(2, 1082, 1), played.vcpu(3, 1082, 5)]
        await played.at(1000, played.memory.madvise_collapse, spans)
        assert played.processor.free_ns == 1000 + 2 * COLLAPSE
        await asyncio.gather(*vcpus)

    assert play(test) == [
        (0, "stalls", 1001), (1, "has it", 1001), (0, "has it", 1055), (2, "has it", 1082), (3, "stalls", 1082),
        (3, "has it", 1081 + HELD_TOUCH),
    ]  # fmt: skip

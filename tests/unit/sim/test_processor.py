"""A processor in the loop: what comes for a busy one waits, in order; what is not its own does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from random import Random
from typing import Any

import pytest

from migemu.ports import THREAD
from migemu.scenario.scenario import LinkSettings
from migemu.sim.cable import Direction
from migemu.sim.loop import VirtualLoop
from migemu.sim.processor import PROCESSOR, Processor, processor_of
from migemu.sim.virtual_clock import VirtualClock
from migemu.sim.waiting import CrashError, DeadlockError


def context_of(processor: Processor, thread: str = "") -> Context:
    context = copy_context()
    context.run(PROCESSOR.set, processor)
    context.run(THREAD.set, thread)
    return context


class Node:
    """A processor, and a diary of who ran when: (name, the loop's time, the clock's)."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.processor = Processor("node")
        self.context = context_of(self.processor)
        self.clock = VirtualClock(loop)
        self.diary: list[tuple[str, int, int]] = []

    def note(self, name: str, work_ns: int = 0) -> None:
        self.diary.append((name, self.loop.now_ns, self.clock.now_ns()))
        if work_ns:
            self.processor.charge(self.loop.now_ns, work_ns)

    def at(self, when_ns: int, name: str, work_ns: int = 0, context: Context | None = None) -> Any:
        context = self.context if context is None else context
        return self.loop.call_at_ns(when_ns, self.note, name, work_ns, context=context)

    def played(self, until_ns: int = 10_000) -> list[tuple[str, int, int]]:
        self.loop.call_at_ns(until_ns, self.loop.stop, context=Context())
        self.loop.run_forever()
        return self.diary


@pytest.fixture
def node() -> Node:
    return Node(VirtualLoop())


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]]) -> Any:
    loop = VirtualLoop()
    return loop.run(main(loop))


# --- charging ---


def test_work_begins_when_the_processor_is_free_and_adds_up() -> None:
    processor = Processor("node")
    assert processor.charge(100, 30) == 130
    assert processor.charge(110, 5) == 135, "it was busy until 130"
    assert processor.charge(200, 1) == 201, "it was free since 135"
    assert (processor.busy_ns, processor.free_ns) == (36, 201)
    assert repr(processor) == "<Processor node, free at 201 ns>"


def test_a_thread_of_a_node_is_its_own_processor() -> None:
    processor = Processor("node")
    service, vcpu = context_of(processor), context_of(processor, "vCPU 0")
    assert processor_of(service) is processor
    assert processor_of(vcpu) is None
    assert processor_of(Context()) is None


def test_the_loop_tells_whose_processor_runs(node: Node) -> None:
    found: list[Processor | None] = []
    look = lambda: found.append(node.loop.processor)  # noqa: E731
    for when_ns, context in enumerate((node.context, context_of(node.processor, "vCPU 0"), node.context, Context())):
        node.loop.call_at_ns(1 + when_ns, look, context=context)
    node.at(2, "busy", 100)
    node.played()
    assert found == [node.processor, None, None, node.processor], "the third had to wait"
    assert node.loop.processor is None


# --- waiting ---


def test_what_comes_for_a_busy_processor_runs_when_it_is_free(node: Node) -> None:
    node.at(100, "works", 50)
    node.at(120, "waits")
    node.at(150, "is in time")
    node.at(200, "is free")
    assert node.played() == [("works", 100, 100), ("waits", 150, 150), ("is in time", 150, 150), ("is free", 200, 200)]


def test_who_waits_runs_in_the_order_of_arrival_and_each_waits_for_the_work_of_those_before(node: Node) -> None:
    node.at(100, "a", 50)
    node.at(110, "b", 20)
    node.at(105, "c", 30)
    node.at(110, "d")
    node.at(160, "e")  # comes while c works: behind d
    assert node.played() == [
        ("a", 100, 100), ("c", 150, 150), ("b", 180, 180), ("d", 200, 200), ("e", 200, 200),
    ]  # fmt: skip


def test_who_comes_at_the_very_time_stands_behind_those_who_wait(node: Node) -> None:
    node.at(150, "set first, due when it is free")
    node.at(100, "works", 50)
    node.at(101, "waits")
    assert [name for name, _, _ in node.played()] == ["works", "waits", "set first, due when it is free"]


def test_the_loop_goes_on_meanwhile_for_all_others(node: Node) -> None:
    """Another node, a vCPU of this one, and the wire between them."""
    other = Processor("other")
    node.at(100, "works", 1000)
    node.at(200, "other node", 0, context_of(other))
    node.at(300, "vCPU", 0, context_of(node.processor, "vCPU 0"))
    node.at(400, "wire", 0, Context())
    assert node.played() == [("works", 100, 100), ("other node", 200, 200), ("vCPU", 300, 300), ("wire", 400, 400)]


def test_who_was_cancelled_while_he_waited_does_not_run(node: Node) -> None:
    node.at(100, "works", 50)
    waits = node.at(110, "waits")
    node.at(120, "waits too")
    node.loop.call_at_ns(130, waits.cancel, context=Context())
    assert [name for name, _, _ in node.played()] == ["works", "waits too"]


def test_what_fails_while_it_catches_up_ends_the_run_and_loses_nobody_else() -> None:
    async def main(loop: VirtualLoop) -> None:
        node = Node(loop)
        node.at(100, "works", 50)
        loop.call_at_ns(110, lambda: 1 // 0, context=node.context)
        node.at(120, "waits")
        await asyncio.sleep(1)

    with pytest.raises(CrashError, match="ZeroDivisionError"):
        run(main)


def test_an_interrupt_while_it_catches_up_does_not_leave_the_others_waiting_for_ever() -> None:
    """They are cleaned up; otherwise the end would be a deadlock, and what was interrupted would not be told."""
    cleaned: list[str] = []

    async def main(loop: VirtualLoop) -> None:
        node = Node(loop)

        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await node.clock.sleep_until(loop.now_ns + 10)
                cleaned.append("waits")

        def interrupt() -> None:
            raise KeyboardInterrupt

        loop.create_task(waits(), context=node.context)
        node.at(100, "works", 50)
        loop.call_at_ns(110, interrupt, context=node.context)
        node.at(120, "waits")
        await asyncio.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        run(main)
    assert cleaned == ["waits"]


# --- tasks, and the clock ---


def test_a_task_that_works_sees_its_own_time_and_goes_on_when_the_work_is_done() -> None:
    async def main(loop: VirtualLoop) -> list[tuple[str, int, int]]:
        node = Node(loop)

        async def service() -> None:
            await node.clock.sleep_until(100)
            node.note("begins", 40)
            node.note("has worked", 2)
            await asyncio.sleep(0)
            node.note("is back")

        await loop.create_task(service(), context=node.context)
        return node.diary

    assert run(main) == [("begins", 100, 100), ("has worked", 100, 140), ("is back", 142, 142)]


@pytest.mark.parametrize(("until_ns", "awake_ns"), [(105, 150), (150, 150), (160, 160)])
def test_a_sleep_of_a_busy_node_ends_when_it_is_free_and_never_early(until_ns: int, awake_ns: int) -> None:
    async def main(loop: VirtualLoop) -> int:
        node = Node(loop)

        async def service() -> int:
            await node.clock.sleep_until(100)
            node.processor.charge(loop.now_ns, 50)
            await node.clock.sleep_until(until_ns)
            return node.clock.now_ns()

        return await loop.create_task(service(), context=node.context)

    assert run(main) == awake_ns


def test_the_clock_of_a_vcpu_is_not_ahead_when_its_node_works(node: Node) -> None:
    vcpu = context_of(node.processor, "vCPU 0")
    node.at(100, "works", 50)
    node.at(120, "vCPU", 0, vcpu)
    node.loop.call_at_ns(120, node.note, "nobody's", 0, context=Context())
    assert node.played() == [("works", 100, 100), ("vCPU", 120, 120), ("nobody's", 120, 120)]
    assert VirtualClock(node.loop).now_ns() == 10_000


# --- deadlocks ---


def test_work_that_waits_is_no_deadlock_and_a_deadlock_behind_it_is_told_when_it_is_one() -> None:
    async def main(loop: VirtualLoop) -> None:
        node = Node(loop)

        async def service() -> None:
            node.processor.charge(loop.now_ns, 700)
            await asyncio.sleep(0)  # waits for its own work
            await asyncio.Event().wait()

        await loop.create_task(service(), name="service", context=node.context)

    with pytest.raises(DeadlockError) as caught:
        run(main)
    assert str(caught.value).startswith("deadlock at 700ns: nobody is ready and no timer is set; waiting:\n")
    assert [(each.name, each.what) for each in caught.value.waiting] == [
        ("Task-1", "task service"), ("service", "Event.wait (a future)"),
    ]  # fmt: skip


# --- the wire in front of a busy node ---


def test_a_busy_node_sends_when_it_has_got_that_far_and_in_order(node: Node) -> None:
    """At 1 byte a ns; what another node sends is not held up."""
    arrived: list[tuple[str, int, int]] = []
    direction = Direction(node.loop, LinkSettings(rate="8Gbit", delay="1us"), 1000, Random(1))
    flow = direction.flow("main", 0)

    def send(name: str, work_ns: int) -> None:
        node.processor.charge(node.loop.now_ns, work_ns)
        direction.send(flow, 10, lambda frame: arrived.append((name, frame.enqueued_ns, node.loop.now_ns)))

    node.loop.call_at_ns(100, send, "a", 50, context=node.context)
    node.loop.call_at_ns(110, send, "b", 0, context=node.context)
    node.loop.call_at_ns(111, send, "c", 100, context=node.context)
    node.loop.call_at_ns(500, send, "d", 0, context=node.context)
    node.played()
    assert arrived == [
        ("a", 150, 150 + 10 + 1000), ("b", 150, 150 + 20 + 1000), ("c", 250, 250 + 10 + 1000),
        ("d", 500, 500 + 10 + 1000),
    ]  # fmt: skip

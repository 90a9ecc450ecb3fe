"""The alarm of the real-time loops: what can be said of it on a machine that may be late at any time."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from migemu.errors import BrokenError
from migemu.transport.clock import EARLY_NS, Alarm
from migemu.units import MS, SECOND
from tests.conformance.worlds import LOOPS, Loop

in_every_loop = pytest.mark.parametrize("loop", LOOPS, ids=[loop.name for loop in LOOPS])


class Bell:
    """An alarm, and the times at which it rang."""

    def __init__(self) -> None:
        self.rung: list[int] = []
        self.alarm = Alarm(self._ring)
        self.on_ring: Callable[[], None] = lambda: None
        self._heard = asyncio.Event()

    def _ring(self) -> None:
        self.rung.append(time.monotonic_ns())
        self._heard.set()
        self.on_ring()

    async def rings(self, count: int = 1) -> None:
        while len(self.rung) < count:
            self._heard.clear()
            await self._heard.wait()


def run(loop: Loop, test: Callable[[Bell], Awaitable[None]]) -> None:
    async def main() -> None:
        bell = Bell()
        try:
            await test(bell)
        finally:
            bell.alarm.close()

    loop.run(main())


@in_every_loop
def test_an_alarm_rings_once_and_not_before_its_time(loop: Loop) -> None:
    async def test(bell: Bell) -> None:
        for number in range(20):
            when = time.monotonic_ns() + MS // 4
            bell.alarm.set(when)
            await bell.rings(number + 1)
            assert bell.rung[-1] >= when - EARLY_NS
        assert len(bell.rung) == 20

    run(loop, test)


@in_every_loop
def test_an_alarm_that_has_learnt_to_be_early_is_not_too_early_when_the_loop_is_free(loop: Loop) -> None:
    async def test(bell: Bell) -> None:
        for number in range(30):
            bell.alarm.set(time.monotonic_ns() + MS // 20)
            free = time.monotonic_ns() + MS // 2
            while time.monotonic_ns() < free:  # the loop is busy when the timer is up
                pass
            await bell.rings(number + 1)
        for number in range(10):
            when = time.monotonic_ns() + 2 * MS // 3
            bell.alarm.set(when)
            await bell.rings(31 + number)
            assert bell.rung[-1] >= when - EARLY_NS

    run(loop, test)


@in_every_loop
def test_a_time_that_has_passed_rings_in_one_of_the_next_turns(loop: Loop) -> None:
    async def test(bell: Bell) -> None:
        for number, when in enumerate((1, time.monotonic_ns() - SECOND, time.monotonic_ns())):
            bell.alarm.set(when)
            assert len(bell.rung) == number, "it rings from the loop, never from within set"
            await bell.rings(number + 1)

    run(loop, test)


@in_every_loop
def test_the_earlier_time_counts_whichever_was_set_first(loop: Loop) -> None:
    """A minute would not be over before the test is given up."""

    async def test(bell: Bell) -> None:
        for times in ((MS, 60 * SECOND), (60 * SECOND, MS)):
            bell.rung.clear()
            now = time.monotonic_ns()
            for wait_ns in times:
                bell.alarm.set(now + wait_ns)
            await bell.rings()
            assert bell.rung[0] >= now + MS - EARLY_NS

    run(loop, test)


@in_every_loop
def test_a_later_time_that_was_set_meanwhile_is_forgotten(loop: Loop) -> None:
    """The alarm holds one time: whoever needs the later one sets it again."""

    async def test(bell: Bell) -> None:
        now = time.monotonic_ns()
        bell.alarm.set(now + 2 * MS)
        bell.alarm.set(now + 3 * MS)
        await bell.rings()
        first = bell.rung[0]
        later = first + 4 * MS
        bell.alarm.set(later)
        await bell.rings(2)
        assert bell.rung[1] >= later - EARLY_NS, "it did not ring at the time that was forgotten"

    run(loop, test)


@in_every_loop
def test_an_alarm_can_be_set_again_while_it_rings(loop: Loop) -> None:
    async def test(bell: Bell) -> None:
        def again() -> None:
            if len(bell.rung) < 5:
                bell.alarm.set(bell.rung[-1] + MS // 5)

        bell.on_ring = again
        bell.alarm.set(time.monotonic_ns())
        await bell.rings(5)
        assert all(later - earlier >= MS // 5 - EARLY_NS for earlier, later in pairwise(bell.rung))

    run(loop, test)


@in_every_loop
def test_two_alarms_keep_their_own_times(loop: Loop) -> None:
    async def test(bell: Bell) -> None:
        other = Bell()
        now = time.monotonic_ns()
        bell.alarm.set(now + 3 * MS)
        other.alarm.set(now + MS)
        await other.rings()
        await bell.rings()
        assert bell.rung[0] >= now + 3 * MS - EARLY_NS
        assert other.rung[0] >= now + MS - EARLY_NS
        assert len(bell.rung) == len(other.rung) == 1
        other.alarm.close()

    run(loop, test)


@in_every_loop
def test_a_closed_alarm_does_not_ring_and_can_be_closed_twice(loop: Loop) -> None:
    async def test(bell: Bell) -> None:
        closed = Bell()
        closed.alarm.set(time.monotonic_ns() + MS // 2)
        closed.alarm.close()
        closed.alarm.close()
        bell.alarm.set(time.monotonic_ns() + 2 * MS)
        await bell.rings()
        assert closed.rung == []

    run(loop, test)


@in_every_loop
def test_an_alarm_may_be_closed_while_it_rings(loop: Loop) -> None:
    async def test(bell: Bell) -> None:
        bell.on_ring = bell.alarm.close
        bell.alarm.set(time.monotonic_ns())
        await bell.rings()

    run(loop, test)


@in_every_loop
def test_no_descriptor_to_be_had_is_the_worlds_fault(loop: Loop) -> None:
    async def test(_: Bell) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(BrokenError, match="no timer could be created: Too many open files"):
                Bell()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    run(loop, test)

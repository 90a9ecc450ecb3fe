"""Clock: time that never goes backwards, and waiting until a time, on every loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from migemu.ports import Clock
from migemu.units import MS, SECOND
from tests.conformance.worlds import EVERY_LOOP, Loop

in_every_loop = pytest.mark.parametrize("loop", EVERY_LOOP, ids=[loop.name for loop in EVERY_LOOP])


@in_every_loop
def test_time_is_whole_nanoseconds_and_never_goes_backwards(loop: Loop) -> None:
    clock = loop.clock()

    async def main() -> None:
        seen = [clock.now_ns()]
        for _ in range(50):
            seen += [clock.now_ns() for _ in range(20)]
            await asyncio.sleep(0)
        assert all(type(time) is int for time in seen)
        assert seen == sorted(seen)

    loop.run(main())


@in_every_loop
def test_two_clocks_of_one_loop_tell_the_same_time(loop: Loop) -> None:
    async def main() -> None:
        one, other = loop.clock(), loop.clock()
        before, between, after = one.now_ns(), other.now_ns(), one.now_ns()
        assert before <= between <= after

    loop.run(main())


@in_every_loop
def test_a_time_that_has_passed_is_not_waited_for(loop: Loop) -> None:
    """Now has passed too. A minute would not be over before the test is given up."""
    clock = loop.clock()

    async def main() -> None:
        for when in (0, clock.now_ns() - 60 * SECOND, clock.now_ns() - 1, clock.now_ns()):
            await clock.sleep_until(when)

    loop.run(main())


@in_every_loop
def test_a_sleeper_does_not_wake_before_its_time(loop: Loop) -> None:
    clock = loop.clock()

    async def main() -> None:
        for wait_ns in (MS, 3 * MS):
            when = clock.now_ns() + wait_ns
            await clock.sleep_until(when)
            assert clock.now_ns() >= when - loop.early_ns

    loop.run(main())


@in_every_loop
def test_sleepers_wake_in_the_order_of_their_times_not_of_their_going_to_bed(loop: Loop) -> None:
    clock = loop.clock()
    woken: list[str] = []

    async def sleep(name: str, when: int) -> None:
        await clock.sleep_until(when)
        woken.append(name)

    async def main() -> None:
        now = clock.now_ns()
        await asyncio.gather(
            sleep("third", now + 6 * MS), sleep("first", now - MS), sleep("second", now + 3 * MS),
        )  # fmt: skip
        assert woken == ["first", "second", "third"]

    loop.run(main())


@in_every_loop
def test_others_run_while_one_sleeps(loop: Loop) -> None:
    clock = loop.clock()

    async def main() -> None:
        turns = 0
        sleeping = asyncio.ensure_future(_sleep(clock, 2 * MS))
        while not sleeping.done():
            turns += 1
            await _turn(clock, turns)
        assert turns > 1

    loop.run(main())


def _sleep(clock: Clock, wait_ns: int) -> Coroutine[Any, Any, None]:
    return clock.sleep_until(clock.now_ns() + wait_ns)


async def _turn(clock: Clock, turns: int) -> None:
    """A turn of the loop; now and then one that takes time, so that virtual time passes as well."""
    if turns % 10:
        await asyncio.sleep(0)
    else:
        await _sleep(clock, MS // 2)


@in_every_loop
def test_a_sleeper_can_be_woken_by_giving_it_up(loop: Loop) -> None:
    clock = loop.clock()

    async def main() -> None:
        sleeping = asyncio.ensure_future(_sleep(clock, 60 * SECOND))
        await asyncio.sleep(0)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping

    loop.run(main())

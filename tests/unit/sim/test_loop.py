"""The virtual loop: order, time, limits, deadlocks, and asyncio's primitives on it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.sim.loop import VirtualLoop
from migemu.sim.virtual_clock import VirtualClock
from migemu.units import MS, SECOND

ROOT = Path(__file__).resolve().parents[3]


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    loop = VirtualLoop(**options)
    return loop.run(main(loop))


# --- order and time ---


@given(deadlines=st.lists(st.integers(-5, 20), max_size=40))
def test_timers_run_by_deadline_and_equal_ones_in_the_order_in_which_they_were_set(deadlines: list[int]) -> None:
    """What has passed counts as now."""
    loop = VirtualLoop(start_ns=3)
    ran: list[tuple[int, int]] = []
    for number, deadline in enumerate(deadlines):
        loop.call_at_ns(deadline, lambda number=number: ran.append((loop.now_ns, number)))
    loop.call_at_ns(100, loop.stop)
    loop.run_forever()
    assert ran == sorted((max(3, deadline), number) for number, deadline in enumerate(deadlines))


def test_who_is_ready_runs_in_order_before_any_time_passes() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        ran: list[str] = []
        loop.call_at_ns(5, ran.append, "timer")
        loop.call_soon(lambda: (ran.append("first"), loop.call_soon(ran.append, "third")))
        loop.call_soon(ran.append, "second")
        await asyncio.sleep(1)
        return ran

    assert run(main) == ["first", "second", "third", "timer"]


def test_a_timer_set_for_now_does_not_starve_behind_tasks_that_spin() -> None:
    async def main(loop: VirtualLoop) -> int:
        passed = loop.create_future()
        loop.call_later(0, passed.set_result, None)
        turns = 0
        while not passed.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert run(main) < 5


def test_time_is_exact_far_from_zero_and_through_asyncios_floats() -> None:
    async def main(loop: VirtualLoop) -> None:
        clock = VirtualClock(loop)
        for wait_ns in (1, 7, 333_333_333, 10**15 + 1):
            before = clock.now_ns()
            await clock.sleep_until(before + wait_ns)
            assert clock.now_ns() == before + wait_ns
            await asyncio.sleep(wait_ns / SECOND)
            assert abs(clock.now_ns() - before - 2 * wait_ns) <= wait_ns // 2**52
            began = clock.now_ns()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await loop.create_future()
            assert clock.now_ns() - began == MS

    run(main)


def test_a_cancelled_timer_neither_runs_nor_moves_the_clock() -> None:
    async def main(loop: VirtualLoop) -> int:
        timers = [loop.call_at_ns(when, pytest.fail, "it ran") for when in range(10, 1010)]
        for timer in timers:
            timer.cancel()
            timer.cancel()
        assert all(timer.cancelled() for timer in timers)
        soon = loop.call_soon(pytest.fail, "it ran")
        soon.cancel()
        assert loop.statistics().timers == 0
        await VirtualClock(loop).sleep_until(5000)
        return loop.statistics().moves

    assert run(main) == 1


@given(seed=st.integers(0, 50))
def test_cancelling_many_timers_keeps_the_order_of_the_others(seed: int) -> None:
    loop, random, ran = VirtualLoop(), Random(seed), []
    for number in range(600):
        timer = loop.call_at_ns(1 + random.randrange(50), lambda number=number: ran.append((loop.now_ns, number)))
        if random.random() < 0.7:
            timer.cancel()
    kept = loop.statistics().timers
    loop.call_at_ns(100, loop.stop)
    loop.run_forever()
    assert ran == sorted(ran)
    assert len(ran) == kept


# --- asyncio on it ---


def test_task_groups_queues_events_gather_and_wait_for() -> None:
    async def main(loop: VirtualLoop) -> list[object]:
        heard: list[object] = []
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        event = asyncio.Event()

        async def produce() -> None:
            for number in range(5):
                await asyncio.sleep(0.001)
                await queue.put(number)
            event.set()

        async def consume() -> None:
            for _ in range(5):
                heard.append(await queue.get())

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
        assert await asyncio.wait_for(event.wait(), 1) is True
        heard += await asyncio.gather(asyncio.sleep(0.3, "slow"), asyncio.sleep(0.1, "fast"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 2)
        heard.append(loop.now_ns)
        return heard

    assert run(main) == [0, 1, 2, 3, 4, "slow", "fast", 5 * MS + 300 * MS + 2 * SECOND]


def test_a_task_group_cancels_in_the_order_of_creation() -> None:
    """asyncio keeps its tasks in a set; here they hash by their serial number."""

    async def main(_: VirtualLoop) -> list[int]:
        cancelled: list[int] = []

        async def wait(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(number)

        async def fail() -> None:
            raise ValueError

        async def together() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    group.create_task(wait(number))
                await asyncio.sleep(0)
                group.create_task(fail())

        with pytest.raises(ExceptionGroup):
            await together()
        return cancelled

    assert run(main) == list(range(30))


def test_tasks_are_named_in_each_loop_anew_and_context_is_kept() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")

    async def main(loop: VirtualLoop) -> list[str]:
        async def tell() -> str:
            await asyncio.sleep(0)
            return variable.get()

        variable.set("inside")
        tasks = [loop.create_task(tell()), loop.create_task(tell(), name="mine", context=contextvars.Context())]
        found = [await task for task in tasks]
        heard: list[str] = []
        loop.call_soon(lambda: heard.append(variable.get()))
        loop.call_at_ns(1, lambda: heard.append(variable.get()), context=contextvars.Context())
        await asyncio.sleep(1)
        return [task.get_name() for task in tasks] + found + heard

    for _ in range(2):
        assert run(main) == ["Task-2", "mine", "inside", "outside", "inside", "outside"]


def test_asynchronous_generators_are_closed_at_the_end_in_the_order_in_which_they_began() -> None:
    closed: list[int] = []
    open_ones = []

    async def main(_: VirtualLoop) -> None:
        async def count(number: int) -> AsyncIterator[int]:
            try:
                while True:
                    yield number
            finally:
                await asyncio.sleep(0)
                closed.append(number)

        for number in range(20):
            open_ones.append(count(number))
            await anext(open_ones[-1])

    run(main)
    assert closed == list(range(20))


def test_asyncios_own_runner_runs_it() -> None:
    async def main() -> str:
        await asyncio.sleep(3600)
        return "an hour later"

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main()) == "an hour later"


def test_the_outside_is_refused_in_words() -> None:
    loop = VirtualLoop()
    for call in (lambda: loop.run_in_executor(None, print), lambda: loop.add_reader(0, print)):
        with pytest.raises(NotImplementedError, match="there is no outside in virtual time"):
            call()
    loop.close()


def test_a_closed_loop_takes_nothing_and_a_running_one_is_not_closed_nor_run_again() -> None:
    async def main(loop: VirtualLoop) -> None:
        with pytest.raises(RuntimeError, match="Cannot close"):
            loop.close()
        with pytest.raises(RuntimeError, match="while another loop"):
            loop.run_forever()

    loop = VirtualLoop()
    loop.run(main(loop))
    assert loop.is_closed()
    for call in (lambda: loop.call_soon(print), lambda: loop.call_at_ns(1, print), lambda: loop.run_forever()):
        with pytest.raises(RuntimeError, match="closed"):
            call()


# --- the same everywhere ---

_PROGRAM = """
import asyncio, hashlib
from migemu.sim.loop import VirtualLoop

heard = []

async def main():
    async def work(name):
        try:
            for turn in range(hash("x") % 7 + 5, 12):
                pass
            for turn in range(5):
                await asyncio.sleep(0.001 * (len(name) + turn))
                heard.append((name, turn, asyncio.get_running_loop().now_ns))
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append((name, "cancelled"))
            raise
    junk = [object() for _ in range(hash("y") % 1000)]
    try:
        async with asyncio.timeout(1):
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(work("x" * (number % 4)))
    except TimeoutError:
        pass
    done, left = await asyncio.wait([asyncio.ensure_future(work(str(n))) for n in range(9)], timeout=0.5)
    for task in left:
        task.cancel()
    await asyncio.sleep(1)
    for number in range(9):
        asyncio.ensure_future(work(str(number)))
    await asyncio.sleep(0)

VirtualLoop().run(main())
print(hashlib.sha256(repr(heard).encode()).hexdigest(), len(heard))
"""


def test_the_order_is_the_same_under_any_hash_seed_and_at_any_address() -> None:
    answers = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            capture_output=True, text=True,
        ).stdout
        for seed in ("0", "1", "2", "random")
    }  # fmt: skip
    assert len(answers) == 1
    assert int(answers.pop().split()[1]) > 100


def test_statistics_and_repr_tell_where_it_is() -> None:
    loop = VirtualLoop()
    loop.call_at_ns(7, loop.stop)
    loop.call_at_ns(9, print)
    loop.run_forever()
    assert repr(loop) == "<VirtualLoop idle at 7 ns, 0 ready, 1 timers>"
    statistics = loop.statistics()
    assert (statistics.steps, statistics.moves, statistics.timers, statistics.now_ns) == (1, 1, 1, 7)
    loop.close()

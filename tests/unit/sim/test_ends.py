"""What ends a run of the virtual loop: deadlocks, limits, exceptions that nobody caught."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from migemu.sim.loop import VirtualLoop
from migemu.sim.waiting import CrashError, DeadlockError, LimitError
from migemu.units import SECOND


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    loop = VirtualLoop(**options)
    return loop.run(main(loop))


def test_a_deadlock_is_raised_with_everybody_who_waits_where_and_for_what() -> None:
    async def main(loop: VirtualLoop) -> None:
        queue: asyncio.Queue[None] = asyncio.Queue()

        async def inner() -> None:
            await queue.get()

        async def outer() -> None:
            await inner()

        async def plain() -> None:
            await loop.create_future()

        blocked = loop.create_task(outer(), name="the outer one")
        loop.create_task(plain())
        await asyncio.sleep(0.5)
        await asyncio.gather(blocked, asyncio.Event().wait())

    with pytest.raises(DeadlockError) as caught:
        run(main)
    told = [(each.name, each.at.split(":")[0], each.at.split(".")[-1], each.what) for each in caught.value.waiting]
    here = "sim/test_ends.py"
    assert told == [
        ("Task-1", here, "main", "2 of 2 gathered futures"),
        ("the outer one", here, "inner", "Queue.get (a future)"),
        ("Task-3", here, "plain", "a future"),
        ("Task-4", "asyncio/locks.py", "wait", "Event.wait (a future)"),
    ]
    assert str(caught.value).startswith(
        "deadlock at 500ms: nobody is ready and no timer is set; waiting:\n  Task-1 at "
    )


def test_a_task_that_nobody_holds_is_there_to_the_end_whenever_garbage_is_collected() -> None:
    """asyncio keeps weak references alone, and the collector's time is not the loop's: the same run would differ."""
    ended: list[int] = []

    async def main(loop: VirtualLoop) -> None:
        async def waits(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)

        for number in range(3):
            loop.create_task(waits(number))
        await asyncio.sleep(1)
        for _ in range(1000):
            await loop.create_task(asyncio.sleep(0))
        gc.collect()
        assert [task.get_name() for task in loop.tasks()] == ["Task-1", "Task-2", "Task-3", "Task-4"]

    run(main)
    assert ended == [0, 1, 2]


def test_a_task_that_waits_for_a_task_names_it() -> None:
    async def main(loop: VirtualLoop) -> None:
        await loop.create_task(asyncio.Event().wait(), name="sleeper")

    with pytest.raises(DeadlockError, match="waiting for task sleeper"):
        run(main)


def test_what_is_left_is_cancelled_after_a_deadlock() -> None:
    cleaned: list[str] = []

    async def main(loop: VirtualLoop) -> None:
        async def wait(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1)
                cleaned.append(name)

        tasks = [loop.create_task(wait(name)) for name in "abc"]
        await tasks[0]

    with pytest.raises(DeadlockError):
        run(main)
    assert cleaned == ["a", "b", "c"]


async def _spin(_: VirtualLoop) -> None:
    while True:  # noqa: ASYNC110 - this is what has to be ended
        await asyncio.sleep(0)


async def _walk(_: VirtualLoop) -> None:
    while True:  # noqa: ASYNC110 - this is what has to be ended
        await asyncio.sleep(1)


@pytest.mark.parametrize(
    ("main", "options", "told"),
    [
        (_spin, {"steps_max": 1000}, r"given 1000 steps and is not over; at 0ns after 1001 steps\n  next: Task-1 at "),
        (_spin, {"standstill_max": 500}, "time stands still: 500 steps since it last moved; .*"),
        (_walk, {"steps_max": 1000}, r"given 1000 steps and is not over; at .*"),
        (
            _walk,
            {"time_max_ns": 10 * SECOND},
            r"given 10s of time and is not over; at 10s after \d+ steps\n  Task-1 at ",
        ),
    ],
    ids=["steps", "standstill", "steps that take time", "time"],
)
def test_a_run_that_goes_on_for_too_long_is_ended_and_says_where_it_was(
    main: Callable[[VirtualLoop], Coroutine[Any, Any, None]], options: dict[str, int], told: str
) -> None:
    with pytest.raises(LimitError, match=told) as caught:
        run(main, **options)
    assert "sim/test_ends.py" in str(caught.value) or "next: " in str(caught.value)


def test_an_exception_that_nobody_catches_ends_the_run() -> None:
    async def main(loop: VirtualLoop) -> None:
        loop.call_at_ns(5, lambda: 1 // 0)
        await asyncio.sleep(1)
        pytest.fail("it went on")

    with pytest.raises(CrashError, match=r"exception in callback .*lambda.*: ZeroDivisionError") as caught:
        run(main)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_exception_handler_hears_instead() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        heard: list[str] = []
        loop.set_exception_handler(lambda _, context: heard.append(type(context["exception"]).__name__))
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)
        return heard

    assert run(main) == ["ZeroDivisionError"]


def test_a_task_that_fails_when_it_is_cancelled_at_the_end_is_not_passed_over() -> None:
    async def main(loop: VirtualLoop) -> None:
        async def fail() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("while it was cleaned up")

        loop.create_task(fail())
        await asyncio.sleep(1)

    with pytest.raises(CrashError, match="Task-2 failed when it was cancelled at the end: ValueError: while it was"):
        run(main)


def test_what_main_raises_is_raised_and_interrupts_go_through() -> None:
    async def fail(_: VirtualLoop) -> None:
        raise KeyError("main")

    async def interrupt(loop: VirtualLoop) -> None:
        def ctrl_c() -> None:
            raise KeyboardInterrupt

        loop.call_soon(ctrl_c)
        await asyncio.sleep(1)

    with pytest.raises(KeyError):
        run(fail)
    with pytest.raises(KeyboardInterrupt):
        run(interrupt)

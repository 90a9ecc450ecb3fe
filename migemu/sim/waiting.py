"""Where a task stands and what it waits for, and the errors of a run that are told with it.

A task is a chain of coroutines, each awaiting the next one; the innermost waits for a future. Of the chain two places
matter to a reader: the innermost line of our own code, and the primitive of asyncio below it ("Queue.get").
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType
from typing import Any, Final, NamedTuple

from migemu.units import format_time

_SHOWN_MAX: Final = 50
_ASYNCIO: Final = str(PurePath(asyncio.__file__).parent)


class Waiting(NamedTuple):
    """One task: its name, where it stands (`dest_node/incoming.py:245 Incoming._verify`), what it waits for."""

    name: str
    at: str
    what: str

    def __str__(self) -> str:
        return f"{self.name} at {self.at}, waiting for {self.what}"


class SimulationError(RuntimeError):
    """A run that cannot go on, or must not."""


class DeadlockError(SimulationError):
    """Nobody is ready, no timer is set, and the run is not over. `waiting` is everybody, in order of creation."""

    def __init__(self, now_ns: int, tasks: tuple[Waiting, ...]) -> None:
        shown = [f"  {each}" for each in tasks[:_SHOWN_MAX]] or ["  (no task at all)"]
        more = [f"  and {len(tasks) - _SHOWN_MAX} more"] if len(tasks) > _SHOWN_MAX else []
        line = f"deadlock at {format_time(now_ns)}: nobody is ready and no timer is set; waiting:"
        super().__init__("\n".join([line, *shown, *more]))
        self.waiting = tasks


class LimitError(SimulationError):
    """The run took more steps or more time than it was given, or time stood still."""


class CrashError(SimulationError):
    """An exception that nobody caught; see `__cause__`."""


def _chain(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a coroutine, a generator or an asynchronous generator and of what it awaits, outermost first."""
    while coroutine is not None:
        for prefix, awaited in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(coroutine, f"{prefix}_frame", None)
            if frame is not None:
                yield frame
                coroutine = getattr(coroutine, awaited, None)
                break
        else:
            return


def _place(frame: FrameType) -> str:
    path = PurePath(frame.f_code.co_filename)
    return f"{'/'.join(path.parts[-2:])}:{frame.f_lineno} {frame.f_code.co_qualname}"


def waiting(task: asyncio.Task[Any]) -> Waiting:
    """Where `task` stands, and what for. It must be suspended."""
    frames = list(_chain(task.get_coro()))
    if not frames:
        return Waiting(task.get_name(), "its beginning", "its first turn" if not task.done() else "nothing")
    ours = [frame for frame in frames if not frame.f_code.co_filename.startswith(_ASYNCIO)]
    what = _awaited(getattr(task, "_fut_waiter", None))
    if frames[-1].f_code.co_filename.startswith(_ASYNCIO):
        what = f"{frames[-1].f_code.co_qualname} ({what})"
    return Waiting(task.get_name(), _place((ours or frames)[-1]), what)


def _awaited(future: Any) -> str:
    if future is None:
        return "its next turn"
    if isinstance(future, asyncio.Task):
        return f"task {future.get_name()}"
    children = getattr(future, "_children", None)  # of asyncio.gather
    if children is not None:
        return f"{sum(not child.done() for child in children)} of {len(children)} gathered futures"
    return "a future"


def describe(callback: Any) -> str:
    """A callback of the loop in words: the task that it drives, or its name."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return str(waiting(owner)) if not owner.done() else owner.get_name()
    return getattr(callback, "__qualname__", None) or repr(callback)

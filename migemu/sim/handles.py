"""What a virtual loop hands out: callbacks that are ready or due, and tasks with a serial number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from migemu.sim.waiting import describe
from migemu.units import SECOND


class ReadyHandle(asyncio.Handle):
    """asyncio.Handle of a callback that runs in one of the loop's next turns."""

    __slots__ = ()
    _callback: Any
    _context: Any

    def __init__(self, callback: Callable[..., object], args: Any, context: Context) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        """Do not call back. Safe to call twice."""
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]  # give back what it refers to

    def __repr__(self) -> str:
        return f"<Handle {'cancelled' if self._cancelled else describe(self._callback)}>"


class TimerHandle(asyncio.TimerHandle):
    """A callback that is due at `when_ns`."""

    __slots__ = ("_forget", "when_ns")
    _callback: Any
    _context: Any

    def __init__(
        self, when_ns: int, callback: Callable[..., object], args: Any, context: Context, forget: Callable[[int], None]
    ) -> None:
        """`forget(when_ns)` is called when it is cancelled."""
        self.when_ns = when_ns
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._forget = forget

    def cancel(self) -> None:
        """Do not call back. Safe to call twice."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]  # give back what it refers to
            self._forget(self.when_ns)

    def when(self) -> float:
        """The deadline in seconds, for asyncio."""
        return self.when_ns / SECOND

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<Timer {self.when_ns} ns {'cancelled' if self._cancelled else describe(self._callback)}>"


class VirtualTask(asyncio.Task[Any]):
    """A task that hashes by its serial number: sets of tasks have an order that does not depend on addresses."""

    serial: int
    """Counted in each loop from 1."""

    def __hash__(self) -> int:
        return self.serial

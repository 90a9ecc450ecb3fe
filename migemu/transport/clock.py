"""The machine's clock, and alarms finer than the event loop's.

uvloop's timers tick in whole milliseconds, and a delay below half of one becomes zero. An `Alarm` is a timerfd that
the loop watches instead: it fires within about 0.1 ms of its time. `time.monotonic_ns` is the clock of every measured
figure; CLOCK_MONOTONIC is the same for all processes of a machine, so traces of two processes can be laid side by side.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Final

from migemu.errors import BrokenError
from migemu.units import MS, SECOND, US

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
#: How much before its time an alarm may ring.
EARLY_NS: Final = 40 * US
_LEAD_NS_MAX: Final = 400 * US
#: How long after an urgent message another one is likely enough to keep turns short (assumed).
_HOT_NS: Final = 10 * MS


class MonotonicClock:
    """ports.Clock over CLOCK_MONOTONIC."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary zero, the same for all processes of this machine."""
        return time.monotonic_ns()

    async def sleep_until(self, when_ns: int) -> None:
        """Return at `when_ns`, at most a tick of the loop (1 ms under uvloop) early or late."""
        await asyncio.sleep(max(0, when_ns - time.monotonic_ns()) / SECOND)


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long), ("value_ns", ctypes.c_long),
    )  # fmt: skip


class Alarm:
    """Calls `ring` from the running loop at a time of CLOCK_MONOTONIC (a timerfd).

    A timer is served late by some 30 to 300 us, depending on the machine; the alarm learns by how much and sets the
    timer that much earlier. It rings at most `EARLY_NS` before its time, and on average at it.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        """Must be made in a running loop. BrokenError when no descriptor is left."""
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._due_ns = 0
        self._armed_ns = 0
        self._lead_ns = 0
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            raise BrokenError(f"no timer could be created: {os.strerror(ctypes.get_errno())}")
        self._loop.add_reader(self._fd, self._fired)

    def set(self, when_ns: int) -> None:
        """Ring at `when_ns`, unless it is set to ring earlier already. A time that has passed rings at once."""
        if not self._due_ns or when_ns < self._due_ns:
            self._due_ns = when_ns
            self._arm()

    def _arm(self) -> None:
        self._armed_ns = max(time.monotonic_ns(), self._due_ns - self._lead_ns)
        spec = _Itimerspec(0, 0, self._armed_ns // SECOND, self._armed_ns % SECOND)
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def _fired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew between the expiry and this call
            return
        now = time.monotonic_ns()
        late_ns = min(now - self._armed_ns, _LEAD_NS_MAX)
        self._lead_ns += (late_ns - self._lead_ns) // 8
        if now < self._due_ns - EARLY_NS:  # served faster than usual
            self._arm()
            return
        self._due_ns = 0
        self._ring()

    def close(self) -> None:
        """Give the descriptor back. Safe to call twice."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class BusyPoll:
    """Keeps the running loop from sleeping for a while after `touch`, so that what comes next finds it awake.

    A process that sleeps in epoll_wait takes 30 to 100 us to be woken on a virtual machine, and finds its caches cold:
    more than all that a fault costs otherwise. The kernel does the same for sockets (net.core.busy_poll) and KVM for
    halted vCPUs (halt_poll_ns). While it polls, everything else in the loop runs as usual.
    """

    def __init__(self, duration_ns: int) -> None:
        """Polls for `duration_ns` after each `touch`; 0 never does. Must be made in a running loop.

        On a machine with one processor it never polls: the peer may be the one that needs it.
        """
        self._duration_ns = duration_ns if (os.cpu_count() or 1) > 1 else 0
        self._loop = asyncio.get_running_loop()
        self._until_ns = 0
        self._hot_until_ns = 0
        self._polling = False

    @property
    def hot(self) -> bool:
        """Whether urgent messages have come or gone lately: what is not urgent should keep its turns short."""
        return time.monotonic_ns() < self._hot_until_ns

    def touch(self) -> None:
        """Something urgent came or went: more may follow soon."""
        now = time.monotonic_ns()
        self._hot_until_ns = now + _HOT_NS
        if self._duration_ns:
            self._until_ns = now + self._duration_ns
            if not self._polling:
                self._polling = True
                self._loop.call_soon(self._poll)

    def _poll(self) -> None:
        if time.monotonic_ns() < self._until_ns:
            self._loop.call_soon(self._poll)
        else:
            self._polling = False

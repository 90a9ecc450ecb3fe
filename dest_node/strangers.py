"""Who was turned away at the door: all are counted, few are told of one by one.

Anybody may connect, and as often as he likes; a log that he can fill is a weapon. Within `INTERVAL_S` at most
`TOLD_MAX` lines are told; the rest is one line at its end, with their number and the last of the reasons.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from migemu.ports import Clock
from migemu.units import SECOND

#: Enough to see what goes on (assumed).
TOLD_MAX: Final = 8
INTERVAL_S: Final = 10


class Strangers:
    """Those of one destination. `notice` is told lines."""

    def __init__(self, clock: Clock, notice: Callable[[str], None]) -> None:
        self.count = 0
        #: Why the last one was, or "".
        self.last = ""
        self._clock = clock
        self._notice = notice
        self._since_ns = clock.now_ns()
        self._told = self._untold = 0
        self._timer: asyncio.TimerHandle | None = None

    def turned_away(self, peer: str, reason: object) -> None:
        """One more."""
        self.count += 1
        self.last = f"{peer}: {reason}"
        if self._clock.now_ns() - self._since_ns >= INTERVAL_S * SECOND:
            self.sum_up()
        if self._told < TOLD_MAX:
            self._told += 1
            self._notice(f"turned away {self.last}")
            return
        self._untold += 1
        if self._timer is None:
            left_s = INTERVAL_S - (self._clock.now_ns() - self._since_ns) / SECOND
            self._timer = asyncio.get_running_loop().call_later(max(0.0, left_s), self.sum_up)

    def sum_up(self) -> None:
        """Tell of those that were not told of, if there are any; another interval begins."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._untold:
            self._notice(f"turned away {self._untold} more, the last of them {self.last}")
        self._since_ns, self._told, self._untold = self._clock.now_ns(), 0, 0

    def __repr__(self) -> str:
        return f"<Strangers: {self.count}, {self._untold} of them untold>"

"""Who was turned away at the door: all are counted, few are shown one by one.

Anybody may connect, and as often as he likes; a log that he can fill is a weapon. Within `INTERVAL_S` at most
`SHOWN_MAX` lines are shown; the rest is one line at its end, with their number and the last of the reasons.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from migemu.ports import Clock
from migemu.units import SECOND

#: Enough to see what goes on (assumed).
SHOWN_MAX: Final = 8
INTERVAL_S: Final = 10


class Notices(Protocol):
    """Where lines for the operator of this node are shown."""

    def notice(self, line: str) -> None:
        """Show `line`, one line of text without its end."""


class Strangers:
    """Counts who was turned away by one destination, and reports it to `notices`."""

    def __init__(self, clock: Clock, notices: Notices) -> None:
        self.count = 0
        #: Who was the last one, and why; None if there was none.
        self.last: str | None = None
        self._clock = clock
        self._notices = notices
        self._since_ns = clock.now_ns()
        self._shown = self._hidden = 0
        self._timer: asyncio.TimerHandle | None = None

    def turned_away(self, peer: str, reason: object) -> None:
        """One more has come: `peer` is its address, `reason` why it may not come in."""
        self.count += 1
        self.last = f"{peer}: {reason}"
        if self._clock.now_ns() - self._since_ns >= INTERVAL_S * SECOND:
            self.sum_up()
        if self._shown < SHOWN_MAX:
            self._shown += 1
            self._notices.notice(f"turned away {self.last}")
            return
        self._hidden += 1
        if self._timer is None:
            left_s = INTERVAL_S - (self._clock.now_ns() - self._since_ns) / SECOND
            self._timer = asyncio.get_running_loop().call_later(max(0.0, left_s), self.sum_up)

    def sum_up(self) -> None:
        """Report those that were not shown, if there are any, in one line; another interval begins."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._hidden:
            self._notices.notice(f"turned away {self._hidden} more, the last of them {self.last}")
        self._since_ns, self._shown, self._hidden = self._clock.now_ns(), 0, 0

    def __repr__(self) -> str:
        return f"<Strangers: {self.count}, {self._hidden} of them not shown>"

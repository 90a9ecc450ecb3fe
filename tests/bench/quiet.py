"""Who else used the processors during a measurement: other processes of this machine, and the host (steal).

From /proc/stat (all processors, in clock ticks) and /proc/PID/stat of the processes that are measured, with those of
their children that have ended meanwhile. A share of 1.0 is one whole core. Ticks are 10 ms, so a measurement of a
quarter of a second is told within 0.04 or so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: A pair that was disturbed by more than this is measured again.
FOREIGN_MAX: Final = 0.10
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_SETTLE_S: Final = 0.1


class Watch:
    """Measures the processor time of everybody but `pids` from when it is made."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = (*pids, os.getpid())
        self._begin_s = time.monotonic()
        self._ticks = self._foreign_ticks()

    def foreign(self) -> float:
        """Cores that others kept busy, on average."""
        return max(0, self._foreign_ticks() - self._ticks) * _TICK_S / (time.monotonic() - self._begin_s)

    def _foreign_ticks(self) -> int:
        return _busy_ticks() - sum(_own_ticks(pid) for pid in self._pids)


def settle(pids: Sequence[int], patience_s: float) -> None:
    """Return as soon as nobody else runs, or after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        watch = Watch(pids)
        time.sleep(_SETTLE_S)
        if watch.foreign() <= FOREIGN_MAX:
            return


def _busy_ticks() -> int:
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    )
    return user + nice + system + irq + softirq + steal


def _own_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime

"""Playing virtual time at a factor of the wall clock, for people who watch.

A pace is called before each move of the clock and sleeps until the wall clock has come as far as the move goes. It
changes nothing but when things happen to the watcher: order, times and results are those of a run without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from migemu.units import MS, SECOND

#: It sleeps in slices, so that Ctrl-C is heard soon.
_SLICE_NS: Final = 50 * MS


class WallPace:
    """`WallPace(0.1)`: one second of virtual time takes ten of the wall clock's."""

    def __init__(
        self, factor: float, wall_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:  # fmt: skip
        """`factor` is virtual seconds per second, above 0; ValueError otherwise."""
        if not factor > 0:
            raise ValueError(f"{factor} is not accepted here: give virtual seconds per second, above 0")
        self._factor = factor
        self._wall_ns = wall_ns
        self._sleep = sleep
        self._begin: tuple[int, int] | None = None

    def __call__(self, from_ns: int, to_ns: int) -> None:
        """Return when the wall clock is where virtual `to_ns` belongs; at once when it is late already."""
        if self._begin is None:
            self._begin = (from_ns, self._wall_ns())
        virtual_ns, wall_ns = self._begin
        due_ns = wall_ns + round((to_ns - virtual_ns) / self._factor)
        while (left_ns := due_ns - self._wall_ns()) > 0:
            self._sleep(min(left_ns, _SLICE_NS) / SECOND)

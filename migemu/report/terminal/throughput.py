"""How fast bytes have moved in the last seconds, and when the rest will have, as whoever asks now and then sees it."""

from __future__ import annotations

from collections import deque
from typing import Final

from migemu.units import SECOND

#: Long enough that a pause of a second does not make the time left jump, short enough to show a change of the link.
_WINDOW_NS: Final = 5 * SECOND


class Throughput:
    """Bytes per second over the last five seconds, of counts that are seen from time to time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()

    def see(self, moved_bytes: int, now_ns: int) -> None:
        """So many bytes have moved until now, in all."""
        self._seen.append((now_ns, moved_bytes))
        while len(self._seen) > 2 and now_ns - self._seen[1][0] >= _WINDOW_NS:
            self._seen.popleft()

    @property
    def bytes_per_s(self) -> int | None:
        """None as long as bytes have been seen only once."""
        if len(self._seen) < 2:
            return None
        (then_ns, then_bytes), (now_ns, now_bytes) = self._seen[0], self._seen[-1]
        return (now_bytes - then_bytes) * SECOND // max(1, now_ns - then_ns)

    def remaining_s(self, memory_bytes: int) -> int | None:
        """Seconds until all of `memory_bytes` have moved, at this rate; None where nothing moves, or all has."""
        rate, moved = self.bytes_per_s, self._seen[-1][1] if self._seen else 0
        return -(-(memory_bytes - moved) // rate) if rate and moved < memory_bytes else None

    def __repr__(self) -> str:
        return f"<Throughput of {self.bytes_per_s} bytes/s>"

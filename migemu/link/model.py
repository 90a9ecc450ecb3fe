"""A link as arithmetic: when does the last bit of a frame, sent now, arrive?

The model is the textbook one: a transmitter that serialises one frame after the other at a rate, a queue in front of
it, and a wire that delays. Frames keep their order: jitter moves an arrival, but never before the frame in front of it
(as on one TCP connection, where the receiver waits for the gap to fill anyway).

    departure = max(now, wire free) + bytes * 8 / rate          while the link is up
    arrival   = max(departure + delay + jitter, arrival of the frame before)

The queue holds what has been sent and has not departed. It does not drop: a frame that finds it full makes its sender
wait, as a full socket buffer does. One `LinkModel` is one wire; channels that share it queue behind each other. Which
of them comes next is decided in front of it: by `link.shaper` in real time, by `link.wire` in virtual time.

Times are rounded up to whole nanoseconds once per busy period, not per frame: cutting a frame in two changes nothing.

Simplified: no framing overhead of lower layers (a rate applies to the bytes of the stream); a queue elsewhere on the
way that overflows is not modelled but by its loss (`link.stream`).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from migemu.link.jitter import Jitter, UniformJitter
from migemu.units import SECOND, US

_BITS: Final = 8 * SECOND
#: A queue without a size of its own is filled this far ahead of the wire: what a late timer needs in real time.
#: TCP small queues let a socket fill about 1 ms ahead, tcp_limit_output_bytes at most.
AHEAD_NS: Final = 300 * US

Outages = Sequence[tuple[int, int]]


def _no_file(path: str) -> str:
    raise FileNotFoundError(path)


class LinkModel:
    """One direction of a link. Pure: it is told the time and answers with times."""

    def __init__(
        self, rate_bps: int, delay_ns: int, jitter_ns: int, queue_bytes_max: int, rng: Random, *,
        jitter: Jitter | None = None, outages: Outages = (),
    ) -> None:  # fmt: skip
        """A rate of 0 serialises in no time; `queue_bytes_max` of 0 is no limit.

        `jitter` instead of the uniform one; `outages` are (from, to) in order, on the clock that `now` is of.
        """
        self.rate_bps = rate_bps
        self.delay_ns = delay_ns
        self.jitter_ns = jitter_ns
        self.queue_bytes_max = queue_bytes_max
        self.outages = tuple(outages)
        #: When all that was sent has departed.
        self.free_ns = 0
        self._jitter = jitter or UniformJitter(jitter_ns, rng, _no_file)
        self._varies = jitter is not None or jitter_ns > 0
        self._busy_since_ns = 0
        self._busy_bytes = 0
        self._arrival_ns = 0

    def send(self, frame_bytes: int, now_ns: int) -> int:
        """A frame enters the queue now; the time at which its last bit arrives."""
        self._arrival_ns = max(self._arrival_ns, self.propagated(self.serialise(frame_bytes, now_ns)))
        return self._arrival_ns

    def serialise(self, frame_bytes: int, now_ns: int) -> int:
        """A frame enters the queue now; the time at which its last bit departs."""
        if now_ns > self.free_ns:
            self._busy_since_ns, self._busy_bytes = now_ns, 0
        self._busy_bytes += frame_bytes
        self.free_ns = self._departure(self._busy_since_ns, self._busy_bytes)
        return self.free_ns

    def propagated(self, departed_ns: int) -> int:
        """When the bit that departed then arrives, by itself: keeping order is left to the caller."""
        if self._varies:
            return departed_ns + max(0, self.delay_ns + self._jitter.draw())
        return departed_ns + self.delay_ns

    def _departure(self, busy_since_ns: int, busy_bytes: int) -> int:
        took_ns = -(-busy_bytes * _BITS // self.rate_bps) if self.rate_bps else 0
        return self._up(busy_since_ns, took_ns) if self.outages else busy_since_ns + took_ns

    def _up(self, begin_ns: int, took_ns: int) -> int:
        """`took_ns` after `begin_ns`, not counting what the link is down."""
        for down_ns, up_ns in self.outages:
            if begin_ns < down_ns and begin_ns + took_ns <= down_ns:
                break
            if begin_ns < up_ns:
                took_ns += up_ns - max(begin_ns, down_ns)
        return begin_ns + took_ns

    def free_after(self, frame_bytes: int, now_ns: int) -> int:
        """`free_ns` if so many bytes more were sent now."""
        if now_ns > self.free_ns:
            return self._departure(now_ns, frame_bytes)
        return self._departure(self._busy_since_ns, self._busy_bytes + frame_bytes)

    def bytes_by(self, when_ns: int, now_ns: int) -> int:
        """How many bytes more, sent now, depart by `when_ns`, without outages; the link must have a rate."""
        if now_ns > self.free_ns:
            return (when_ns - now_ns) * self.rate_bps // _BITS
        return (when_ns - self._busy_since_ns) * self.rate_bps // _BITS - self._busy_bytes

    def down_until(self, when_ns: int) -> int:
        """The end of the outage at `when_ns`; 0 if the link is up then."""
        return next((up_ns for down_ns, up_ns in self.outages if down_ns <= when_ns < up_ns), 0)

    def queued_bytes(self, now_ns: int) -> int:
        """Bytes that have been sent and have not departed, rounded up: what the wire is busy with from now on."""
        if not self.rate_bps or self.free_ns <= now_ns:
            return 0
        return -(-(self.free_ns - now_ns) * self.rate_bps // _BITS)

    def room_at(self, now_ns: int) -> int:
        """When the queue has room for another frame: now, or the time at which enough has departed.

        A frame may overshoot the limit by its own length, so that one larger than the queue can pass at all.
        """
        if not self.queue_bytes_max or not self.rate_bps:
            return now_ns
        return max(now_ns, self.free_ns - self.queue_bytes_max * _BITS // self.rate_bps)

    def __repr__(self) -> str:
        return f"<LinkModel {self.rate_bps} bit/s, {self.delay_ns} ns>"

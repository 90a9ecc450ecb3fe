"""A link as arithmetic: when does the last bit of a frame, sent now, arrive?

The model is the textbook one: a transmitter that serialises one frame after the other at a rate, a queue in front of
it, and a wire that delays. Frames keep their order: jitter moves an arrival by up to `jitter_ns` either way, but never
before the frame in front of it (as on one TCP connection, where the receiver waits for the gap to fill anyway).

    departure = max(now, wire free) + bytes * 8 / rate
    arrival   = max(departure + delay + jitter, arrival of the frame before)

The queue holds what has been sent and has not departed. It does not drop: a frame that finds it full makes its sender
wait, as a full socket buffer does. One `LinkModel` is one wire; channels that share it queue behind each other.

Simplified: no loss, no reordering, no framing overhead of lower layers; a rate applies to the bytes of the stream.
"""

from __future__ import annotations

from random import Random

from migemu.units import SECOND


class LinkModel:
    """One direction of a link. Pure: it is told the time and answers with times."""

    def __init__(self, rate_bps: int, delay_ns: int, jitter_ns: int, queue_bytes_max: int, rng: Random) -> None:
        """A rate of 0 serialises in no time; `queue_bytes_max` of 0 is no limit."""
        self.rate_bps = rate_bps
        self.delay_ns = delay_ns
        self.jitter_ns = jitter_ns
        self.queue_bytes_max = queue_bytes_max
        self._rng = rng
        self._free_ns = 0
        self._arrival_ns = 0

    def send(self, frame_bytes: int, now_ns: int) -> int:
        """A frame enters the queue now; the time at which its last bit arrives."""
        start = max(now_ns, self._free_ns)
        if self.rate_bps:
            start += -(-frame_bytes * 8 * SECOND // self.rate_bps)
        self._free_ns = start
        jitter = self._rng.randint(-self.jitter_ns, self.jitter_ns) if self.jitter_ns else 0
        self._arrival_ns = max(self._arrival_ns, start + self.delay_ns + jitter)
        return self._arrival_ns

    def queued_bytes(self, now_ns: int) -> int:
        """Bytes that have been sent and have not departed, rounded up: what the wire is busy with from now on."""
        if not self.rate_bps or self._free_ns <= now_ns:
            return 0
        return -(-(self._free_ns - now_ns) * self.rate_bps // (8 * SECOND))

    def room_at(self, now_ns: int) -> int:
        """When the queue has room for another frame: now, or the time at which enough has departed.

        A frame may overshoot the limit by its own length, so that one larger than the queue can pass at all.
        """
        if not self.queue_bytes_max or not self.rate_bps:
            return now_ns
        return max(now_ns, self._free_ns - self.queue_bytes_max * 8 * SECOND // self.rate_bps)

    def __repr__(self) -> str:
        return f"<LinkModel {self.rate_bps} bit/s, {self.delay_ns} ns>"

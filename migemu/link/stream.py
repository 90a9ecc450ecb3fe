"""What TCP makes of a wire: bytes under way, packets lost and sent again, the hole that the rest waits behind.

One `Stream` is one direction of one connection. It is told of every stretch of bytes that goes onto the wire, and
answers when the next one may, and when what departed is handed to the reader.

    under way   bytes that departed and whose acknowledgement has not come back: at most the congestion window, and at
                most the buffers (SO_SNDBUF, SO_RCVBUF) where they are set
    loss        every packet by itself, with probability `loss`. Everything behind a lost packet waits until it was
                sent again: for duplicate acknowledgements of three later packets and a round trip (RFC 5681, 3.2), or
                for the retransmission timer if not that many follow (RFC 6298). A packet sent again may be lost again:
                then the timer, doubled each time (RFC 6298, 5.5).
    outage      what would depart while the link is down is lost; the sender tries again when its timer fires, doubled
                each time, and finds the link up at the first try after the outage

Simplified: losses that come while a hole is open are repaired with it, and cost the window once, as with SACK; the
window is cut when the loss is certain, not a round trip later; packets sent again take no room on the wire; no tail
loss probe (RFC 8985 would replace most timeouts at the end of a burst by about two round trips); acknowledgements are
never lost and never queue.
"""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import Final

from migemu.link.congestion import MSS, RTO_MAX_NS, UNLIMITED, Congestion, RetransmissionTimer

_DUPLICATES: Final = 3
#: A window is sent in at least so many stretches: acknowledgements come back spread over a round trip.
_STRETCHES: Final = 8


class Stream:
    """One direction of one connection. Times are those of the wire."""

    def __init__(
        self, congestion: Congestion, rtt_ns: int, delay_ns: int, rng: Random, *,
        buffer_bytes: int = 0, loss: float = 0.0, rto_min_ns: int = 0, open_bytes: int = UNLIMITED,
    ) -> None:  # fmt: skip
        """`rtt_ns` and `delay_ns` without queues; `buffer_bytes` of 0 is no limit.

        A window of `open_bytes` can never hold anybody back on this wire: from there on nothing is counted.
        """
        self.congestion = congestion
        self.timer = RetransmissionTimer(rto_min_ns)
        self.timer.sample(rtt_ns)  # the handshake's
        self.lossy = loss > 0
        #: Losses repaired by duplicate acknowledgements, and by the timer.
        self.repaired_fast = self.repaired_late = 0
        #: When the retransmission timer fires for the hole; 0 without one.
        self.timeout_ns = 0
        #: When what the outage took is tried again; nothing goes before.
        self.retry_ns = 0
        self._rtt_ns = rtt_ns
        self._delay_ns = delay_ns
        self._rng = rng
        self._buffer_bytes = buffer_bytes or UNLIMITED
        self._loss = loss
        self._open_bytes = open_bytes
        self._under_way: deque[tuple[int, int, int]] = deque()  # (acknowledged at, bytes, sent at)
        self._under_way_bytes = 0
        self._departed_ns = 0
        self._peaks = (0, 0)  # the most bytes under way in the last round trip, and in this one
        self._round_ns = 0
        self._until_loss = self._draw()
        self._followed = 0
        self._filled_ns = 0

    # --- when may bytes go ---

    def woken(self, now_ns: int) -> None:
        """The sender has something to send again; after an idle time the window begins anew."""
        self._acknowledge(now_ns)
        if self._departed_ns and now_ns - self._departed_ns > self.timer.rto_ns:
            self.congestion.idle()

    @property
    def open(self) -> bool:
        """Whether nothing of it can hold the sender back now."""
        return self._buffer_bytes >= self._open_bytes <= self.congestion.window and not self.lossy

    def stretch(self, most: int) -> int:
        """How many bytes are sent at once, at most `most`: a part of the window, and up to where a loss matters."""
        if most <= MSS:
            return most
        if self.congestion.window < UNLIMITED or self._buffer_bytes < UNLIMITED:
            window = min(self.congestion.window, self._buffer_bytes)
            most = min(most, max(MSS, window // _STRETCHES // MSS * MSS))
        if self.lossy:
            packets = _DUPLICATES - self._followed if self.timeout_ns else self._until_loss + 1
            most = min(most, packets * MSS)
        return most

    def ready_ns(self, count: int, now_ns: int) -> int:
        """`now_ns` if `count` bytes may be sent now, else the next time at which that may have changed."""
        if self.retry_ns > now_ns:
            return self.retry_ns
        self._acknowledge(now_ns)
        if not self._under_way_bytes:
            return now_ns
        window = min(self.congestion.window, self._buffer_bytes)
        if self._under_way_bytes + count <= window:
            return now_ns
        return self._under_way[0][0]

    def soonest_ns(self, count: int, now_ns: int) -> int:
        """Before this time not all of `count` more bytes can have been sent."""
        if self.retry_ns > now_ns:
            return self.retry_ns
        lacking = self._under_way_bytes + count - min(self.congestion.window, self._buffer_bytes)
        when_ns = now_ns
        for acknowledged_ns, acked_bytes, _ in self._under_way:
            if lacking <= 0:
                break
            lacking -= 2 * acked_bytes  # in slow start a byte makes room for two
            when_ns = acknowledged_ns
        return when_ns

    def _acknowledge(self, now_ns: int) -> None:
        under_way = self._under_way
        while under_way and under_way[0][0] <= now_ns:
            acknowledged_ns, acked_bytes, sent_ns = under_way.popleft()
            self._under_way_bytes -= acked_bytes
            self.timer.sample(acknowledged_ns - sent_ns)
            if not self.timeout_ns and self._held_back():
                self.congestion.acknowledged(acked_bytes, acknowledged_ns - sent_ns, acknowledged_ns)

    def _held_back(self) -> bool:
        """Whether the window, and nothing else, has held the sender back (as Linux's tcp_is_cwnd_limited)."""
        congestion, peak = self.congestion, max(self._peaks)
        if congestion.window >= self._open_bytes:
            return False
        return congestion.window < (2 * peak if congestion.slow_start else peak + self.stretch(UNLIMITED) + MSS)

    def stalled(self, now_ns: int, up_ns: int) -> None:
        """What would be sent now is lost: the link is down until `up_ns`."""
        wait_ns = self.timer.rto_ns
        retry_ns = now_ns + wait_ns
        while retry_ns < up_ns:
            wait_ns = min(2 * wait_ns, RTO_MAX_NS)
            retry_ns += wait_ns
        self.retry_ns = retry_ns
        self.congestion.timed_out(self._flight())

    # --- what became of them ---

    def sent(self, count: int, sent_ns: int, departed_ns: int) -> None:
        """`count` bytes were given to the wire at `sent_ns`, and depart by `departed_ns`."""
        if not count:
            return
        self._departed_ns = departed_ns
        if not self.open:
            self._under_way.append((departed_ns + self._rtt_ns, count, sent_ns))
            self._under_way_bytes += count
            if sent_ns >= self._round_ns:
                self._peaks, self._round_ns = (self._peaks[1], 0), sent_ns + self._rtt_ns
            self._peaks = (self._peaks[0], max(self._peaks[1], self._under_way_bytes))
        if self.lossy:
            self._packets(-(-count // MSS), departed_ns)

    def _packets(self, packets: int, departed_ns: int) -> None:
        """Of so many packets some may be lost, and the others tell of what was lost before them."""
        while self._until_loss < packets:
            packets -= self._until_loss + 1
            self._until_loss = self._draw()
            self.timeout_ns = max(self.timeout_ns, departed_ns + self.timer.rto_ns)
            self._followed = 0
        self._until_loss -= packets
        if self.timeout_ns:
            self._followed += packets
            if self._followed >= _DUPLICATES:
                self.repaired_fast += 1
                self.congestion.lost(self._flight(), departed_ns + self._rtt_ns)
                self._fill(departed_ns + self._rtt_ns, self.timer.rto_ns)

    def expire(self) -> None:
        """The retransmission timer has expired: send again, and tell the congestion control."""
        self._acknowledge(self.timeout_ns)
        self.repaired_late += 1
        self.congestion.timed_out(self._flight())
        self._fill(self.timeout_ns, 2 * self.timer.rto_ns)

    def _fill(self, sent_again_ns: int, wait_ns: int) -> None:
        """The lost packet is sent again, and again after `wait_ns` if that one is lost."""
        while self._rng.random() < self._loss:
            sent_again_ns += min(wait_ns, RTO_MAX_NS)
            wait_ns *= 2
            self.repaired_late += 1
            self.congestion.timed_out(self._flight())
        self._filled_ns = sent_again_ns + self._delay_ns
        self.timeout_ns = 0

    def delivered_ns(self, arrived_ns: int) -> int:
        """When the reader has what arrived by itself at `arrived_ns`; -1 while a hole in front of it is open."""
        return -1 if self.timeout_ns else max(arrived_ns, self._filled_ns)

    def _flight(self) -> int:
        return max(self._under_way_bytes, MSS) if not self.open else min(self.congestion.window, self._open_bytes)

    def _draw(self) -> int:
        """How many packets get through before the next loss (geometric)."""
        if not self._loss:
            return UNLIMITED
        return int(math.log(1.0 - self._rng.random()) / math.log(1.0 - self._loss))

    def __repr__(self) -> str:
        hole = f", a hole until {self.timeout_ns} ns at the latest" if self.timeout_ns else ""
        return f"<Stream {self._under_way_bytes} bytes under way of {self.congestion.window}{hole}>"

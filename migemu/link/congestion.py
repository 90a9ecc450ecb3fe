"""Congestion control: how many bytes a TCP sender may have under way, and when it gives a packet up.

    none    no window at all: the stream is held by the wire and by the send buffer alone
    reno    RFC 5681: slow start, then one segment a round trip; half the window after a loss
    cubic   RFC 9438: after a loss 0.7 of the window, then a cubic curve around where the loss was; never slower than
            Reno would be

A window grows only while it is what holds the sender back (RFC 7661; Linux does the same), and begins anew after the
connection was idle for a retransmission timeout (RFC 5681, 4.1; net.ipv4.tcp_slow_start_after_idle).

Simplified: every segment is acknowledged at once (no delayed ACKs); no HyStart, no pacing, no ECN; windows in bytes.
"""

from __future__ import annotations

from typing import Final, Protocol

from migemu.units import MS, SECOND

#: Ethernet's 1500 bytes less 20 of IPv4, 20 of TCP and 12 of timestamps.
MSS: Final = 1448
#: RFC 6928.
INITIAL_WINDOW: Final = 10 * MSS
#: RFC 5681, 3.1: the loss window is one segment; ssthresh is never below two.
_LOSS_WINDOW: Final = MSS
_SSTHRESH_MIN: Final = 2 * MSS
#: RFC 9438, 4.6 and 5: beta_cubic and C (in segments per cubic second).
_CUBIC_BETA: Final = 0.7
_CUBIC_C: Final = 0.4
#: Linux's TCP_RTO_MIN; RFC 6298, 2.4 would have 1 s. RFC 6298, 2.1: before the first sample. TCP_RTO_MAX.
RTO_MIN_NS: Final = 200 * MS
_RTO_FIRST_NS: Final = 1 * SECOND
RTO_MAX_NS: Final = 120 * SECOND
UNLIMITED: Final = 1 << 62


class Congestion(Protocol):
    """A congestion control: how many bytes may be in flight after each acknowledgement or loss."""

    window: int

    @property
    def slow_start(self) -> bool:
        """Whether the window grows with every byte that is acknowledged."""

    def acknowledged(self, acked_bytes: int, rtt_ns: int, now_ns: int) -> None:
        """So many bytes have arrived, while the window was what held the sender back."""

    def lost(self, flight_bytes: int, now_ns: int) -> None:
        """A loss was noticed by duplicate acknowledgements; `flight_bytes` were under way."""

    def timed_out(self, flight_bytes: int) -> None:
        """A loss was noticed by the retransmission timer."""

    def idle(self) -> None:
        """Nothing was sent for a retransmission timeout."""


class NoControl:
    """No congestion control: the window has no limit."""

    window = UNLIMITED
    slow_start = False

    def acknowledged(self, acked_bytes: int, rtt_ns: int, now_ns: int) -> None:
        """The window stays without a limit."""

    def lost(self, flight_bytes: int, now_ns: int) -> None:
        """The window stays without a limit."""

    def timed_out(self, flight_bytes: int) -> None:
        """The window stays without a limit."""

    def idle(self) -> None:
        """The window stays without a limit."""


class Reno:
    """TCP Reno's window, as in RFC 5681."""

    beta = 0.5

    def __init__(self) -> None:
        self.window = INITIAL_WINDOW
        self.ssthresh = UNLIMITED
        self._fraction = 0.0

    @property
    def slow_start(self) -> bool:
        """Whether the window is below ssthresh."""
        return self.window < self.ssthresh

    def acknowledged(self, acked_bytes: int, rtt_ns: int, now_ns: int) -> None:
        """Slow start doubles the window in a round trip; congestion avoidance adds a segment (RFC 5681, 3.1)."""
        if self.slow_start:
            self.window += acked_bytes
        else:
            self._avoid(acked_bytes, rtt_ns, now_ns)

    def _avoid(self, acked_bytes: int, rtt_ns: int, now_ns: int) -> None:
        self._grow(acked_bytes * MSS / self.window)

    def _grow(self, grown_bytes: float) -> None:
        self._fraction += grown_bytes
        whole = int(self._fraction)
        self._fraction -= whole
        self.window += whole

    def lost(self, flight_bytes: int, now_ns: int) -> None:
        """Fast recovery (RFC 5681, 3.2), seen from its end: the window is what it will be then."""
        self.ssthresh = max(int(flight_bytes * self.beta), _SSTHRESH_MIN)
        self.window = self.ssthresh

    def timed_out(self, flight_bytes: int) -> None:
        """Back to one segment (RFC 5681, 3.1)."""
        self.ssthresh = max(int(flight_bytes * self.beta), _SSTHRESH_MIN)
        self.window = _LOSS_WINDOW

    def idle(self) -> None:
        """The restart window (RFC 5681, 4.1)."""
        self.window = min(self.window, INITIAL_WINDOW)


class Cubic(Reno):
    """TCP CUBIC's window, as in RFC 9438."""

    beta = _CUBIC_BETA

    def __init__(self) -> None:
        super().__init__()
        self._origin = 0.0
        self._top = 0.0
        self._k_s = 0.0
        self._epoch_ns = 0
        self._reno = 0.0

    def _avoid(self, acked_bytes: int, rtt_ns: int, now_ns: int) -> None:
        if not self._epoch_ns:  # RFC 9438, 4.2: a new congestion avoidance stage
            self._begin(float(self.window), now_ns)
        self._reno += acked_bytes * MSS / self.window * (3 * (1 - self.beta) / (1 + self.beta))  # RFC 9438, 4.3
        t_s = (now_ns + rtt_ns - self._epoch_ns) / SECOND
        target = _CUBIC_C * MSS * (t_s - self._k_s) ** 3 + self._origin
        target = min(max(target, self.window), 1.5 * self.window)
        if self._reno > target:
            self._grow(max(0.0, self._reno - self.window))
        else:
            self._grow((target - self.window) * acked_bytes / self.window)

    def _begin(self, top: float, now_ns: int) -> None:
        self._epoch_ns = now_ns or 1
        self._origin = max(top, float(self.window))
        self._reno = float(self.window)
        self._k_s = ((self._origin - self.window) / (_CUBIC_C * MSS)) ** (1 / 3)

    def lost(self, flight_bytes: int, now_ns: int) -> None:
        """The curve's plateau is where the loss was, or below it after a higher one (RFC 9438, 4.7)."""
        top = float(flight_bytes)
        if top < self._top:
            top *= (1 + self.beta) / 2
        self._top = float(flight_bytes)
        super().lost(flight_bytes, now_ns)
        self._begin(top, now_ns)

    def timed_out(self, flight_bytes: int) -> None:
        """As Reno; the next avoidance begins a new curve (RFC 9438, 4.8)."""
        super().timed_out(flight_bytes)
        self._epoch_ns = 0

    def idle(self) -> None:
        """As Reno; the time away is not counted (RFC 9438, 4.2)."""
        super().idle()
        self._epoch_ns = 0


CONGESTION: Final[dict[str, type[Congestion]]] = {"none": NoControl, "reno": Reno, "cubic": Cubic}


class RetransmissionTimer:
    """RFC 6298: how long an acknowledgement is waited for."""

    def __init__(self, rto_min_ns: int = RTO_MIN_NS) -> None:
        self.rto_ns = max(_RTO_FIRST_NS, rto_min_ns)
        self._rto_min_ns = rto_min_ns
        self._srtt_ns = 0
        self._rttvar_ns = 0

    def sample(self, rtt_ns: int) -> None:
        """A round trip was measured (RFC 6298, 2.2 and 2.3, with alpha 1/8, beta 1/4 and K 4)."""
        if not self._srtt_ns:
            self._srtt_ns, self._rttvar_ns = rtt_ns, rtt_ns // 2
        else:
            self._rttvar_ns += (abs(self._srtt_ns - rtt_ns) - self._rttvar_ns) // 4
            self._srtt_ns += (rtt_ns - self._srtt_ns) // 8
        self.rto_ns = min(max(self._srtt_ns + 4 * self._rttvar_ns, self._rto_min_ns), RTO_MAX_NS)

"""The emulated link in real time: holds bytes back until the link model says that they have arrived.

One shaper stands in front of all connections that leave a node, because they share one wire. Each connection has a
port, which plays its socket's send buffer: frames wait there in order, and whoever sends much waits for room there.
The wire takes segments of at most 64 KiB from the ports in turn (fair queueing, as `fq` does), so that an
urgent page on a connection of its own does not wait behind what another connection has buffered - only behind what
is already in the link's queue, which is one for all. A segment is kept until its arrival time and then handed to the
socket: on loopback that is, nearly, when the peer has it.

An alarm (timerfd) is set for whatever comes next, never one per piece. What it can hold, measured on a two-core
virtual machine: rates up to `RATE_MAX` within 5 %, delays from `DELAY_MIN` within 10 %. Beyond that `check_link`
refuses: a figure taken on such a link would be the machine's, not the link's. A machine that is busy with other things
may hold less; `unheld` says so after the fact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

from migemu import named
from migemu.errors import ScenarioError
from migemu.link.jitter import jitters
from migemu.link.model import AHEAD_NS, LinkModel
from migemu.ports import Clock
from migemu.scenario.scenario import LinkSettings
from migemu.transport.clock import EARLY_NS, Alarm
from migemu.units import KIB, MS, SECOND, US, format_rate, format_time

#: Measured; see the docstring.
RATE_MAX: Final = 10 * 10**9
DELAY_MIN: Final = 1 * MS
#: What the wire takes from one port at a time: what it carries in this time, as Linux sizes TCP's bursts by time,
#: within the least that is worth a timer and the most that segmentation offload hands to a device at once.
_SEGMENT_NS: Final = 200 * US
_SEGMENT_BYTES: Final = (4 * KIB, 64 * KIB)
#: A segment is handed to the socket this much before it is due on a link with a delay: loopback and the wake-up of a
#: sleeping process take about that long by themselves (a round trip between two cores: 0.1 to 0.2 ms, measured).
_HANDOVER_NS: Final = 60 * US
#: A segment is late from here on, or from a tenth of the delay on; more than one in twenty must not be.
_LATE_NS: Final = 300 * US
#: What real time does not emulate; settings that make no difference at their default.
_VIRTUAL_ONLY: Final = ("scheduling", "segment", "reorder", "congestion", "loss", "rto_min", "outages")


def check_link(section: str, link: LinkSettings) -> None:
    """ScenarioError when the real-time shaper cannot hold `link`."""
    if link.rate > RATE_MAX:
        raise ScenarioError(
            "emulated link", f"{section}.rate",
            f"{format_rate(link.rate)} is more than real time can hold here ({format_rate(RATE_MAX)}); "
            "leave it at 0 for the bare loopback speed, or give a lower rate",
        )  # fmt: skip
    for name, value in (("delay", link.delay), ("jitter", link.jitter)):
        if 0 < value < DELAY_MIN:
            raise ScenarioError(
                "emulated link", f"{section}.{name}",
                f"{format_time(value)} cannot be held in real time; give 0 or at least {format_time(DELAY_MIN)}",
            )  # fmt: skip
    for name in _VIRTUAL_ONLY:
        if getattr(link, name) != getattr(LinkSettings(), name):
            raise ScenarioError(
                "emulated link", f"{section}.{name}",
                "is emulated in virtual time only (migemu sim); leave it at its default for a measured run",
            )  # fmt: skip
    try:  # its file, where it has one, is read again when the shaper is made
        jitters.create(link.distribution, link.jitter, Random(0), named.read_text)
    except (ValueError, OSError) as error:
        problem = f"{error.filename}: cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise ScenarioError("emulated link", f"{section}.distribution={link.distribution}", problem) from None


class Port:
    """One connection's way onto the wire: what stands in its socket's send buffer."""

    def __init__(self, shaper: Shaper, deliver: Callable[[list[Any]], None]) -> None:
        self.deliver = deliver
        self.waiting: deque[memoryview] = deque()
        self.waiting_bytes = 0
        self.under_way = 0
        self.resume: list[Callable[[], None]] = []
        self._shaper = shaper

    def send(self, buffers: list[Any]) -> None:
        """Put a frame behind what waits already."""
        for buffer in buffers:
            view = memoryview(buffer)
            self.waiting_bytes += len(view)
            step = self._shaper.segment_bytes
            self.waiting.extend(view[at : at + step] for at in range(0, len(view), step))
        self._shaper.transmit()

    @property
    def writable(self) -> bool:
        """Whether the send buffer has room."""
        return self.waiting_bytes < self._shaper.socket_bytes

    @property
    def idle(self) -> bool:
        """Whether everything has arrived."""
        return not self.waiting and not self.under_way

    def when_writable(self, resume: Callable[[], None]) -> None:
        """Call `resume` once, when the send buffer has room again."""
        self.resume.append(resume)

    def close(self) -> None:
        """What waits will not be sent; what is on the wire still arrives."""
        self.waiting.clear()
        self.waiting_bytes = 0
        self._shaper.ports.remove(self)


class Shaper:
    """One node's outgoing wire in real time."""

    def __init__(self, link: LinkSettings, clock: Clock, rng: Random, socket_bytes: int) -> None:
        """Must be made in a running loop. `socket_bytes` is the size of each connection's send buffer."""
        self._link = link
        self._segments = 0
        self._late_segments = 0
        self._late_ns = max(link.delay // 10, _LATE_NS)
        self.socket_bytes = socket_bytes
        self.ports: deque[Port] = deque()
        least, most = _SEGMENT_BYTES
        self.segment_bytes = min(most, max(least, link.rate * _SEGMENT_NS // (8 * SECOND))) if link.rate else most
        queue_bytes = max(link.queue, link.rate * AHEAD_NS // (8 * SECOND), 1)
        self._handover_ns = _HANDOVER_NS if link.delay else 0
        jitter = jitters.create(link.distribution, link.jitter, rng, named.read_text)
        self._model = LinkModel(link.rate, link.delay, link.jitter, queue_bytes, rng, jitter=jitter)
        self._clock = clock
        self._alarm = Alarm(self._ring)
        self._arriving: deque[tuple[int, Port, memoryview]] = deque()

    def port(self, deliver: Callable[[list[Any]], None]) -> Port:
        """A way onto the wire; `deliver(buffers)` is called as bytes arrive."""
        port = Port(self, deliver)
        self.ports.append(port)
        return port

    def transmit(self) -> None:
        """Give the wire what its queue has room for, a segment from each port in turn."""
        now = self._clock.now_ns()
        idle = 0
        while idle < len(self.ports):
            if (room_ns := self._model.room_at(now)) > now:
                self._alarm.set(room_ns)
                break
            port = self.ports[0]
            self.ports.rotate(-1)
            if port.waiting:
                idle = 0
                self._send_segment(port, now)
            else:
                idle += 1
        if self._arriving:
            self._alarm.set(self._arriving[0][0])

    def _send_segment(self, port: Port, now: int) -> None:
        segment = port.waiting.popleft()
        port.waiting_bytes -= len(segment)
        port.under_way += 1
        self._arriving.append((self._model.send(len(segment), now) - self._handover_ns, port, segment))
        if port.resume and port.writable:
            resume, port.resume = port.resume, []
            for call in resume:
                call()

    @property
    def unheld(self) -> str | None:
        """Why this was not the link that it was set to; None if it was.

        Where a delay is emulated, every segment counts; where only a rate is, the queue covers what is late.
        """
        if not self._link.delay or self._late_segments * 20 <= self._segments:
            return None
        share = 100 * self._late_segments // self._segments
        return (
            f"{share} % of the segments were handed on more than {format_time(self._late_ns)} late; this machine was "
            "too busy to hold the link, so take no figures from this run"
        )

    def _ring(self) -> None:
        now = self._clock.now_ns()
        while self._arriving and self._arriving[0][0] <= now + EARLY_NS:
            due, port, segment = self._arriving.popleft()
            self._segments += 1
            self._late_segments += now - due > self._late_ns
            port.under_way -= 1
            port.deliver([segment])
        self.transmit()

    def close(self) -> None:
        """Drop what is under way and give the timer back. Safe to call twice."""
        self._arriving.clear()
        self._alarm.close()

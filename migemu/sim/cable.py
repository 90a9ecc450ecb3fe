"""A cable between two nodes in virtual time: a wire in each direction, and the timer that asks it what is certain.

What is put in at one end comes out at the other when the wire says so: the `token` of a frame is called with the frame.
Frames carry no bytes, only their number; what they stand for travels in the token, untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Final

from migemu import named
from migemu.link.congestion import CONGESTION, UNLIMITED
from migemu.link.jitter import ReadText, jitters
from migemu.link.model import AHEAD_NS, LinkModel
from migemu.link.scheduler import Flow, LinkScheduler, QueuedFrame, Scheduling
from migemu.link.stream import Stream
from migemu.scenario.scenario import LinkSettings
from migemu.sim.handles import TimerHandle
from migemu.sim.loop import VirtualLoop
from migemu.units import MIB, SECOND

Token = Callable[[QueuedFrame], None]
#: What a reader that is slow lets wait, without SO_RCVBUF, beyond what is on its way: tcp_rmem allows 6 MB, of which
#: the kernel's own books take half (Linux Documentation/networking/ip-sysctl.rst, tcp_rmem and tcp_adv_win_scale).
_UNREAD_BYTES: Final = 3 * MIB
#: A window that covers what the link holds and so many segments can hold nobody back.
_SPARE_SEGMENTS: Final = 4


class Direction:
    """One direction of an emulated link: frames go in, and arrive when bandwidth, delay and loss let them."""

    def __init__(
        self, loop: VirtualLoop, link: LinkSettings, back_delay_ns: int, rng: Random,
        read_text: ReadText = named.read_text, arrivals: Context | None = None,
        carried: Token | None = None, urgent_arrivals: Context | None = None,
    ) -> None:  # fmt: skip
        """`back_delay_ns` is what acknowledgements take; what frames bring is read in the context of `arrivals`.

        What the urgent channel brings, in that of `urgent_arrivals`, if there is one. Outages count from now on.

        `carried(frame)` is told of each frame as soon as it is known when it will arrive.
        """
        jitter = jitters.create(link.distribution, link.jitter, rng, read_text)
        varies = bool(link.jitter) or not link.distribution.startswith("uniform")
        model = LinkModel(
            link.rate, link.delay, link.jitter, link.queue, rng,
            jitter=jitter if varies else None,
            outages=tuple((loop.now_ns + down_ns, loop.now_ns + up_ns) for down_ns, up_ns in link.outages),
        )  # fmt: skip
        ahead_ns = link.queue * 8 * SECOND // link.rate if link.queue and link.rate else AHEAD_NS
        self.wire = LinkScheduler(model, Scheduling(link.scheduling), link.segment, ahead_ns, link.reorder)
        self._loop = loop
        self._context = Context()  # of the wire itself, which no processor holds up
        #: In which whoever receives here runs.
        self.arrivals = self._context if arrivals is None else arrivals
        self.urgent_arrivals = self.arrivals if urgent_arrivals is None else urgent_arrivals
        self._back_delay_ns = back_delay_ns
        self._carried = carried
        self._link = link
        self._rng = rng
        self._rtt_ns = link.delay + back_delay_ns
        held_bytes = link.rate * (self._rtt_ns + ahead_ns) // (8 * SECOND)
        self._open_bytes = held_bytes + _SPARE_SEGMENTS * link.segment if link.rate else UNLIMITED
        self._timer: TimerHandle | None = None
        self._roomless: list[tuple[Flow, Callable[[], None]]] = []

    def flow(self, name: str, buffer_bytes: int, receive_bytes: int = 0) -> Flow:
        """A connection's way onto the wire; `buffer_bytes` bounds what is not acknowledged, 0 does not.

        `receive_bytes` is what a reader that is slow lets wait; 0 leaves that to the system.
        """
        link = self._link
        ideal = link.congestion == "none" and not link.loss and not buffer_bytes and not link.outages
        stream = None if ideal else Stream(
            CONGESTION[link.congestion](), self._rtt_ns, link.delay, self._rng, buffer_bytes=buffer_bytes,
            loss=link.loss, rto_min_ns=link.rto_min, open_bytes=self._open_bytes,
        )  # fmt: skip
        flow = self.wire.flow(name, stream)
        flow.window_bytes = receive_bytes or _UNREAD_BYTES + link.rate * self._rtt_ns // (8 * SECOND)
        return flow

    def send(self, flow: Flow, size: int, token: Token) -> None:
        """Put a frame of `size` bytes into the send buffer; `token(frame)` is called when it arrives.

        A node that has work charged to its processor sends when that is done.
        """
        processor = self._loop.processor
        if processor is not None and processor.free_ns > self._loop.now_ns:
            self._loop.call_at_ns(processor.free_ns, self._put, flow, size, token, context=self._context)
        else:
            self._put(flow, size, token)

    def _put(self, flow: Flow, size: int, token: Token) -> None:
        self.wire.send(flow, size, token, self._loop.now_ns)
        self._pump()

    def has_read(self, flow: Flow, count: int) -> None:
        """The reader has taken `count` bytes out of its receive buffer; the sender learns of it a way back later."""
        when_ns = self._loop.now_ns + self._back_delay_ns
        self._loop.call_at_ns(when_ns, self._was_read, flow, count, context=self._context)

    def _was_read(self, flow: Flow, count: int) -> None:
        self.wire.read(flow, count, self._loop.now_ns)
        self._pump()

    def when_room(self, flow: Flow, resume: Callable[[], None]) -> None:
        """Call `resume` once, when fewer than `flow.room_bytes` wait."""
        flow.room_wanted = True
        self._roomless.append((flow, resume))
        self._arm()

    def drop(self, flow: Flow) -> None:
        """What waits in the send buffer is never sent."""
        self.wire.drop(flow)
        self._pump()

    def _pump(self) -> None:
        """Look at what is certain by now, and come back when more is."""
        loop, wire = self._loop, self.wire
        for frame in wire.advance(loop.now_ns):
            if self._carried is not None:
                self._carried(frame)
            loop.call_at_ns(frame.arrived_ns, frame.token, frame, context=self._context)
        if self._roomless:
            self._make_room()
        self._arm()

    def _arm(self) -> None:
        deadline_ns = self.wire.deadline()
        if deadline_ns is None:
            return
        timer = self._timer
        if timer is not None:
            if timer.when_ns <= deadline_ns:
                return  # it looks again then
            timer.cancel()
        self._timer = self._loop.call_at_ns(deadline_ns, self._due, context=self._context)

    def _due(self) -> None:
        self._timer = None
        self._pump()

    def _make_room(self) -> None:
        roomless, self._roomless = self._roomless, []
        for flow, resume in roomless:
            if flow.waiting_bytes < flow.room_bytes:
                flow.room_wanted = False
                resume()
            else:
                self._roomless.append((flow, resume))

    def __repr__(self) -> str:
        return f"<Direction {self.wire!r}>"

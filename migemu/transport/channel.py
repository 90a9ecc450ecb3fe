"""One real connection: frames over TCP or a socket file, received in place, on whichever asyncio loop runs.

A channel is an asyncio `BufferedProtocol`: before each receive the loop asks where the bytes belong, and the decoder
answers with the staging buffer or with the guest's page itself. Nothing is copied on the way but by the kernel.

What decides the latency of a fault under load is how much background data stands in front of it, far more than the
second connection does: hence at most `write` bytes are handed to the socket at once, nothing beyond `high_water` is
queued there, and the socket buffers can be bounded (`[net]` of the scenario).

Where TLS or a pre-shared key is asked for, a `migemu.transport.security.handshake` stands between socket and decoder.
It is asked for nothing else: turns, marks and polling are the same. What is handed to the socket at once is encrypted
at that moment,
never before, so an urgent piece waits for as little as it does without. Bytes sent are counted before encryption.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from migemu.errors import BrokenError, ClosedError, MigemuError, PeerError, one_line
from migemu.node.channel_waiters import ChannelWaiters
from migemu.ports import ChannelHandler, ChannelStatistics
from migemu.transport.admission import GAVE_WAY, Door
from migemu.transport.outgoing import NodeTurns, Outgoing
from migemu.transport.security.handshake import Handshake
from migemu.transport.shaper import Port
from migemu.transport.slow_peer import LOOKS, Drip
from migemu.transport.sockets import reason, tune, who
from migemu.units import KIB, SECOND, format_rate, format_time
from migemu.wire.codec import FrameDecoder, Sized, preamble
from migemu.wire.header import encode_head
from migemu.wire.messages import Failed, Message, Page, Request

_POLL_S: Final = 0.001
_LINGER_S: Final = 2.0
_DISCARD_BYTES: Final = 64 * KIB


class TcpChannel(asyncio.BufferedProtocol):
    """ports.Channel over one TCP or Unix connection."""

    def __init__(
        self, accept: Callable[[TcpChannel], ChannelHandler], node: NodeTurns, gate: Handshake | None,
        door: Door[TcpChannel] | None = None, peer: str = "",
    ) -> None:  # fmt: skip
        """`accept` names the handler as soon as the connection stands. `door` is that of whoever was called.

        `peer` is what the other end is called where its socket does not tell.
        """
        loop = asyncio.get_running_loop()
        self.peer = peer
        self._accept = accept
        self._net, self._bounds, self._clock, self._shaper, self._busy_poll = node
        self._gate = gate
        self._door = door
        self._at_door = door is not None
        self._ready = False
        #: For whoever called through a gate: done when the other side has let it in, or why it has not.
        self.let_in: asyncio.Future[None] | None = loop.create_future() if gate is not None and door is None else None
        #: Whether a byte has come through the gate, if there is one.
        self.heard = False
        self._drip = Drip(self._net.idle_timeout, self._net.rate_min, self._clock.now_ns())
        self._look: asyncio.TimerHandle | None = None
        self._messages = 0
        self._port: Port | None = None
        self._transport: asyncio.Transport | None = None
        self._waiters = ChannelWaiters()
        self._outgoing = Outgoing(self._net, self._busy_poll, self._waiters.wake)
        self._turn_bytes = 0
        self._linger: asyncio.TimerHandle | None = None
        self._closing = False
        self._lost = False
        self._sent_bytes = 0
        self._last_received_ns = self._clock.now_ns()

    # --- what the loop tells us ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio.Protocol: the connection is established."""
        transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        self._transport = transport
        transport.set_write_buffer_limits(high=self._net.high_water)
        found, host = who(transport)
        self.peer = self.peer or found
        tune(transport.get_extra_info("socket"), self._net)
        if self._shaper is not None:
            self._port = self._shaper.port(self._write)
        self._handler = self._accept(self)
        landing = cast(Callable[[Page, int], memoryview], self._handler.landing)  # who has a socket has bytes
        self._decoder = FrameDecoder(self._handler.limits, self._announced, landing)
        if self._door is not None and not self._enter(self._door, host):
            return
        if self._gate is None:
            self._begin()
        else:
            self._gate.start()
            self._pass_on(transport, self._gate)

    def _enter(self, door: Door[TcpChannel], host: str) -> bool:
        """Take a place, somebody else's if need be; False when there is none."""
        try:
            gone = door.enter(self, host)
        except PeerError as error:
            self._drop(error)
            return False
        if gone is not None:
            gone._drop(PeerError(GAVE_WAY))
        return True

    def _begin(self) -> None:
        """The stream begins."""
        assert self._transport is not None
        self._ready = True
        if self._gate is not None and self._gate.passes:
            self._gate = None
            self._came_in()
        self._outgoing.open(self._transport, self._gate)
        self._out([preamble()], len(preamble()))
        if self._net.rate_min:
            self._look_again()

    def _came_in(self) -> None:
        if self.let_in is not None and not self.let_in.done():
            self.let_in.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes belong."""
        if self._closing:
            return memoryview(bytearray(_DISCARD_BYTES))  # whatever still comes is not wanted any more
        view = self._decoder.get_buffer() if self._gate is None else self._gate.get_buffer()
        return view[: self._turn]  # no read is longer than a turn

    @property
    def _turn(self) -> int:
        """Bytes until the other connections get theirs. Migrations share it; each has a connection that is busy."""
        if self._busy_poll.hot:
            return self._net.read_hot
        crowd = len(self._door) // 2 if self._door is not None else 1
        return self._net.read if crowd < 2 else max(self._net.read_hot, self._net.read // crowd)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have been received where they belong."""
        if self._closing:
            return
        self._turn_bytes += nbytes
        if self._turn_bytes >= self._net.read_hot and self._turn_bytes >= self._turn:
            # libuv goes on receiving for as long as buffers get filled, up to 32 times, before it looks at any other
            # connection: with a run per buffer that is milliseconds in which no urgent piece gets through.
            self._turn_bytes = 0
            assert self._transport is not None
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)
        self._last_received_ns = self._clock.now_ns()
        if self._gate is None:
            self._deliver(nbytes)
        else:
            self._through(self._gate, nbytes)

    def _through(self, gate: Handshake, nbytes: int) -> None:
        """Bytes for the gate; from it, once it is open, to the decoder."""
        self.heard = True
        assert self._transport is not None
        try:
            gate.updated(nbytes)
            self._pass_on(self._transport, gate)
            if not self._ready:
                if not gate.open:
                    return
                self._begin()
            more = not gate.passes
            while more and not self._closing:
                view = self._decoder.get_buffer()
                received = gate.read(view)
                more = received == len(view)
                if received:
                    self._came_in()
                    self._deliver(received)
        except PeerError as error:
            self._refuse(error)

    @staticmethod
    def _pass_on(transport: asyncio.Transport, gate: Handshake) -> None:
        if output := gate.output():
            transport.write(output)

    def _deliver(self, nbytes: int) -> None:
        """Bytes of the stream lie where the decoder wanted them."""
        try:
            for message, payload in self._decoder.buffer_updated(nbytes):
                if type(message) is Request or (type(message) is Page and message.urgent):
                    self._busy_poll.touch()
                self._messages += 1
                self._handler.received(self, message, payload)
                if self._at_door and self._door is not None:
                    self._at_door = False
                    self._door.admit(self)
                if self.closing:  # the handler has had enough; what follows is not even looked at
                    break
        except PeerError as error:
            self._refuse(error)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _announced(self, message: Message, payload_bytes: int) -> None:
        self._handler.announced(self, message, payload_bytes)

    def _refuse(self, error: PeerError) -> None:
        """The peer broke the protocol: tell it, close, report. A stranger is told by an alert of TLS, or not at all."""
        if self._transport is not None and not self._transport.is_closing():
            if self._ready:
                self.send(Failed(one_line(error)))
            elif self._gate is not None:
                self._pass_on(self._transport, self._gate)
        self._report(error)
        self._shut()

    def _drop(self, error: MigemuError) -> None:
        """Close now, and report."""
        self._report(error)
        self.abort()

    def _look_again(self) -> None:
        """Whether the peer drips, now and then."""
        idle_ns, decoder = self._net.idle_timeout, self._decoder
        mid_message = decoder.mid_frame and decoder.received_bytes > len(preamble())
        if self._drip.look(self._clock.now_ns(), decoder.received_bytes, self._messages, mid_message):
            self._drop(BrokenError(
                f"{self.peer} has brought less than {format_rate(self._net.rate_min)} for {format_time(idle_ns)} "
                "in the middle of a message (net.rate_min); is the network cut?"
            ))  # fmt: skip
        else:
            self._look = asyncio.get_running_loop().call_later(idle_ns / SECOND / LOOKS, self._look_again)

    def eof_received(self) -> bool:
        """The peer closed its side; whether that was in order is told by `connection_lost`."""
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio.Protocol: the connection is closed or broken; the handler is told once."""
        error: MigemuError | None = None
        if exc is not None and not self._closing:
            error = BrokenError(f"the connection to {self.peer} broke: {reason(exc)}")
        elif not self._closing and self._gate is not None and not (self._ready and self._is_in):
            error = BrokenError(f"the connection to {self.peer} ended before it was accepted: {self._gate.trouble}")
        elif not self._closing and self._decoder.mid_frame:
            error = BrokenError(f"the connection to {self.peer} ended in the middle of a message")
        elif not self._closing and self._gate is not None and not self._gate.ended:
            error = BrokenError(f"the connection to {self.peer} was cut; TLS did not announce the end (close_notify)")
        self._closing = True
        for timer in (self._linger, self._look):
            if timer is not None:
                timer.cancel()
        if self._door is not None:
            self._door.leave(self)
        if self._port is not None:
            self._port.close()
        self._transport = None
        self._waiters.ended()
        self._report(error)

    def _report(self, error: MigemuError | None) -> None:
        if self._lost:
            return
        self._lost = True
        if self._is_in:
            self._handler.lost(self, error)
        elif self.let_in is not None and not self.let_in.done():
            self.let_in.set_exception(error or BrokenError("it closed the connection"))

    @property
    def _is_in(self) -> bool:
        """Whether the handler is told what happens, and not whoever waits for `let_in`."""
        if self.let_in is None:
            return True
        return self.let_in.done() and not self.let_in.cancelled() and self.let_in.exception() is None

    def pause_writing(self) -> None:
        """The socket's queue is above the high-water mark."""
        self._outgoing.pause()

    def resume_writing(self) -> None:
        """The socket's queue is below the low-water mark."""
        self._outgoing.resume()

    # --- what our owner asks ---

    def send(self, message: Message, payload: Sized | None = None) -> None:
        """Queue a frame; see ports.Channel."""
        if self._closing:
            raise ClosedError(f"{type(message).__name__} was sent on a closed channel")
        if type(message) is Request:
            self._busy_poll.touch()
        if payload is None:
            head = encode_head(message, 0)
            self._out([head], len(head))
        else:
            payload_bytes = len(payload)
            head = encode_head(message, payload_bytes)
            self._out([head, payload], len(head) + payload_bytes)

    def _out(self, buffers: list[Any], frame_bytes: int) -> None:
        self._sent_bytes += frame_bytes
        if self._port is None:
            self._write(buffers)
        else:
            self._port.send(buffers)

    def _write(self, buffers: list[Any]) -> None:
        self._outgoing.write(buffers)
        if self._outgoing.waiting > 2 * self._bounds.queue_frames_max:
            asyncio.get_running_loop().call_soon(self._drop, BrokenError(
                f"{self.peer} reads nothing, and more than {self._bounds.queue_frames_max} messages wait for it "
                "(limits.queue_frames_max)"
            ))  # fmt: skip

    @property
    def closing(self) -> bool:
        """Whether this side has closed it, or the connection is gone."""
        return self._closing

    @property
    def writable(self) -> bool:
        """Whether `drain` would return at once."""
        return self._outgoing.writable and (self._port is None or self._port.writable)

    async def drain(self) -> None:
        """Wait until there is room for more; BrokenError when the connection is lost."""
        while not self.writable:
            if self._closing:
                raise BrokenError(f"the connection to {self.peer} was lost")
            room = self._waiters.room()
            if self._port is not None and not self._port.writable:
                self._port.when_writable(self._waiters.wake)
            await room
        if self._closing:
            raise BrokenError(f"the connection to {self.peer} was lost")

    async def close(self) -> None:
        """Send what is queued, then close."""
        self._shut()
        await self._waiters.end()

    def _shut(self) -> None:
        """Send what is queued, say that nothing more will come, and let the peer close.

        Closing first, with bytes of the peer unread, would make the kernel reset the connection, and the peer might
        never read what was said last. A peer that takes in nothing for `_LINGER_S`, or then does not close, is cut off.
        """
        self._lost = True
        if not self._closing and self._transport is not None:
            self._closing = True
            self._say_end(-1, self._clock.now_ns())
        self._waiters.wake()

    def _say_end(self, queued_bytes: int, since_ns: int) -> None:
        """End our direction of the stream once everything is sent; `queued_bytes` has not changed since `since_ns`."""
        if self._transport is None or self._transport.is_closing():
            return
        loop, now = asyncio.get_running_loop(), self._clock.now_ns()
        left = self.statistics().queued_bytes
        if not left and (self._port is None or self._port.idle):
            if self._gate is not None:
                self._gate.end()
                self._pass_on(self._transport, self._gate)
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._linger = loop.call_later(_LINGER_S, self.abort)
        elif left == queued_bytes and now - since_ns > _LINGER_S * SECOND:
            self.abort()
        else:
            self._linger = loop.call_later(_POLL_S, self._say_end, left, since_ns if left == queued_bytes else now)

    def abort(self) -> None:
        """Close now; what is queued is lost."""
        self._closing = True
        self._lost = True
        self._outgoing.drop()
        if self._transport is not None:
            self._transport.abort()
        self._waiters.wake()

    def statistics(self) -> ChannelStatistics:
        """Counters of this channel, as a frozen copy."""
        queued = self._outgoing.waiting_bytes
        if self._transport is not None:
            queued += self._transport.get_write_buffer_size()
        if self._port is not None:
            queued += self._port.waiting_bytes
        return ChannelStatistics(self._sent_bytes, self._decoder.received_bytes, queued, self._last_received_ns)

    def __repr__(self) -> str:
        state = "closed" if self._closing else "paused" if self._outgoing.paused else "open"
        return f"<TcpChannel {self.peer} {state}, {self._sent_bytes} bytes sent>"

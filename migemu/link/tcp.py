"""The real network: frames over TCP, received in place, on whichever asyncio loop runs.

A channel is an asyncio `BufferedProtocol`: before each receive the loop asks where the bytes belong, and the decoder
answers with the staging buffer or with the guest's page itself. Nothing is copied on the way but by the kernel.

What decides the latency of a fault under load is how much background data stands in front of it, far more than the
second connection does: hence at most `write` bytes are handed to the socket at once, nothing beyond `high_water` is
queued there, and the socket buffers can be bounded (`[net]` of the scenario).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from migemu.errors import BrokenError, ClosedError, MigemuError, PeerError, one_line
from migemu.link.clock import BusyPoll
from migemu.link.shaper import Port, Shaper
from migemu.link.sockets import check, reason, tune
from migemu.ports import ChannelHandler, ChannelStatistics, Clock
from migemu.scenario import Net
from migemu.units import KIB, SECOND, format_time
from migemu.wire.codec import FrameDecoder, Sized, encode_head, preamble
from migemu.wire.messages import Failed, Message, Page, Request

_RETRY_S: Final = 0.1
_POLL_S: Final = 0.001
_LINGER_S: Final = 2.0
_DISCARD_BYTES: Final = 64 * KIB


class TcpChannel(asyncio.BufferedProtocol):
    """ports.Channel over one TCP connection."""

    def __init__(
        self, accept: Callable[[TcpChannel], ChannelHandler], net: Net, clock: Clock, shaper: Shaper | None,
        busy_poll: BusyPoll,
    ) -> None:  # fmt: skip
        """`accept` names the handler as soon as the connection stands."""
        self.peer = "?"
        self._accept = accept
        self._net = net
        self._clock = clock
        self._shaper = shaper
        self._busy_poll = busy_poll
        self._port: Port | None = None
        self._transport: asyncio.Transport | None = None
        self._queue: deque[memoryview | bytes] = deque()
        self._paused = False
        self._turn_bytes = 0
        self._flushing = False
        self._linger: asyncio.TimerHandle | None = None
        self._closing = False
        self._lost = False
        self._drainers: list[asyncio.Future[None]] = []
        self._sent_bytes = 0
        self._last_received_ns = clock.now_ns()
        self._gone = asyncio.get_running_loop().create_future()

    # --- what the loop tells us ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        self._transport = transport
        transport.set_write_buffer_limits(high=self._net.high_water)
        host, port = (transport.get_extra_info("peername") or ("?", 0))[:2]
        self.peer = f"{host}:{port}"
        tune(transport.get_extra_info("socket"), self._net)
        if self._shaper is not None:
            self._port = self._shaper.port(self._write)
        self._handler = self._accept(self)
        landing = cast(Callable[[Page, int], memoryview], self._handler.landing)  # who has a socket has bytes
        self._decoder = FrameDecoder(self._handler.limits, self._announced, landing)
        self._out([preamble()], len(preamble()))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes belong."""
        if self._closing:
            return memoryview(bytearray(_DISCARD_BYTES))  # whatever still comes is not wanted any more
        return self._decoder.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have been received where they belong."""
        if self._closing:
            return
        self._turn_bytes += nbytes
        if self._turn_bytes >= self._net.read_hot and (self._turn_bytes >= self._net.read or self._busy_poll.hot):
            # libuv goes on receiving for as long as buffers get filled, up to 32 times, before it looks at any other
            # connection: with a run per buffer that is milliseconds in which no urgent piece gets through.
            self._turn_bytes = 0
            assert self._transport is not None
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)
        self._last_received_ns = self._clock.now_ns()
        try:
            for message, payload in self._decoder.buffer_updated(nbytes):
                if type(message) is Request or (type(message) is Page and message.urgent):
                    self._busy_poll.touch()
                self._handler.received(self, message, payload)
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
        """The peer broke the protocol: tell it, close, report."""
        if self._transport is not None and not self._transport.is_closing():
            self.send(Failed(one_line(error)))
        self._report(error)
        self._shut()

    def eof_received(self) -> bool:
        """The peer closed its side; whether that was in order is told by `connection_lost`."""
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is over."""
        error: MigemuError | None = None
        if exc is not None and not self._closing:
            error = BrokenError(f"the connection to {self.peer} broke: {reason(exc)}")
        elif not self._closing and self._decoder.mid_frame:
            error = BrokenError(f"the connection to {self.peer} ended in the middle of a message")
        self._closing = True
        if self._linger is not None:
            self._linger.cancel()
        if self._port is not None:
            self._port.close()
        self._transport = None
        self._wake_drainers()
        if not self._gone.done():
            self._gone.set_result(None)
        self._report(error)

    def _report(self, error: MigemuError | None) -> None:
        if not self._lost:
            self._lost = True
            self._handler.lost(self, error)

    def pause_writing(self) -> None:
        """The socket's queue is above the high-water mark."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket's queue is below the low-water mark."""
        self._paused = False
        self._flush()
        self._wake_drainers()  # they look for themselves what else they have to wait for

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
        """Hand buffers to the socket, as far as its queue has room."""
        self._queue.extend(buffers)
        if not self._flushing:
            self._flush()

    def _flush(self) -> None:
        """Hand over slices; while urgent messages come and go, one a turn of the loop, so that they get theirs."""
        self._flushing = False
        transport, queue = self._transport, self._queue
        if transport is None or transport.is_closing():
            queue.clear()
            return
        hot = self._busy_poll.hot
        step = self._net.write_hot if hot else self._net.write
        budget = step
        while queue and not self._paused:
            buffer = queue.popleft()
            if len(buffer) > step:
                view = memoryview(buffer)
                buffer = view[:step]
                queue.appendleft(view[step:])
            transport.write(buffer)
            if hot:
                budget -= len(buffer)
                if budget <= 0 and queue and not self._paused:
                    self._flushing = True
                    asyncio.get_running_loop().call_soon(self._flush_on)
                    return

    def _flush_on(self) -> None:
        """The next turn of `_flush`."""
        if self._flushing:
            self._flush()
            self._wake_drainers()

    @property
    def closing(self) -> bool:
        """Whether this side has closed it, or the connection is gone."""
        return self._closing

    @property
    def writable(self) -> bool:
        """Whether `drain` would return at once."""
        return not self._paused and not self._queue and (self._port is None or self._port.writable)

    async def drain(self) -> None:
        """Wait until there is room for more; BrokenError when the connection is lost."""
        while not self.writable:
            if self._closing:
                raise BrokenError(f"the connection to {self.peer} was lost")
            waiter = asyncio.get_running_loop().create_future()
            self._drainers.append(waiter)
            if self._port is not None and not self._port.writable:
                self._port.when_writable(self._wake_drainers)
            await waiter
        if self._closing:
            raise BrokenError(f"the connection to {self.peer} was lost")

    def _wake_drainers(self) -> None:
        drainers, self._drainers = self._drainers, []
        for waiter in drainers:
            if not waiter.done():
                waiter.set_result(None)

    async def close(self) -> None:
        """Send what is queued, then close."""
        self._shut()
        await self._gone

    def _shut(self) -> None:
        """Send what is queued, say that nothing more will come, and let the peer close.

        Closing first, with bytes of the peer unread, would make the kernel reset the connection, and the peer might
        never read what was said last. A peer that takes in nothing for `_LINGER_S`, or then does not close, is cut off.
        """
        self._lost = True
        if not self._closing and self._transport is not None:
            self._closing = True
            self._say_end(-1, self._clock.now_ns())
        self._wake_drainers()

    def _say_end(self, queued_bytes: int, since_ns: int) -> None:
        """End our direction of the stream once everything is sent; `queued_bytes` has not changed since `since_ns`."""
        if self._transport is None or self._transport.is_closing():
            return
        loop, now = asyncio.get_running_loop(), self._clock.now_ns()
        left = self.statistics().queued_bytes
        if not left and (self._port is None or self._port.idle):
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
        self._queue.clear()
        if self._transport is not None:
            self._transport.abort()
        self._wake_drainers()

    def statistics(self) -> ChannelStatistics:
        """A snapshot."""
        queued = sum(len(buffer) for buffer in self._queue)
        if self._transport is not None:
            queued += self._transport.get_write_buffer_size()
        if self._port is not None:
            queued += self._port.waiting_bytes
        return ChannelStatistics(self._sent_bytes, self._decoder.received_bytes, queued, self._last_received_ns)

    def __repr__(self) -> str:
        state = "closed" if self._closing else "paused" if self._paused else "open"
        return f"<TcpChannel {self.peer} {state}, {self._sent_bytes} bytes sent>"


class TcpListener:
    """ports.Listener over a listening socket."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.address, self.port = server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        """Stop listening."""
        self._server.close()
        await asyncio.sleep(0)


class TcpNetwork:
    """ports.Network over TCP. With a shaper, all that leaves this node crosses one emulated wire."""

    def __init__(self, net: Net, clock: Clock, shaper: Shaper | None = None) -> None:
        """Must be made in a running loop."""
        self._net = net
        self._busy_poll = BusyPoll(net.busy_poll)
        self._clock = clock
        self._shaper = shaper

    async def connect(self, host: str, port: int, handler: ChannelHandler) -> TcpChannel:
        """Connect, trying again while nobody listens, for `net.connect_timeout`. BrokenError after that."""
        check(self._net)
        loop = asyncio.get_running_loop()
        deadline = self._clock.now_ns() + self._net.connect_timeout
        while True:
            try:
                left = max(0.001, (deadline - self._clock.now_ns()) / SECOND)
                _, channel = await asyncio.wait_for(
                    loop.create_connection(
                        lambda: TcpChannel(lambda _: handler, self._net, self._clock, self._shaper, self._busy_poll),
                        host,
                        port,
                    ),
                    left,
                )
            except (OSError, TimeoutError, UnicodeError) as error:
                if isinstance(error, socket.gaierror | UnicodeError):
                    raise BrokenError(f"{host} cannot be resolved: {reason(error)}") from None
                if self._clock.now_ns() + _RETRY_S * SECOND >= deadline:
                    raise BrokenError(
                        f"nobody answers at {host}:{port} ({reason(error)}; tried for "
                        f"{format_time(self._net.connect_timeout)}); is the destination listening there?"
                    ) from None
                await asyncio.sleep(_RETRY_S)
            else:
                return channel

    async def listen(self, host: str, port: int, accept: Callable[[TcpChannel], ChannelHandler]) -> TcpListener:
        """Listen. BrokenError when the address cannot be used; port 0 takes a free one."""
        check(self._net)
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: TcpChannel(accept, self._net, self._clock, self._shaper, self._busy_poll),
                host,
                port,
                reuse_address=True,
            )
        except (OSError, UnicodeError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            hint = "; another process uses it: choose another port, or 0 for a free one"
            raise BrokenError(f"cannot listen on {host}:{port}: {reason(error)}{hint if in_use else ''}") from None
        return TcpListener(server)

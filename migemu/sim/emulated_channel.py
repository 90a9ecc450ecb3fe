"""One end of an emulated connection: messages and payloads are handed over as they are, when the wire says so.

What is told to the handlers, and in which order, is what link.tcp tells: announced, landing, received; lost once. What
is sent is not encoded, but counted as if it were. A payload of real bytes is cut into parts, so that it lands as it
arrives, and each part asks anew where it belongs; a placeholder, which knows only its length, arrives as a whole and
lands nowhere.

What arrives waits in the receive buffer until the service reads it: its loop gives each channel that has something its
turn, one frame or some small ones at a time. A buffer that is full stops the sender (`link.wire`).

    close   everything queued, then the end ---> lost(None), <--- its end, and the closer is done
    abort   what waits is dropped, then the end ---> BrokenError if that is in the middle of a message

Simplified: a frame of the modelled world is read as a whole, so that the other channel waits for all of it.

Whoever wants something to go wrong is told of all that arrives (`Tamper`) before the service is, and decides what
becomes of it: it hands over (`deliver`) what came, or less, or something else, at once or later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from migemu.errors import BrokenError, ClosedError, MigemuError, PeerError, one_line
from migemu.link.scheduler import QueuedFrame
from migemu.node.channel_waiters import ChannelWaiters
from migemu.ports import ChannelHandler, ChannelStatistics
from migemu.sim.handles import TimerHandle
from migemu.units import KIB, SECOND
from migemu.wire.codec import PREAMBLE_BYTES, Sized
from migemu.wire.header import encode_head
from migemu.wire.messages import ChannelRole, Failed, Hello, Message, Page

if TYPE_CHECKING:
    from migemu.sim.emulated_network import EmulatedNetwork

#: As link.tcp.
_LINGER_NS: Final = 2 * SECOND
_PART_BYTES: Final = 64 * KIB
#: The sender is told when so many parts of the receive buffer have been read.
_WINDOW_PARTS: Final = 4

#: Told of each message as it is delivered: its channel, it, and the frame with its times.
Observe = Callable[["EmulatedChannel", Message, QueuedFrame], None]
#: What the service does with a frame when it reads it.
Read = Callable[[QueuedFrame], None]
#: Told of each frame that has arrived, and how it is read; what it delivers is read. `sim.injection` is one.
Tamper = Callable[["EmulatedChannel", Read, QueuedFrame], None]


@dataclass(slots=True, eq=False)
class Parcel:
    """What a frame, or its part from byte `begin` to `end` of the payload, stands for."""

    receiver: EmulatedChannel
    message: Message
    payload: Sized | None
    header_bytes: int
    begin: int
    end: int

    def __call__(self, frame: QueuedFrame) -> None:
        """Arrive at the receiving node, where a hazard may still strike it."""
        self.receiver._arrived(self.read, frame)

    def read(self, frame: QueuedFrame) -> None:
        """Hand it to the service of the receiving node."""
        self.receiver._came(self, frame)


class EmulatedChannel:
    """ports.Channel: one end of an emulated connection."""

    def __init__(self, network: EmulatedNetwork, peer: str) -> None:
        self.peer = peer
        #: Which node this is an end of.
        self.node = network.name
        #: What its Hello says, once one has passed.
        self.role: ChannelRole | None = None
        self._loop = network.loop
        self._observe = network.observe
        self._tamper = network.tamper
        network.channels[self] = None
        self._network = network
        self._out = network.out
        buffers = [size for size in (network.net.send_buffer, network.net.receive_buffer) if size]
        self.flow = network.out.flow(peer, min(buffers, default=0), network.net.receive_buffer)
        self._turn_bytes = network.net.read_hot
        # The socket's buffer, if it is set, and the service's own. Linux wakes a writer when a third of the first is
        # free (sk_stream_is_writeable), asyncio when a quarter of the second is left.
        self._high_water = network.net.send_buffer + network.net.high_water
        self.flow.room_bytes = network.net.send_buffer * 2 // 3 + network.net.high_water // 4 + 1
        self._full = False
        self.far: EmulatedChannel = self  # until it is known
        self._handler: ChannelHandler | None = None
        self.accept: Callable[[EmulatedChannel], ChannelHandler] | None = None
        self._closing = self._lost = self._over = False
        self._first: QueuedFrame | None = None  # the first part of a frame that has not come as a whole
        self._linger: TimerHandle | None = None
        self._unread: deque[tuple[Read, QueuedFrame]] = deque()
        self._read_bytes = 0  # which the sender has not been told of
        self._waiters = ChannelWaiters()
        self._sent_bytes = self._received_bytes = 0
        self._last_received_ns = network.loop.now_ns

    # --- the connection stands ---

    def connected(self, handler: ChannelHandler) -> None:
        """Send the preamble, as soon as the other end has accepted; from now on `handler` is called."""
        self._handler = handler
        self._last_received_ns = self._loop.now_ns
        self._sent_bytes += PREAMBLE_BYTES
        far = self.far
        self._out.send(self.flow, PREAMBLE_BYTES, lambda frame: far._arrived(far._greeted, frame))

    def _greeted(self, _frame: QueuedFrame) -> None:
        """The peer's preamble, with which a listener accepts."""
        if self._closing:
            return
        if self._handler is None:
            assert self.accept is not None
            self.connected(self.accept(self))
        self._received_bytes += PREAMBLE_BYTES
        self._last_received_ns = self._loop.now_ns

    # --- what comes ---

    def _arrived(self, read: Read, frame: QueuedFrame) -> None:
        """It has come out of the link."""
        if self._tamper is None:
            self.deliver(read, frame)
        else:
            self._tamper(self, read, frame)

    def deliver(self, read: Read, frame: QueuedFrame) -> None:
        """The kernel has something for the service, which it will `read`."""
        self._unread.append((read, frame))
        if len(self._unread) == 1:
            self._tell_service()

    def _tell_service(self) -> None:
        way = self.far._out
        context = way.urgent_arrivals if self.flow.urgent else way.arrivals
        self._loop.call_soon(self._turn, context=context)

    def _turn(self) -> None:
        """The service reads; if there is more than a turn takes, others come first."""
        left = self._turn_bytes
        while self._unread and left > 0:
            read, frame = self._unread[0]
            read(frame)
            self._unread.popleft()
            left -= frame.size
            self._read_bytes += frame.size
        if self._unread:
            self._tell_service()
        if self._read_bytes * _WINDOW_PARTS >= self.far.flow.window_bytes:
            self.far._out.has_read(self.far.flow, self._read_bytes)
            self._read_bytes = 0

    def _came(self, parcel: Parcel, frame: QueuedFrame) -> None:
        """A frame, or a part of one, has arrived."""
        if self._closing:
            return  # whatever still comes is not wanted any more
        self._received_bytes += frame.size
        self._last_received_ns = self._loop.now_ns
        assert self._handler is not None
        try:
            if parcel.begin == 0:
                self._begins(parcel, self._handler)
                self._first = frame
            self._lands(parcel, self._handler)
            payload_bytes = 0 if parcel.payload is None else len(parcel.payload)
            if parcel.end == payload_bytes and self._first is not None:
                self._completed(parcel, frame, self._first, self._handler)
        except PeerError as error:
            self.refuse(error)

    def _begins(self, parcel: Parcel, handler: ChannelHandler) -> None:
        """The limits that the decoder checks, and the handler's own judgement."""
        limits, message = handler.limits, parcel.message
        payload_bytes = 0 if parcel.payload is None else len(parcel.payload)
        if payload_bytes > limits.payload_bytes_max or parcel.header_bytes > limits.header_bytes_max:
            raise PeerError(
                f"a frame of {parcel.header_bytes}+{payload_bytes} bytes is larger than the limit of "
                f"{limits.header_bytes_max}+{limits.payload_bytes_max}"
            )
        limits.check(message, payload_bytes)
        if type(message) is Hello:
            self._take_role(message.channel)
        handler.announced(self, message, payload_bytes)

    def _lands(self, parcel: Parcel, handler: ChannelHandler) -> None:
        message, payload = parcel.message, parcel.payload
        if not isinstance(message, Page) or payload is None:
            return
        offset = parcel.begin
        while offset < parcel.end:
            target = handler.landing(message, offset)[: parcel.end - offset]
            if not isinstance(target, memoryview):
                target.take(payload, offset)
            elif isinstance(payload, bytes | bytearray | memoryview):
                target[:] = payload[offset : offset + len(target)]
            offset += len(target)

    def _completed(self, parcel: Parcel, frame: QueuedFrame, first: QueuedFrame, handler: ChannelHandler) -> None:
        """Hand a message that is complete to the handler."""
        self._first = None
        if self._observe is not None:
            whole = frame
            if first is not frame:
                whole = copy(frame)
                whole.started_ns = first.started_ns
            self._observe(self, parcel.message, whole)
        payload = parcel.payload
        if payload is None or isinstance(parcel.message, Page):
            payload = b""
        elif isinstance(payload, bytearray | memoryview):
            payload = bytes(payload)
        handler.received(self, parcel.message, payload)  # type: ignore[arg-type]  # or a placeholder of the sender's

    def _take_role(self, role: ChannelRole) -> None:
        """From now on frames carry the name of the role, and the wire knows who is urgent."""
        self.role = role
        self.flow.name = role.value
        self.flow.urgent = role is ChannelRole.PREEMPT

    def refuse(self, error: PeerError) -> None:
        """The peer broke the protocol: tell it, close, report."""
        if not self._closing:
            self.send(Failed(one_line(error)))
        self._report(error)
        self._shut()

    def came_end(self, mid_frame: bool) -> None:
        """End the incoming stream; `mid_frame` if that cuts a message in two. The handler hears of it."""
        if self._over:
            return
        error = None
        if not self._closing:
            if mid_frame or self._first is not None:
                error = BrokenError(f"the connection to {self.peer} ended in the middle of a message")
            self._out.drop(self.flow)
            self._say_end(mid_frame=False)
        self._finish()
        if self._handler is not None:
            self._report(error)

    def _finish(self) -> None:
        self._closing = self._over = True
        self._network.channels.pop(self, None)
        if self._linger is not None:
            self._linger.cancel()
        self._waiters.ended()

    def _report(self, error: MigemuError | None) -> None:
        if not self._lost:
            self._lost = True
            assert self._handler is not None
            self._handler.lost(self, error)

    # --- what our owner asks ---

    def send(self, message: Message, payload: Sized | None = None) -> None:
        """Queue a frame; see ports.Channel. ClosedError after `close`, as there."""
        if self._closing:
            raise ClosedError(f"{type(message).__name__} was sent on a closed channel")
        if type(message) is Hello:
            self._take_role(message.channel)
        payload_bytes = 0 if payload is None else len(payload)
        header_bytes = len(encode_head(message, payload_bytes))
        self._sent_bytes += header_bytes + payload_bytes
        begin, size = 0, header_bytes
        if payload_bytes > _PART_BYTES and isinstance(payload, bytes | bytearray | memoryview):
            while payload_bytes - begin > _PART_BYTES:
                end = begin + _PART_BYTES
                parcel = Parcel(self.far, message, payload, header_bytes, begin, end)
                self._out.send(self.flow, size + _PART_BYTES, parcel)
                begin, size = end, 0
        parcel = Parcel(self.far, message, payload, header_bytes, begin, payload_bytes)
        self._out.send(self.flow, size + payload_bytes - begin, parcel)
        if not self._full and self.flow.waiting_bytes > self._high_water:
            self._full = True
            self._out.when_room(self.flow, self._has_room)

    @property
    def closing(self) -> bool:
        """Whether this side has closed it, or the connection is gone."""
        return self._closing

    @property
    def writable(self) -> bool:
        """Whether `drain` would return at once."""
        return not self._full

    async def drain(self) -> None:
        """Wait until there is room for more; BrokenError when the connection is lost."""
        while not self.writable and not self._closing:
            await self._waiters.room()
        if self._closing:
            raise BrokenError(f"the connection to {self.peer} was lost")

    def _has_room(self) -> None:
        self._full = False
        self._waiters.wake()

    async def close(self) -> None:
        """Send what is queued, then close."""
        self._shut()
        await self._waiters.end()

    def _shut(self) -> None:
        """Say after everything that is queued that nothing more will come, and let the peer close.

        A peer that takes in nothing for `_LINGER_NS`, or then does not close, is cut off.
        """
        self._lost = True
        if not self._closing:
            self._closing = True
            self._say_end(mid_frame=False)
            self._linger = self._loop.call_at_ns(self._loop.now_ns + _LINGER_NS, self._lingered, -1)
        self._waiters.wake()

    def _say_end(self, mid_frame: bool) -> None:
        far = self.far
        self._out.send(self.flow, 0, lambda frame: far._arrived(lambda _: far.came_end(mid_frame), frame))

    def _lingered(self, waiting_bytes: int) -> None:
        left = self.flow.waiting_bytes
        if left == waiting_bytes:
            self.abort()
        else:
            self._linger = self._loop.call_at_ns(self._loop.now_ns + _LINGER_NS, self._lingered, left)

    def abort(self) -> None:
        """Close now; what is queued is lost."""
        self._lost = True
        if not self._over:
            frames = self.flow.frames
            token = frames[0].token if frames else None
            begun = bool(frames) and (frames[0].started_ns >= 0 or (isinstance(token, Parcel) and token.begin > 0))
            self._out.drop(self.flow)
            self._say_end(mid_frame=begun)
        self._finish()

    def statistics(self) -> ChannelStatistics:
        """Bytes carried so far, and when the last one came; see ports.Channel."""
        return ChannelStatistics(
            self._sent_bytes, self._received_bytes, self.flow.waiting_bytes, self._last_received_ns
        )

    def __repr__(self) -> str:
        state = "closed" if self._closing else "open" if self.writable else "full"
        return f"<EmulatedChannel {self.peer} {state}, {self._sent_bytes} bytes sent>"

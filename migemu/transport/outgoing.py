"""What waits for the socket of one connection: slices are handed over as far as its queue has room.

At most `net.write` bytes at once; while urgent messages come and go, `net.write_hot`, and one slice a turn of the loop,
so that they get theirs. With TLS a slice is encrypted at that moment, several small buffers of it for one `write`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from migemu.ports import Clock
from migemu.scenario.net import LimitsSettings, NetSettings
from migemu.transport.clock import BusyPoll
from migemu.transport.security.handshake import Handshake
from migemu.transport.shaper import Shaper


class NodeTurns(NamedTuple):
    """What all connections of one node share."""

    net: NetSettings
    bounds: LimitsSettings
    clock: Clock
    shaper: Shaper | None
    busy_poll: BusyPoll


class Outgoing:
    """Holds everything back until it is opened."""

    def __init__(self, net: NetSettings, busy_poll: BusyPoll, moved: Callable[[], None]) -> None:
        """`moved` is called when there may be room again."""
        self.paused = False
        self._net = net
        self._busy_poll = busy_poll
        self._moved = moved
        self._queue: deque[memoryview | bytes] = deque()
        self._transport: asyncio.Transport | None = None
        self._gate: Handshake | None = None
        self._flushing = False

    def open(self, transport: asyncio.Transport, gate: Handshake | None) -> None:
        """From now on bytes may go out, through `gate` if there is one."""
        self._transport, self._gate = transport, gate

    def write(self, buffers: list[Any]) -> None:
        """Hand buffers to the socket, as far as its queue has room."""
        self._queue.extend(buffers)
        if not self._flushing:
            self._flush()

    def _flush(self) -> None:
        self._flushing = False
        transport, queue, gate = self._transport, self._queue, self._gate
        if transport is None:
            return
        if transport.is_closing():
            queue.clear()
            return
        hot = self._busy_poll.hot
        step = self._net.write_hot if hot else self._net.write
        budget = step
        encrypted = 0
        while queue and not self.paused:
            buffer = queue.popleft()
            if len(buffer) > step:
                view = memoryview(buffer)
                buffer = view[:step]
                queue.appendleft(view[step:])
            if gate is None:
                transport.write(buffer)
            else:
                gate.write(memoryview(buffer))
                encrypted += len(buffer)
                if encrypted >= step:
                    encrypted = 0
                    transport.write(gate.output())
            if hot:
                budget -= len(buffer)
                if budget <= 0 and queue and not self.paused:
                    self._flushing = True
                    asyncio.get_running_loop().call_soon(self._flush_on)
                    break
        if gate is not None and encrypted:
            transport.write(gate.output())

    def _flush_on(self) -> None:
        """The next turn of `_flush`."""
        if self._flushing:
            self._flush()
            self._moved()

    def pause(self) -> None:
        """The socket's queue is above the high-water mark."""
        self.paused = True

    def resume(self) -> None:
        """The socket's queue is below the low-water mark."""
        self.paused = False
        self._flush()
        self._moved()  # who waits looks for itself what else it has to wait for

    def drop(self) -> None:
        """Drop all frames that are not sent yet."""
        self._queue.clear()

    @property
    def writable(self) -> bool:
        """Whether what is written now goes to the socket at once."""
        return not self.paused and not self._queue

    @property
    def waiting(self) -> int:
        """Buffers that are not with the socket yet."""
        return len(self._queue)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of all frames that are not sent yet."""
        return sum(len(buffer) for buffer in self._queue)

"""A, the baseline: what two uvloop processes reach that do nothing but move the bytes.

bare_bulk     1 GiB in slices of 256 KiB by `transport.write`, received straight into the pool
bare_rtt      a request of 14 bytes, 4096 bytes back, straight into the pool; the next request at once
bare_loaded   both at the same time, on two connections; round trips count while the bulk runs
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

from migemu.scenario.net import NetSettings
from migemu.scenario.scenario import load
from migemu.units import KIB
from tests.bench.nodes import MEMORY_BYTES, PAGE_BYTES, Measurement, Seat

SLICE_BYTES: Final = 256 * KIB
RECEIVE_BYTES: Final = 256 * KIB
#: A whole page, so that what follows is copied from and to addresses that are aligned alike: after a mark of 8 bytes
#: the kernel's copy of everything behind it takes twice as long here (loads alias with stores 4K apart).
_START_MARK: Final = bytes(PAGE_BYTES)
_REQUEST: Final = struct.Struct(">IHQ")  # as long as a Request of migemu


def tune(transport: asyncio.Transport, net: NetSettings) -> str:
    """The scenario's socket options, as far as the kernel allows; the congestion control in use."""
    sock = transport.get_extra_info("socket")
    if net.send_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, net.send_buffer)
    if net.receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, net.receive_buffer)
    wanted = "cubic" if net.congestion == "auto" else net.congestion
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, wanted.encode())
    except OSError:
        pass
    used: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return used.rstrip(b"\0").decode()


class _Peer(asyncio.BaseProtocol):
    """What all four ends share: the tuned transport, and a future that is done when this end is."""

    def __init__(self, net: NetSettings) -> None:
        self.congestion = ""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None  # uvloop's transports do not inherit from asyncio's
        self._net = net

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.congestion = tune(self.transport, self._net)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.gone.set_result(None)
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the peer closed too early"))

    async def close(self) -> None:
        """Close when everything has been sent."""
        self.transport.close()
        await self.gone

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class BulkSender(_Peer, asyncio.Protocol):
    """Writes the start mark and the pool, a slice per turn of the loop, as long as the transport takes it.

    A turn per slice costs nothing that can be measured. Without it uvloop sends each slice from within `write`, and as
    long as the socket takes all of it nobody else gets a turn: for a tenth of a second at a time.
    """

    def __init__(self, net: NetSettings, view: memoryview) -> None:
        super().__init__(net)
        self.cpu_ns = 0
        self._view = view
        self._offset = 0
        self._paused = False
        self._call_soon = asyncio.get_running_loop().call_soon

    def start(self) -> None:
        self.cpu_ns = -time.process_time_ns()
        self.transport.write(_START_MARK)
        self._more()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._call_soon(self._more)

    def _more(self) -> None:
        if self.done.done():
            return
        self.transport.write(self._view[self._offset : self._offset + SLICE_BYTES])
        self._offset += SLICE_BYTES
        if self._offset >= len(self._view):
            self.cpu_ns += time.process_time_ns()
            self.finish()
        elif not self._paused:
            self._call_soon(self._more)


class BulkReceiver(_Peer, asyncio.BufferedProtocol):
    """Receives the start mark, then into the pool."""

    def __init__(self, net: NetSettings, view: memoryview, started: Callable[[], None]) -> None:
        super().__init__(net)
        self.span_ns = self.cpu_ns = 0
        self._mark = memoryview(bytearray(len(_START_MARK)))
        self._marked = 0
        self._view = view
        self._offset = 0
        self._started = started

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._marked < len(self._mark):
            return self._mark[self._marked :]
        if self._offset < len(self._view):
            return self._view[self._offset : self._offset + RECEIVE_BYTES]
        return self._mark  # nothing more is to come, but the loop wants somewhere to put it

    def buffer_updated(self, nbytes: int) -> None:
        if self._marked < len(self._mark):
            self._marked += nbytes
            if self._marked == len(self._mark):
                self.span_ns, self.cpu_ns = -time.monotonic_ns(), -time.process_time_ns()
                self._started()
            return
        self._offset += nbytes
        if self._offset == len(self._view):
            self.span_ns += time.monotonic_ns()
            self.cpu_ns += time.process_time_ns()
            self.finish()


class RttServer(_Peer, asyncio.Protocol):
    """Answers each request with its page, until the peer leaves."""

    def __init__(self, net: NetSettings, view: memoryview) -> None:
        super().__init__(net)
        self._view = view

    def data_received(self, data: bytes) -> None:
        at = _REQUEST.unpack(data)[2] * PAGE_BYTES
        self.transport.write(self._view[at : at + PAGE_BYTES])

    def connection_lost(self, exc: BaseException | None) -> None:
        self.finish()
        super().connection_lost(exc)


class RttClient(_Peer, asyncio.BufferedProtocol):
    """Asks for random pages, one at a time, until `count` have come or it is stopped."""

    def __init__(self, net: NetSettings, view: memoryview, count: int) -> None:
        super().__init__(net)
        self.latencies_ns: list[int] = []
        self.made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._view = view
        self._left = count
        self._spare = memoryview(bytearray(1))
        self._random = Random(1).random
        self._at = self._got = self._asked_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.made.set_result(None)

    def ask(self) -> None:
        page = int(self._random() * (MEMORY_BYTES // PAGE_BYTES))
        self._at, self._got = page * PAGE_BYTES, 0
        self._asked_ns = time.monotonic_ns()
        self.transport.write(_REQUEST.pack(0, 0, page))

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._got < PAGE_BYTES:
            return self._view[self._at + self._got : self._at + PAGE_BYTES]
        return self._spare  # nothing has been asked for, but the loop wants somewhere to put it

    def buffer_updated(self, nbytes: int) -> None:
        self._got += nbytes
        if self._got < PAGE_BYTES or self.done.done():
            return
        self.latencies_ns.append(time.monotonic_ns() - self._asked_ns)
        self._left -= 1
        if self._left:
            self.ask()
        else:
            self.finish()


# --- the measurements, one coroutine per role ---


def _net(seat: Seat) -> NetSettings:
    return load(None, seat.command.assignments).net


async def _listen(protocol: asyncio.BaseProtocol) -> tuple[asyncio.Server, int]:
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def _connect(protocol: asyncio.BaseProtocol, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: protocol, "127.0.0.1", port)


async def _receive_bulk(seat: Seat) -> dict[str, Any]:
    receiver = BulkReceiver(_net(seat), seat.pool.view, lambda: None)
    server, port = await _listen(receiver)
    seat.tell_ports((port,))
    await receiver.done
    await receiver.close()
    server.close()
    seat.pool.check()
    return {"span_ns": receiver.span_ns, "cpu_ns": receiver.cpu_ns}


async def _send_bulk(seat: Seat) -> dict[str, Any]:
    sender = BulkSender(_net(seat), seat.pool.view)
    await _connect(sender, seat.command.ports[0])
    sender.start()
    await sender.done
    await sender.close()
    return {"cpu_ns": sender.cpu_ns, "congestion": sender.congestion}


async def _ask(seat: Seat) -> dict[str, Any]:
    client = RttClient(_net(seat), seat.pool.view, seat.command.count)
    server, port = await _listen(client)
    seat.tell_ports((port,))
    await client.made
    client.ask()
    await client.done
    await client.close()
    server.close()
    return {"latencies_ns": client.latencies_ns}


async def _answer(seat: Seat) -> dict[str, Any]:
    answerer = RttServer(_net(seat), seat.pool.view)
    await _connect(answerer, seat.command.ports[0])
    await answerer.done
    return {"congestion": answerer.congestion}


async def _ask_loaded(seat: Seat) -> dict[str, Any]:
    client = RttClient(_net(seat), seat.pool.view, -1)
    receiver = BulkReceiver(_net(seat), seat.pool.view, client.ask)
    servers = [await _listen(client), await _listen(receiver)]
    seat.tell_ports(tuple(port for _, port in servers))
    await receiver.done
    client.finish()
    for peer in (client, receiver):
        await peer.close()
    for server, _ in servers:
        server.close()
    return {"latencies_ns": client.latencies_ns, "span_ns": receiver.span_ns, "cpu_ns": receiver.cpu_ns}


async def _answer_loaded(seat: Seat) -> dict[str, Any]:
    answerer = RttServer(_net(seat), seat.pool.view)
    sender = BulkSender(_net(seat), seat.pool.view)
    await _connect(answerer, seat.command.ports[0])
    await _connect(sender, seat.command.ports[1])
    sender.start()
    await sender.done
    await answerer.done
    await sender.close()
    return {"cpu_ns": sender.cpu_ns, "congestion": sender.congestion}


MEASUREMENTS: Final[dict[str, dict[str, Measurement]]] = {
    "source": {"bare_bulk": _send_bulk, "bare_rtt": _answer, "bare_loaded": _answer_loaded},
    "destination": {"bare_bulk": _receive_bulk, "bare_rtt": _ask, "bare_loaded": _ask_loaded},
}

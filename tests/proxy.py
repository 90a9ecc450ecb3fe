"""A TCP proxy for tests: honest by itself. Whoever wants harm done overrides `carry`, or uses a connection's methods.

What one end closes is closed towards the other one, by FIN or RST as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Final

_LINGER_NONE: Final = struct.pack("ii", 1, 0)  # close(2) sends RST (socket(7), SO_LINGER)
_READ_BYTES: Final = 1 << 18


def reset(writer: asyncio.StreamWriter) -> None:
    """Close it so that the other end hears RST."""
    connection = writer.transport.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
    writer.transport.abort()


@dataclass(eq=False, slots=True)
class Connection:
    """One that goes through: `near` leads to whoever connected, `far` to the target; counted from 0."""

    number: int
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter

    def reset(self) -> None:
        """Both ends hear RST, as of a router that dies."""
        for writer in (self.near, self.far):
            reset(writer)

    def close(self) -> None:
        """Both ends hear FIN, after what is on its way to them."""
        for writer in (self.near, self.far):
            writer.close()

    async def closed(self) -> None:
        """Close it, and return when all that was on its way has been taken in, or is nobody's any more."""
        self.close()
        for writer in (self.near, self.far):
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass(eq=False, slots=True)
class Way:
    """One direction of a connection; `there`: from whoever connected to the target."""

    connection: Connection
    there: bool
    passed_bytes: int = 0

    @property
    def out(self) -> asyncio.StreamWriter:
        """Where bytes go on."""
        return self.connection.far if self.there else self.connection.near


class Proxy:
    """Stands in front of `target`, a port of this machine, on a port of its own."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.target = target
        self.connections: dict[Connection, None] = {}  # a set would have no order
        self._made = 0
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def open(self) -> None:
        """Listen; again on the same port, if it was closed."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Refuse whoever comes; those that are here stay."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Refuse whoever comes, and reset those that are here."""
        self.shut()
        for connection in list(self.connections):
            connection.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def admit(self) -> None:
        """Somebody connected; the target is called when this returns."""

    async def carry(self, way: Way, data: bytes) -> bool:
        """Pass bytes on; False: no more of them are to be read."""
        way.out.write(data)
        await way.out.drain()
        return True

    async def ended(self, way: Way) -> None:
        """Nothing more comes this way."""
        if way.out.can_write_eof():
            way.out.write_eof()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = None
        number, self._made = self._made, self._made + 1
        try:
            await self.admit()
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):
            reset(writer)
            del self._tasks[task]
            return
        connection = Connection(number, writer, back)
        self.connections[connection] = None
        try:
            await asyncio.gather(self._pump(reader, Way(connection, True)), self._pump(there, Way(connection, False)))
            await connection.closed()
        except asyncio.CancelledError:
            connection.reset()
            await connection.closed()
        finally:
            del self.connections[connection], self._tasks[task]

    async def _pump(self, reader: asyncio.StreamReader, way: Way) -> None:
        """One direction, to its end."""
        try:
            while data := await reader.read(_READ_BYTES):
                if not await self.carry(way, data):
                    return
                way.passed_bytes += len(data)
            await self.ended(way)
        except OSError:
            reset(way.out)

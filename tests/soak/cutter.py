"""A TCP proxy that is honest until it is told to cut: then it resets one connection, or all of them."""

from __future__ import annotations

import asyncio
import socket
import struct
from random import Random
from typing import Final

_LINGER_NONE: Final = struct.pack("ii", 1, 0)  # close(2) sends RST (socket(7), SO_LINGER)
_READ_BYTES: Final = 1 << 18


class Cutter:
    """Stands in front of `target` on a port of its own."""

    def __init__(self, target: int, seed: int) -> None:
        self.port = 0
        self.cuts = 0
        self._target = target
        self._rng = Random(seed)
        self._connections: dict[tuple[asyncio.StreamWriter, asyncio.StreamWriter], None] = {}
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        assert self._server is not None
        self._server.close()

    def cut(self) -> None:
        """One connection or all, as a dying router does it."""
        here = list(self._connections)
        for both in here if self._rng.random() < 0.5 else self._rng.sample(here, min(1, len(here))):
            self.cuts += 1
            for writer in both:
                connection = writer.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
                writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, back)
        self._connections[both] = None
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        del self._connections[both]
        for each in both:
            each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, to its end."""
        try:
            while data := await reader.read(_READ_BYTES):
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()

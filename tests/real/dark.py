"""A TCP proxy in front of a destination that goes dark: from a message on nothing gets through until it is healed.

Connections stay open, as over a network that drops what it is given; those that are made meanwhile lead nowhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from migemu.wire.codec import PREAMBLE_BYTES
from migemu.wire.header import PREFIX, decode_header
from migemu.wire.messages import Message


class Frames:
    """The messages of one direction of a stream."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def preamble(self) -> bytes:
        return await self._reader.readexactly(PREAMBLE_BYTES)

    async def next(self) -> tuple[type[Message], bytes]:
        """A message's kind, and all of its bytes. IncompleteReadError at the end."""
        prefix = await self._reader.readexactly(PREFIX.size)
        payload_bytes, header_bytes = PREFIX.unpack(prefix)
        rest = await self._reader.readexactly(header_bytes + payload_bytes)
        return type(decode_header(rest[:header_bytes])), prefix + rest


class Darkness:
    """The proxy. It listens on `port`, and leads to `target` of loopback, which may move."""

    def __init__(self, target: int, at: type[Message]) -> None:
        self.port, self.target = 0, target
        #: Set once it is dark.
        self.fell = threading.Event()
        self._at: type[Message] | None = at
        self._is_dark = False
        self._writers: list[asyncio.StreamWriter] = []

    def heal(self) -> None:
        """From now on everything gets through; what was open is over."""
        self._at, self._is_dark = None, False
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        self.heal()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self._is_dark:
            return
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.append(back)
            await asyncio.gather(self._pump(Frames(reader), back), self._pump(Frames(there), writer))

    async def _pump(self, frames: Frames, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            writer.write(await frames.preamble())
            while True:
                kind, data = await frames.next()
                if kind is self._at:
                    self._is_dark = True
                    self.fell.set()
                if not self._is_dark:
                    writer.write(data)
                    await writer.drain()
        if not self._is_dark and not writer.is_closing():
            writer.close()


@contextmanager
def darkness(target: int, at: type[Message]) -> Iterator[tuple[Darkness, asyncio.AbstractEventLoop]]:
    """A proxy in a thread of its own, gone afterwards, and its loop."""
    proxy, ready = Darkness(target, at), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(proxy.serve(ready, stop)), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy, loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

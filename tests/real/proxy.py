"""A TCP proxy that does harm: it cuts connections, and flips bits, at bytes that a seed draws; then it is honest.

Bytes are counted, in each direction of each connection, from when the harm begins: at once, or when it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from math import log2
from random import Random

_LINGER_NONE = struct.pack("ii", 1, 0)  # close(2) sends RST (socket(7), SO_LINGER)


class Proxy:
    """Stands in front of `target` on a port of its own; does harm `harms_max` times at most, in either direction."""

    def __init__(self, target: int, seed: int, harms_max: int, kinds: tuple[str, ...], bytes_max: int) -> None:
        self.port = 0
        self.done: list[str] = []
        self.harmful = False
        self._bytes_max = bytes_max
        self._target = target
        self._seed = seed
        self._harms_max = harms_max
        self._kinds = kinds
        self._connections = 0

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rng = Random(f"{self._seed} {self._connections}")
        self._connections += 1
        async with self._closing(writer):
            try:
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
            except OSError:
                return
            async with self._closing(back):
                pumps = [
                    asyncio.ensure_future(self._pump(rng, reader, back)),
                    asyncio.ensure_future(self._pump(rng, there, writer)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _closing(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        try:
            yield
        finally:
            writer.close()

    async def _pump(self, rng: Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, up to the byte at which harm is done."""
        kind, at = rng.choice(self._kinds), int(2 ** rng.uniform(3, log2(self._bytes_max)))
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.harmful and passed <= at < passed + len(data) and len(self.done) < self._harms_max:
                    self.done.append(f"{kind} at byte {at}")
                    if kind == "corrupt":
                        spoilt = bytearray(data)
                        spoilt[at - passed] ^= 1 << rng.randrange(8)
                        data = bytes(spoilt)
                    else:
                        writer.write(data[: at - passed])
                        if kind == "reset":
                            writer.transport.get_extra_info("socket").setsockopt(
                                socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE
                            )
                        return
                passed += len(data) if self.harmful else 0
                writer.write(data)
                await writer.drain()


@contextmanager
def proxy(target: int, seed: int, harms_max: int, kinds: tuple[str, ...], bytes_max: int) -> Iterator[Proxy]:
    """A proxy in a thread of its own, gone afterwards. `kinds` of "cut", "reset", "corrupt"."""
    way, ready = Proxy(target, seed, harms_max, kinds, bytes_max), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(way.serve(ready, stop)), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield way
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

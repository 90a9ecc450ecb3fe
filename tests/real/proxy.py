"""A TCP proxy that does harm: it cuts connections, and flips bits, at bytes that a seed draws; then it is honest.

Bytes are counted, in each direction of each connection, from when the harm begins: at once, or when it is told to.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import log2
from random import Random

from tests import proxy as honest
from tests.proxy import Connection, Way


@dataclass(slots=True)
class Drawn:
    """What is to happen in one direction of one connection, and how many bytes have passed since harm began."""

    rng: Random
    kind: str
    at: int
    passed: int = 0


class Proxy(honest.Proxy):
    """Stands in front of `target` on a port of its own; does harm `harms_max` times at most, in either direction."""

    def __init__(self, target: int, seed: int, harms_max: int, kinds: tuple[str, ...], bytes_max: int) -> None:
        super().__init__(target)
        self.done: list[str] = []
        self.harmful = False
        self._bytes_max = bytes_max
        self._seed = seed
        self._harms_max = harms_max
        self._kinds = kinds
        self._drawn: dict[tuple[Connection, bool], Drawn] = {}

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        await self.open()
        ready.set()
        await stop.wait()
        await self.close()

    def _of(self, way: Way) -> Drawn:
        if (way.connection, way.there) not in self._drawn:
            rng = Random(f"{self._seed} {way.connection.number}")
            for there in (True, False):
                drawn = Drawn(rng, rng.choice(self._kinds), int(2 ** rng.uniform(3, log2(self._bytes_max))))
                self._drawn[way.connection, there] = drawn
        return self._drawn[way.connection, way.there]

    async def carry(self, way: Way, data: bytes) -> bool:
        """One direction, up to the byte at which harm is done."""
        drawn = self._of(way)
        here = drawn.at - drawn.passed
        if self.harmful and 0 <= here < len(data) and len(self.done) < self._harms_max:
            self.done.append(f"{drawn.kind} at byte {drawn.at}")
            if drawn.kind != "corrupt":
                way.out.write(data[:here])
                if drawn.kind == "reset":
                    way.connection.reset()
                else:
                    way.connection.close()
                return False
            spoilt = bytearray(data)
            spoilt[here] ^= 1 << drawn.rng.randrange(8)
            data = bytes(spoilt)
        drawn.passed += len(data) if self.harmful else 0
        return await super().carry(way, data)


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
        loop.close()

"""What stands between the nodes: it passes on what they say, message by message, and does the harm of a plan meanwhile.

Rules
    1. Harm is done in the order of what comes by; each strikes once. `struck` has those that did.
    2. Once it is `healed` it is honest: all that was held is gone with its connections, and nothing more goes wrong.
    3. In the dark nothing gets through, an end of a connection no more than a byte.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from migemu.wire.codec import encode, preamble
from migemu.wire.messages import ChannelRole, Hello, Recover
from tests.chaos.frames import Frames, Unit
from tests.chaos.harm import Harm
from tests.proxy import Connection, Proxy, Way, reset

#: What strangers say: nothing, another protocol's words, and who they are not.
_STRANGERS: Final = (
    b"", b"GET / HTTP/1.1\r\n\r\n",
    preamble() + b"".join(encode(Hello(ChannelRole.MAIN, "0" * 32, True)) + encode(Recover())),
)  # fmt: skip
_VISIT_BYTES: Final = 4096
#: For ever, as far as a connection is concerned.
_FOR_EVER_S: Final = 3600.0


class Network(Proxy):
    """In front of `target`. `to_node` is told of what is to be done to a node."""

    def __init__(self, target: int, harms: tuple[Harm, ...], to_node: Callable[[Harm], None]) -> None:
        super().__init__(target)
        self.struck: list[Harm] = []
        #: Messages that have been passed on whole, as "main->source Running".
        self.passed = Counter[str]()
        #: When the first connection came.
        self.used = asyncio.Event()
        self._due = list(harms)
        self._to_node = to_node
        self._seen = Counter[str]()
        self._frames: dict[tuple[Connection, bool], Frames] = {}
        self._stalled: dict[tuple[Connection, bool], float] = {}  # until when, by the loop's clock
        self._swallowed: set[tuple[Connection, bool]] = set()
        self._freed = asyncio.Event()  # some stall is over before its time
        self._lit = asyncio.Event()
        self._lit.set()
        self._timers: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """From here on those harms strike that come at a time, counted from the first connection."""
        self._timers += [asyncio.ensure_future(self._at(harm)) for harm in self._due if harm.at_ms is not None]

    async def heal(self) -> None:
        """Nothing goes wrong any more. Connections are reset: what they hold is nobody's any more."""
        self._due.clear()
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._timers, return_exceptions=True)
        for connection in list(self.connections):
            connection.reset()
        self._stalled.clear()
        self._freed.set()
        self._lit.set()
        await self._reopen()

    async def move(self, target: int) -> None:
        """The target is at another address now, and so is this: who is here stays, the old one is refused."""
        self.shut()
        self.port, self.target = 0, target
        await self.open()

    async def close(self) -> None:
        """See Proxy."""
        self._due.clear()
        for timer in self._timers:
            timer.cancel()
        await super().close()

    # --- what comes by ---

    async def admit(self) -> None:
        """See Proxy."""
        self.used.set()
        await self._lit.wait()

    async def carry(self, way: Way, data: bytes) -> bool:
        """See Proxy."""
        key = (way.connection, way.there)
        if key in self._swallowed:
            return True
        frames = self._frames.setdefault(key, Frames())
        for unit in frames.take(data):
            if not await self._pass(way, key, unit):
                return False
        return True

    async def ended(self, way: Way) -> None:
        """See Proxy: what had begun to come is passed on."""
        key = (way.connection, way.there)
        if key not in self._swallowed:
            await self._write(way, self._frames.setdefault(key, Frames()).rest())
        await self._until_free(key)
        if key not in self._swallowed:
            await super().ended(way)

    async def _pass(self, way: Way, key: tuple[Connection, bool], unit: Unit) -> bool:
        if way.connection not in self.connections or key in self._swallowed:
            return key in self._swallowed
        opened = self._frames.get((way.connection, True))
        name = f"{opened.channel if opened else 'main'}->{'destination' if way.there else 'source'}"
        before = self._seen[name]
        self._seen[name] += len(unit.data)
        self._seen[f"{name} {unit.kind}"] += 1
        data = unit.data
        for harm in [each for each in self._due if each.way == name]:
            if harm.kind and (harm.kind, harm.nth) == (unit.kind, self._seen[f"{name} {unit.kind}"]):
                at = min(harm.byte, len(data))
            elif not harm.kind and not unit.kind and before <= harm.byte < before + len(data):
                at = harm.byte - before
            else:
                continue
            self._due.remove(harm)
            left = await self._strike(harm, way, data, at)
            if left is None:
                return False
            data = left
        await self._write(way, data)
        self.passed[f"{name} {unit.kind}"] += 1
        return True

    async def _strike(self, harm: Harm, way: Way, data: bytes, at: int) -> bytes | None:
        """Do it at byte `at` of a message: what is left of that to be passed on; None: the connection is over."""
        self.struck.append(harm)
        if harm.act == "flip" and data:  # another harm may have left nothing of it
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ 1 << harm.nth % 8]) + data[at + 1 :]
        if harm.act == "duplicate":
            return data + data
        if harm.act in ("drop", "flip"):
            return b""
        if harm.act == "truncate":
            return data[:at]
        await self._write(way, data[:at])
        if harm.act in ("cut", "reset"):
            way.connection.close() if harm.act == "cut" else way.connection.reset()
            return None
        if harm.act == "half_open":
            self._swallowed |= {(way.connection, True), (way.connection, False)}
            reset(way.out)
            return b""
        if harm.act in ("stall", "stall_both"):
            self._stall(way.connection, harm, [way.there] if harm.act == "stall" else [True, False])
        elif harm.node:
            self._to_node(harm)
        else:
            await self._to_all(harm)
        return data[at:]

    # --- what is done at a time, or to all connections ---

    async def _at(self, harm: Harm) -> None:
        assert harm.at_ms is not None
        await self.used.wait()
        await asyncio.sleep(harm.at_ms / 1000)
        if harm not in self._due:
            return
        self._due.remove(harm)
        self.struck.append(harm)
        if harm.node:
            self._to_node(harm)
            return
        for connection in list(self.connections):
            if harm.act == "stall_both":
                self._stall(connection, harm, [True, False])
            elif harm.act == "reset":
                connection.reset()
            elif harm.act == "cut":
                connection.close()
        await self._to_all(harm)

    async def _to_all(self, harm: Harm) -> None:
        if harm.act == "dark":
            self._lit.clear()
            self._after(harm, self._lit.set)
        elif harm.act == "refuse":
            self.shut()
            for connection in list(self.connections):
                connection.reset()
            self._after(harm, lambda: self._timers.append(asyncio.ensure_future(self._reopen())))
        elif harm.act == "strangers":
            self._timers += [asyncio.ensure_future(self._visit(said)) for said in _STRANGERS]

    async def _visit(self, said: bytes) -> None:
        """Somebody comes to the target who is no node, says something, and stays until he is shown out."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        try:
            writer.write(said)
            while await reader.read(_VISIT_BYTES):
                pass
        except OSError:
            pass
        finally:
            writer.transport.abort()

    def _after(self, harm: Harm, then: Callable[[], object]) -> None:
        async def later() -> None:
            await asyncio.sleep(harm.for_ms / 1000)
            then()

        if harm.for_ms:
            self._timers.append(asyncio.ensure_future(later()))

    async def _reopen(self) -> None:
        if self._server is None or not self._server.is_serving():
            await self.open()

    def _stall(self, connection: Connection, harm: Harm, ways: list[bool]) -> None:
        until = asyncio.get_running_loop().time() + (harm.for_ms / 1000 if harm.for_ms else _FOR_EVER_S)
        for there in ways:
            self._stalled[connection, there] = until

    async def _until_free(self, key: tuple[Connection, bool]) -> None:
        loop = asyncio.get_running_loop()
        while key[0] in self.connections and (left_s := self._stalled.get(key, 0) - loop.time()) > 0:
            self._freed.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._freed.wait()
            except TimeoutError:
                pass  # it is over in its time
        await self._lit.wait()

    async def _write(self, way: Way, data: bytes) -> None:
        await self._until_free((way.connection, way.there))
        if data:
            way.out.write(data)
            await way.out.drain()

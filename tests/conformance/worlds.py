"""The worlds that the suites run in: an event loop, the clock that belongs to it, and a network of two nodes.

A suite for another implementation (a virtual-time loop, an emulated network) is one more `World` in the lists below.
Whatever a world leaves behind fails the test that ran in it: an exception that only the loop saw, an open descriptor.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop

from migemu.address import Address, UnixAddress
from migemu.ports import Channel, Clock, Listener, Network
from migemu.scenario.net import NetSettings
from migemu.scenario.scenario import LinkSettings
from migemu.sim.cable import Direction
from migemu.sim.emulated_network import EmulatedNetwork
from migemu.sim.loop import VirtualLoop
from migemu.sim.virtual_clock import VirtualClock
from migemu.transport.clock import MonotonicClock
from migemu.transport.security.credentials import Credentials
from migemu.transport.shaper import Shaper
from migemu.transport.tcp import TcpNetwork
from migemu.units import MS
from tests.addresses import ANY_PORT
from tests.certificates import NODE, PSK, TLS
from tests.conformance.ear import Ear

#: A test that takes longer hangs. In virtual time this costs nothing.
_HANG_S = 10
ANYWHERE = Credentials(insecure=True)


@dataclass(frozen=True, slots=True)
class Loop:
    """An event loop and its clock."""

    name: str
    make: Callable[[], asyncio.AbstractEventLoop]
    clock: Callable[[], Clock]
    #: How much before its time `sleep_until` may return.
    early_ns: int

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` to its end, and look at what it leaves behind."""
        before = _descriptors()
        unhandled: list[dict[str, Any]] = []

        async def guarded() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
            async with asyncio.timeout(_HANG_S):
                await main

        with asyncio.Runner(loop_factory=self.make) as runner:
            runner.run(guarded())
        assert not unhandled
        assert _descriptors() - before == set()


def _descriptors() -> set[str]:
    """Every open descriptor of this process, with what it stands for: a number alone may be in use again."""
    found = set()
    for number in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{number.name} {number.readlink()}")
        except OSError:  # the one that this look itself had open
            continue
    return found


LOOPS = (
    Loop("asyncio", asyncio.new_event_loop, MonotonicClock, MS),
    Loop("uvloop", uvloop.new_event_loop, MonotonicClock, MS),
)
#: The one whose time is a number. What needs the outside (alarms, sockets) has no place on it.
VIRTUAL = Loop("virtual", VirtualLoop, VirtualClock, 0)
EVERY_LOOP = (*LOOPS, VIRTUAL)


class End:
    """One end of a connection: its channel, and the handler that hears what comes."""

    def __init__(self, channel: Channel, ear: Ear) -> None:
        self.channel = channel
        self.ear = ear


@dataclass(slots=True)
class Nodes:
    """Two nodes, each with its network, and a clock for both."""

    clock: Clock
    source: Network
    destination: Network
    #: Where socket files go; None where addresses have ports.
    files: Path | None = None
    listeners: list[Listener] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def free(self) -> Address:
        """An address at which somebody can listen: port 0, or a file that is not there yet."""
        if self.files is None:
            return ANY_PORT
        return UnixAddress(str(self.files / f"{next(self._numbers)}.sock"))

    async def pair(self, here: Ear | None = None, there: Ear | None = None) -> tuple[End, End]:
        """A connection from the source (first) to the destination (second)."""
        accepted: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        here, there = here or Ear(), there or Ear()

        def accept(channel: Channel) -> Ear:
            accepted.set_result(channel)
            return there

        listener = await self.destination.listen(self.free(), accept)
        self.listeners.append(listener)
        channel = await self.source.connect(listener.address, here)
        self.channels += [channel, await accepted]
        return End(channel, here), End(await accepted, there)

    async def leave(self) -> None:
        """Close what a test has left open of `listeners` and `channels`."""
        for listener in self.listeners:
            await listener.close()
        for channel in self.channels:
            channel.abort()
        for channel in self.channels:
            await channel.close()


@dataclass(frozen=True, slots=True)
class World:
    """A loop, and how the networks of two nodes are made in it."""

    name: str
    loop: Loop
    networks: Callable[[NetSettings, Clock], AbstractAsyncContextManager[tuple[Network, Network]]]
    has_files: bool = False

    def run(self, test: Callable[..., Awaitable[None]], net: NetSettings, **arguments: Any) -> None:
        """Run `test(nodes, **arguments)`."""

        async def main() -> None:
            clock = self.loop.clock()
            with TemporaryDirectory(prefix="m-") as files:
                async with self.networks(net, clock) as (source, destination):
                    nodes = Nodes(clock, source, destination, Path(files) if self.has_files else None)
                    try:
                        await test(nodes, **arguments)
                    finally:
                        await nodes.leave()
                assert not list(Path(files).iterdir()), "who leaves takes its socket away"

        self.loop.run(main())


def tcp(
    link: LinkSettings | None, credentials: Credentials = ANYWHERE
) -> Callable[[NetSettings, Clock], AbstractAsyncContextManager[tuple[Network, Network]]]:
    """Two nodes on TCP; with a link, each has a shaper of its own in front of what leaves it."""

    @asynccontextmanager
    async def make(net: NetSettings, clock: Clock) -> AsyncIterator[tuple[Network, Network]]:
        shapers = [Shaper(link, clock, Random(node), net.high_water) for node in (1, 2)] if link else [None, None]
        try:
            yield TcpNetwork(net, clock, shapers[0], credentials), TcpNetwork(net, clock, shapers[1], credentials)
        finally:
            for shaper in shapers:
                if shaper is not None:
                    shaper.close()

    return make


def emulated(
    forth: LinkSettings, back: LinkSettings
) -> Callable[[NetSettings, Clock], AbstractAsyncContextManager[tuple[Network, Network]]]:
    """Two nodes on a cable in virtual time."""

    @asynccontextmanager
    async def make(net: NetSettings, clock: Clock) -> AsyncIterator[tuple[Network, Network]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        directions = Direction(loop, forth, back.delay, Random(1)), Direction(loop, back, forth.delay, Random(2))
        yield EmulatedNetwork.pair(loop, net, *directions)

    return make


for _loop in LOOPS:
    _loop.make().close()  # a library's first loop may open what the process then keeps

SHAPED = LinkSettings(rate="1Gbit", delay="1ms")
BARE_WORLDS = tuple(World(f"tcp-{loop.name}", loop, tcp(None)) for loop in LOOPS)
SHAPED_WORLDS = tuple(World(f"shaped-{loop.name}", loop, tcp(SHAPED)) for loop in LOOPS)
TCP_WORLDS = (*BARE_WORLDS, *SHAPED_WORLDS)
UNIX_WORLDS = (
    *(World(f"unix-{loop.name}", loop, tcp(None), has_files=True) for loop in LOOPS),
    World("unix-shaped-uvloop", LOOPS[1], tcp(SHAPED), has_files=True),
    World("unix-tls-uvloop", LOOPS[1], tcp(None, replace(TLS, peer_name=NODE)), has_files=True),
)
SECURE_WORLDS = (
    *(World(f"{name}-{loop.name}", loop, tcp(None, of)) for name, of in (("tls", TLS), ("psk", PSK)) for loop in LOOPS),
    World("shaped-tls-psk", LOOPS[1], tcp(SHAPED, replace(TLS, key=PSK.key))),
)
EMULATED_WORLDS = (
    World("emulated", VIRTUAL, emulated(SHAPED, SHAPED)),
    World("emulated-fast", VIRTUAL, emulated(*(LinkSettings(rate="32Gbit", delay="6us") for _ in range(2)))),
    World(
        "emulated-lossy", VIRTUAL,
        emulated(
            LinkSettings(
                rate="1Gbit", delay="1ms", jitter="500us", distribution="pareto", congestion="cubic", loss=0.01,
                scheduling="strict", segment="1500", reorder=True,
            ),
            LinkSettings(rate="100Mbit", delay="3ms", congestion="reno", loss=0.01, scheduling="fifo", queue="16K"),
        ),
    ),
)  # fmt: skip
#: Every world of the network suite.
WORLDS = (*TCP_WORLDS, *SECURE_WORLDS, *EMULATED_WORLDS, *UNIX_WORLDS)
#: Those whose addresses have ports.
PORT_WORLDS = (*TCP_WORLDS, *SECURE_WORLDS, *EMULATED_WORLDS)

_Test = Callable[..., Coroutine[Any, Any, None]]


def in_worlds(worlds: tuple[World, ...], **net: Any) -> Callable[[_Test], Callable[..., None]]:
    """Make of `async def test(nodes, ...)` a test that runs in each of `worlds`, with these settings of [net]."""

    def decorate(test: _Test) -> Callable[..., None]:
        @functools.wraps(test)
        def run(world: World, **arguments: Any) -> None:
            world.run(test, NetSettings(**net), **arguments)

        others = list(inspect.signature(test).parameters.values())[1:]
        world = inspect.Parameter("world", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = inspect.Signature([world, *others])  # type: ignore[attr-defined]
        return pytest.mark.parametrize("world", worlds, ids=[world.name for world in worlds])(run)

    return decorate

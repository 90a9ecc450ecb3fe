"""Several migrations into one destination, in virtual time, with real bytes: no system call takes time, all bytes do.

Each source has a memory of its own seed, so that a piece of one that lands in the memory of another shows in its
digest. They share a link, and reach it each by a network that knows its connections, so that they can be cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from dest_node.guest.tasks import TaskAccelerator
from dest_node.incoming import Incoming
from dest_node.service import Destination
from dest_node.setup import DestinationSetup
from migemu.address import Address
from migemu.errors import MigemuError
from migemu.guest.workload import NO_FILES
from migemu.mm.pages import Geometry
from migemu.node.outcome import Outcome
from migemu.ports import Channel, ChannelHandler, GuestMemory, SourceMemory
from migemu.scenario.scenario import Scenario, load, replace
from migemu.sim.cable import Direction
from migemu.sim.emulated_network import EmulatedNetwork
from migemu.sim.loop import VirtualLoop
from migemu.sim.virtual_clock import VirtualClock
from migemu.store.image import ImageMemory, pattern
from migemu.store.mapped import MappedMemory
from migemu.units import SECOND
from source_node.service import Source
from tests.addresses import PLACE

LIVELY = (
    "memory.geometry=tiny", "memory.size=512K", "guest.workload=uniform", "guest.write_share=0.5", "guest.vcpus=2",
    "device.state=4K", "push.run=16K", "link.rate=400Mbit", "link.delay=100us", "return_link.delay=100us",
    "recovery.backoff_min=5ms",
)  # fmt: skip


def settings(*more: str) -> Scenario:
    """LIVELY, with `more` in the place of what it says of the same settings."""
    chosen = dict(setting.split("=", 1) for setting in [*LIVELY, *more])
    return load(None, [f"{key}={value}" for key, value in chosen.items()])


class Reach:
    """ports.Network of one source: the link that it shares, and the connections that are its own."""

    def __init__(self, network: EmulatedNetwork) -> None:
        self.made: list[Any] = []
        self._network = network

    async def connect(self, address: Address, handler: ChannelHandler, *, once: bool = False) -> Channel:
        channel = await self._network.connect(address, handler, once=once)
        self.made.append(channel)
        return channel

    async def listen(self, address: Address, accept: Callable[[Any], ChannelHandler]) -> Any:
        raise NotImplementedError

    def cut(self) -> None:
        """All of them, from the middle: both ends are told that they broke."""
        for channel in self.made:
            channel.far.came_end(mid_frame=True)
            channel.came_end(mid_frame=True)
        self.made.clear()


class Released(MappedMemory):
    """A memory that notes that it has been given back."""

    released: list[MappedMemory]

    def release(self) -> None:
        super().release()
        self.released.append(self)


class Town:
    """One destination, and as many sources as somebody starts."""

    def __init__(self, scenario: Scenario, migrations: int) -> None:
        self.scenario = scenario
        self.loop = VirtualLoop(start_ns=SECOND)  # type: ignore[abstract]  # what it lacks it refuses
        self.clock = VirtualClock(self.loop)
        forth = Direction(self.loop, scenario.link, scenario.return_link.delay, Random("forth"))
        back = Direction(self.loop, scenario.return_link, scenario.link.delay, Random("back"))
        self.network, there = EmulatedNetwork.pair(self.loop, scenario.net, forth, back)
        self._news = asyncio.Event()
        self.ends: dict[str, BaseException | None] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.notices: list[str] = []
        self.memories: list[MappedMemory] = []
        self.released: list[MappedMemory] = []
        vcpus = TaskAccelerator(scenario, self.clock, NO_FILES)
        setup = DestinationSetup(
            scenario=scenario,
            clock=self.clock,
            allocate=self._provide,
            accelerator=vcpus,
        )
        self.destination = Destination(there, setup, self, migrations=migrations)

    async def _provide(self, geometry: Geometry, memory_bytes: int) -> GuestMemory:
        return await self.allocate(geometry, memory_bytes)

    async def allocate(self, geometry: Geometry, memory_bytes: int) -> GuestMemory:
        """Memory for one migration; a test may put something else in its place."""
        memory = Released(geometry, memory_bytes, bytearray(memory_bytes))
        memory.released = self.released
        self.memories.append(memory)
        self._news.set()
        return GuestMemory.of(memory)

    def notice(self, line: str) -> None:
        """See DestinationObserver, here as below."""
        self.notices.append(line)

    def refused(self, error: MigemuError) -> None:
        """Its source hears of it."""

    async def ended(self, incoming: Incoming, error: BaseException | None) -> None:
        """What became of it is looked at in the end."""
        name = incoming.migration
        self.ends[name] = error
        self.outcomes[name] = incoming.outcome()
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()`; looked at whenever a migration has got its memory, or has ended."""
        while not holds():
            self._news.clear()
            await self._news.wait()

    def memory(self, seed: int, pages: int = 0) -> ImageMemory:
        """That of the source of this seed."""
        scenario = self.scenario
        memory_bytes = pages * scenario.geometry.page_bytes or scenario.memory.size
        return pattern(scenario.geometry, memory_bytes, seed, scenario.memory.zero_share)

    def source(
        self, seed: int, network: Any = None, memory: SourceMemory | None = None, pages: int = 0
    ) -> Source:  # fmt: skip
        """Its memory is that of its seed; `pages` of it, or as the scenario has it."""
        scenario = replace(self.scenario, scenario__seed=seed)
        return Source(
            scenario, network or self.network, self.clock, memory or self.memory(seed, pages), named(seed),
        )  # fmt: skip

    def play(self, *sources: Coroutine[Any, Any, Any]) -> list[Any]:
        """Serve until all is over; what became of each of `sources`, and at last of the destination."""

        async def all_of_it() -> list[Any]:
            await self.destination.listen(PLACE)
            return await asyncio.gather(*sources, self.destination.serve_all(), return_exceptions=True)

        return self.loop.run(all_of_it())


def named(seed: int) -> str:
    """The name of the migration of this seed."""
    return f"{seed:032x}"

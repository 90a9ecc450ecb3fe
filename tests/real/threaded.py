"""The services as they are, in threads of the test, over real sockets: what processes do, in a tenth of the time.

They are waited for like `processes.NodeProcess`: an exit code, and the line that it would come with.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

from dest_node.guest.tasks import TaskAccelerator
from dest_node.service import Destination
from dest_node.setup import DestinationSetup
from migemu.address import LOOPBACK, Address, TcpAddress
from migemu.errors import MigemuError, one_line
from migemu.guest.workload import NO_FILES
from migemu.mm.pages import Geometry
from migemu.node.outcome import Outcome
from migemu.ports import ChannelHandler, GuestMemory
from migemu.scenario.scenario import Scenario, load
from migemu.store.allocate import allocate
from migemu.store.image import pattern
from migemu.store.mapped import MappedMemory
from migemu.transport.channel import TcpChannel
from migemu.transport.clock import MonotonicClock
from migemu.transport.tcp import TcpListener, TcpNetwork
from source_node.service import Source
from tests.addresses import ANY_PORT
from tests.observers import Noticing
from tests.real.peers import MIGRATION

SETTINGS = ("memory.geometry=tiny", "memory.size=1M", "scenario.name=test")
TIMEOUT_S = 30


class _Network(TcpNetwork):
    """Keeps `channels`: who was refused may linger, and has no loop any more when the service has ended."""

    def __init__(self, scenario: Scenario, channels: list[ref[TcpChannel]]) -> None:
        super().__init__(scenario.net, MonotonicClock(), None, bounds=scenario.limits)
        self._channels = channels

    async def connect(self, address: Address, handler: ChannelHandler, *, once: bool = False) -> TcpChannel:
        channel = await super().connect(address, handler, once=once)
        self._channels.append(ref(channel))
        return channel

    async def listen(
        self, address: Address, accept: Callable[[TcpChannel], ChannelHandler]
    ) -> TcpListener:  # fmt: skip
        def kept(channel: TcpChannel) -> ChannelHandler:
            self._channels.append(ref(channel))
            return accept(channel)

        return await super().listen(address, kept)


class Threaded:
    """A service at work. `error` is the line it ended with, or empty."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.error = ""
        self.notices: list[str] = []
        self.outcome: Outcome | None = None
        self.port = 0
        self.listening = threading.Event()
        self._code = 0
        self._channels: list[ref[TcpChannel]] = []
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    def start(self, work: Callable[[Threaded], Coroutine[Any, Any, None]]) -> None:
        """Let it work."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._guarded(work)), daemon=True)
        self._thread.start()

    async def _guarded(self, work: Callable[[Threaded], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.ensure_future(work(self))
        self._stop = lambda: task.get_loop().call_soon_threadsafe(task.cancel)
        try:
            await task
        except MigemuError as error:
            self.error, self._code = one_line(error), error.exit_code
        except asyncio.CancelledError:
            self.error, self._code = "interrupted", 130
        finally:
            self._stop = lambda: None
            self.listening.set()
            for each in self._channels:
                if (channel := each()) is not None:
                    channel.abort()
            for _ in range(3):  # the loop needs a turn to close what was aborted
                await asyncio.sleep(0)

    def network(self) -> TcpNetwork:
        """Its network, whose connections end with it, as they do with a process."""
        return _Network(self.scenario, self._channels)

    def wait(self) -> int:
        """Its exit code, when it has one."""
        assert self._thread is not None
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "it does not end"
        return self._code

    def end(self) -> None:
        """Interrupt it, if it still works."""
        self._stop()
        self.wait()


@contextmanager
def _at_work(
    settings: tuple[str, ...], work: Callable[[Threaded], Coroutine[Any, Any, None]]
) -> Iterator[Threaded]:  # fmt: skip
    threaded = Threaded(load(None, [*SETTINGS, *settings]))
    threaded.start(work)
    try:
        yield threaded
    finally:
        threaded.end()


@contextmanager
def source(port: int, *settings: str) -> Iterator[Threaded]:
    """A source of 1 MiB that migrates to `port` of loopback."""

    async def work(at: Threaded) -> None:
        scenario, clock = at.scenario, MonotonicClock()
        memory = pattern(scenario.geometry, scenario.memory.size, scenario.scenario.seed, scenario.memory.zero_share)
        await Source(scenario, at.network(), clock, memory, MIGRATION).run(TcpAddress(LOOPBACK, port))

    with _at_work(settings, work) as threaded:
        yield threaded


@contextmanager
def destination(*settings: str) -> Iterator[Threaded]:
    """A destination on a free port of loopback."""

    async def work(at: Threaded) -> None:
        clock = MonotonicClock()

        async def provide(geometry: Geometry, memory_bytes: int) -> GuestMemory:
            return GuestMemory.of(
                MappedMemory(geometry, memory_bytes, allocate(memory_bytes, at.scenario.memory.backing))
            )

        vcpus = TaskAccelerator(at.scenario, clock, NO_FILES)
        setup = DestinationSetup(
            scenario=at.scenario,
            clock=clock,
            allocate=provide,
            accelerator=vcpus,
        )
        service = Destination(at.network(), setup, Noticing(at.notices.append))
        at.port = (await service.listen(ANY_PORT)).address.port
        at.listening.set()
        try:
            at.outcome = await service.serve()
        finally:
            if at.outcome is None and service.incoming is not None:
                at.outcome = service.incoming.outcome()

    with _at_work(settings, work) as threaded:
        assert threaded.listening.wait(TIMEOUT_S)
        yield threaded

"""A whole migration in virtual time: both services, unchanged, over an emulated link, on a virtual loop.

Determinism: the seed, the scenario and the code decide everything. Each node runs in a context of its own, with its
processor in it; frames are read in the context of the node they are for. With `costs.threads` of three, what comes on
the preempt channel and what faults are handled by threads of their own. vCPUs have processors of their own.

The nodes come as arguments, so that nobody below the composition root knows them. What goes wrong comes as hazards
(`sim.hazards`), which both nodes meet unchanged. A node that a hazard kills is started again: the source goes on, if
the switch was made; the destination knows nothing, as it has no disk here, and the guest is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

from migemu import named
from migemu.address import Address, TcpAddress
from migemu.costs.fault_cost import FaultCosts
from migemu.errors import BrokenError, GaveUpError, InputError, MigemuError
from migemu.link.jitter import jitters
from migemu.link.scheduler import QueuedFrame
from migemu.mm.pages import Geometry
from migemu.node.outcome import Outcome
from migemu.ports import Clock, GuestMemory, Network, SourceMemory, Tracer
from migemu.scenario.scenario import Scenario
from migemu.sim.cable import Direction
from migemu.sim.contents import ModelledSource
from migemu.sim.emulated_channel import Parcel
from migemu.sim.emulated_network import EmulatedNetwork
from migemu.sim.hazards import Hazard
from migemu.sim.incarnation import Incarnation, SourceRecord
from migemu.sim.injection import Injection
from migemu.sim.loop import LoopStatistics, Pace, VirtualLoop
from migemu.sim.processor import PROCESSOR, Processor
from migemu.sim.timed_memory import MemoryCosts, TimedMemory
from migemu.sim.virtual_clock import VirtualClock
from migemu.sim.world_watch import WorldWatch
from migemu.trace.events import CarriedFrame, Event, Happening
from migemu.trace.tee import Tee
from migemu.units import SECOND
from migemu.wire.messages import Page, Request, Zero

#: Time begins here, so that no time of a run is 0, which stands for "never".
START_NS: Final = 1 * SECOND

Allocate = Callable[[Geometry, int], Awaitable[GuestMemory]]


class KilledError(BrokenError):
    """A hazard has killed a node, and nobody could go on in its place."""


class Listening(Protocol):
    """What a destination is to a world."""

    async def listen(self, address: Address) -> Any:
        """Accept connections at `address`."""

    async def serve(self) -> Outcome:
        """Serve one migration to its end; any MigemuError."""


class Sending(Protocol):
    """What a source is to a world."""

    async def run(self, address: Address) -> Any:
        """Migrate to the destination at `address`; any MigemuError."""

    async def recover(self, address: Address, downtime_ns: int, ran: bool = False, all_sent: bool = False) -> Any:
        """Go on with a migration whose source is gone."""


class Nodes(Protocol):
    """Makes both services. The composition root provides it."""

    def destination(
        self, scenario: Scenario, network: Network, clock: Clock, allocate: Allocate, tracer: Tracer | None
    ) -> Listening:
        """Make the destination's service."""

    def source(
        self, scenario: Scenario, network: Network, clock: Clock, memory: SourceMemory, migration: str,
        tracer: Tracer | None, record: SourceRecord,
    ) -> Sending:  # fmt: skip
        """The source's service, which notes in `record` what its successor needs."""


@dataclass(frozen=True, slots=True)
class WorldStatistics:
    """What a run took. Busy times are those of the two services, in virtual ns."""

    loop: LoopStatistics
    source_busy_ns: int
    destination_busy_ns: int


class World:
    """One migration. `run` plays it to its end."""

    def __init__(
        self, scenario: Scenario, nodes: Nodes, tracer: Tracer | None, pace: Pace | None = None,
        hazards: Sequence[Hazard] = (), time_max_ns: int = 0, make_memory: Callable[..., TimedMemory] = TimedMemory,
    ) -> None:  # fmt: skip
        """InputError: a setting that a world without bytes cannot follow. A `time_max_ns` of 0 is no limit.

        `make_memory` makes the guest's memory; another one is for those who watch it.
        """
        _check(scenario)
        self.scenario = scenario
        self.loop = VirtualLoop(start_ns=START_NS, pace=pace, time_max_ns=time_max_ns and START_NS + time_max_ns)  # type: ignore[abstract]  # what it lacks it refuses
        self._nodes = nodes
        self._make_memory = make_memory
        #: The guest's memory at the destination, once it is there.
        self.memory: TimedMemory | None = None
        pages = scenario.memory.size // scenario.geometry.page_bytes
        self.watch = WorldWatch(self.loop, scenario.geometry, pages, tracer)
        names = ("source", "destination", "preempt", "faults")[: 4 if scenario.costs.threads == "three" else 2]
        self._processors = [Processor(name) for name in names]
        self._contexts = [self._context(processor) for processor in self._processors]
        seed = scenario.scenario.seed
        self._source_memory = ModelledSource(scenario.geometry, scenario.memory.size, seed, scenario.memory.zero_share)
        forth = Direction(
            self.loop,
            scenario.link,
            scenario.return_link.delay,
            Random(f"{seed} link"),
            arrivals=self._contexts[1],
            carried=self._carried,
            urgent_arrivals=self._contexts[2] if len(self._contexts) > 2 else None,
        )
        back = Direction(
            self.loop, scenario.return_link, scenario.link.delay, Random(f"{seed} return link"),
            arrivals=self._contexts[0], carried=self._carried,
        )  # fmt: skip
        #: What goes wrong; None if nothing is to.
        self.injection = Injection(self.loop, hazards, self) if hazards else None
        networks = EmulatedNetwork.pair(self.loop, scenario.net, forth, back, tamper=self.injection)
        self._tracer = Tee(self.watch, self.injection)
        self._incarnations = {each.name: Incarnation(each.name, each, self._tracer) for each in networks}
        self._over: dict[str, asyncio.Future[None]] = {}
        self._record = SourceRecord()
        #: How each node that failed did, in that order.
        self.failed: dict[str, BaseException] = {}
        self.destination: Listening | None = None
        #: The service of each node, in its last node.
        self.services: dict[str, Listening | Sending] = {}

    @staticmethod
    def _context(processor: Processor) -> Context:
        context = copy_context()
        context.run(PROCESSOR.set, processor)
        return context

    def run(self) -> Outcome:
        """Play it. Any MigemuError as the services raise it; SimulationError when the world itself is at fault."""
        completed = False
        try:
            outcome = self.loop.run(self._play())
            completed = True
        finally:
            self.watch.finish(cut=not completed)
        return outcome

    async def _play(self) -> Outcome:
        self._over = {name: self.loop.create_future() for name in ("destination", "source")}
        for name in self._over:
            self._begin(self._incarnations[name])
        await asyncio.gather(*self._over.values())
        for error in sorted(self.failed.values(), key=lambda error: isinstance(error, _ECHOES)):  # first what is none
            raise error
        outcome = self.outcome
        assert outcome is not None
        return outcome

    async def _serve(self, node: Incarnation) -> Outcome:
        clock = VirtualClock(self.loop)
        destination = self._nodes.destination(self.scenario, node.network, clock, self._allocate, node)
        if self.destination is None:
            self.destination = destination
        self.services[node.name] = destination
        await destination.listen(_DESTINATION)
        return await destination.serve()

    async def _send(self, node: Incarnation) -> None:
        migration = f"{Random(f'{self.scenario.scenario.seed} migration').getrandbits(128):032x}"
        source = self._nodes.source(
            self.scenario, node.network, VirtualClock(self.loop), self._source_memory, migration, node, self._record
        )
        self.services[node.name] = source
        if self._record.switching:
            record = self._record
            await source.recover(_DESTINATION, record.downtime_ns, record.ran, record.all_sent)
        else:
            await source.run(_DESTINATION)

    def _begin(self, node: Incarnation) -> None:
        context = self._contexts[0 if node.name == "source" else 1].copy()
        work = self._send(node) if node.name == "source" else self._serve(node)
        node.task = self.loop.create_task(work, name=node.name, context=context)
        node.task.add_done_callback(lambda done: self._is_done(node, done))

    def _is_done(self, node: Incarnation, done: asyncio.Task[Any]) -> None:
        """Of a node that has failed the other one learns by itself, unless it has never heard of it."""
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if node.killed:
            if error is not None and not isinstance(error, MigemuError | asyncio.CancelledError):
                self.failed[node.name] = error  # a bug shows in its last moments too
            return
        if self._over[node.name].done():
            return  # its memory went with it, and nobody has come since
        if error is not None:
            self._fails(node.name, error)
        self._over[node.name].set_result(None)

    def _fails(self, node: str, error: BaseException) -> None:
        self.failed[node] = error
        for other in self._incarnations.values():
            if other.task is not None:
                net = self.scenario.net  # by then it has ended by itself, or never does
                patience_ns = 2 * net.idle_timeout + 4 * net.answer_timeout + self.scenario.recovery.timeout
                self.loop.call_at_ns(self.loop.now_ns + patience_ns, other.task.cancel)

    def crash(self, node: str, down_ns: int) -> None:
        """Kill a node (SIGKILL), and start it again after `down_ns` where that is of use."""
        old = self._incarnations[node]
        if self._over[node].done() or old.killed:
            return
        following = self._incarnations[node] = Incarnation(node, old.kill(), self._tracer)
        if node == "destination" or not self._record.switching:
            self._fails(node, KilledError(f"the {node} was killed, and with it the guest"))
            self._over[node].set_result(None)
        if node == "destination" or self._record.switching:
            self.loop.call_at_ns(self.loop.now_ns + down_ns, self._begin, following, context=Context())

    async def _allocate(self, geometry: Geometry, memory_bytes: int) -> GuestMemory:
        vcpus = self.scenario.guest.vcpus
        settings = self.scenario.costs
        faults = FaultCosts(settings.handler)  # type: ignore[arg-type]
        costs = MemoryCosts(faults, settings.model(geometry, vcpus), place=settings.place)  # type: ignore[arg-type]
        handler = self._contexts[3] if len(self._contexts) > 3 else None
        self.memory = self._make_memory(
            geometry, memory_bytes, self._source_memory.content, self.loop, self._processors[1], costs, handler,
            self.scenario.memory.hgm,
        )  # fmt: skip
        return GuestMemory.of(self.memory)

    def _carried(self, frame: QueuedFrame) -> None:
        """A frame of pages, or a request for some, will arrive: what the link knows of it goes into the trace."""
        parcel = frame.token
        if not isinstance(parcel, Parcel) or not isinstance(parcel.message, Page | Zero | Request):
            return
        first, count, level = parcel.message[:3]
        self.watch.emit(
            Event(
                frame.arrived_ns, "link", Happening.CARRIED, first, count * self.scenario.geometry.pages(level), level,
                detail="return" if isinstance(parcel.message, Request) else frame.channel,
                wire=CarriedFrame(frame.enqueued_ns, frame.started_ns, frame.departed_ns, frame.size),
            )
        )  # fmt: skip

    @property
    def outcome(self) -> Outcome | None:
        """What the destination has come to, however the source did; None unless it has ended well."""
        task = self._incarnations["destination"].task
        ended = task is not None and task.done() and not task.cancelled() and task.exception() is None
        return task.result() if task is not None and ended else None

    def killed(self, node: str) -> bool:
        """Whether it was, and nobody could go on in its place."""
        return isinstance(self.failed.get(node), KilledError)

    def source_digests(self) -> bytes:
        """Those of the source's memory, 8 bytes a base page."""
        pages = self.scenario.memory.size // self.scenario.geometry.page_bytes
        return self._source_memory.digests(0, pages)

    def statistics(self) -> WorldStatistics:
        """What the run took, as of now."""
        source, *destination = self._processors
        return WorldStatistics(self.loop.statistics(), source.busy_ns, sum(each.busy_ns for each in destination))

    def __repr__(self) -> str:
        return f"<World {self.scenario.scenario.name}, seed {self.scenario.scenario.seed}, {self.loop!r}>"


def _check(scenario: Scenario) -> None:
    """InputError: a setting that means nothing without bytes, or has no end in virtual time."""
    if scenario.memory.image:
        raise InputError("memory.image: a migration in virtual time has no bytes; leave it out, or use `migemu run`")
    guest = scenario.guest
    if guest.vcpus and not guest.rate and not guest.accesses_max:
        raise InputError(
            "guest.rate: as fast as it can (0) never ends in virtual time, where an access takes no time; give a "
            "rate, or guest.accesses_max"
        )
    for name, link in (("link", scenario.link), ("return_link", scenario.return_link)):
        try:
            jitters.create(link.distribution, link.jitter, Random(0), named.read_text)
        except (ValueError, OSError) as error:
            raise InputError(f"{name}.distribution={link.distribution}: {error}") from None


_DESTINATION: Final = TcpAddress("destination", 4444)
#: Errors of a node that tell of the other one's.
_ECHOES: Final = (GaveUpError, asyncio.CancelledError)

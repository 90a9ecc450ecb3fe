"""B: migemu itself, both services whole, over real TCP, on the pooled memory.

    push        a migration without a guest; what the push does comes with the command's assignments
    fault       a migration whose one vCPU takes lone faults while the push is held back, `count` of them
    loaded      a migration whose one vCPU takes faults while the push runs

Nothing of migemu is changed for it. Spans are the destination's own times; processor time is read when the stage
changes (source) and when memory is collapsed (destination), by classes derived from the real ones.
"""

from __future__ import annotations

import mmap
import secrets
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from dest_node.guest.tasks import TaskAccelerator
from dest_node.service import Destination
from dest_node.setup import DestinationSetup
from migemu.address import LOOPBACK, TcpAddress
from migemu.mm.pages import Geometry, Level, PageIndex, Span
from migemu.ports import Collapsed, FaultHandler, Stalled
from migemu.scenario.scenario import Scenario, load
from migemu.store.mapped import MappedMemory
from migemu.store.recordings import NamedFiles
from migemu.transport.clock import MonotonicClock
from migemu.transport.security.credentials import load as load_security
from migemu.transport.tcp import TcpNetwork
from source_node.service import Source
from tests.addresses import ANY_PORT
from tests.bench.nodes import Measurement, Seat
from tests.observers import Noticing


class TimedSource(Source):
    """A source that reads its processor time at each stage: "run" is when the push begins, "end" when it has ended."""

    @property
    def stage(self) -> str:
        return self._stage_name

    @stage.setter
    def stage(self, stage: str) -> None:
        self._stage_name = stage
        self.__dict__.setdefault("cpu_at_ns", {})[stage] = time.process_time_ns()


class TimedMemory(MappedMemory):
    """Memory that reads the processor time when faults begin to be caught (just before Run) and after each collapse.

    It also keeps how long each fault of the only vCPU took: from the touch that faults to the next one, which is made
    when the vCPU has been woken.
    """

    def __init__(self, geometry: Geometry, memory_bytes: int, memory: mmap.mmap) -> None:
        super().__init__(geometry, memory_bytes, memory)
        self.begin_ns = self.end_ns = 0
        self.latencies_ns: list[int] = []
        self._faulted_ns = 0

    def register(self, handler: FaultHandler) -> None:
        super().register(handler)
        self.begin_ns = time.process_time_ns()

    def touch(self, vcpu: int, page: PageIndex, offset: int, stamp: int | None) -> int | Stalled | Awaitable[None]:
        now = time.monotonic_ns()
        if self._faulted_ns:
            self.latencies_ns.append(now - self._faulted_ns)
            self._faulted_ns = 0
        result = super().touch(vcpu, page, offset, stamp)
        if not isinstance(result, int):
            self._faulted_ns = now
        return result

    def madvise_collapse(self, spans: Sequence[Span]) -> Collapsed:
        result = super().madvise_collapse(spans)
        self.end_ns = time.process_time_ns()
        return result


def _scenario(seat: Seat) -> Scenario:
    return load(None, ("memory.size=1G", "memory.zero_share=0", "device.state=0", *seat.command.assignments))


def _network(scenario: Scenario, clock: MonotonicClock) -> TcpNetwork:
    credentials, _ = load_security(scenario.security, {})
    return TcpNetwork(scenario.net, clock, None, credentials)


async def _incoming(seat: Seat) -> dict[str, Any]:
    scenario, clock = _scenario(seat), MonotonicClock()
    memories: list[TimedMemory] = []

    async def memory_of(geometry: Geometry, memory_bytes: int) -> MappedMemory:
        memories.append(TimedMemory(geometry, memory_bytes, seat.pool.memory))
        return memories[-1]

    vcpus = TaskAccelerator(scenario, clock, NamedFiles())
    setup = DestinationSetup(
        scenario=scenario, clock=clock, allocate=memory_of, accelerator=vcpus
    )  # fmt: skip
    destination = Destination(_network(scenario, clock), setup, Noticing(print))
    listener = await destination.listen(ANY_PORT)
    seat.tell_ports((listener.address.port,))
    outcome = await destination.serve()
    seat.pool.check()
    if not outcome.verified:
        raise RuntimeError("the memory was not verified")
    times, memory = outcome.snapshot.times, memories[0]
    memory.validate()
    if scenario.collapse.policy != "never" and memory.leaves()[Level.PUD] != 1:
        raise RuntimeError("the memory was not collapsed")
    return {
        "span_ns": times.finish - times.run,
        "cpu_ns": memory.end_ns - memory.begin_ns,
        "latencies_ns": memory.latencies_ns,
    }


async def _outgoing(seat: Seat) -> dict[str, Any]:
    scenario, clock = _scenario(seat), MonotonicClock()
    source = TimedSource(scenario, _network(scenario, clock), clock, seat.pool.image, secrets.token_hex(16))
    await source.run(TcpAddress(LOOPBACK, seat.command.ports[0]))
    return {"cpu_ns": source.cpu_at_ns["end"] - source.cpu_at_ns["run"]}  # type: ignore[attr-defined]


_NAMES: Final = ("push", "fault", "loaded")
MEASUREMENTS: Final[dict[str, dict[str, Measurement]]] = {
    "source": dict.fromkeys(_NAMES, _outgoing),
    "destination": dict.fromkeys(_NAMES, _incoming),
}

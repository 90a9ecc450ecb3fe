"""What a destination is made of, once the source has announced its memory: memory, receiver and executor, vCPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from dest_node.core.advise import Announced
from dest_node.core.effects import NODE
from dest_node.core.receiver import Receiver
from dest_node.executor import EffectExecutor, ExecutorHost
from dest_node.setup import DestinationSetup
from dest_node.verification.integrity import Integrity
from dest_node.verification.verify import Verification
from migemu.mm.pages import Geometry
from migemu.node.outcome import Outcome, Snapshot
from migemu.policy.collapse_policy import collapse_policies, promises
from migemu.ports import GuestMemory, Vcpus
from migemu.trace.events import Event, Happening

#: How many characters the overview of the memory has (`Snapshot.cells`).
_MAP_CELLS = 512


class MemoryProvider(Protocol):
    """Where one migration gets its memory from."""

    async def provide(self, geometry: Geometry, memory_bytes: int) -> GuestMemory:
        """Memory in whole hugetlb pages. InputError when it is more than is left, BrokenError when there is none."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """The machinery of one incoming migration, and the figures that it can give."""

    memory: GuestMemory
    receiver: Receiver
    executor: EffectExecutor
    vcpus: Vcpus
    verification: Verification
    integrity: Integrity

    def completed_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """`snapshot` with what there is to say since the memory is there."""
        receiver, executor = self.receiver, self.executor
        return replace(
            snapshot, receiver=receiver.statistics(), leaves=self.memory.mapping.leaves(),
            table_bytes=executor.look_at_tables(), table_bytes_max=executor.table_bytes_max,
            cells=receiver.overview(_MAP_CELLS), pages_waited_for=receiver.pages_waited_for,
        )  # fmt: skip

    def completed_outcome(self, outcome: Outcome) -> Outcome:
        """`outcome` with what the guest has seen, and what collapses have cost."""
        executor, guest = self.executor, self.vcpus.statistics()
        return replace(
            outcome, blocktime=guest.blocktime, histogram=guest.latency_histogram, stalls=guest.stalls,
            reads=guest.reads, writes=guest.writes, unchecked=guest.unchecked, corrupt=self.integrity.corrupt,
            collapse_ns=executor.collapse_ns, collapse_stall_ns_max=executor.collapse_stall_ns_max,
        )  # fmt: skip


async def assemble(
    setup: DestinationSetup, announced: Announced, provider: MemoryProvider, host: ExecutorHost
) -> Assembly:  # fmt: skip
    """Make it. InputError when the vCPUs cannot run over this memory; besides what `provider` raises."""
    scenario, clock, tracer, geometry = setup.scenario, setup.clock, setup.tracer, announced.geometry
    memory = await provider.provide(geometry, announced.advise.memory_bytes)
    vcpus = setup.accelerator.create_vcpus(memory, tracer)
    policy = collapse_policies.create(scenario.collapse.policy, geometry)
    if tracer is not None:
        detail = " ".join((scenario.collapse.policy, *promises(policy)))
        tracer.emit(Event(clock.now_ns(), NODE, Happening.POLICY, detail=detail))
    costs = scenario.costs.model(geometry, scenario.guest.vcpus)
    receiver = setup.make_receiver(
        geometry, announced.pages, policy, urgent_piece=scenario.pull.piece, hgm=scenario.memory.hgm,
        collapse_ns=costs.collapse_ns, call_ns_max=scenario.net.idle_timeout // 4,
    )  # fmt: skip
    executor = EffectExecutor(receiver, memory.mapping, costs, clock, tracer, host)
    integrity = Integrity(memory.contents, receiver.received, scenario.recovery.errors_max)
    return Assembly(memory, receiver, executor, vcpus, Verification(memory.contents, vcpus), integrity)

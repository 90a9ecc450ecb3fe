"""What a destination is given when it is made, the same for all of its migrations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dest_node.core.receiver import Receiver
from dest_node.resumption import CheckpointSink, RestoredMigration
from migemu.mm.pages import Geometry
from migemu.ports import Accelerator, Clock, GuestMemory, Tracer
from migemu.scenario.scenario import Scenario

#: Makes a guest's memory of so many bytes, in whole hugetlb pages. BrokenError when there is no room for it.
Allocate = Callable[[Geometry, int], Awaitable[GuestMemory]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSetup:
    """Settings, time, memory and vCPUs of a destination, and what is written down of it."""

    scenario: Scenario
    clock: Clock
    allocate: Allocate
    #: Creates the vCPUs of each guest.
    accelerator: Accelerator
    tracer: Tracer | None = None
    #: Makes what decides; another one is for those who try it.
    make_receiver: Callable[..., Receiver] = Receiver
    #: Keeps what another destination can go on with; of a single migration.
    checkpoint: CheckpointSink | None = None
    #: What this destination goes on with; of a single migration.
    restored: RestoredMigration | None = None

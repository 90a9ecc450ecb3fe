"""The kinds of vCPUs that the suite runs over; another one is one more in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dest_node.guest.tasks import TaskAccelerator
from migemu.guest.workload import WorkloadFiles
from migemu.ports import Accelerator, Clock
from migemu.scenario.scenario import Scenario
from migemu.store.mapped import MappedMemory
from tests.conformance.thread_vcpus import BlockingMemory, ThreadAccelerator


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of vCPUs, and the memory that they can run over."""

    name: str
    accelerator: Callable[[Scenario, Clock, WorkloadFiles], Accelerator]
    memory: type[MappedMemory]


TASKS = Kind("tasks", TaskAccelerator, MappedMemory)
THREADS = Kind("threads", ThreadAccelerator, BlockingMemory)
KINDS = (TASKS, THREADS)

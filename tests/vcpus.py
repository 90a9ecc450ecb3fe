"""vCPUs that do not run: a test makes their accesses in their place."""

from __future__ import annotations

from dest_node.guest.tasks import TaskVcpus
from migemu.ports import GuestAccess
from migemu.scenario.scenario import load
from migemu.transport.clock import MonotonicClock


def stopped_vcpus(memory: GuestAccess) -> TaskVcpus:
    """Over `memory`; what a test has read and written goes into their ledger."""
    return TaskVcpus(load(None, []), memory, MonotonicClock(), [])

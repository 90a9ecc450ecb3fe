"""vCPUs run as fast as they can, and everybody else gets a turn all the same, however many they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dest_node.guest.tasks import TaskAccelerator
from migemu.guest.workload import NO_FILES
from migemu.mm.pages import TINY
from migemu.ports import GuestMemory
from migemu.scenario.scenario import load

#: What an access takes by the clock of the test.
ACCESS_NS = 3_000


class Counted:
    """A memory in which nobody ever faults, and the clock by which each access takes its time."""

    geometry = TINY
    memory_bytes = 64 << 10

    def __init__(self) -> None:
        self.accesses = 0
        self.ns = 1

    def now_ns(self) -> int:
        return self.ns

    async def sleep_until(self, when_ns: int) -> None:
        raise AssertionError("a guest without a rate has nothing to wait for")

    def touch(self, *_: Any) -> int:
        self.accesses += 1
        self.ns += ACCESS_NS
        return 0


@pytest.mark.parametrize(("vcpus", "most"), [(1, 32), (4, 128), (16, 176), (256, 256), (1024, 1024)])
async def test_all_vcpus_together_give_the_others_a_turn(vcpus: int, most: int) -> None:
    """Half a millisecond, by 3 us an access, or one access of each if they are many."""
    memory = Counted()
    scenario = load(None, ["memory.geometry=tiny", f"guest.vcpus={vcpus}", "guest.rate=0", "guest.write_share=0"])
    vcpus = TaskAccelerator(scenario, memory, NO_FILES).create_vcpus(GuestMemory.of(memory), None)  # type: ignore[arg-type]
    vcpus.start()
    turns = []
    for _ in range(20):
        before = memory.accesses
        await asyncio.sleep(0)
        turns.append(memory.accesses - before)
    await vcpus.stop()
    assert turns[0] > 0
    assert max(turns) <= most

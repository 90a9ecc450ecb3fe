"""Worlds for tests: a scenario in a few settings, played, with everything that it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from migemu.node.outcome import Outcome
from migemu.scenario.scenario import Scenario, load
from migemu.sim.world import World
from migemu.trace.events import Event
from migemu.trace.recorder import MemoryRecorder
from migemu.worlds.modelled import Services

#: One hugetlb page of 16 base pages, no zeros, no guest, no device, one channel.
BARE = {
    "memory.geometry": "tiny", "memory.size": "64K", "memory.zero_share": 0, "guest.vcpus": 0, "device.state": 0,
    "pull.preempt": "off", "collapse.policy": "never",
}  # fmt: skip
#: A guest that is in everybody's way, over links that vary: faults, overtaking, collapses that hold vCPUs.
LIVELY = {
    "memory.geometry": "tiny", "memory.size": "512K", "guest.vcpus": 3, "guest.workload": "uniform",
    "guest.write_share": 0.5, "guest.rate": 50_000, "guest.tick": 0, "device.state": "4K", "link.rate": "100Mbit",
    "link.segment": "4K", "link.delay": "200us", "link.jitter": "100us", "link.reorder": "on",
    "return_link.delay": "200us", "return_link.jitter": "100us",
}  # fmt: skip


def scenario(*layers: dict[str, Any], **settings: Any) -> Scenario:
    """`settings` are written section__key."""
    values = {key: value for layer in layers for key, value in layer.items()}
    values |= {key.replace("__", "."): value for key, value in settings.items()}
    return load(None, [f"{key}={value}" for key, value in values.items()])


@dataclass(frozen=True, slots=True)
class Run:
    """What a world leaves behind."""

    world: World
    outcome: Outcome
    trace: list[Event]


def play(settings: Scenario) -> Run:
    recorder = MemoryRecorder()
    world = World(settings, Services(), recorder)
    outcome = world.run()
    return Run(world, outcome, recorder.events)

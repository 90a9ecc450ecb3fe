"""Migrations in virtual time: how much processor time a GiB of them takes.

    sim_1g          1 GiB in 4K pieces, 4 vCPUs, 25 Gbit/s: processor seconds
    sim_64g         64 GiB, 48 vCPUs, the same link
    sim_1t          1 TiB (1,024 hugetlb pages), 4 vCPUs
    ..._events      events of the trace a second; every one is judged, and in the digest
    ..._s_per_gib   wall seconds per GiB
    ..._mib         the most memory that the process held by then

The larger two run only when they are asked for by name (`--only sim_large`): they take a minute and some minutes.
"""

from __future__ import annotations

import resource
import time
from typing import Any, Final

from migemu.scenario.scenario import load
from migemu.units import GIB, SECOND
from migemu.worlds.modelled import Simulation

_LINK: Final = ("link.preset=25G", "return_link.preset=25G")


def _one(name: str, *settings: str) -> dict[str, Any]:
    scenario = load(None, (*_LINK, *settings))
    simulation = Simulation(scenario)
    wall, cpu = time.monotonic_ns(), time.process_time_ns()
    result = simulation.run()
    wall, cpu = time.monotonic_ns() - wall, time.process_time_ns() - cpu
    if simulation.error is not None:
        raise simulation.error
    assert result["verified"]
    return {
        name: cpu / SECOND,
        f"{name}_events": simulation.events * SECOND / cpu,
        f"{name}_s_per_gib": wall / SECOND * GIB / scenario.memory.size,
        f"{name}_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure() -> dict[str, Any]:
    """The small one."""
    return _one("sim_1g", "memory.size=1G", "guest.vcpus=4")


def measure_large() -> dict[str, Any]:
    """The large ones."""
    return {
        **_one("sim_64g", "memory.size=64G", "guest.vcpus=48"),
        **_one("sim_1t", "memory.size=1T", "guest.vcpus=4"),
    }

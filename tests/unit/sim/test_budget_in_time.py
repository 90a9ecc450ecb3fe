"""How long `budget` takes by default: within twice the time of `eager`, in virtual time, whatever a collapse costs."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from migemu.experiment.shipped import shipped
from migemu.policy.collapse_policy import collapse_policies
from migemu.units import GIB
from migemu.worlds.modelled import Simulation
from tests.unit.sim.played import scenario

QUICK: dict[str, Any] = {"guest.vcpus": 0}
BUSY: dict[str, Any] = {"guest.vcpus": 4, "link.preset": "25G", "return_link.preset": "25G"}
SLOW: dict[str, Any] = {"guest.vcpus": 0, "link.rate": "5Gbit", "link.delay": "1ms", "return_link.delay": "1ms"}
TWO: dict[str, Any] = {"guest.vcpus": 0, "memory.size": "2G"}


def postcopy_ns(policy: str, mapcount: str, world: dict[str, Any]) -> int:
    result = Simulation(scenario(world, collapse__policy=policy, costs__mapcount=mapcount)).run()
    assert result["verified"]
    assert result["collapse"]["to_1G"] * GIB == result["bytes"]["memory"], "all of it came to 1G"
    return int(result["time_ns"]["postcopy"])


@pytest.mark.parametrize(
    ("world", "mapcount"),
    [
        (QUICK, "head_only"), (QUICK, "thp_like"), (QUICK, "hstate"), (BUSY, "thp_like"), (SLOW, "head_only"),
        (TWO, "thp_like"),
    ],
)  # fmt: skip
def test_a_budget_of_half_of_the_time_ends_within_twice_the_time_of_eager(mapcount: str, world: dict[str, Any]) -> None:
    eager_ns, budget_ns = (postcopy_ns(policy, mapcount, world) for policy in ("eager", "budget"))
    assert budget_ns <= 2 * eager_ns


def test_the_default_is_the_budget_of_the_table_in_the_readme() -> None:
    """`migemu sweep hgm_question` has made it, and says `half of the time`."""
    (stall,) = collapse_policies.parse("budget")[0].settings
    axes = tomllib.loads(shipped()["hgm_question"].read_text(encoding="utf-8"))["axis"]
    (said,) = [each["set"]["collapse.policy"] for axis in axes for each in axis["values"]
               if isinstance(each, dict) and each["name"] == "budget"]  # fmt: skip
    assert said == f"budget:{stall}" == "budget:stall=500ms"

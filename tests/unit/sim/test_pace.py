"""Playing virtual time at a factor of the wall clock."""

from __future__ import annotations

from typing import Any

import pytest

from migemu.sim.loop import VirtualLoop
from migemu.sim.pace import WallPace
from migemu.sim.virtual_clock import VirtualClock
from migemu.units import MS, SECOND, US


def test_a_pace_plays_time_at_its_factor_and_changes_nothing_else() -> None:
    wall = [1000]
    slept: list[float] = []

    def sleep(duration_s: float) -> None:
        slept.append(duration_s)
        wall[0] += round(duration_s * SECOND) + 100  # a bit late each time

    async def main(loop: VirtualLoop) -> list[int]:
        seen = []
        for wait_ns in (30 * MS, 1, 70 * MS):
            await VirtualClock(loop).sleep_until(loop.now_ns + wait_ns)
            seen.append(loop.now_ns)
        return seen

    def run(**options: Any) -> list[int]:
        loop = VirtualLoop(**options)
        return loop.run(main(loop))

    paced = run(pace=WallPace(0.1, lambda: wall[0], sleep))
    assert paced == run()
    assert SECOND <= wall[0] - 1000 <= SECOND + 10 * US, "100 ms take a second; what was late is made up for"
    assert max(slept) <= 0.05, "in slices, so that Ctrl-C is heard"


@pytest.mark.parametrize("factor", [0, -1, float("nan")])
def test_a_pace_has_to_go_forwards(factor: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        WallPace(factor)

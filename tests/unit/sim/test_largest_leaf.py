"""A memory whose largest leaf is 2M, which no node knows of: whole migrations in virtual time, and both cores by hand.

Nothing but the geometry says so. What `tiny` is elsewhere, hugetlb pages of 16 base pages, are here hugetlb pages of 4.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from migemu import ordering
from migemu.mm.pages import GEOMETRIES, TINY, Geometry, Level
from migemu.sim.hazards import parse
from migemu.sim.world import World
from migemu.trace.events import Happening
from migemu.trace.recorder import MemoryRecorder
from migemu.worlds.modelled import Services
from tests.unit.sim.played import LIVELY, play, scenario

PTE, PMD = Level.PTE, Level.PMD
PAGES = 128
#: Policies that end with one entry for each hugetlb page.
COLLAPSING = ("at_end", "direct", "eager", "batched:spans=3", "budget:stall=500ms")


@pytest.fixture(autouse=True)
def tiny_2m(monkeypatch: pytest.MonkeyPatch) -> Geometry:
    geometry = replace(TINY, largest=PMD)
    monkeypatch.setitem(GEOMETRIES, "tiny", geometry)
    return geometry


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"push.piece": "2M", "pull.piece": "2M"},
        {"pull.preempt": "off", "push.order": "fill_pmd"},
        {"integrity.digests": "on", "link.loss": 0.05, "link.congestion": "cubic"},
    ],
    ids=str,
)
@pytest.mark.parametrize("policy", COLLAPSING)
def test_each_hugetlb_page_ends_as_one_entry_of_2m_and_every_rule_holds(
    policy: str, settings: dict[str, object]
) -> None:
    run = play(scenario(LIVELY, settings, collapse__policy=policy))
    assert run.outcome.verified
    assert not run.world.watch.violations
    assert run.world.memory is not None
    assert run.world.memory.leaves() == {PTE: 0, PMD: PAGES // 4}
    assert run.world.memory.table_bytes() == 0
    levels = Counter(event.level for event in run.trace if event.event is Happening.COLLAPSED)
    assert set(levels) <= {PMD}
    assert bool(levels) == (settings.get("push.piece") != "2M")
    assert run.outcome.snapshot.cells == "m" * len(run.outcome.snapshot.cells)


def test_what_is_never_collapsed_stays_as_it_came(tiny_2m: Geometry) -> None:
    run = play(scenario(LIVELY, collapse__policy="never"))
    assert run.outcome.verified
    assert run.world.memory is not None
    assert run.world.memory.leaves() == {PTE: PAGES, PMD: 0}
    assert run.world.memory.table_bytes() == PAGES // tiny_2m.largest_pages * tiny_2m.page_bytes


def test_without_hgm_a_hugetlb_page_of_2m_is_mapped_when_all_of_it_has_come() -> None:
    run = play(scenario(LIVELY, memory__hgm="off"))
    assert run.outcome.verified
    assert not run.world.watch.violations
    continued = [(event.first, event.level) for event in run.trace if event.event is Happening.CONTINUED]
    assert sorted(continued) == [(first, PMD) for first in range(0, PAGES, 4)]
    assert {event.count for event in run.trace if event.event is Happening.REQUESTED} == {4}


def test_a_lost_connection_is_recovered_by_a_bitmap_of_such_pages() -> None:
    """The parts of the bitmap, and the digests at the end, are of hugetlb pages of 2M."""
    recorder = MemoryRecorder()
    cut = parse("cut main->destination Page 3 byte 100")
    world = World(scenario(LIVELY), Services(), recorder, hazards=[cut])
    assert world.run().verified
    assert not world.watch.violations
    assert Happening.LOST in {event.event for event in recorder.events}
    assert world.memory is not None
    assert world.memory.leaves() == {PTE: 0, PMD: PAGES // 4}


@pytest.mark.parametrize("policy", [*COLLAPSING, "never"])
@pytest.mark.parametrize("seed", range(8))
def test_in_any_order_both_cores_keep_every_rule(policy: str, seed: int) -> None:
    """Accesses between any two effects, late and double pieces; every event is judged as it happens."""
    result = ordering.run({"memory.size": "128K", "push.piece": "4K"}, policy=policy, seed=seed)
    assert result.leaves == ({PTE: 32, PMD: 0} if policy == "never" else {PTE: 0, PMD: 8})

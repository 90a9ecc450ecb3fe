"""Whole migrations of hugetlb pages that are mapped whole, in virtual time."""

from __future__ import annotations

import pytest

from migemu.mm.pages import TINY, Level
from migemu.trace.events import Happening
from migemu.units import KIB, SECOND
from tests.unit.sim.played import BARE, LIVELY, play, scenario


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"push.piece": "2M", "pull.piece": "2M"},
        {"pull.preempt": "off", "collapse.policy": "budget:stall=500ms"},
        {"pull.sender": "push", "costs.place": "copy", "costs.threads": "three"},
        {"pull.resend": "on"},
    ],
    ids=str,
)
def test_every_hugetlb_page_becomes_one_entry_at_once_and_every_rule_holds(settings: dict[str, object]) -> None:
    run = play(scenario(LIVELY, settings, memory__hgm="off"))
    assert run.outcome.verified
    assert not run.world.watch.violations
    continued = [(event.first, event.level) for event in run.trace if event.event is Happening.CONTINUED]
    assert sorted(continued) == [(first, Level.PUD) for first in range(0, 128, 16)]
    assert Happening.COLLAPSED not in {event.event for event in run.trace}
    requested = [(event.first, event.count) for event in run.trace if event.event is Happening.REQUESTED]
    assert 0 < len(requested) == len(set(requested)) <= 8, "at most once for each hugetlb page"
    assert {count for _, count in requested} == {16}


def test_a_fault_waits_for_all_of_its_hugetlb_page_which_the_source_sends_as_there_is_room() -> None:
    """1 us a byte: 64 KiB take 65 ms. Two runs of 4 KiB at most wait in the channel, not sixteen."""
    settings = scenario(
        BARE, memory__hgm="off", pull__preempt="on", push__hold="10s", push__run="4K", net__high_water="4K",
        guest__vcpus=1, guest__tick=0, guest__accesses_max=1, link__rate="8Mbit", link__queue="4K",
    )  # fmt: skip
    run = play(settings)
    blocktime = run.outcome.blocktime
    assert blocktime is not None
    assert blocktime.latency is not None
    assert blocktime.latency.max_ns > 64 * KIB * SECOND // 10**6
    sent = [event.t for event in run.trace if event.event is Happening.SENT and event.urgent]
    assert len(sent) == TINY.pages(Level.PUD)
    assert sent[-1] - sent[0] > 10 * 4096 * SECOND // 10**6

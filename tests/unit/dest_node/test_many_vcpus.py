"""256 vCPUs that fault in the same instant: each page is asked for once, everybody is woken, limits hold."""

from __future__ import annotations

import pytest

from migemu.mm.pages import Level
from migemu.node.outcome import Outcome
from migemu.scenario.scenario import Scenario, load
from migemu.sim.hazards import parse
from migemu.sim.world import World
from migemu.trace.checkers import Checks
from migemu.trace.events import Happening
from migemu.trace.recorder import MemoryRecorder
from migemu.worlds.modelled import Services

VCPUS = 256
#: One access each, at once; nothing is pushed meanwhile.
STORM = (
    "memory.geometry=tiny", f"guest.vcpus={VCPUS}", "guest.workload=uniform", "guest.accesses_max=1", "guest.rate=1000",
    "push.hold=50ms", "link.rate=1Gbit", "link.delay=100us", "return_link.delay=100us",
)  # fmt: skip


def played(*settings: str) -> tuple[Scenario, Outcome, MemoryRecorder]:
    """A whole migration in virtual time, whose trace keeps every rule."""
    scenario, recorder = load(None, [*STORM, *settings]), MemoryRecorder()
    outcome = World(scenario, Services(), recorder).run()
    checks = Checks(scenario.geometry, scenario.memory.size // scenario.geometry.page_bytes)
    for event in recorder.events:
        assert not checks.see(event)
    assert not checks.ended(cut=False)
    assert outcome.verified
    return scenario, outcome, recorder


@pytest.mark.parametrize("size", ["64K", "1M", "16M"], ids=["all on 16 pages", "some alone", "most alone"])
@pytest.mark.parametrize("more", [(), ("pull.preempt=off",), ("integrity.digests=on",)], ids=str)
def test_all_of_them_fault_at_once_and_all_are_woken(size: str, more: tuple[str, ...]) -> None:
    _, outcome, recorder = played(f"memory.size={size}", *more)
    faults = [event for event in recorder.events if event.event is Happening.FAULTED]
    assert len(faults) == VCPUS
    assert len({event.t for event in faults}) == 1, "the same instant"
    pages = {event.first for event in faults}
    asked = [event for event in recorder.events if event.event is Happening.REQUESTED]
    assert sorted(event.first or 0 for event in asked) == sorted(page or 0 for page in pages), "each page once"
    woken = [event.vcpu for event in recorder.events if event.event is Happening.WOKEN]
    assert sorted(vcpu or 0 for vcpu in woken) == list(range(VCPUS))
    assert outcome.blocktime is not None
    assert outcome.blocktime.faults == VCPUS
    assert not outcome.blocktime.open_faults
    assert {vcpu.accesses for vcpu in outcome.blocktime.vcpus} == {1}
    assert outcome.blocktime.overlapped_blocktime_ns > 0, "for some time nobody ran"
    assert outcome.snapshot.leaves[Level.PUD] > 0


def test_a_storm_through_a_lost_connection_loses_nobody() -> None:
    """The connection breaks while all 256 wait: they are asked for again, each page once more at most."""
    scenario, recorder = load(None, [*STORM, "memory.size=16M", "recovery.backoff_min=5ms"]), MemoryRecorder()
    hazards = [parse("cut main->source Request 100 byte 3")]
    outcome = World(scenario, Services(), recorder, hazards=hazards).run()
    assert outcome.verified
    assert outcome.recovery.count == 1
    assert outcome.blocktime is not None
    assert outcome.blocktime.faults == VCPUS
    receiver = outcome.snapshot.receiver
    assert receiver is not None
    assert VCPUS < receiver.requests <= 2 * VCPUS
    assert receiver.pages_duplicate == 0


def test_what_the_guest_may_write_is_bounded_over_all_vcpus() -> None:
    _, outcome, _ = played("memory.size=16M", "guest.write_share=1", "limits.written_words_max=100")
    assert outcome.writes <= 100
    assert outcome.writes + outcome.reads == VCPUS

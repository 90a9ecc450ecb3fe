"""Collapses, call by call, and who was held up by them, against what the model of the memory did."""

from __future__ import annotations

from itertools import chain, pairwise
from pathlib import Path

from migemu.analysis.collapse_calls import CollapseCall, CollapseCalls, HeldVcpu
from migemu.costs.collapse_cost import CostModel
from migemu.mm.pages import TINY, Level
from migemu.scenario.scenario import load
from migemu.trace.events import Event
from migemu.trace.reading import read_trace
from migemu.worlds.modelled import Simulation
from tests.unit.trace.traces import collapsed, destination

PMD, PUD = Level.PMD, Level.PUD


def take(events: list[Event], costs: CostModel | None = None) -> tuple[list[CollapseCall], list[HeldVcpu]]:
    calls, found, held = CollapseCalls(TINY, costs), [], []
    for event in events:
        found += calls.take(event)
        held += calls.held()
    return found + calls.close(), held + calls.held()


def test_a_call_lasts_from_what_it_clears_to_what_it_frees() -> None:
    steps = [each._replace(t=100 + 10 * number) for number, each in enumerate(collapsed(4, PMD, 4))]
    calls, held = take([destination("state", detail="run"), *steps, destination("wake", 0, 1, t=900)])
    assert calls == [CollapseCall(100, 130, 4, 4, PMD, 1)]
    assert held == []


def test_what_clears_and_installs_nothing_is_no_collapse() -> None:
    calls, _ = take([destination("cleared", 0, 4, level=Level.PTE), destination("flushed", 0, 4)])
    assert calls == []


def test_modelled_calls_that_are_told_at_one_time_came_one_by_one() -> None:
    costs = CostModel(geometry=TINY, vcpus=1)
    told = [each._replace(t=10_000_000) for first in (0, 4, 8) for each in collapsed(first, PMD, 4)]
    calls, _ = take([destination("state", detail="run"), *told], costs)
    assert [call.first for call in calls] == [0, 4, 8]
    assert calls[-1].ended == 10_000_000
    for before, after in pairwise(calls):
        assert before.ended == after.began > before.began


def test_a_call_never_begins_before_the_trace() -> None:
    calls, _ = take([each._replace(t=5) for each in collapsed(0, PUD, 4)], CostModel(geometry=TINY))
    assert calls == [CollapseCall(5, 5, 0, 16, PUD, 1)]


def test_in_a_simulated_run_calls_and_stalls_are_those_of_the_result(tmp_path: Path) -> None:
    """All calls, to the nanosecond; the stalls by what shows of them, which is less often and rather longer."""
    settings = ["memory.size=1G", "link.preset=25G", "return_link.preset=25G", "guest.vcpus=4"]
    scenario = load(None, [*settings, "collapse.policy=eager"])
    result = Simulation(scenario, tmp_path, trace=True).run()
    with read_trace(tmp_path / "trace.jsonl") as trace:
        calls = CollapseCalls(trace.geometry, scenario.costs.model(trace.geometry, scenario.guest.vcpus))
        found, held = [], []
        for event in chain.from_iterable(trace.events()):
            found += calls.take(event)
            held += calls.held()
        found += calls.close()
        held += calls.held()
    assert sum(call.entries for call in found) == result["collapse"]["to_2M"] + result["collapse"]["to_1G"]
    assert sum(call.ended - call.began for call in found) == result["modelled"]["collapse_ns"]
    told_ns = sum(result["stall_ns"]["per_vcpu"])
    found_ns = sum(each.ended - each.began for each in held)
    assert 0.5 * told_ns < found_ns < 1.5 * told_ns
    assert max(each.ended - each.began for each in held) <= result["modelled"]["collapse_stall_ns_max"]

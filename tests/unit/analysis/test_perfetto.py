"""The trace for Perfetto: the format's own rules, over made-up migrations."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache, partial
from typing import Any, Final

import pytest

from migemu.analysis.perfetto import perfetto_lines
from migemu.mm.pages import GEOMETRIES, TINY, X86_64, Geometry, Level
from migemu.trace.events import CarriedFrame, Event
from tests.unit.report.runs import migration
from tests.unit.sim.played import LIVELY, play, scenario
from tests.unit.trace.traces import PTE, destination, event, memory, whole

#: What an entry of each phase has, besides `ph`, `pid` and `tid`.
FIELDS: Final = {
    "M": {"name", "args"}, "X": {"name", "ts", "dur", "args"}, "C": {"name", "ts", "args"}, "i": {"name", "ts", "s"},
    "s": {"name", "cat", "id", "ts"}, "t": {"name", "cat", "id", "ts", "bp"}, "f": {"name", "cat", "id", "ts", "bp"},
}  # fmt: skip
SPURIOUS: Final = [
    memory(), destination("state", detail="run"), destination("faulted", 1, vcpu=0, t=10),
    destination("killed", 1, vcpu=0, detail="SIGBUS", t=20), destination("faulted", 2, vcpu=1, t=30),
    destination("received", 2, 2, t=40), destination("cleared", 4, 4, PTE, t=50), destination("woken", 9, vcpu=3, t=60),
]  # fmt: skip


def entries(events: list[Event], geometry: Geometry = X86_64) -> list[dict[str, Any]]:
    pages = next(each.count for each in events if each.event.value == "memory") or 0
    said = json.loads("".join(perfetto_lines(events, geometry, pages, "modelled")))
    assert said["otherData"] == {"schema": "migemu-trace", "kind": "modelled"}
    found: list[dict[str, Any]] = said["traceEvents"]
    return found


@cache
def simulated() -> list[Event]:
    """A world in which everybody is in everybody's way."""
    return play(scenario(LIVELY)).trace


TRACES = {
    "measured": migration, "with the wire": partial(migration, wire=True), "tiny": whole,
    "broken off": lambda: migration()[:5000], "spurious": lambda: SPURIOUS, "nothing": lambda: [memory()],
    "simulated": simulated,
}  # fmt: skip


@pytest.fixture(scope="module", params=TRACES.values(), ids=TRACES)
def found(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    events = request.param()
    return entries(events, GEOMETRIES[events[0].detail or "x86_64"])


def test_every_entry_is_one_of_the_format(found: list[dict[str, Any]]) -> None:
    for entry in found:
        assert set(entry) == FIELDS[entry["ph"]] | {"ph", "pid", "tid"}
        assert isinstance(entry["pid"], int)
        assert isinstance(entry["tid"], int)
        assert entry.get("ts", 0) >= 0
        assert entry.get("dur", 0) >= 0


def test_every_track_has_a_name_before_its_first_entry(found: list[dict[str, Any]]) -> None:
    named = set()
    for entry in found:
        if entry["ph"] == "M" and entry["name"] == "thread_name":
            named.add((entry["pid"], entry["tid"]))
        elif entry["ph"] in ("X", "i"):
            assert (entry["pid"], entry["tid"]) in named


def test_every_process_and_track_has_one_name_of_its_own(found: list[dict[str, Any]]) -> None:
    processes = [entry["pid"] for entry in found if entry["name"] == "process_name"]
    assert len(processes) == len(set(processes))
    assert {entry["pid"] for entry in found if entry["ph"] != "C"} <= set(processes)
    tracks = [(entry["pid"], entry["args"]["name"]) for entry in found if entry["name"] == "thread_name"]
    assert len(tracks) == len(set(tracks))


def test_times_are_whole_nanoseconds_and_nothing_ends_after_the_trace(found: list[dict[str, Any]]) -> None:
    last = max((entry["ts"] for entry in found if entry["ph"] == "C"), default=0)
    for entry in found:
        for time in (entry.get("ts", 0), entry.get("dur", 0)):
            assert time == round(time * 1000) / 1000
        assert entry.get("ts", 0) + entry.get("dur", 0) <= last + 0.0005


def test_a_counter_never_goes_back(found: list[dict[str, Any]]) -> None:
    counters = defaultdict(list)
    for entry in found:
        if entry["ph"] == "C":
            counters[entry["pid"], entry["name"]].append((entry["ts"], *entry["args"].values()))
    for rows in counters.values():
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    received = [row[1] for row in counters[2, "received bytes"]]
    assert received == sorted(received)
    assert all(row[1] >= 0 for row in counters[1, "vCPUs asleep"])


def test_slices_of_a_track_lie_within_each_other_or_apart(found: list[dict[str, Any]]) -> None:
    tracks = defaultdict(list)
    for entry in found:
        if entry["ph"] == "X":
            begin = round(entry["ts"] * 1000)
            tracks[entry["pid"], entry["tid"]].append((begin, -round(entry["dur"] * 1000)))
    for slices in tracks.values():
        around: list[int] = []
        for begin, minus in sorted(slices):
            while around and around[-1] <= begin:
                around.pop()
            assert not around or begin - minus <= around[-1]
            around.append(begin - minus)


def test_every_flow_leads_from_a_sleep_to_a_run_through_slices(found: list[dict[str, Any]]) -> None:
    flows: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    slices = defaultdict(list)
    for entry in found:
        if entry["ph"] in "stf":
            assert entry["ph"] not in flows[entry["id"]], "each flow has one of each"
            flows[entry["id"]][entry["ph"]] = entry
        elif entry["ph"] == "X":
            slices[entry["pid"], entry["tid"]].append(entry)
    assert sorted(flows) == list(range(1, len(flows) + 1))
    for flow in flows.values():
        assert {"s", "f"} <= set(flow)
        assert len({(step["cat"], step["name"]) for step in flow.values()}) == 1, "or they are no flow"
        steps = [flow[phase] for phase in "stf" if phase in flow]
        assert [step["ts"] for step in steps] == sorted(step["ts"] for step in steps)
        for step in steps:
            names = {each["name"] for each in slices[step["pid"], step["tid"]]
                     if each["ts"] <= step["ts"] <= each["ts"] + each["dur"] + 0.001}  # fmt: skip
            assert names & {"s": {"asleep"}, "t": {"piece"}, "f": {"running", "asleep"}}[step["ph"]]


@pytest.mark.parametrize("events", [migration(), simulated()], ids=["made up", "simulated"])
def test_all_faults_are_flows_through_the_piece_that_came(events: list[Event]) -> None:
    woken = sum(each.event.value == "woken" for each in events)
    phases = [entry["ph"] for entry in entries(events, GEOMETRIES[events[0].detail or ""])]
    assert woken > 20
    assert [phases.count(phase) for phase in "stf"] == [woken] * 3


def test_the_parts_of_a_latency_fill_the_sleep() -> None:
    found = [entry for entry in entries(migration(wire=True)) if entry["ph"] == "X" and entry["pid"] == 1]
    asleep = sum(entry["dur"] for entry in found if entry["name"] == "asleep")
    phases = sum(entry["dur"] for entry in found if entry["name"] not in ("asleep", "running"))
    assert asleep == pytest.approx(phases)


def test_a_collapse_is_a_slice_from_the_first_clearing_to_the_last_freeing() -> None:
    found = [entry for entry in entries(migration()) if entry["name"].startswith("collapse")]
    assert [entry["name"] for entry in found].count("collapse to 1G") == 1
    assert {entry["name"] for entry in found} == {"collapse to 2M", "collapse to 1G"}
    assert {entry["dur"] for entry in found} == {0.9}


def test_a_collapse_that_nobody_saw_clear_is_a_moment_each() -> None:
    """A measured run tells of the entry that was made, not of the steps."""
    made = [destination("collapsed", first, level=Level.PMD, t=first) for first in (0, 4, 8)]
    found = [entry for entry in entries([memory(), *made], TINY) if entry["name"].startswith("collapse")]
    assert [entry["dur"] for entry in found] == [0.0] * 3


def test_a_fault_that_nobody_answered_is_asleep_to_the_end() -> None:
    (entry,) = (entry for entry in entries(SPURIOUS, TINY) if entry["name"] == "asleep for good")
    assert (entry["ts"], entry["dur"]) == (0.03, 0.03)


def test_frames_that_overlap_get_lanes_of_their_own() -> None:
    """A frame that was lost is on its way longer than the one behind it."""
    frames = [event("link", "carried", 4, 1, PTE, t=90, detail="main", wire=CarriedFrame(0, 10, 30, 9)),
              event("link", "carried", 5, 1, PTE, t=95, detail="main", wire=CarriedFrame(0, 20, 40, 9))]  # fmt: skip
    found = entries([memory(), *frames], TINY)
    names = [entry["args"]["name"] for entry in found if entry["name"] == "thread_name"]
    assert names == ["main", "main, lane 1"]

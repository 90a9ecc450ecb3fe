"""What the browser is told of a page and of a fault, against the trace itself."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from migemu.analysis.attribution import PHASES, Attribution
from migemu.mm.pages import X86_64
from migemu.scenario.scenario import load
from migemu.trace.events import Event, Happening, event_line
from migemu.trace.reading import read_trace
from migemu.view.index_builder import build_index
from migemu.view.run_picture import RunPicture, vocabulary
from migemu.worlds.modelled import Simulation
from tests.unit.report.runs import migration
from tests.unit.trace.traces import whole, write_lines
from tests.unit.view.conftest import Keep


def picture(tmp_path: Path, events: list[Event], keep: Keep, records_max: int = 300) -> RunPicture:
    trace = write_lines(tmp_path / "trace.jsonl", events, "modelled")
    return RunPicture("a run", keep(build_index(trace, records_max=records_max)), trace)


def about(page: int, events: list[Event]) -> list[int]:
    """The numbers of the events whose pages include `page`."""
    found = []
    for number, event in enumerate(events):
        count = event.count or 1
        if event.event is Happening.COLLAPSED and event.level is not None:
            count = X86_64.pages(event.level)
        if event.first is not None and event.first <= page < event.first + count:
            found.append(number)
    return found


@pytest.mark.parametrize("records_max", [50, 100_000])
def test_the_history_of_a_page_is_every_event_about_it(tmp_path: Path, keep: Keep, records_max: int) -> None:
    events = migration(wire=True)
    run = picture(tmp_path, events, keep, records_max)
    faulted = next(event.first for event in events if event.event is Happening.FAULTED)
    assert faulted is not None
    for page in (0, 700, faulted, run.index.pages - 1):
        said = run.history(page)
        assert [each["number"] for each in said["events"]] == about(page, events)
        assert said["count"] == len(said["events"])
        for each in said["events"]:
            event = events[each["number"]]
            assert (each["t"], each["event"], each["node"]) == (event.t, event.event.value, event.node)
            assert each.get("detail") == event.detail
            assert ("wire" in each) == (event.wire is not None)


def test_a_page_that_is_not_there_has_no_history(tmp_path: Path, keep: Keep) -> None:
    run = picture(tmp_path, migration(), keep)
    for page in (-1, run.index.pages):
        with pytest.raises(IndexError):
            run.history(page)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in virtual time without a preempt channel: urgent pieces wait behind pushed ones."""
    directory = tmp_path_factory.mktemp("run")
    settings = ["memory.size=1G", "link.rate=10Gbit", "pull.preempt=off", "guest.vcpus=3", "guest.rate=500"]
    simulation = Simulation(load(None, settings), directory, trace=True)
    simulation.run()
    assert simulation.error is None
    return directory


def test_a_fault_has_the_phases_and_the_queue_of_the_attribution(simulated: Path, keep: Keep) -> None:
    trace = simulated / "trace.jsonl"
    run = RunPicture("a run", keep(build_index(trace, records_max=5000)), trace)
    attribution = Attribution(X86_64, run.index.pages)
    with read_trace(trace) as opened:
        events = chain.from_iterable(opened.events())
        faults = [fault for event in events if (fault := attribution.take(event)) is not None]
    assert sum(bool(sum(fault.ahead)) for fault in faults) > 10, "there is something to find"
    for number, fault in list(enumerate(faults))[::17]:
        said: dict[str, Any] = run.fault(number)
        assert said["phases"] == [[name, length] for name, length in zip(PHASES, fault.phases, strict=True)]
        assert sum(length for _, length in said["phases"]) == fault.latency_ns == said["ended"] - said["began"]
        assert said["cause"] == fault.cause.value
        assert (said["main_ahead"], said["preempt_ahead"]) == fault.ahead
        by_channel = {"main": 0, "preempt": 0}
        for frame in said["ahead"]:
            by_channel[frame["detail"]] += frame["wire"]["frame_bytes"]
        assert tuple(by_channel.values()) == fault.ahead
        assert {each["event"] for each in said["events"]} >= {"faulted", "woken"}
    for number in (-1, len(faults)):
        with pytest.raises(IndexError):
            run.fault(number)


def test_without_the_file_of_a_trace_events_are_told_from_the_index(tmp_path: Path, keep: Keep) -> None:
    run = picture(tmp_path, whole(), keep)
    with_file = run.history(9)["events"]
    run.trace = tmp_path / "gone"
    without = run.history(9)["events"]
    assert [each["number"] for each in without] == [each["number"] for each in with_file]
    assert "detail" in str(with_file)
    assert "detail" not in str(without)


def test_a_line_that_is_no_event_any_more_does_no_harm(tmp_path: Path, keep: Keep) -> None:
    """The trace may be changed behind the back of the one who looks."""
    run = picture(tmp_path, whole(), keep)
    assert run.trace is not None
    run.trace.write_text("[]\n" * 200)
    assert run.history(9)["count"] > 5
    run.trace.write_text(event_line(whole()[0])[:9])
    assert run.history(9)["count"] > 5


def test_news_are_told_from_the_chunk_that_is_known(tmp_path: Path, keep: Keep) -> None:
    run = picture(tmp_path, migration(), keep)
    all_of_it, rest = run.now(), run.now(after=3)
    assert len(all_of_it["chunks"]) == all_of_it["chunk_count"] == len(rest["chunks"]) + 3
    assert rest["chunks"] == all_of_it["chunks"][3:]
    assert run.now(after=99)["chunks"] == []
    generation = run.about()["generation"]
    run.replace(run.index, None)
    assert run.about()["generation"] == generation + 1


def test_the_vocabulary_says_all_that_the_numbers_mean() -> None:
    said = vocabulary()
    assert said["kinds"][:2] == ("memory", "state")
    assert len(said["tables"]) == 15
    assert {len(table) for table in said["tables"]} == {16}

"""What a trace tells in one pass: the columns of faults, what is over time, and traces that are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from migemu.analysis.attribution import PHASES, Cause, ResolvedFault
from migemu.analysis.fault_table import FaultTable
from migemu.analysis.reducer import DUPLICATE, PUSHED, URGENT, TraceFigures, read_trace_figures
from migemu.errors import InputError
from migemu.mm.pages import TINY, X86_64
from migemu.trace.events import Event, Happening, event_line, header_line
from tests.unit.report.runs import migration
from tests.unit.trace.traces import PMD, PTE, PUD, destination, memory, whole, write_lines


def figures_of(events: list[Event], geometry: object = TINY, pages: int = 32) -> TraceFigures:
    found = TraceFigures(TINY if geometry is TINY else X86_64, pages)
    for each in events:
        found.take(each)
    found.close()
    return found


def test_a_whole_migration_is_told() -> None:
    found = figures_of(whole())
    assert (len(found.faults), found.attribution.open, found.began, found.problem) == (1, 0, 0, "")
    assert [mark.words for mark in found.marks] == ["run", "end", "completed"]
    assert [amounts for _, amounts in found.received.rows()] == [(31 * 4096, 4096, 4096)]
    assert {level: bins.rows() for level, bins in found.collapses.items()} == {PMD: [(0, (8,))], PUD: [(0, (2,))]}
    assert found.mapping.rows()[-1][1].mapped_bytes == {PTE: 0, PMD: 0, PUD: 32 * 4096}
    assert (PUSHED, URGENT, DUPLICATE) == (0, 1, 2)


def test_each_row_of_the_mapping_is_as_its_step_leaves_it() -> None:
    """Two changes within one step: the first of them is not what the memory looks like from there on."""
    step = 100_000
    found = figures_of([
        memory(), destination("continued", 0, 4, t=5 * step), destination("collapsed", 0, level=PMD, t=5 * step + 9),
        destination("continued", 4, 1, t=8 * step), destination("state", detail="end", t=20 * step),
    ])  # fmt: skip
    assert [(t, row.mapped_bytes[PTE], row.mapped_bytes[PMD]) for t, row in found.mapping.rows()] == [
        (5 * step + 9, 0, 4 * 4096), (8 * step, 4096, 4 * 4096), (20 * step, 4096, 4 * 4096),
    ]  # fmt: skip


def test_a_long_trace_gives_short_series(tmp_path: Path) -> None:
    events = migration(faults=500)
    found = read_trace_figures(write_lines(tmp_path / "trace.jsonl", events, "modelled"))
    assert (found.kind, found.problem) == ("modelled", "")
    assert len(found.faults) == sum(each.event is Happening.WOKEN for each in events) > 400
    assert all(len(rows) <= 601 for rows in (found.mapping.rows(), found.received.rows()))
    assert len(found.faults.points(100)[0]) <= 100
    assert [each.hugepage for each in found.maps] == [0]
    assert sum(amounts[0] for _, amounts in found.collapses[PMD].rows()) == 512


def test_a_damaged_trace_tells_what_stands_before_the_damage(tmp_path: Path) -> None:
    events = migration(faults=50)
    path = write_lines(tmp_path / "trace.jsonl", events)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3000], "what is this\n", *lines[3000:]]))
    found = read_trace_figures(path)
    assert "line 3001: is no JSON" in found.problem
    assert found.events > 1000
    assert found.mapping.rows()


def test_a_trace_that_does_not_fit_its_memory_is_damaged(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "trace.jsonl", [memory(), destination("continued", 40, 4)])
    assert "does not fit a memory of 32 pages" in read_trace_figures(path).problem


def test_a_trace_that_never_says_what_it_is_about_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(header_line("measured") + "\n" + event_line(destination("state", detail="run")) + "\n")
    with pytest.raises(InputError, match="holds no `memory` event"):
        read_trace_figures(path)


def fault(latency: int, cause: Cause = Cause.ANSWERED, began: int = 0, **phases: int) -> ResolvedFault:
    values = tuple(phases.get(name, 0) for name in PHASES)
    return ResolvedFault(1, 7, began, began + latency, cause, values, (latency, 2 * latency), None)


def table_of(*faults: ResolvedFault) -> FaultTable:
    table = FaultTable()
    for each in faults:
        table.add(each)
    return table


def test_attribution_is_means_of_all_and_of_the_slowest() -> None:
    quick = [fault(10, queue=4, wake=6, began=number) for number in range(199)]
    every, slowest = table_of(*quick, fault(1000, queue=1000)).attribution()
    assert (every.faults, every.latency_ns) == (200, (199 * 10 + 1000) / 200)
    assert (slowest.what, slowest.faults) == ("slowest 1 %", 2)
    assert slowest.phases_ns[PHASES.index("queue")] == 502
    assert sum(every.phases_ns) == pytest.approx(every.latency_ns)
    assert (slowest.main_ahead, slowest.preempt_ahead) == (505, 1010)
    assert FaultTable().attribution() == []


def test_causes_are_told_in_their_order_without_those_that_no_fault_had() -> None:
    table = table_of(fault(30, Cause.ZERO), *(fault(each) for each in range(1, 101)))
    answered, zero = table.causes()
    assert (answered.cause, answered.faults, answered.p50_ns, answered.p99_ns, answered.max_ns) == (
        Cause.ANSWERED, 100, 50, 99, 100,
    )  # fmt: skip
    assert (zero.cause, zero.faults, zero.mean_ns) == (Cause.ZERO, 1, 30.0)


def test_of_many_faults_the_slowest_are_always_shown() -> None:
    table = table_of(*(fault(1 + (number * 7919) % 1000, began=number) for number in range(1000)))
    points, step = table.points(40)
    assert step == 33
    assert len(points) <= 40
    assert [row[0] for row in points] == sorted(row[0] for row in points)
    assert {row[1] for row in points} >= set(range(991, 1001))
    assert table.points(1000) == (table.points(5000)[0], 1)

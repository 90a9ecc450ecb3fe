"""What a trace tells in one pass: the columns of faults, what is over time, and traces that are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from migemu.analysis.attribution import PARTS, Cause, ResolvedFault
from migemu.analysis.fault_table import FaultTable
from migemu.analysis.reducer import DUPLICATE, PUSHED, URGENT, Told, read_told
from migemu.errors import InputError
from migemu.mm.pages import TINY, X86_64
from migemu.trace.events import Event, Happening, event_line, header_line
from tests.unit.report.runs import migration
from tests.unit.trace.traces import PMD, PTE, PUD, destination, memory, whole, write_lines


def told_of(events: list[Event], geometry: object = TINY, pages: int = 32) -> Told:
    told = Told(TINY if geometry is TINY else X86_64, pages)
    for each in events:
        told.take(each)
    told.close()
    return told


def test_a_whole_migration_is_told() -> None:
    told = told_of(whole())
    assert (len(told.faults), told.attribution.open, told.began, told.problem) == (1, 0, 0, "")
    assert [mark.words for mark in told.marks] == ["run", "end", "completed"]
    assert [amounts for _, amounts in told.received.rows()] == [(31 * 4096, 4096, 4096)]
    assert {level: bins.rows() for level, bins in told.collapses.items()} == {PMD: [(0, (8,))], PUD: [(0, (2,))]}
    assert told.mapping.rows()[-1][1].mapped_bytes == {PTE: 0, PMD: 0, PUD: 32 * 4096}
    assert (PUSHED, URGENT, DUPLICATE) == (0, 1, 2)


def test_each_row_of_the_mapping_is_as_its_step_leaves_it() -> None:
    """Two changes within one step: the first of them is not what the memory looks like from there on."""
    step = 100_000
    told = told_of([
        memory(), destination("continued", 0, 4, t=5 * step), destination("collapsed", 0, level=PMD, t=5 * step + 9),
        destination("continued", 4, 1, t=8 * step), destination("state", detail="end", t=20 * step),
    ])  # fmt: skip
    assert [(t, row.mapped_bytes[PTE], row.mapped_bytes[PMD]) for t, row in told.mapping.rows()] == [
        (5 * step + 9, 0, 4 * 4096), (8 * step, 4096, 4 * 4096), (20 * step, 4096, 4 * 4096),
    ]  # fmt: skip


def test_a_long_trace_gives_short_series(tmp_path: Path) -> None:
    events = migration(faults=500)
    told = read_told(write_lines(tmp_path / "trace.jsonl", events, "modelled"))
    assert (told.kind, told.problem) == ("modelled", "")
    assert len(told.faults) == sum(each.event is Happening.WOKEN for each in events) > 400
    assert all(len(rows) <= 601 for rows in (told.mapping.rows(), told.received.rows()))
    assert len(told.faults.points(100)[0]) <= 100
    assert [each.hugepage for each in told.maps] == [0]
    assert sum(amounts[0] for _, amounts in told.collapses[PMD].rows()) == 512


def test_a_damaged_trace_tells_what_stands_before_the_damage(tmp_path: Path) -> None:
    events = migration(faults=50)
    path = write_lines(tmp_path / "trace.jsonl", events)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3000], "what is this\n", *lines[3000:]]))
    told = read_told(path)
    assert "line 3001: is no JSON" in told.problem
    assert told.events > 1000
    assert told.mapping.rows()


def test_a_trace_that_does_not_fit_its_memory_is_damaged(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "trace.jsonl", [memory(), destination("continued", 40, 4)])
    assert "does not fit a memory of 32 pages" in read_told(path).problem


def test_a_trace_that_never_says_what_it_is_about_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(header_line("measured") + "\n" + event_line(destination("state", detail="run")) + "\n")
    with pytest.raises(InputError, match="holds no `memory` event"):
        read_told(path)


def fault(latency: int, cause: Cause = Cause.ANSWERED, began: int = 0, **parts: int) -> ResolvedFault:
    values = tuple(parts.get(name, 0) for name in PARTS)
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
    assert slowest.parts_ns[PARTS.index("queue")] == 502
    assert sum(every.parts_ns) == pytest.approx(every.latency_ns)
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

"""What was regained of large mappings, over made-up events whose times are known."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from migemu.analysis.mapping_figures import STEP_NS, MappingTracer, pattern_of
from migemu.costs.access import UNIFORM, AccessModel
from migemu.mm.pages import TINY, X86_64, Level
from migemu.node.outcome import MappingFigures
from migemu.trace.events import Event
from tests.unit.trace.traces import destination, source

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
#: A memory of one hugetlb page: 16 base pages, 4 to a PMD.
PAGES = TINY.pages(PUD)
MS = STEP_NS


def figures(events: Iterable[Event], pages: int = PAGES) -> MappingFigures:
    tracer = MappingTracer(TINY, pages, UNIFORM)
    for event in events:
        tracer.emit(event)
    return tracer.figures()


def mapped_then_collapsed(*steps: tuple[int, Level]) -> list[Event]:
    """The guest runs at 1 ms, all is mapped by 4K at 2 ms, then collapsed, one a ms, to each level by its time."""
    events = [destination("state", detail="run", t=MS), destination("continued", 0, PAGES, PTE, t=2 * MS)]
    for t, level in steps:
        size = TINY.pages(level)
        events += [
            destination("collapsed", first, level=level, t=t - (PAGES - first - size) // size * MS)
            for first in range(0, PAGES, size)
        ]
    return [*events, destination("state", detail="completed", t=10 * MS)]


@pytest.mark.parametrize(
    ("steps", "to_2m_ns", "to_1g_ns"),
    [
        ([(6 * MS, PMD), (8 * MS, PUD)], 5 * MS, 7 * MS),
        ([(6 * MS, PUD)], 5 * MS, 5 * MS),
        ([(6 * MS, PMD)], 5 * MS, None),
        ([], None, None),
    ],
)
def test_it_is_regained_when_most_of_the_memory_is(
    steps: list[tuple[int, Level]], to_2m_ns: int | None, to_1g_ns: int | None
) -> None:
    found = figures(mapped_then_collapsed(*steps))
    assert (found.to_2m_ns, found.to_1g_ns) == (to_2m_ns, to_1g_ns)


def test_half_of_the_memory_is_not_most_of_it() -> None:
    events = [destination("state", detail="run", t=MS), destination("continued", 0, 2 * PAGES, PTE, t=2 * MS)]
    events += [destination("collapsed", n * PAGES, level=PUD, t=(4 + 3 * n) * MS) for n in range(2)]
    found = figures(events, 2 * PAGES)
    assert (found.to_2m_ns, found.to_1g_ns) == (6 * MS, 6 * MS)


def test_the_cost_of_an_access_is_weighed_by_time() -> None:
    """4 ms with all of 1G in base pages, then 4 ms with one leaf."""
    pages = X86_64.pages(PUD)
    tracer, cost = MappingTracer(X86_64, pages, UNIFORM), AccessModel(geometry=X86_64)
    for event in (
        destination("state", detail="run", t=MS), destination("continued", 0, pages, PTE, t=2 * MS),
        destination("collapsed", 0, level=PUD, t=6 * MS), destination("state", detail="completed", t=10 * MS),
    ):  # fmt: skip
        tracer.emit(event)
    small, large = cost.access_ns({PTE: pages}, UNIFORM), cost.access_ns({PUD: 1}, UNIFORM)
    found = tracer.figures()
    assert found.access_end_ns == large < small
    assert found.access_mean_ns == pytest.approx((small + large) / 2)


def test_nothing_mapped_has_no_figures() -> None:
    assert figures([]) == MappingFigures()
    assert figures([destination("state", detail="run", t=0), source("sent", 0, 4, t=1)]) == MappingFigures()


def test_the_source_running_is_not_the_guests_start() -> None:
    events = [source("state", detail="run", t=0), *mapped_then_collapsed((6 * MS, PUD))]
    assert figures(events) == figures(mapped_then_collapsed((6 * MS, PUD)))


def test_a_workload_without_a_cost_model_counts_as_uniform() -> None:
    assert [pattern_of(each) for each in ("replay:path=/nowhere", "", "somebody's own")] == [UNIFORM] * 3

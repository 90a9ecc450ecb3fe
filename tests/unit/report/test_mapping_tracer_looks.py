"""When most of the memory was back: as exact as a thousandth of the time it took, at a cost that time does not set."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from migemu.analysis.mapping import MappingAt, MappingOverTime
from migemu.analysis.mapping_figures import STEPS, MappingTracer
from migemu.costs.access import UNIFORM
from migemu.mm.pages import TINY, Level
from migemu.trace.events import Event, Happening
from migemu.units import MS, SECOND

START = 5 * SECOND
PMDS = 10_000
PAGES = 4 * PMDS


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The times at which somebody looked at the mapping."""
    times: list[int] = []
    at = MappingOverTime.at

    def noted(self: MappingOverTime, t: int) -> MappingAt:
        times.append(t)
        return at(self, t)

    monkeypatch.setattr(MappingOverTime, "at", noted)
    return times


def over(every_ns: int) -> Any:
    """The figures of a run in which a 2M is mapped every so often."""
    tracer = MappingTracer(TINY, PAGES, UNIFORM)
    tracer.emit(Event(START, "destination", Happening.STATE, detail="run"))
    for pmd in range(PMDS):
        t = START + (pmd + 1) * every_ns
        tracer.emit(Event(t, "destination", Happening.CONTINUED, pmd * 4, 4, Level.PMD))
    tracer.emit(Event(START + PMDS * every_ns, "destination", Happening.STATE, detail="completed"))
    return tracer.figures()


def test_a_short_run_is_looked_at_every_millisecond(looks: list[int]) -> None:
    figures = over(MS // 100)
    assert figures.to_2m_ns == 9 * PMDS // 10 * MS // 100
    assert {later - earlier for earlier, later in pairwise(looks)} <= {0, MS}


def test_a_long_run_takes_looks_by_the_logarithm_of_its_length(looks: list[int]) -> None:
    figures = over(10 * MS)
    exact_ns = 9 * PMDS // 10 * 10 * MS
    assert exact_ns <= figures.to_2m_ns <= exact_ns * (1 + 1 / STEPS) + 10 * MS
    assert len(looks) < 5 * STEPS

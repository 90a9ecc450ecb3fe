"""Every fault, on every message, in every state in which it can be said: all are reached, and all are survived."""

from __future__ import annotations

from functools import cache

import pytest
from rich.console import Console

from migemu.sim.coverage import KINDS, Coverage, Kind, Said, can_be
from tests.swarm.directed import combinations, directed
from tests.swarm.trial import Verdict, try_out

ROWS = can_be()


@cache
def _tried(said: Said, kind: Kind) -> Verdict:
    return try_out(directed(said, kind))


@pytest.mark.parametrize("said", ROWS, ids=str)
def test_every_fault_hits_it_in_this_state_and_is_survived(said: Said) -> None:
    for kind in ROWS[said]:
        verdict = _tried(said, kind)
        assert not verdict.complaint, f"{verdict.complaint}\nreplay: {verdict.case.replay}"
        assert (said, kind) in verdict.coverage.counts, f"{kind} has not hit it: {verdict.case.replay}"


def test_the_table_shows_that_nothing_is_missing() -> None:
    """A row for every message in a state, a figure in every cell that can be."""
    coverage = Coverage()
    for said, kind in combinations():
        coverage.add(_tried(said, kind).coverage)
    assert coverage.missing() == []
    assert str(coverage) == "462 of 462 combinations of state, message and fault reached"
    console = Console(width=160)
    with console.capture() as captured:
        console.print(coverage.table())
    *_, rows = captured.get().partition(KINDS[0].part)
    for (said, kinds), line in zip(ROWS.items(), rows.splitlines()[1:], strict=True):
        assert line.startswith(f"{said} ")
        cells = line.removeprefix(str(said)).split()
        assert len(cells) == len(kinds)
        assert all(cell.isdecimal() for cell in cells), line


def test_a_cell_that_was_not_reached_shows_it() -> None:
    (said, kind), *_ = combinations()
    coverage = Coverage()
    coverage.hit(said, kind)
    assert str(coverage).startswith("1 of 462")
    assert len(coverage.missing()) == 461
    console = Console(width=160)
    with console.capture() as captured:
        console.print(coverage.table())
    assert captured.get().split().count("-") == 461

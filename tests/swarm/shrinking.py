"""The smallest hazard list that still fails: one after the other is left out, until none can be."""

from __future__ import annotations

from collections.abc import Callable

from tests.swarm.drawing import Case


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """A case that fails, of which every hazard is needed. `fails` is asked of smaller ones."""
    index = 0
    while index < len(case.hazards):
        smaller = case.without(index)
        if fails(smaller):
            case, index = smaller, 0
        else:
            index += 1
    return case

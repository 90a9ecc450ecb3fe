"""Which cell of a sweep is best: by an objective that somebody has chosen, never by each figure for itself.

A figure alone misleads: faults are fastest where nothing is ever collapsed, and such a guest never has its 1G mappings
again. So an objective says what a cell must have come to before it counts, and which figures decide, in which order.

Rules of this file
    1. Cells that lack a figure of `required` in any run do not count. Where all lack it (a measured sweep has no
       `mapping.to_1G_ns`), all count, and the choice says so.
    2. The first of `keys` decides. Cells within `TIE` of the best are even in it, and the next key decides among them;
       after the last one the better mean of the first.
    3. Every key is one of which less is better.
    4. Means over seeds are compared. What the seeds do not tell apart is told beside the choice (report.grid), by the
       paired differences of the first key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, NamedTuple

from migemu.errors import InputError

#: Closer than this share of the best, cells count as even: one seed moves a figure by a few per cent.
TIE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Objective:
    """What a reader wants of a cell. `keys` are figures (`migemu.experiment.figures`)."""

    name: str
    meaning: str
    keys: tuple[str, ...]
    required: tuple[str, ...] = ()


_AT_1G: Final = "mapping.to_1G_ns"
_LOST: Final = "lost_ns.mean"
_SILENCE: Final = "guest.longest_silence_ns"
OBJECTIVES: Final = {
    each.name: each
    for each in (
        Objective(
            "guest", "of the cells that come back to 1G, the one whose vCPUs lose least time (asleep on faults and "
            "stalled by collapses); if even, the shortest silence, then the lowest p99 of faults",
            (_LOST, _SILENCE, "fault.p99_ns"), (_AT_1G,),
        ),
        Objective("lost", "least time lost, whether 1G comes back or not", (_LOST, _SILENCE)),
        Objective("latency", "lowest p99 of faults, whatever else it costs", ("fault.p99_ns", "fault.p999_ns")),
        Objective("silence", "shortest of the longest times without progress", (_SILENCE, _LOST)),
        Objective("access", "cheapest access to memory meanwhile (modelled)", ("mapping.access_mean_ns", _LOST)),
        Objective("to_1G", "90 % of memory at 1G again soonest", (_AT_1G, _LOST), (_AT_1G,)),
        Objective("total", "soonest done", ("time_ns.postcopy", _LOST)),
    )
}  # fmt: skip
DEFAULT: Final = "guest"


class Choice(NamedTuple):
    """The cell that an objective chooses. `note` says what was not as the objective wants it, or is ""."""

    cell: str
    decided_by: str
    note: str


def find_objective(name: str) -> Objective:
    """The objective of that name. InputError tells those that there are."""
    if name not in OBJECTIVES:
        near = get_close_matches(name, OBJECTIVES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OBJECTIVES)}"
        raise InputError(f"no objective is called {name!r}; {hint}")
    return OBJECTIVES[name]


def choose(objective: Objective, means: Mapping[str, Mapping[str, float]]) -> Choice | None:
    """The best of `means` (cell -> figure -> mean over seeds, without those it lacks).

    None where no cell has the figure that decides, or all are even in everything.
    """
    keys = [key for key in objective.keys if any(key in each for each in means.values())]
    if not keys:
        return None
    counting = {cell: each for cell, each in means.items() if {keys[0], *objective.required} <= each.keys()}
    note = ""
    if not counting:
        note = f"no cell has {' and '.join(objective.required)}, which it asks for: all cells count"
        counting = {cell: each for cell, each in means.items() if keys[0] in each}
    even, decided_by = list(counting), ""
    for key in keys:
        values = {cell: counting[cell][key] for cell in even if key in counting[cell]}
        if values:
            closest = [cell for cell, value in values.items() if value <= min(values.values()) * (1 + TIE)]
            decided_by = key if len(closest) < len(even) else decided_by
            even = closest
    cell = min(even, key=lambda cell: counting[cell][keys[0]])
    if not decided_by and len({each[keys[0]] for each in counting.values()}) == 1:
        return None
    return Choice(cell, decided_by or keys[0], note)

"""One sweep over time: its figures at one state of the code after the other, and where they changed.

    migemu sweep history runs/monday runs/tuesday runs/wednesday

Rules of this file
    1. A point of a history is a state: of the code (`by="commit"`: all runs that one program made) or of time
       (`by="date"`: all runs of one file by one program). States stand in the order in which their first run ended.
    2. All files are of one sweep (its name) and one kind. Cells are matched by name. Where the settings of a cell were
       others before some state, its history begins there, and that is told; settings that one version has and another
       has not are no difference.
    3. A series needs every seed at every state: seeds that some state lacks are left out, and so are states that have
       no seed in common with the newest one.
    4. Change points are those of `change_points`. Each is given with the interval of the paired relative difference,
       seed by seed, between the level before it and the level after (`bootstrap`); with one seed there is none.
    5. A change below `change_min` of the level before is not told.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np

from migemu.errors import InputError
from migemu.experiment import bootstrap
from migemu.experiment.bootstrap import Interval
from migemu.experiment.cell import Settings, parse_selector, selected
from migemu.experiment.change_points import STATES_MAX, Series, change_points
from migemu.experiment.comparison import too_few
from migemu.experiment.figures import CHANGE_MIN, HISTORY_METRICS, MORE_IS_BETTER, figures, unknown_figure
from migemu.experiment.program import Program
from migemu.experiment.results import Results, StoredRun
from migemu.experiment.schema import DONE
from migemu.experiment.text_tables import few

By = Literal["commit", "date"]


@dataclass(frozen=True, slots=True)
class HistoryState:
    """A point of the history. `commit` is "" where it is not known; `began` is when its first run ended, UTC."""

    program: str
    commit: str
    began: str
    file: Path

    @property
    def label(self) -> str:
        """For an axis: the commit, or the first digits of the digest of the code."""
        return self.commit[:10] or f"code {Program.parse(self.program).code[:8]}"


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A new level from `state` (its place in `History.states`) on; `before` and `after` are means over the seeds."""

    state: int
    before: float
    after: float
    relative: float
    interval: Interval | None
    verdict: Literal["better", "worse"]


@dataclass(frozen=True, slots=True)
class FigureHistory:
    """One figure of one cell. `places` are the states that have it; `values` has a row for each, a column a seed."""

    cell: str
    key: str
    places: tuple[int, ...]
    seeds: tuple[int, ...]
    values: Series
    changes: tuple[ChangePoint, ...]

    def levels(self) -> list[tuple[int, int, float]]:
        """(first, last, mean over seeds of the medians) of each segment; places are those of states."""
        rows = [self.places.index(change.state) for change in self.changes]
        edges = [0, *rows, len(self.places)]
        return [
            (self.places[first], self.places[end - 1], float(np.median(self.values[first:end], axis=0).mean()))
            for first, end in itertools.pairwise(edges)
        ]


@dataclass(frozen=True, slots=True)
class History:
    """All of it. `notes` are lines that have to be told."""

    sweep: str
    kind: str
    by: By
    states: tuple[HistoryState, ...]
    series: tuple[FigureHistory, ...]
    notes: tuple[str, ...]

    @property
    def changes(self) -> list[tuple[FigureHistory, ChangePoint]]:
        """Every change, the newest first, and the largest first among those of one state."""
        found = [(series, change) for series in self.series for change in series.changes]
        return sorted(found, key=lambda each: (-each[1].state, -abs(each[1].relative), each[0].cell, each[0].key))

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "sweep": self.sweep, "kind": self.kind, "by": self.by, "notes": list(self.notes),
            "states": [asdict(state) | {"file": str(state.file), "label": state.label} for state in self.states],
            "series": [
                {
                    "cell": each.cell, "figure": each.key, "states": list(each.places), "seeds": list(each.seeds),
                    "values": each.values.tolist(),
                    "changes": [
                        asdict(change) | {
                            "relative": change.relative if isfinite(change.relative) else None,
                            "interval": list(change.interval) if change.interval else None,
                        }
                        for change in each.changes
                    ],
                }
                for each in self.series
            ],
        }  # fmt: skip


#: cell -> seed -> figures, of one state; and the settings of each cell.
_Cells = dict[str, dict[int, Mapping[str, int | float]]]


@dataclass(slots=True)
class _Gathered:
    state: HistoryState
    cells: _Cells
    settings: dict[str, Settings]


def read_history(
    paths: Sequence[Path],
    metrics: Sequence[str] = (),
    only: str = "",
    by: By = "commit",
    change_min: float = CHANGE_MIN,
) -> History:
    """The history that these files of results hold. InputError when they do not belong together, or hold none."""
    gathered: dict[tuple[str, ...], _Gathered] = {}
    names: dict[str, Path] = {}
    kinds: dict[str, Path] = {}
    axes: dict[str, None] = {}
    coordinates: dict[str, Mapping[str, str]] = {}
    for path in paths:
        with Results.read(path) as results:
            names.setdefault(results.head("name"), path)
            axes |= dict.fromkeys(results.axes())
            for run in results.runs():
                if run.status == DONE:
                    kinds.setdefault(str(run.result.get("kind")), path)
                    coordinates[run.cell] = run.coordinates
                    key = (run.program,) if by == "commit" else (run.program, str(path))
                    _gather(gathered, key, run, path, results.commit(run.program))
    if not gathered:
        raise InputError(f"{', '.join(map(str, paths))}: none of the runs is done")
    for what, found in (("sweeps", names), ("kinds of runs", kinds)):
        if len(found) > 1:
            told = ", ".join(f"{name} ({path})" for name, path in found.items())
            raise InputError(f"these are of different {what}: {told}; a history is of one")
    order = sorted(gathered.values(), key=lambda each: (each.state.began, each.state.program))
    notes = []
    if len(order) > STATES_MAX:
        notes.append(f"the newest {STATES_MAX} of {len(order):,} states are looked at")
        order = order[-STATES_MAX:]
    chosen = _chosen(order[-1].cells, coordinates, axes, only)
    series = _series(order, chosen, metrics, change_min, notes)
    return History(next(iter(names)), next(iter(kinds)), by, tuple(each.state for each in order), series, tuple(notes))


def _gather(
    gathered: dict[tuple[str, ...], _Gathered], key: tuple[str, ...], run: StoredRun, path: Path, commit: str
) -> None:  # fmt: skip
    found = gathered.setdefault(key, _Gathered(HistoryState(run.program, commit, run.finished, path), {}, {}))
    state = found.state
    if run.finished < state.began or (commit and not state.commit):
        began, file = (run.finished, path) if run.finished < state.began else (state.began, state.file)
        found.state = HistoryState(run.program, state.commit or commit, began, file)
    found.cells.setdefault(run.cell, {})[run.seed] = figures(run.result)
    found.settings[run.cell] = run.result.get("scenario", {})


def _chosen(
    cells: Iterable[str], coordinates: Mapping[str, Mapping[str, str]], axes: Mapping[str, None], only: str
) -> list[str]:  # fmt: skip
    """The cells of the newest state, or those of them that `only` selects."""
    wanted = parse_selector(only, axes) if only else {}
    found = [cell for cell in cells if selected(wanted, coordinates[cell])]
    if not found:
        raise InputError(f"--only {only}: the newest state has no such cell")
    return found


def _series(
    order: Sequence[_Gathered], cells: Sequence[str], metrics: Sequence[str], change_min: float, notes: list[str]
) -> tuple[FigureHistory, ...]:  # fmt: skip
    begun_later, seeds_min = [], 0
    known = {key: None for cell in cells for each in order[-1].cells[cell].values() for key in each}
    made: list[FigureHistory] = []
    for cell in cells:
        places = _comparable(order, cell)
        if len(places) < sum(cell in each.cells for each in order):
            begun_later.append(f"{cell} (from {order[places[0]].state.label} on)")
        for key in _keys(metrics, known):
            if (found := _figure_history(order, cell, key, places, change_min)) is not None:
                made.append(found)
                seeds_min = min(seeds_min or len(found.seeds), len(found.seeds))
    if not made:
        raise InputError("no state has a figure in common with the newest one; there is no history of it")
    if begun_later:
        notes.append(f"{len(begun_later)} cells had other settings before, which is not drawn: {few(begun_later)}")
    if len(order) == 1:
        notes.append("there is one state alone: a history begins with the second")
    if caution := too_few(seeds_min):
        notes.append(caution)
    return tuple(made)


def _comparable(order: Sequence[_Gathered], cell: str) -> list[int]:
    """The states, up to the newest, since which the cell has had the settings that it has now."""
    now = order[-1].settings[cell]
    places: list[int] = []
    for place in range(len(order) - 1, -1, -1):
        if cell in order[place].settings:
            if not _same(order[place].settings[cell], now):
                break
            places.append(place)
    return places[::-1]


def _same(one: Settings, other: Settings) -> bool:
    """Whether they agree in every setting that both have, but for `[scenario]`."""
    return all(
        one[section][key] == other[section][key]
        for section in one.keys() & other.keys() - {"scenario"}
        for key in one[section].keys() & other[section].keys()
    )


def _keys(metrics: Sequence[str], known: Mapping[str, None]) -> list[str]:
    if not metrics:
        return [key for key in HISTORY_METRICS if key in known]
    chosen: dict[str, None] = {}
    for metric in metrics:
        found = [key for key in known if fnmatchcase(key, metric)]
        if not found:
            raise InputError(unknown_figure(metric, known))
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _figure_history(
    order: Sequence[_Gathered], cell: str, key: str, places: Sequence[int], change_min: float
) -> FigureHistory | None:  # fmt: skip
    """Rule 3. None where the newest state does not have the figure."""
    seeds_of = {
        place: {seed for seed, each in order[place].cells[cell].items() if key in each} for place in places
    }  # fmt: skip
    newest = seeds_of[places[-1]]
    there = [place for place in places if seeds_of[place] & newest]
    seeds = sorted(newest.intersection(*(seeds_of[place] for place in there)))
    if not seeds:
        return None
    values = np.array([[float(order[place].cells[cell][seed][key]) for seed in seeds] for place in there])
    changes = [_change(key, values, rows, there) for rows in _segments(change_points(values), len(there))]
    told = tuple(each for each in changes if abs(each.relative) >= change_min)
    return FigureHistory(cell, key, tuple(there), tuple(seeds), values, told)


def _segments(cuts: Sequence[int], states: int) -> list[tuple[int, int, int]]:
    """(first row before, first row after, end) of each change."""
    edges = [0, *cuts, states]
    return list(zip(edges, edges[1:], edges[2:], strict=False))


def _change(key: str, values: Series, rows: tuple[int, int, int], places: Sequence[int]) -> ChangePoint:
    start, cut, end = rows
    before, after = (np.median(values[first:last], axis=0) for first, last in ((start, cut), (cut, end)))
    level, new = float(before.mean()), float(after.mean())
    relative = (new - level) / level if level else inf if new > level else -inf
    interval = bootstrap.interval(before.tolist(), after.tolist(), bootstrap.relative) if level else None
    is_better = (new > level) == (key in MORE_IS_BETTER)
    return ChangePoint(places[cut], level, new, relative, interval, "better" if is_better else "worse")

"""What the runs of a sweep came to: its cells along their axes, each figure's mean over seeds and how sure that is.

Rules
    1. Only finished runs count; those that failed and cells that are impossible are told by name.
    2. An interval is that of a mean over seeds (`migemu.experiment.bootstrap`); one seed has none.
    3. The best cell of a figure has the best mean. A cell is `close` to it when the interval of their difference, seed
       by seed, holds zero: the data do not tell the two apart. Without an interval nothing is close but what is equal.
    4. The cell to choose is that of an objective (`migemu.experiment.objective`), among the cells of the grid; `even`
       are those that the data do not tell from it, by the first figure of the objective, as in rule 3.
    5. Less is better, but for what `MORE_IS_BETTER` names. Figures that are the same in all cells are not drawn.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from migemu import named
from migemu.errors import InputError
from migemu.experiment import bootstrap
from migemu.experiment.bootstrap import Interval
from migemu.experiment.figures import HEADLINES, MORE_IS_BETTER, figures, unknown_figure
from migemu.experiment.objective import DEFAULT, OBJECTIVES, Choice, Objective, choose, find_objective
from migemu.experiment.results import Results, StoredRun
from migemu.experiment.schema import DONE
from migemu.experiment.text_tables import few

#: The axis of cells that stand beside the grid (sweep.py).
BESIDE: Final = "cell"
#: Any objective may be asked for.
_OBJECTIVE_KEYS: Final = tuple(
    dict.fromkeys(key for each in OBJECTIVES.values() for key in (*each.keys, *each.required))
)


class Estimate(NamedTuple):
    """The mean of a figure over `seeds` runs, and its confidence interval; None with one seed."""

    mean: float
    interval: Interval | None
    seeds: int


@dataclass(frozen=True)
class CellRuns:
    """The finished runs of a cell: seed -> figures. `directories`: seed -> directory of a run that `--keep` saved."""

    name: str
    coordinates: Mapping[str, str]
    runs: Mapping[int, Mapping[str, int | float]]
    directories: Mapping[int, Path]

    def has(self, key: str) -> bool:
        """Whether all runs of the cell have the figure `key`."""
        return all(key in each for each in self.runs.values())

    def values(self, key: str) -> list[float]:
        """The figure `key` of each run, by ascending seed."""
        return [float(self.runs[seed][key]) for seed in sorted(self.runs)]

    def estimate(self, key: str) -> Estimate:
        """The mean of `key` over the seeds, and its interval (rule 2)."""
        values = self.values(key)
        interval = bootstrap.interval([0.0] * len(values), values, bootstrap.difference)
        return Estimate(float(np.mean(values)), interval, len(values))


@dataclass(frozen=True)
class Grid:
    """The finished runs of a sweep. `axes`: name -> values, as in its file; `absent`: lines about what did not run."""

    name: str
    description: str
    kind: str
    path: Path
    axes: Mapping[str, tuple[str, ...]]
    meanings: Mapping[str, str]
    cells: Sequence[CellRuns]
    keys: Sequence[str]
    absent: Sequence[str]
    programs: frozenset[str]
    asked: bool = False
    """Whether `keys` are those that somebody asked for, not the headlines."""
    objective: Objective = OBJECTIVES[DEFAULT]

    @property
    def on_grid(self) -> list[CellRuns]:
        """The cells that have a value on every axis."""
        return [cell for cell in self.cells if all(axis in cell.coordinates for axis in self.axes)]

    @property
    def beside(self) -> list[CellRuns]:
        """The cells without a value on some axis: those listed by hand."""
        return [cell for cell in self.cells if not all(axis in cell.coordinates for axis in self.axes)]

    @cached_property
    def estimates(self) -> dict[tuple[str, str], Estimate]:
        """(cell, key) -> estimate, for every figure that all runs of the cell have."""
        return {
            (cell.name, key): cell.estimate(key)
            for cell in self.cells for key in dict.fromkeys((*self.keys, *_OBJECTIVE_KEYS)) if cell.has(key)
        }  # fmt: skip

    def chosen(self, objective: Objective) -> Choice | None:
        """The cell that an objective chooses; of the grid, or of all cells where none stands on it."""
        cells = self.on_grid or self.cells
        means: dict[str, dict[str, float]] = {cell.name: {} for cell in cells}
        for (name, key), estimate in self.estimates.items():
            if name in means:
                means[name][key] = estimate.mean
        return choose(objective, means)

    @cached_property
    def choice(self) -> Choice | None:
        """The cell that the page's objective chooses."""
        return self.chosen(self.objective)

    @cached_property
    def even(self) -> list[str]:
        """The cells that the data do not tell from the choice. Rule 4."""
        if self.choice is None:
            return []
        key = next(key for key in self.objective.keys if (self.choice.cell, key) in self.estimates)
        chosen = next(cell for cell in self.cells if cell.name == self.choice.cell)
        others = [cell for cell in self.on_grid if cell is not chosen and cell.has(key)]
        return [cell.name for cell in others if _alike(chosen, cell, key)]

    @property
    def varying(self) -> list[str]:
        """The keys whose means differ between cells."""
        return [key for key in self.keys if len(set(self._means(key).values())) > 1]

    def best(self, key: str) -> str | None:
        """The name of the best cell of the grid, the first of equals; None if all cells are equal."""
        means = {cell.name: self.estimates[cell.name, key].mean for cell in self.on_grid if cell.has(key)}
        if len(set(means.values())) < 2:
            return None
        return min(means, key=lambda name: -means[name] if key in MORE_IS_BETTER else means[name])

    def close(self, key: str) -> list[str]:
        """The names of the cells that the data do not distinguish from the best one (rule 3)."""
        name = self.best(key)
        best = next((cell for cell in self.cells if cell.name == name), None)
        if best is None:
            return []
        return [cell.name for cell in self.on_grid if cell is not best and cell.has(key) and _alike(best, cell, key)]

    def _means(self, key: str) -> dict[str, float]:
        return {name: estimate.mean for (name, of), estimate in self.estimates.items() if of == key}


def _alike(best: CellRuns, cell: CellRuns, key: str) -> bool:
    seeds = sorted(best.runs.keys() & cell.runs.keys())
    before, after = ([float(each.runs[seed][key]) for seed in seeds] for each in (best, cell))
    low, high = min(before, default=0.0), max(before, default=0.0)
    if seeds and (min(after) > high or max(after) < low):
        return False  # every seed says so: no interval can hold zero, and there are many cells
    interval = bootstrap.interval(before, after, bootstrap.difference)
    if interval is None:
        return before == after != []
    return interval.low <= 0 <= interval.high


def read_grid(path: Path, metrics: Sequence[str] = (), objective: str = DEFAULT) -> Grid:
    """The sweep whose results are in `path`. InputError when none of its runs is done, or a metric is no figure."""
    with Results.read(path) as results:
        runs = list(results.runs())
        absent = [f"impossible: {cell}: {problem}" for cell, problem in results.impossible()]
        possible = results.possible()
        seeds = json.loads(results.head("seeds") or "[]")
        name, description = results.head("name"), results.head("description")
        meanings = json.loads(results.head("axes") or "{}")
        axes = {axis: tuple(dict.fromkeys(run.coordinates[axis] for run in runs if axis in run.coordinates))
                for axis in results.axes() if axis != BESIDE}  # fmt: skip
    absent += [f"failed: {run.cell}, seed {run.seed}: {run.error}" for run in runs if run.status != DONE]
    done = [run for run in runs if run.status == DONE]
    if not done:
        raise InputError(f"{path}: none of its runs is done")
    kinds = {str(run.result.get("kind")) for run in done}
    if len(kinds) > 1:
        raise InputError(f"{path} holds {' and '.join(sorted(kinds))} runs; they never share a page")
    cells = _cells(done, _run_directories(path.parent / "cells"))
    if never := [name for name in possible if name not in {run.cell for run in runs}]:
        absent.append(f"{len(never)} of {len(possible)} cells never ran (--only, or cut short): {few(never)}")
    if partly := [cell for cell in cells if len(cell.runs) < len(seeds)]:
        absent.append(f"{len(partly)} of the {len(cells)} cells here have not run with all {len(seeds)} seeds yet")
    keys = _chosen(cells, metrics)
    axes = {axis: values for axis, values in axes.items() if values}
    programs = frozenset(run.program for run in done)
    return Grid(
        name, description, kinds.pop(), path, axes, meanings, cells, keys, absent, programs, bool(metrics),
        find_objective(objective),
    )  # fmt: skip


def _cells(done: Sequence[StoredRun], run_directories: Mapping[tuple[str, int], Path]) -> list[CellRuns]:
    found: dict[str, list[StoredRun]] = {}
    for run in done:
        found.setdefault(run.cell, []).append(run)
    return [
        CellRuns(
            name, runs[0].coordinates, {run.seed: figures(run.result) for run in runs},
            {run.seed: where for run in runs if (where := run_directories.get((_title(run), run.seed))) is not None},
        )
        for name, runs in found.items()
    ]  # fmt: skip


def _title(run: StoredRun) -> str:
    """The name of a cell's run in its own scenario."""
    return str(run.result.get("scenario", {}).get("scenario", {}).get("name", ""))


def _run_directories(directory: Path) -> dict[tuple[str, int], Path]:
    """(name of the scenario, seed) -> directory of the run, for runs that `--keep` saved."""
    found: dict[tuple[str, int], Path] = {}
    for file in sorted(directory.glob("*/scenario.toml")):
        try:
            said = tomllib.loads(named.read_text(file, named.SETTINGS_BYTES_MAX))["scenario"]
            found[str(said["name"]), int(said["seed"])] = file.parent
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # not a run that could be linked to
    return found


def _chosen(cells: Sequence[CellRuns], metrics: Sequence[str]) -> list[str]:
    """The figures to show: the given metrics, else the headlines, that all runs of some cell have."""
    known = list(dict.fromkeys(key for cell in cells for key in cell.runs[min(cell.runs)] if cell.has(key)))
    if not metrics:
        return [key for key in HEADLINES if key in known]
    chosen: dict[str, None] = {}
    for metric in metrics:
        found = [key for key in known if fnmatchcase(key, metric)]
        if not found:
            raise InputError(unknown_figure(metric, known))
        chosen |= dict.fromkeys(found)
    return list(chosen)


def is_wide(values: Sequence[float]) -> bool:
    """Whether values want a logarithmic scale: all above zero, and more than a factor of ten apart."""
    return min(values) > 0 and math.log10(max(values) / min(values)) > 1

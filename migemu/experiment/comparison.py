"""Two sides compared: pairs of runs with the same cell and seed, and what the figures of one are of the other's.

Rules of this file
    1. Runs are paired by cell and seed. A cell is told by its coordinates without the axes that a selector fixed on
       either side: `x.sqlite:policy=eager` and `x.sqlite:policy=never` pair what is alike but for the policy.
    2. A run by itself is paired with a side that is one cell.
    3. Measured and modelled are never compared.
    4. A row is one figure of one cell: means over its seeds, their difference, and its interval (bootstrap.py). A
       figure needs all pairs of a cell; the histogram's buckets alone are 0 where they are missing.
    5. Over all cells there is one more row, of the ratios alone: their geometric mean, each pair weighing the same.
       It is a summary for people; gates look at cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

import numpy as np

from migemu.errors import InputError
from migemu.experiment import bootstrap
from migemu.experiment.bootstrap import Interval
from migemu.experiment.cell import differing
from migemu.experiment.figures import HEADLINES, figures, unknown_figure
from migemu.experiment.gate import Gate, GateVerdict
from migemu.experiment.sources import Sample, SampleSource

#: With fewer seeds an interval covers so little that whoever shows one has to say so (bootstrap.py has the figures).
_SEEDS_ENOUGH: Final = 5
_BUCKETS: Final = "fault.log2_us."

Key = tuple[tuple[str, str], ...]


class PairedRuns(NamedTuple):
    """Two runs with the same seed in the same cell, as figures."""

    seed: int
    base: Mapping[str, int | float]
    new: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one cell (`cell` is "" if there is only one). `relative` is infinite from a baseline of zero."""

    cell: str
    key: str
    pairs: int
    base: float
    new: float
    difference: float
    difference_interval: Interval | None
    relative: float
    relative_interval: Interval | None
    new_interval: Interval | None


@dataclass(frozen=True, slots=True)
class Overall:
    """One figure over all cells: the geometric mean of new / baseline, minus one."""

    key: str
    pairs: int
    relative: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Ruling:
    """A gate's verdict on one cell, and the row that it judged."""

    gate: Gate
    row: Row
    verdict: GateVerdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows and rulings.

    `settings`: those that differ between the sides, with both values; `notes`: lines for the user.
    """

    kind: str
    rows: tuple[Row, ...]
    overall: tuple[Overall, ...]
    rulings: tuple[Ruling, ...]
    settings: Mapping[str, tuple[Any, Any]]
    notes: tuple[str, ...]


def compare(
    base: SampleSource, new: SampleSource, metrics: Sequence[str] = (), gates: Sequence[Gate] = ()
) -> Comparison:
    """Compare `new` with `base`. InputError when nothing can be paired, or no run has a figure that is asked for."""
    if base.kind != new.kind:
        raise InputError(
            f"{base.text} is {base.kind} and {new.text} is {new.kind}: measured and modelled figures are never compared"
        )
    paired, notes = _pair(base, new)
    cells = {_name(key): [_figures(pair) for pair in pairs] for key, pairs in paired.items()}
    known = _known(cells)
    for gate in gates:
        if gate.key not in known:
            raise InputError(unknown_figure(gate.key, known))
        if missing := [name for name, pairs in cells.items() if not _has(pairs, gate.key)]:
            raise InputError(f"{gate.text!r} cannot be judged at {missing[0]}: not all of its runs have that figure")
    shown = _shown(metrics, known)
    keys = [*shown, *(gate.key for gate in gates if gate.key not in shown)]
    rows = [row(name, key, pairs) for name, pairs in cells.items() for key in keys if _has(pairs, key)]
    overall = [made for key in shown if len(cells) > 1 and (made := _overall(key, cells)) is not None]
    if caution := too_few(min(len(pairs) for pairs in cells.values())):
        notes.append(caution)
    rulings = [rule(gate, each) for gate in gates for each in rows if each.key == gate.key]
    return Comparison(base.kind, tuple(rows), tuple(overall), tuple(rulings), _settings(paired), tuple(notes))


def too_few(seeds: int) -> str | None:
    """A warning if `seeds` are too few for a figure to be trusted; None if they are enough."""
    if seeds == 1:
        return "one seed settles nothing: differences may be the seed's, and there is no interval; take ten"
    if seeds < _SEEDS_ENOUGH:
        return f"with {seeds} seeds a 95 % interval is too narrow to be one; take ten for a gate, or a figure to quote"
    return None


def row(cell: str, key: str, pairs: Sequence[PairedRuns]) -> Row:
    """The row of `key` over `pairs`."""
    before, after = [float(_at(pair.base, key)) for pair in pairs], [float(_at(pair.new, key)) for pair in pairs]
    base, new = float(np.mean(before)), float(np.mean(after))
    relative, relative_interval = 0.0 if new == base else math.copysign(math.inf, new - base), None
    if base != 0:
        relative = (new - base) / base
        relative_interval = bootstrap.interval(before, after, bootstrap.relative)
    return Row(
        cell, key, len(pairs), base, new, new - base, bootstrap.interval(before, after, bootstrap.difference),
        relative, relative_interval, bootstrap.interval([0.0] * len(after), after, bootstrap.difference),
    )  # fmt: skip


def rule(gate: Gate, row: Row) -> Ruling:
    """The verdict of `gate` on the cell of `row`."""
    point, interval = {
        "relative": (row.relative, row.relative_interval),
        "difference": (row.difference, row.difference_interval),
        "value": (row.new, row.new_interval),
    }[gate.about]
    return Ruling(gate, row, gate.verdict(point, interval))


def _pair(base: SampleSource, new: SampleSource) -> tuple[dict[Key, list[tuple[Sample, Sample]]], list[str]]:
    fixed = {*base.chosen, *new.chosen}
    sides: list[dict[Key, dict[int, Sample]]]
    if base.single or new.single:
        sides = [{(): {sample.seed: sample for sample in _one_cell(source)}} for source in (base, new)]
    else:
        sides = [_by_cell(source, fixed) for source in (base, new)]
    ours, theirs = sides
    paired: dict[Key, list[tuple[Sample, Sample]]] = {}
    for key in (key for key in ours if key in theirs):
        seeds = sorted(ours[key].keys() & theirs[key].keys())
        if seeds:
            paired[key] = [(ours[key][seed], theirs[key][seed]) for seed in seeds]
    if not paired:
        seeds_of = [sorted({seed for cell in side.values() for seed in cell}) for side in sides]
        raise InputError(
            f"{base.text} and {new.text} have no cell and seed in common: {len(ours)} and {len(theirs)} cells, seeds "
            f"{_few(seeds_of[0])} and {_few(seeds_of[1])}"
        )
    return paired, _notes(base, new, sides, paired)


def _one_cell(source: SampleSource) -> Sequence[Sample]:
    """All samples of a side that is one cell."""
    cells = {tuple(sample.coordinates.items()) for sample in source.samples}
    if len(cells) > 1:
        raise InputError(f"{source.text} has {len(cells)} cells, the other side is one run: select one as :AXIS=VALUE")
    return source.samples


def _by_cell(source: SampleSource, fixed: set[str]) -> dict[Key, dict[int, Sample]]:
    cells: dict[Key, dict[int, Sample]] = {}
    for sample in source.samples:
        key = tuple(sorted((axis, value) for axis, value in sample.coordinates.items() if axis not in fixed))
        runs = cells.setdefault(key, {})
        if sample.seed in runs:
            raise InputError(
                f"{source.text}: two cells are at {_name(key) or 'the same place'} once {', '.join(sorted(fixed))} is "
                "left out; select on both sides by the same axes"
            )
        runs[sample.seed] = sample
    return cells


def _notes(base: SampleSource, new: SampleSource, sides: Any, paired: Mapping[Key, Any]) -> list[str]:
    notes = [f"{source.text}: {source.excluded} runs did not finish and are left out" for source in (base, new)
             if source.excluded]  # fmt: skip
    for source, side in zip((base, new), sides, strict=True):
        alone = sum(len(cell) for cell in side.values()) - sum(len(pairs) for pairs in paired.values())
        if alone:
            notes.append(f"{source.text}: {alone} runs have no counterpart and are left out")
        if len(source.programs) > 1:
            notes.append(f"{source.text}: its runs were made by {len(source.programs)} states of the code")
    return notes


def _figures(pair: tuple[Sample, Sample]) -> PairedRuns:
    return PairedRuns(pair[0].seed, figures(pair[0].result), figures(pair[1].result))


def _at(side: Mapping[str, int | float], key: str) -> int | float:
    return side.get(key, 0) if key.startswith(_BUCKETS) else side[key]


def _has(pairs: Sequence[PairedRuns], key: str) -> bool:
    return key.startswith(_BUCKETS) or all(key in pair.base and key in pair.new for pair in pairs)


def _known(cells: Mapping[str, Sequence[PairedRuns]]) -> dict[str, None]:
    """The figures that every pair of some cell has, in order."""
    found: dict[str, None] = {}
    for pairs in cells.values():
        found |= dict.fromkeys(key for key in {**pairs[0].base, **pairs[0].new} if _has(pairs, key))
    return found


def _shown(metrics: Sequence[str], known: Mapping[str, None]) -> list[str]:
    if not metrics:
        return [key for key in HEADLINES if key in known]
    shown: dict[str, None] = {}
    for metric in metrics:
        found = [key for key in known if fnmatchcase(key, metric)]
        if not found:
            raise InputError(unknown_figure(metric, known))
        shown |= dict.fromkeys(found)
    return list(shown)


def _overall(key: str, cells: Mapping[str, Sequence[PairedRuns]]) -> Overall | None:
    """The row over all cells; None if the figure is zero in a run, as it has no ratio then."""
    groups = [number for number, pairs in enumerate(cells.values()) if _has(pairs, key) for _ in pairs]
    pairs = [pair for each in cells.values() if _has(each, key) for pair in each]
    before, after = [float(_at(pair.base, key)) for pair in pairs], [float(_at(pair.new, key)) for pair in pairs]
    if not pairs or min(*before, *after) <= 0:
        return None
    point = math.expm1(float(bootstrap.log_ratio(np.array(before), np.array(after))))
    found = None
    if len(pairs) > len({*groups}):
        found = bootstrap.interval(before, after, bootstrap.log_ratio, groups)
    edges = None if found is None else Interval(math.expm1(found.low), math.expm1(found.high))
    return Overall(key, len(pairs), point, edges)


def _settings(paired: Mapping[Key, Sequence[tuple[Sample, Sample]]]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ between the sides, from the first pair in which they do."""
    found: dict[str, tuple[Any, Any]] = {}
    for pairs in paired.values():
        for setting, values in differing(pairs[0][0].result["scenario"], pairs[0][1].result["scenario"]).items():
            found.setdefault(setting, values)
    return found


def _name(key: Key) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in key)


def _few(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:5])) + (" ..." if len(seeds) > 5 else "")

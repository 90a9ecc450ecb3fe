"""Sweeps made up for tests of their pages: figures by cell and seed, without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from migemu.report.grid import CellRuns, Grid

P99: Final = "fault.p99_ns"
TOTAL: Final = "time_ns.postcopy"


def grid_of(
    cells: Mapping[tuple[str, ...], Mapping[str, Sequence[float]]],
    axes: Mapping[str, tuple[str, ...]],
    keys: Sequence[str] = (P99,),
    beside: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    **said: Any,
) -> Grid:
    """`cells`: values on the axes -> figure -> values by seed 1, 2, ...; `beside` by name."""
    found = [_cell(dict(zip(axes, at, strict=True)), figures) for at, figures in cells.items()]
    found += [_cell({"cell": name}, figures) for name, figures in (beside or {}).items()]
    head: dict[str, Any] = {
        "name": "made", "description": "What is it?", "kind": "modelled", "path": Path("x/sweep.sqlite"),
        "meanings": {}, "absent": [], "programs": frozenset({"a"}), **said,
    }  # fmt: skip
    return Grid(axes=axes, cells=found, keys=keys, **head)


def _cell(coordinates: dict[str, str], figures: Mapping[str, Sequence[float]]) -> CellRuns:
    seeds = range(1, 1 + max((len(values) for values in figures.values()), default=1))
    runs = {seed: {key: values[seed - 1] for key, values in figures.items()} for seed in seeds}
    name = ", ".join(f"{axis}={value}" for axis, value in coordinates.items())
    return CellRuns(name, coordinates, runs, {})


#: Two by two cells with three seeds; `2M, slow` never got where `mapping.to_1G_ns` is known.
PLANE: Final = grid_of(
    {
        ("4K", "fast"): {P99: [100e3, 110e3, 120e3], TOTAL: [5e9, 5e9, 5e9], "mapping.to_1G_ns": [1e9, 1e9, 1e9]},
        ("4K", "slow"): {P99: [101e3, 109e3, 121e3], TOTAL: [4e9, 4e9, 4e9], "mapping.to_1G_ns": [2e9, 2e9, 2e9]},
        ("2M", "fast"): {P99: [9e6, 9e6, 9e6], TOTAL: [3e9, 3e9, 3e9], "mapping.to_1G_ns": [2e9, 2e9, 2e9]},
        ("2M", "slow"): {P99: [9e6, 8e6, 7e6], TOTAL: [6e9, 6e9, 6e9]},
    },
    {"piece": ("4K", "2M"), "policy": ("fast", "slow")},
    (P99, TOTAL, "mapping.to_1G_ns"),
)

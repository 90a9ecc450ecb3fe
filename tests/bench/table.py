"""What is shown: one table of ratios, one of processor time, one of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from migemu.units import MIB
from tests.bench.figures import BOUNDS, Ratio, Series


def show(
    console: Console, ratios: Sequence[Ratio], cpus: Mapping[str, Mapping[str, Series]], rates: Mapping[str, Series],
    machine: Mapping[str, Any],
) -> None:  # fmt: skip
    """Print what there is."""
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()), style="dim")
    if ratios:
        table = _table("measured, B against A", "ratio", "value", "min..max", "target", "met", "A bare", "B migemu")
        for ratio in ratios:
            target = "" if ratio.target is None else f"{'>=' if ratio.sense == 'at least' else '<='} {ratio.target:.2f}"
            met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[ratio.met]
            table.add_row(
                ratio.name, f"{ratio.value:.2f}", f"{min(ratio.pairs):.2f}..{max(ratio.pairs):.2f}", target, met,
                _series(ratio.baseline), _series(ratio.migemu),
            )  # fmt: skip
        console.print(table)
    if cpus:
        table = _table("processor seconds per GiB, median (min..max)", "", "source", "destination")
        for name, sides in cpus.items():
            table.add_row(name, *(_series(sides[side]) for side in ("source", "destination")))
        console.print(table)
    if rates:
        table = _table("the models alone", "", "median (min..max)", "target", "met")
        for name, series in rates.items():
            bound = BOUNDS.get(name)
            target, met = "", ""
            if bound is not None:
                wanted = _series(Series((bound.value,), series.unit)).split(" (")[0]
                target = f"{'>=' if bound.sense == 'at least' else '<='} {wanted}"
                met = "[green]yes[/]" if bound.met(series) else "[red]no[/]"
            table.add_row(name, _series(series), target, met)
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _series(series: Series) -> str:
    scale, unit, digits = {
        "bytes/s": (1e-9, "GB/s", 2), "us": (1, "us", 0), "s/GiB": (1, "s", 3), "1/s": (1e-3, "k/s", 0),
        "bytes": (1 / MIB, "MiB", 1), "MiB": (1, "MiB", 0), "s": (1, "s", 2),
    }[series.unit]  # fmt: skip
    low, middle, high = (value * scale for value in (min(series.values), series.median, max(series.values)))
    return f"{middle:,.{digits}f} {unit} ({low:,.{digits}f}..{high:,.{digits}f})"

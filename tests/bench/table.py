"""What is shown: one table of ratios, one of processor time, one of the page table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.figures import Ratio, Series


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
        table = _table("the page table alone, per second", "", "median (min..max)")
        for name, series in rates.items():
            table.add_row(name, _series(series))
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _series(series: Series) -> str:
    scale, unit, digits = {
        "bytes/s": (1e-9, "GB/s", 2), "us": (1, "us", 0), "s/GiB": (1, "s", 3), "1/s": (1e-3, "k/s", 0),
    }[series.unit]  # fmt: skip
    low, middle, high = (value * scale for value in (min(series.values), series.median, max(series.values)))
    return f"{middle:,.{digits}f} {unit} ({low:,.{digits}f}..{high:,.{digits}f})"

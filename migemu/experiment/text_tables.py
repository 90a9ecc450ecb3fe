"""What people are shown of sweeps, comparisons and published results: values in, something for rich to print out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from rich.table import Table

from migemu.experiment.bootstrap import Interval
from migemu.experiment.comparison import Comparison, Row, Ruling
from migemu.experiment.figures import figures, show
from migemu.experiment.gate import GateVerdict
from migemu.experiment.publication import Judged, Publication, between
from migemu.experiment.results import StoredRun
from migemu.experiment.schema import DONE

#: Names of cells in one line of a notice.
_NAMED_MAX: Final = 5
#: A longer table than this is for an export.
CELLS_MAX: Final = 128
_SWEEP_COLUMNS: Final = (
    ("fault.count", "faults"), ("fault.p50_ns", "p50"), ("fault.p99_ns", "p99"), ("fault.p999_ns", "p99.9"),
    ("blocktime_ns.overlapped", "all blocked"), ("time_ns.postcopy", "post-copy"), ("mapping.to_1G_ns", "90 % at 1G"),
    ("mapping.access_mean_ns", "access"), ("page_table.table_bytes_max", "tables"), ("bytes.duplicate", "sent twice"),
)  # fmt: skip
_STYLES: Final = {GateVerdict.HOLDS: "green", GateVerdict.UNSURE: "yellow", GateVerdict.FAILS: "bold red"}


def few(names: Sequence[str]) -> str:
    """The first of many names of cells, and how many more there are."""
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return " | ".join(names[:_NAMED_MAX]) + more


def sweep_table(name: str, runs: Iterable[StoredRun]) -> Table | None:
    """Means over seeds, a row for each cell; None when there are no cells, or too many to read."""
    cells: dict[str, list[Mapping[str, int | float]]] = {}
    for run in runs:
        if run.status == DONE:
            cells.setdefault(run.cell, []).append(figures(run.result))
    if not 0 < len(cells) <= CELLS_MAX:
        return None
    there = [
        (key, title) for key, title in _SWEEP_COLUMNS if any(key in one for each in cells.values() for one in each)
    ]
    table = Table(title=f"{name}: means over seeds", title_justify="left")
    table.add_column("cell", overflow="fold")
    table.add_column("n", justify="right")
    for _, title in there:
        table.add_column(title, justify="right", no_wrap=True)
    for cell, samples in cells.items():
        table.add_row(cell, str(len(samples)), *(_mean(key, samples) for key, _ in there))
    return table


def _mean(key: str, samples: Sequence[Mapping[str, int | float]]) -> str:
    """The mean of a figure over the runs of a cell; None if one lacks it (`mapping.to_1G_ns`, if never reached)."""
    if not all(key in sample for sample in samples):
        return "-"
    return show(key, float(np.mean([sample[key] for sample in samples])))


def comparison_table(comparison: Comparison) -> Table:
    """A row for each figure of each cell, then the rows over all cells."""
    several = len({row.cell for row in comparison.rows}) > 1
    table = Table(title=f"{comparison.kind}: new against baseline, means of pairs", title_justify="left")
    if several:
        table.add_column("cell", overflow="fold")
    table.add_column("figure", no_wrap=True)
    for title in ("baseline", "new", "difference", "", "95 % interval", "n"):
        table.add_column(title, justify="right", no_wrap=True)
    last = None
    for row in comparison.rows:
        table.add_row(*([row.cell if row.cell != last else ""] if several else []), row.key, *_cells(row))
        last = row.cell
    if comparison.overall:
        table.add_section()
    for number, each in enumerate(comparison.overall):
        cells = ("", "", "", percent(each.relative), _percents(each.interval), str(each.pairs))
        table.add_row(*(["all cells (geometric mean)" if not number else ""] if several else []), each.key, *cells)
    return table


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """The same as `comparison_table`, two short lines for each figure: for a narrow terminal."""
    yield f"{comparison.kind}: baseline -> new, means of pairs"
    last = None
    for row in comparison.rows:
        if row.cell != last and len({each.cell for each in comparison.rows}) > 1:
            yield f"[{row.cell}]"
        last = row.cell
        base, new, difference, relative, interval, pairs = _cells(row)
        yield row.key
        yield f"  {base} -> {new}, {difference} ({relative}), n {pairs}"
        if interval:
            yield f"  95 %: {interval}"
    for each in comparison.overall:
        yield f"{each.key}, all cells (geometric mean)"
        yield f"  {percent(each.relative)}, 95 %: {_percents(each.interval) or 'none'}, n {each.pairs}"


def _cells(row: Row) -> tuple[str, ...]:
    sign = "+" if row.difference > 0 else ""
    return (
        show(row.key, row.base), show(row.key, row.new), f"{sign}{show(row.key, row.difference)}",
        percent(row.relative), _percents(row.relative_interval), str(row.pairs),
    )  # fmt: skip


def percent(share: float) -> str:
    """A share as a signed percentage: `0.0512` -> `"+5.1 %"`."""
    return f"{share * 100:+.1f} %" if np.isfinite(share) else ("from 0" if share > 0 else "to below 0")


def _percents(interval: Interval | None) -> str:
    return "" if interval is None else f"{percent(interval.low)} .. {percent(interval.high)}"


def rulings_table(rulings: Sequence[Ruling]) -> Table:
    """The verdicts of the gates, cell by cell."""
    table = Table(title="gates", title_justify="left")
    for title in ("fail if", "cell", "difference", "95 % interval", "n", "verdict"):
        table.add_column(title, overflow="fold" if title == "cell" else "ellipsis")
    for gate, row, verdict in ((each.gate, each.row, each.verdict) for each in rulings):
        if gate.about == "relative":
            point, edges = percent(row.relative), _percents(row.relative_interval)
        else:
            value = gate.about == "value"
            interval = row.new_interval if value else row.difference_interval
            point = show(row.key, row.new if value else row.difference)
            edges = "" if interval is None else " .. ".join(show(row.key, edge) for edge in interval)
        verdict_text = f"[{_STYLES[verdict]}]{verdict.value}[/]"
        table.add_row(str(gate), row.cell, point, edges, str(row.pairs), verdict_text)
    return table


def published_table(publication: Publication, rows: Sequence[Judged]) -> Table:
    """Published and modelled figures, side by side."""
    table = Table(title=f"{publication.title} ({publication.source})", title_justify="left")
    for title in ("variant", "figure", "published", "modelled", "error"):
        table.add_column(title, justify="left" if title in ("variant", "figure") else "right")
    last = ""
    for row in rows:
        figure = row.figure
        modelled, error = row.problem, ""
        if row.modelled is not None:
            modelled, error = figure.show(row.modelled), percent(figure.error(row.modelled))
        table.add_row(figure.variant if figure.variant != last else "", figure.name, figure.published, modelled, error)
        last = figure.variant
    return table


def histograms_table(variant: str, published: Mapping[int, int], modelled: Mapping[int, int]) -> Table:
    """Both distributions as shares, one row for each power-of-two bucket."""
    table = Table("us", title=f"{variant}: share of faults", title_justify="left")
    table.add_column("published", justify="right")
    table.add_column("modelled", justify="right")
    bound, last = min({*published, *modelled}), max({*published, *modelled})
    totals = [max(1, sum(side.values())) for side in (published, modelled)]
    while bound <= last:
        upper = bound * 2 or 1
        shares = [
            between(side, bound, upper) / total for side, total in zip((published, modelled), totals, strict=True)
        ]
        if any(shares):
            table.add_row(f"{bound:,} to {upper:,}", *(f"{share * 100:.2f} %" if share else "" for share in shares))
        bound = upper
    return table

"""The page of a comparison: what differs, how the gates came out, forest plots, and every figure in a table."""

from __future__ import annotations

from math import isfinite

from migemu.experiment.bootstrap import Interval
from migemu.experiment.comparison import Comparison, Row, Ruling
from migemu.experiment.figures import show
from migemu.experiment.text_tables import percent
from migemu.report import document
from migemu.report.document import DataCell, DataTable, sortable, table
from migemu.report.draw.forest import LOOKS, WORDS, forests, judged
from migemu.report.draw.style import Section


def forest(comparison: Comparison) -> Section:
    """The section of forest plots."""
    intro = (
        "Left is less, right is more. Full marks are settled by these pairs: a disc is better, a square is worse; an "
        "open diamond where the interval holds zero; an open circle is one pair, which settles nothing."
    )
    return Section("forest", "How large are the differences, and how sure?", intro, forests(comparison))


def html(comparison: Comparison, base: str, new: str) -> str:
    """The whole page as HTML."""
    drawn = forest(comparison)
    links = [("gates", "Gates")] if comparison.rulings else []
    links += [("forest", drawn.title)] if drawn.panels else []
    links.append(("figures", "All figures"))
    settings = [[key, _said(old), _said(other)] for key, (old, other) in comparison.settings.items()]
    return document.render(
        "comparison", f"{new} against {base}", "A comparison of pairs that share a cell and a seed", links,
        comparison=comparison, settings=table("settings", ["setting", "baseline", "new"], settings),
        gates=_gates(comparison) if comparison.rulings else None, drawn=drawn, figures=_figures(comparison),
    )  # fmt: skip


def _said(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else "-" if value is None else str(value)


def _gates(comparison: Comparison) -> DataTable:
    order = {"FAILS": 0, "UNSURE": 1, "HOLDS": 2}
    rows: list[list[str | DataCell]] = []
    for ruling in sorted(comparison.rulings, key=lambda each: order[each.verdict.name]):
        point, edges = _about(ruling)
        rows.append([
            str(ruling.gate), ruling.row.cell or "-", DataCell(WORDS[ruling.verdict], strong=True), point, edges,
            str(ruling.row.pairs),
        ])  # fmt: skip
    return table("best", ["fail if", "cell", "verdict", "what is judged", "95 % interval", "pairs"], rows)


def _about(ruling: Ruling) -> tuple[str, str]:
    """The figure that the gate is about, and its interval, in words."""
    gate, row = ruling.gate, ruling.row
    if gate.about == "relative":
        return percent(row.relative), _percents(row.relative_interval)
    value = gate.about == "value"
    interval = row.new_interval if value else row.difference_interval
    edges = "-" if interval is None else " to ".join(show(row.key, edge) for edge in interval)
    return show(row.key, row.new if value else row.difference), edges


def _figures(comparison: Comparison) -> DataTable:
    several = len({row.cell for row in comparison.rows}) > 1
    head = [*(["cell"] if several else []), "figure", "baseline", "new", "difference", "relative", "95 % interval",
            "pairs", "finding"]  # fmt: skip
    rows = []
    for row in comparison.rows:
        edges = row.relative_interval
        named = [(row.cell, row.cell)] if several else []
        cells = [
            *named, (row.key, row.key), (show(row.key, row.base), repr(row.base)),
            (show(row.key, row.new), repr(row.new)), (show(row.key, row.difference), repr(row.difference)),
            (percent(row.relative), repr(row.relative) if isfinite(row.relative) else ""),
            (_percents(edges), "" if edges is None else repr(edges.low)), (str(row.pairs), str(row.pairs)),
            (_finding(row), _finding(row)),
        ]  # fmt: skip
        rows.append([DataCell(text, by=by) for text, by in cells])
    return sortable(head, rows)


def _finding(row: Row) -> str:
    if row.relative_interval is None and row.pairs > 1:
        return "no ratio, the baseline is 0"
    return LOOKS[judged(row.key, row.relative_interval)][0]


def _percents(interval: Interval | None) -> str:
    return "-" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"

"""Forest plots of a comparison: the paired difference of each figure in each cell with its interval, and the gates.

Rules
    1. What is drawn is new / baseline, on a logarithmic axis whose ticks say differences in per cent: half and twice as
       much stand equally far from no difference. What has no ratio (from zero, to zero or below) is left to the table.
    2. A mark is full where its interval leaves out zero: a square where that is for the worse, a disc for the better.
       An open diamond is what these pairs do not settle; an open circle is one pair, which has no interval.
    3. Where cells of one figure are drawn, a gate that limits a relative difference is a line; how it came out stands
       in words beside its cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10
from typing import Any, Final

from migemu.experiment.bootstrap import Interval
from migemu.experiment.comparison import Comparison, Row, Ruling
from migemu.experiment.figures import MORE_IS_BETTER, show
from migemu.experiment.gate import GateVerdict
from migemu.experiment.text_tables import percent
from migemu.report.draw.style import BLACK, BLUE, GREY, VERMILLION, Panel, figure

ALL_CELLS: Final = "all cells (geometric mean)"
WORDS: Final = {GateVerdict.HOLDS: "\u2713 holds", GateVerdict.UNSURE: "? unsure", GateVerdict.FAILS: "\u2717 FAILS"}
_TICKS: Final = (
    -0.99, -0.95, -0.9, -0.8, -0.65, -0.5, -0.35, -0.2, -0.1, -0.05, -0.02, -0.01, 0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
    1, 2, 4, 9, 19, 49, 99, 999, 9999,
)  # fmt: skip
#: (name, symbol, colour): rule 2.
LOOKS: Final = {
    "better": ("better", "circle", BLUE), "worse": ("worse", "square", VERMILLION),
    "unsure": ("no difference shown", "diamond-open", GREY), "single": ("one pair, no interval", "circle-open", BLACK),
}  # fmt: skip


def forests(comparison: Comparison) -> list[Panel]:
    """One forest plot a figure over its cells; if there is one cell, one plot of all figures."""
    cells = {row.cell for row in comparison.rows}
    if len(cells) == 1:
        rows = [(row.key, row.key, row) for row in comparison.rows]
        return [made for made in [_panel("All figures", rows, comparison)] if made is not None]
    panels = []
    for key in dict.fromkeys(row.key for row in comparison.rows):
        rows = [(key, row.cell, row) for row in comparison.rows if row.key == key]
        if (made := _panel(key, rows, comparison)) is not None:
            panels.append(made)
    return panels


def judged(key: str, interval: Interval | None) -> str:
    """ "better", "worse", "unsure", or "single" (no interval), for a relative difference of `key`."""
    if interval is None:
        return "single"
    if interval.low <= 0 <= interval.high:
        return "unsure"
    return "better" if (interval.low > 0) == (key in MORE_IS_BETTER) else "worse"


def _panel(title: str, rows: Sequence[tuple[str, str, Row]], comparison: Comparison) -> Panel | None:
    marks: list[tuple[str, str, float, Interval | None, str]] = [
        (key, label, row.relative, row.relative_interval, _words(row))
        for key, label, row in rows
        if isfinite(row.relative) and row.relative > -1
    ]
    excluded = len(rows) - len(marks)
    if len(rows) > 1:
        marks += [
            (each.key, ALL_CELLS, each.relative, each.interval, f"{percent(each.relative)}, {each.pairs} pairs")
            for each in comparison.overall
            if each.key == title
        ]
    if not marks:
        return None
    order = [label for _, label, *_ in marks]
    edges = [max(0.001, 1 + value) for *_, point, interval, _ in marks for value in (point, *(interval or ()))]
    data = [each for each in (_marks(marks, kind) for kind in LOOKS) if each["x"]]
    rulings = [each for each in comparison.rulings if each.row in [row for _, _, row in rows]]
    limits = sorted({each.gate.limit for each in rulings if each.gate.about == "relative" and each.gate.key == title})
    edges += [max(0.001, 1 + limit) for limit in limits]
    x = _axis(edges)
    y = {"type": "category", "categoryorder": "array", "categoryarray": order, "autorange": "reversed"}
    drawn = figure(data, x, y, height=130 + 26 * len(order), showlegend=True)
    drawn["layout"]["shapes"] = [_line(0.0, BLACK, "solid"), *(_line(limit, VERMILLION, "dash") for limit in limits)]
    drawn["layout"]["annotations"] = [*_limits(limits), *_verdicts(rulings, rows)]
    drawn["layout"]["margin"]["r"] = 90 if rulings else 16
    if limits:  # what they are stands between the plot and its legend
        drawn["layout"]["margin"]["t"] += 16
        drawn["layout"]["legend"]["y"] = 1 + 20 / (26 * len(order) + 22)
    note = "New against baseline, means of pairs with their 95 % interval."
    if limits:
        note += " Dashed: the limit of a gate."
    if excluded:
        note += f" {excluded} without a ratio (zero on one side) stand in the table alone."
    return Panel(title, comparison.kind, drawn, note)


def _marks(marks: Sequence[tuple[str, str, float, Interval | None, str]], kind: str) -> dict[str, Any]:
    name, symbol, colour = LOOKS[kind]
    mine = [each for each in marks if judged(each[0], each[3]) == kind]
    ratios = [1 + point for _, _, point, _, _ in mine]
    pairs = [interval or Interval(point, point) for _, _, point, interval, _ in mine]
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": ratios, "y": [label for _, label, *_ in mine],
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 5, "color": colour,
            "visible": kind != "single",
            "array": [max(0.0, 1 + pair.high - ratio) for pair, ratio in zip(pairs, ratios, strict=True)],
            "arrayminus": [max(0.0, r - max(0.001, 1 + pair.low)) for pair, r in zip(pairs, ratios, strict=True)],
        },
        "marker": {"color": colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}},
        "customdata": [words for *_, words in mine],
        "hovertemplate": "%{y}<br>%{customdata}<extra></extra>",
    }  # fmt: skip


def _axis(ratios: Sequence[float]) -> dict[str, Any]:
    low, high = log10(min(*ratios, 1.0)), log10(max(*ratios, 1.0))
    room = max(0.04 * (high - low), 0.002)
    span = [low - room, high + room]
    ticks = [tick for tick in _TICKS if span[0] <= log10(1 + tick) <= span[1]]
    chosen: list[float] = []
    for tick in sorted(ticks, key=abs):  # no difference first, then whatever finds room
        if all(abs(log10(1 + tick) - log10(1 + other)) > (span[1] - span[0]) / 8 for other in chosen):
            chosen.append(tick)
    return {
        "type": "log", "range": span, "title": {"text": "difference from the baseline"}, "tickangle": 0,
        "tickvals": [1 + tick for tick in sorted(chosen)],
        "ticktext": [f"{tick * 100:+,.0f} %" if tick else "0" for tick in sorted(chosen)],
    }  # fmt: skip


def _line(at: float, colour: str, dash: str) -> dict[str, Any]:
    place = max(0.001, 1 + at)
    return {
        "type": "line", "x0": place, "x1": place, "yref": "paper", "y0": 0, "y1": 1, "layer": "below",
        "line": {"color": colour, "width": 1.2, "dash": dash},
    }  # fmt: skip


def _limits(limits: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"x": log10(max(0.001, 1 + limit)), "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False,
         "text": f"{limit * 100:+g} %", "font": {"size": 11, "color": VERMILLION}}
        for limit in limits
    ]  # fmt: skip


def _verdicts(rulings: Sequence[Ruling], rows: Sequence[tuple[str, str, Row]]) -> list[dict[str, Any]]:
    """The worst verdict of the gates on each row, at its right."""
    labels = {id(row): label for _, label, row in rows}
    worst: dict[str, GateVerdict] = {}
    rank = list(GateVerdict)
    for ruling in rulings:
        label = labels.get(id(ruling.row))
        if label is not None:
            worst[label] = max(worst.get(label, GateVerdict.HOLDS), ruling.verdict, key=rank.index)
    return [
        {"xref": "paper", "x": 1.01, "xanchor": "left", "y": label, "showarrow": False, "text": WORDS[verdict],
         "font": {"size": 11, "color": VERMILLION if verdict is GateVerdict.FAILS else BLACK}}
        for label, verdict in worst.items()
    ]  # fmt: skip


def _words(row: Row) -> str:
    edges = row.relative_interval
    between = "" if edges is None else f" ({percent(edges.low)} to {percent(edges.high)})"
    return (
        f"{show(row.key, row.base)} to {show(row.key, row.new)}: {percent(row.relative)}{between}, "
        f"{row.pairs} pair{'s' * (row.pairs != 1)}"
    )

"""Figures of a sweep: means over all cells, as heat maps and with their intervals, and one figure against another.

Rules
    1. The axis with most values lies along x, the next along y (or is the series), all others make small multiples:
       the third of them columns, those after it rows. Axes with one value are left out.
    2. Every small multiple of a figure has the same scale. It is logarithmic where values are a factor of ten apart.
    3. In a heat map bright is better, and every cell says its value: nothing is told by colour alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import log, log10
from typing import Any, Final, NamedTuple

from migemu.experiment.figures import MORE_IS_BETTER, show, unit
from migemu.report.draw.style import BLACK, RUN_COLOURS, Panel, figure
from migemu.report.grid import CellRuns, Grid, is_wide

BEST: Final = "\u2605"
CLOSE: Final = "\u2248"
FACETS_MAX: Final = 36
_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
_TRADES: Final = (
    ("mapping.to_1G_ns", "lost_ns.mean"), ("mapping.access_mean_ns", "lost_ns.mean"), ("fault.p99_ns", "lost_ns.mean"),
    ("fault.p99_ns", "time_ns.postcopy"),
)  # fmt: skip


class Place(NamedTuple):
    """Which axis of a sweep is drawn where (rule 1)."""

    x: str
    y: str
    columns: str
    rows: tuple[str, ...]

    @classmethod
    def of(cls, axes: Mapping[str, Sequence[str]]) -> Place:
        """The axes for x, y, columns and rows; "" where a sweep has fewer axes."""
        names = sorted((name for name in axes if len(axes[name]) > 1), key=lambda name: -len(axes[name]))
        first, second, third, *others = [*names, "", "", ""]
        return cls(first, second, third, tuple(name for name in others if name))


class _Facet(NamedTuple):
    """One small multiple: its column and row, and the values of the axes there."""

    column: int
    row: int
    at: dict[str, str]


def facets(grid: Grid) -> int:
    """How many small multiples a figure of this sweep has."""
    place = Place.of(grid.axes)
    return len(_facets(grid, place))


def _facets(grid: Grid, place: Place) -> list[_Facet]:
    columns = grid.axes[place.columns] if place.columns else ("",)
    rows = list(itertools.product(*(grid.axes[name] for name in place.rows)))
    return [
        _Facet(c, r, {place.columns: column, **dict(zip(place.rows, row, strict=True))})
        for r, row in enumerate(rows)
        for c, column in enumerate(columns)
    ]


def _at(grid: Grid, facet: _Facet, x: Mapping[str, str]) -> CellRuns | None:
    wanted = {axis: value for axis, value in {**facet.at, **x}.items() if axis}
    return next(
        (cell for cell in grid.on_grid if all(cell.coordinates[axis] == value for axis, value in wanted.items())), None
    )


def heat_maps(grid: Grid, key: str) -> Panel | None:
    """The means of `key` as heat maps; None where fewer than two axes vary, or no cell of the grid has the figure."""
    place = Place.of(grid.axes)
    means = [grid.estimates[cell.name, key].mean for cell in grid.on_grid if cell.has(key)]
    if not place.y or not means:
        return None
    wide = is_wide(means)
    best, close = _marked(grid)
    all_facets = _facets(grid, place)
    data = []
    for facet in all_facets:
        z: list[list[float | None]] = []
        text: list[list[str]] = []
        hover: list[list[str]] = []
        for y in grid.axes[place.y]:
            row = [_at(grid, facet, {place.y: y, place.x: x}) for x in grid.axes[place.x]]
            cells = [cell if cell is not None and cell.has(key) else None for cell in row]
            z.append([_level(grid.estimates[cell.name, key].mean, wide) if cell else None for cell in cells])
            text.append([_value(grid, cell, key, best, close) if cell else "" for cell in cells])
            hover.append([f"{_plain(cell.name)}<br>{_sure(grid, cell, key)}" if cell else "" for cell in cells])
        data.append({
            "type": "heatmap", "z": z, "x": list(grid.axes[place.x]), "y": list(grid.axes[place.y]), "text": text,
            "customdata": hover, "texttemplate": "%{text}", "textfont": {"size": 12}, "coloraxis": "coloraxis",
            "hovertemplate": "%{customdata}<extra></extra>", "xgap": 2, "ygap": 2, "hoverongaps": False,
            "xaxis": _axis("x", facet.column), "yaxis": _axis("y", facet.row), "name": key,
            "meta": {"is_log10": wide},
        })  # fmt: skip
    drawn = _multiples(data, all_facets, place, 34 * len(grid.axes[place.y]) + 34, {"type": "category"},
                       {"type": "category", "autorange": "reversed"}, place.y)  # fmt: skip
    low, high = _level(min(means), wide), _level(max(means), wide)
    ticks = [low, (low + high) / 2, high]
    drawn["layout"]["coloraxis"] = {
        "colorscale": "Cividis", "reversescale": key not in MORE_IS_BETTER, "cmin": low, "cmax": high,
        "colorbar": {
            "tickvals": ticks, "thickness": 12,
            "ticktext": [short(show(key, 10**tick if wide else tick)) for tick in ticks],
        },
    }  # fmt: skip
    note = f"Means over seeds; bright is better. {BEST} the choice (objective {grid.objective.name})."
    if close:
        note += f" {CLOSE} not told from it by these seeds."
    if len(means) < len(grid.on_grid):
        note += " Left blank: cells with a run that has no such figure, as it never came to that."
    return Panel(
        f"{key}{', log scale' if wide else ', linear scale'}", grid.kind, drawn, note, across=bool(place.columns)
    )


def _marked(grid: Grid) -> tuple[str | None, list[str]]:
    """The cell that the objective chooses, and those that are not told from it."""
    return (grid.choice.cell if grid.choice else None), grid.even


def intervals(grid: Grid, key: str) -> Panel:
    """The means of `key` with their confidence intervals."""
    place = Place.of(grid.axes)
    series = grid.axes[place.y] if place.y else ("",)
    all_facets = _facets(grid, place)
    data: list[dict[str, Any]] = []
    seen: list[float] = []
    for facet in all_facets:
        for number, y in enumerate(series):
            cells = [
                (x, cell) for x in (grid.axes[place.x] if place.x else ("",))
                if (cell := _at(grid, facet, {place.y: y, place.x: x})) is not None and cell.has(key)
            ]  # fmt: skip
            if not cells:
                continue
            found = [grid.estimates[cell.name, key] for _, cell in cells]
            edges = [each.interval or (each.mean, each.mean) for each in found]
            seen += [value for each, pair in zip(found, edges, strict=True) for value in (each.mean, *pair)]
            colour = RUN_COLOURS[number % len(RUN_COLOURS)]
            named = any(each["legendgroup"] == y for each in data)
            data.append({
                "type": "scatter", "mode": "markers", "cliponaxis": False, "legendgroup": y,
                "name": f"{place.y}={y}" if y else key, "showlegend": bool(y) and not named,
                "x": [x for x, _ in cells],
                "y": [each.mean for each in found],
                "error_y": {
                    "type": "data", "symmetric": False, "thickness": 1.5, "width": 5, "color": colour,
                    "array": [max(0.0, pair[1] - each.mean) for each, pair in zip(found, edges, strict=True)],
                    "arrayminus": [max(0.0, each.mean - pair[0]) for each, pair in zip(found, edges, strict=True)],
                },
                "marker": {"color": colour, "symbol": _SYMBOLS[number % len(_SYMBOLS)], "size": 9},
                "customdata": [f"{_plain(cell.name)}<br>{_sure(grid, cell, key)}" for _, cell in cells],
                "hovertemplate": "%{customdata}<extra></extra>",
                "xaxis": _axis("x", facet.column), "yaxis": _axis("y", facet.row),
            })  # fmt: skip
    drawn = _multiples(data, all_facets, place, 190, {"type": "category"}, value_axis(key, seen), "")
    drawn["layout"]["scattermode"] = "group"
    drawn["layout"]["scattergap"] = 0.55
    return Panel(f"{key}: how sure", grid.kind, drawn, _of_intervals(grid), across=bool(place.columns))


def beside(grid: Grid, key: str) -> Panel | None:
    """The cells outside the grid, if there are several to compare; a single one is shown in the table only."""
    cells = [cell for cell in grid.beside if cell.has(key)]
    if len(cells) < 2:
        return None
    found = [grid.estimates[cell.name, key] for cell in cells]
    edges = [each.interval or (each.mean, each.mean) for each in found]
    data = [{
        "type": "scatter", "mode": "markers", "cliponaxis": False, "name": key, "y": [cell.name for cell in cells],
        "x": [each.mean for each in found], "marker": {"color": RUN_COLOURS[0], "size": 9},
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1.5, "color": RUN_COLOURS[0],
            "array": [max(0.0, pair[1] - each.mean) for each, pair in zip(found, edges, strict=True)],
            "arrayminus": [max(0.0, each.mean - pair[0]) for each, pair in zip(found, edges, strict=True)],
        },
        "customdata": [f"{_plain(cell.name)}<br>{_sure(grid, cell, key)}" for cell in cells],
        "hovertemplate": "%{customdata}<extra></extra>",
    }]  # fmt: skip
    axis = value_axis(key, [value for pair in edges for value in pair])
    drawn = figure(data, axis, {"type": "category", "autorange": "reversed"}, height=110 + 30 * len(cells))
    return Panel(f"{key}: cells beside the grid", grid.kind, drawn, _of_intervals(grid))


def trades(grid: Grid) -> list[Panel]:
    """One figure against another: a mark for each cell, and a line through those that no other beats in both."""
    place, panels = Place.of(grid.axes), []
    series = grid.axes[place.x] if place.x else ("",)
    for one, other in _TRADES:
        cells = [cell for cell in grid.on_grid if cell.has(one) and cell.has(other)]
        if not {one, other} <= set(grid.varying) or len(cells) < 3:
            continue
        at = {cell.name: (grid.estimates[cell.name, one].mean, grid.estimates[cell.name, other].mean) for cell in cells}
        front = sorted({
            point for point in at.values()
            if not any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in at.values())
        })  # fmt: skip
        data: list[dict[str, Any]] = [{
            "type": "scatter", "mode": "lines", "name": "none is better in both", "x": [a for a, _ in front],
            "y": [b for _, b in front], "line": {"color": BLACK, "width": 1.2, "dash": "dot", "shape": "hv"},
            "hoverinfo": "skip",
        }]  # fmt: skip
        for number, value in enumerate(series):
            mine = [cell for cell in cells if not place.x or cell.coordinates[place.x] == value]
            data.append({
                "type": "scatter", "mode": "markers", "cliponaxis": False,
                "name": f"{place.x}={value}" if value else "cells",
                "x": [at[cell.name][0] for cell in mine], "y": [at[cell.name][1] for cell in mine],
                "marker": {"color": RUN_COLOURS[number % len(RUN_COLOURS)], "size": 9,
                           "symbol": f"{_SYMBOLS[number % len(_SYMBOLS)]}-open", "line": {"width": 2}},
                "customdata": [
                    f"{_plain(cell.name)}<br>{one} {_sure(grid, cell, one)}<br>{other} {_sure(grid, cell, other)}"
                    for cell in mine
                ],
                "hovertemplate": "%{customdata}<extra></extra>",
            })  # fmt: skip
        data += _starred(grid, at)
        x, y = (value_axis(key, [point[side] for point in at.values()]) for side, key in enumerate((one, other)))
        panels.append(Panel(f"{other} against {one}", grid.kind, figure(data, x, y, height=440, showlegend=True)))
    return panels


def _starred(grid: Grid, at: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """A mark around the cell that the objective chooses, if it is there."""
    if grid.choice is None or grid.choice.cell not in at:
        return []
    x, y = at[grid.choice.cell]
    return [{
        "type": "scatter", "mode": "markers", "name": f"{BEST} the choice", "x": [x], "y": [y],
        "marker": {"color": BLACK, "size": 20, "symbol": "star-open", "line": {"width": 2}}, "hoverinfo": "skip",
    }]  # fmt: skip


def _multiples(
    data: list[dict[str, Any]], all_facets: Sequence[_Facet], place: Place, row_height: int, x: dict[str, Any],
    y: dict[str, Any], y_title: str,
) -> dict[str, Any]:  # fmt: skip
    """The shared axes of small multiples: one x axis a column, one y axis a row, and their labels."""
    columns, rows = max(each.column for each in all_facets) + 1, max(each.row for each in all_facets) + 1
    drawn = figure(data, {**x, "title": {"text": place.x}}, {**y, **({"title": {"text": y_title}} if y_title else {})})
    layout = drawn["layout"]
    layout["showlegend"] = any(trace.get("showlegend") for trace in data)
    layout["height"] = rows * row_height + 130 + (30 if place.columns else 0)
    first_x, first_y = layout.pop("xaxis"), layout.pop("yaxis")
    gap_x, gap_y = 0.03, min(0.06, 0.3 / rows)
    for column in range(columns):
        domain = _domain(column, columns, gap_x)
        layout[_axis("xaxis", column)] = {**first_x, "domain": domain, "anchor": _axis("y", rows - 1)}
    for row in range(rows):
        layout[_axis("yaxis", row)] = {**first_y, "domain": _domain(rows - 1 - row, rows, gap_y), "anchor": "x"}
    words = []
    for facet in all_facets:
        if facet.row == 0 and place.columns:
            at = sum(_domain(facet.column, columns, gap_x)) / 2
            said = f"{place.columns}={facet.at[place.columns]}"
            words.append({"x": at, "y": 1.0, "yanchor": "bottom", "xanchor": "center", "text": said})
        if facet.column == 0 and place.rows:
            at = _domain(rows - 1 - facet.row, rows, gap_y)[1]
            said = ", ".join(f"{axis}={facet.at[axis]}" for axis in place.rows)
            words.append({"x": 1.0, "y": at, "xanchor": "right", "yanchor": "bottom", "text": f"<i>{said}</i>",
                          "yshift": 16 if facet.row == 0 else 0})  # fmt: skip
    look = {"xref": "paper", "yref": "paper", "showarrow": False, "font": {"size": 12}}
    layout["annotations"] = [{**look, **each, "text": each["text"]} for each in words]
    layout["margin"] = {"l": 60, "r": 16, "t": 76 if layout["showlegend"] else 50, "b": 48}
    if layout["showlegend"] and words:
        layout["legend"]["y"] = 1.0 + 34 / max(1, layout["height"] - 124)
    return drawn


def _axis(name: str, number: int) -> str:
    return name if number == 0 else f"{name}{number + 1}"


def _domain(place: int, of: int, gap: float) -> list[float]:
    width = (1 - gap * (of - 1)) / of
    return [round(place * (width + gap), 4), round(min(1.0, place * (width + gap) + width), 4)]


def value_axis(key: str, values: Sequence[float]) -> dict[str, Any]:
    """An axis of `key` whose ticks are in its unit; it says which scale it has."""
    values = values or [0.0, 1.0]
    title = {"title": {"text": f"{key}, {'log' if is_wide(values) else 'linear'} scale"}}
    if is_wide(values):
        base, steps = (4.0, (1,)) if unit(key) == "size" else (10.0, (1, 2, 5))
        powers = range(int(log(min(values), base) // 1), int(log(max(values), base) // 1) + 2)
        ticks = [step * base**power for power in powers for step in (steps if len(powers) < 4 else (1,))]
        span = [log10(min(values)) - 0.15, log10(max(values)) + 0.15]
        return {
            **title,
            "type": "log",
            "tickvals": ticks,
            "ticktext": [show(key, tick) for tick in ticks],
            "range": span,
        }
    low, high = min(0.0, *values), max(values) or 1.0
    step = _round_step((high - low) / 4, binary=unit(key) == "size")
    ticks = [step * number for number in range(int(low // step), int(high // step) + 2)]
    return {**title, "tickvals": ticks, "ticktext": [show(key, tick) for tick in ticks], "range": [low, high * 1.08]}


def _round_step(about: float, *, binary: bool) -> float:
    """A round step near `about`: 1, 2 or 5 times a power of ten, or a power of two."""
    base = 2.0 if binary else 10.0
    power = base ** int(log10(max(about, 1e-9)) / log10(base) // 1)
    return next((step * power for step in (1, 2, 5) if step * power >= about), base * power)


def _level(value: float, wide: bool) -> float:
    return log10(value) if wide else value


def _value(grid: Grid, cell: CellRuns, key: str, best: str | None, close: Sequence[str]) -> str:
    mark = f" {BEST}" if cell.name == best else f" {CLOSE}" if cell.name in close else ""
    return f"{short(show(key, grid.estimates[cell.name, key].mean))}{mark}"


def short(text: str) -> str:
    """A figure with three digits: `23.479ms` -> `23.5ms`."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzKMGTB/ ")
    if "." not in number:
        return text
    places = max(0, 3 - len(number.split(".")[0].lstrip("-")))
    return f"{float(number.replace(',', '')):,.{places}f}{text[len(number) :]}"


def _sure(grid: Grid, cell: CellRuns, key: str) -> str:
    """A mean with its interval and number of seeds, in words."""
    mean, interval, seeds = grid.estimates[cell.name, key]
    edges = "" if interval is None else f" ({show(key, interval.low)} to {show(key, interval.high)})"
    return f"{show(key, mean)}{edges}, {seeds} seed{'s' * (seeds != 1)}"


def _of_intervals(grid: Grid) -> str:
    seeds = min(len(cell.runs) for cell in grid.cells)
    if seeds == 1:
        return "One seed: no interval."
    few = " So few seeds make it too narrow; take ten for a figure to quote." if seeds < 5 else ""
    return f"Means of {seeds} seeds with their 95 % bootstrap interval.{few}"


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("%{", "% {")

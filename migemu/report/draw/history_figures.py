"""Figures of a history: one figure of a sweep over its states, with its levels and where they change.

Rules
    1. A mark is the mean over the seeds at one state, a line is the level that it is on (`FigureHistory.levels`); where
       a level ends the figure has changed: a triangle down is better, a triangle up is worse.
    2. Of many cells those are drawn whose newest or largest changes are told first; the table has all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from migemu.experiment.figures import show
from migemu.experiment.history import FigureHistory, History
from migemu.experiment.text_tables import percent
from migemu.report.draw.cells import value_axis
from migemu.report.draw.style import BLUE, RUN_COLOURS, RUN_DASHES, VERMILLION, Panel, figure

CELLS_MAX: Final = 8


def over_states(history: History, key: str) -> Panel:
    """The figure `key` of up to `CELLS_MAX` cells over the states."""
    mine = [series for series in history.series if series.key == key]
    changed = list(dict.fromkeys(series.cell for series, _ in history.changes if series.key == key))
    order = sorted(mine, key=lambda each: changed.index(each.cell) if each.cell in changed else len(changed))
    drawn = order[:CELLS_MAX]
    labels = [f"{place + 1}: {state.label}" for place, state in enumerate(history.states)]
    data = [trace for number, series in enumerate(drawn) for trace in _traces(history, series, number, labels)]
    values = [float(value) for series in drawn for value in series.values.mean(axis=1)]
    title = "state of the code" if history.by == "commit" else "run"
    x = {"type": "category", "categoryorder": "array", "categoryarray": labels, "title": {"text": f"{title}, by time"},
         "range": [-0.5, len(labels) - 0.5]}  # fmt: skip
    note = f"Means over {min(len(series.seeds) for series in drawn)} seeds; lines are levels."
    if len(drawn) < len(mine):
        note += f" {len(drawn)} of {len(mine)} cells: those that changed last, or most."
    return Panel(key, history.kind, figure(data, x, value_axis(key, values), height=400, showlegend=True), note,
                 across=len(history.states) > 30)  # fmt: skip


def _traces(
    history: History, series: FigureHistory, number: int, labels: Sequence[str]
) -> list[dict[str, Any]]:  # fmt: skip
    colour = RUN_COLOURS[number % len(RUN_COLOURS)]
    name = series.cell or series.key
    means = series.values.mean(axis=1)
    hover = [
        f"{labels[place]}<br>{history.states[place].began[:16].replace('T', ' ')}<br>{show(series.key, float(mean))}"
        for place, mean in zip(series.places, means, strict=True)
    ]
    marks = {
        "type": "scatter", "mode": "markers", "name": name, "legendgroup": name, "cliponaxis": False,
        "x": [labels[place] for place in series.places], "y": [float(mean) for mean in means],
        "marker": {"color": colour, "size": 7}, "customdata": hover, "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip
    level_x: list[str | None] = []
    level_y: list[float | None] = []
    for first, last, level in series.levels():
        level_x += [labels[first], labels[last], None]
        level_y += [level, level, None]
    levels = {
        "type": "scatter", "mode": "lines", "name": f"level of {name}", "legendgroup": name, "showlegend": False,
        "x": level_x, "y": level_y, "connectgaps": False, "hoverinfo": "skip",
        "line": {"color": colour, "width": 2, "dash": RUN_DASHES[number % len(RUN_DASHES)]},
    }  # fmt: skip
    changes = {
        "type": "scatter", "mode": "markers", "name": f"changes of {name}", "legendgroup": name, "showlegend": False,
        "x": [labels[change.state] for change in series.changes], "y": [change.after for change in series.changes],
        "marker": {
            "size": 14, "line": {"width": 2},
            "color": [VERMILLION if change.verdict == "worse" else BLUE for change in series.changes],
            "symbol": [f"triangle-{'up' if change.verdict == 'worse' else 'down'}-open" for change in series.changes],
        },
        "customdata": [
            f"{name}<br>{show(series.key, change.before)} to {show(series.key, change.after)}: "
            f"{percent(change.relative)}, {change.verdict}"
            for change in series.changes
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip
    return [marks, levels, *([changes] if series.changes else [])]

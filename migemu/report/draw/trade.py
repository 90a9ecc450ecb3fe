"""What one buys with the other: what vCPUs lost, against the time until memory is mapped at 1G again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from migemu.experiment.figures import figures
from migemu.report.draw.style import Panel, ShownRun, figure, kinds, time_scale
from migemu.units import format_time

_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
#: Room on the axis for runs that never came back to 1G.
_NEVER_ROOM: Final = 1.18


def of_runs(runs: Sequence[ShownRun]) -> list[Panel]:
    """A mark for each run, where there are two or more that say both: only modelled runs do."""
    panels = []
    for kind, alike in kinds([run for run in runs if run.kind == "modelled"]):
        found = [(run, *point) for run in alike if (point := _point(run)) is not None]
        if len(found) < 2:
            continue
        x_scale = time_scale(max((at for _, at, _ in found if at is not None), default=0))
        y_scale = time_scale(max(lost for *_, lost in found))
        latest = max((at / x_scale.factor for _, at, _ in found if at is not None), default=1.0)
        never = latest * _NEVER_ROOM
        data: list[dict[str, Any]] = [
            {
                "type": "scatter", "mode": "markers", "name": run.label,
                "x": [never if at is None else round(at / x_scale.factor, 3)], "y": y_scale.of([lost]),
                "marker": {"color": run.colour, "size": 13, "symbol": _SYMBOLS[run.place % len(_SYMBOLS)]},
                "customdata": [[format_time(lost), "never" if at is None else format_time(at)]],
                "hovertemplate": "lost %{customdata[0]}, 90 % at 1G: %{customdata[1]}<extra></extra>",
            }
            for run, at, lost in found
        ]  # fmt: skip
        x: dict[str, Any] = {
            "title": {"text": f"90 % of memory at 1G again after [{x_scale.unit}]"}, "range": [0, never * 1.05],
        }  # fmt: skip
        drawn = figure(data, x, {"title": {"text": f"lost by a vCPU, in the mean [{y_scale.unit}]"},
                                 "rangemode": "tozero"}, showlegend=True)  # fmt: skip
        if any(at is None for _, at, _ in found):
            drawn["layout"]["shapes"] = [{
                "type": "line", "x0": latest * 1.09, "x1": latest * 1.09, "yref": "paper", "y0": 0, "y1": 1,
                "line": {"color": "#8A8A8A", "width": 1, "dash": "dot"},
            }]  # fmt: skip
            drawn["layout"]["annotations"] = [{
                "x": never, "yref": "paper", "y": 1, "yanchor": "top", "text": "never", "showarrow": False,
            }]  # fmt: skip
        note = "Left and low is better: 1G sooner, less time lost."
        panels.append(Panel("What time at 1G was bought with", kind, drawn, note))
    return panels


def _point(run: ShownRun) -> tuple[int | None, int] | None:
    """(ns until 1G or None for never, ns lost); None where the result does not say."""
    mapping = run.directory.result.get("mapping") or {}
    lost = figures(run.directory.result).get("lost_ns.mean")
    if "to_1G_ns" not in mapping or lost is None:
        return None
    return mapping["to_1G_ns"], int(lost)

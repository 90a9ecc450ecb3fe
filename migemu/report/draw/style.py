"""What all figures share: colours, marks, axes, and the panel that a figure stands in.

Rules
    1. A panel is of one kind, measured or modelled, and says so; figures of both never share one.
    2. Nothing is told by colour alone: runs differ by dash and pattern too, causes by the shape of their marks.
    3. Figures of several runs of one kind that stand side by side have the same axes.

Sources
    Colours: M. Okabe and K. Ito, "Color Universal Design", 2008; times of arrival by cividis (J. R. Nunez et al., PLOS
    ONE 13(7), 2018), which looks the same to those who see no red or no green.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import Any, Final

from migemu.analysis.reducer import TraceFigures
from migemu.report.directory import RunDirectory
from migemu.report.document import DataTable
from migemu.units import GIB, KIB, MIB, MS, SECOND, US, format_time
from migemu.wire.states import Stage

Figure = dict[str, Any]

BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
YELLOW: Final = "#F0E442"
BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#8A8A8A"

#: One look for each run where several share a figure; they come round again after eight.
RUN_COLOURS: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
RUN_DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "5px,2px", "1px,3px")
RUN_PATTERNS: Final = ("", "/", "x", ".", "\\", "+", "-", "|")
#: Share of an axis that the words of a mark take beside its line.
_MARK_ROOM: Final = 0.035


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A run to be drawn: its directory, the figures of its trace (None without a trace), and its number on the page."""

    directory: RunDirectory
    trace: TraceFigures | None
    label: str
    place: int = 0

    @property
    def kind(self) -> str:
        """ "measured" or "modelled"; "unknown" if there is neither a result nor a trace."""
        return self.directory.kind or (self.trace.kind if self.trace else "") or "unknown"

    @property
    def colour(self) -> str:
        """The colour of this run in figures with several runs."""
        return RUN_COLOURS[self.place % len(RUN_COLOURS)]

    @property
    def dash(self) -> str:
        """The dash of its line in figures with several runs."""
        return RUN_DASHES[self.place % len(RUN_DASHES)]

    @property
    def pattern(self) -> str:
        """The pattern of its bars in figures with several runs."""
        return RUN_PATTERNS[self.place % len(RUN_PATTERNS)]


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure with its heading (run or runs), its kind, and a note on how to read it."""

    title: str
    kind: str
    figure: Figure | None = None
    note: str = ""
    tables: tuple[DataTable, ...] = ()
    across: bool = False
    """Whether it takes the whole width of the page."""


@dataclass(frozen=True, slots=True)
class Section:
    """Panels that answer one question of the reader."""

    anchor: str
    title: str
    intro: str
    panels: list[Panel] = field(default_factory=list)


def kinds(runs: Sequence[ShownRun]) -> list[tuple[str, list[ShownRun]]]:
    """The runs by kind, in the order in which the kinds first occur."""
    return [(kind, [run for run in runs if run.kind == kind]) for kind in dict.fromkeys(run.kind for run in runs)]


def figure(data: list[dict[str, Any]], x: dict[str, Any], y: dict[str, Any], **layout: Any) -> Figure:
    """A plotly figure (`data` and `layout`) with these axes, in the common style."""
    axis = {"showline": True, "linecolor": "#444", "ticks": "outside", "gridcolor": "#e6e6e6", "zeroline": False}
    x, y = ({**axis, **one, "automargin": True} for one in (x, y))
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}, "traceorder": "normal"}
    return {
        "data": data,
        "layout": {
            "xaxis": x, "yaxis": y, "legend": legend, "showlegend": len(data) > 1, "height": 360,
            "margin": {"l": 60, "r": 16, "t": 44, "b": 48}, "paper_bgcolor": "#fff", "plot_bgcolor": "#fff",
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1a1a1a"}, "hovermode": "closest",
            "hoverlabel": {"font": {"size": 13}, "namelength": -1}, **layout,
        },
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scale:
    """A unit for an axis; `factor` is how many base units (ns, bytes) it has."""

    unit: str
    factor: int

    def of(self, values: Iterable[float]) -> list[float]:
        """The values in that unit, rounded to a thousandth."""
        return [round(value / self.factor, 3) for value in values]


def time_scale(most_ns: float) -> Scale:
    """The largest of s, ms, us in which `most_ns` is at least 2."""
    return next((Scale(unit, ns) for unit, ns in (("s", SECOND), ("ms", MS)) if most_ns >= 2 * ns), Scale("us", US))


def size_scale(most_bytes: float) -> Scale:
    """The largest of GiB, MiB, KiB in which `most_bytes` is at least 2."""
    units = (("GiB", GIB), ("MiB", MIB))
    return next((Scale(unit, size) for unit, size in units if most_bytes >= 2 * size), Scale("KiB", KIB))


def latency_axis(title: str, values: Sequence[int]) -> dict[str, Any]:
    """A logarithmic axis over `values` in ns, with ticks at powers of ten, and at 2 and 5 times them if they fit."""
    low, high = max(1, min(values, default=1)), max(1, *values, 1)
    first, last = len(str(low)) - 1, len(str(high))
    steps = (1, 2, 5) if last - first <= 4 else (1,)
    ticks = [step * 10**power for power in range(first, last + 1) for step in steps]
    return {
        "type": "log", "title": {"text": title}, "tickvals": ticks, "ticktext": [format_time(ns) for ns in ticks],
        "range": [log10(low) - 0.1, log10(high) + 0.1],
    }  # fmt: skip


def seconds_axis(runs: Sequence[ShownRun]) -> tuple[dict[str, Any], Scale]:
    """An axis of time since the guest's start that fits all these runs, and its unit."""
    most = max((run.trace.ended - run.trace.zero for run in runs if run.trace), default=0)
    scale = time_scale(most)
    first = min((_first_shown(run.trace) for run in runs if run.trace), default=0)
    span = (most - first) / scale.factor or 1.0
    low = first / scale.factor
    title = f"time since the guest runs at the destination [{scale.unit}]"
    return {"title": {"text": title}, "range": [low - 0.01 * span, low + 1.02 * span]}, scale


def _first_shown(figures: TraceFigures) -> int:
    """Where the axis of time begins: at the guest's start, or at the first event if the guest never ran."""
    return 0 if figures.began is not None else min(0, figures.ended - figures.zero)


def marks(figures: TraceFigures, scale: Scale, x: Mapping[str, Any]) -> dict[str, Any]:
    """Lines for `layout` where stages begin and connections are lost; close ones on the axis `x` share a label."""
    shapes: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    room = _MARK_ROOM * (x["range"][1] - x["range"][0])
    for mark in figures.marks:
        at = (mark.t - figures.zero) / scale.factor
        if at < 0 or mark.words == Stage.RUNNING.value:
            continue
        lost = " lost " in mark.words
        line = {"color": VERMILLION if lost else GREY, "width": 1.5 if lost else 1, "dash": "dot"}
        shapes.append({"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line})
        if words and at - words[-1]["x"] < room:
            words[-1]["text"] += f", {mark.words}"
            words[-1]["font"] = {"size": 11, "color": VERMILLION if lost else words[-1]["font"]["color"]}
            continue
        words.append({
            "x": at, "xanchor": "right", "yref": "paper", "y": 0.03, "yanchor": "bottom", "text": mark.words,
            "showarrow": False, "textangle": -90, "bgcolor": "rgba(255,255,255,0.8)",
            "font": {"size": 11, "color": line["color"]},
        })  # fmt: skip
    return {"shapes": shapes, "annotations": words}


def shown(ns: Iterable[float]) -> list[str]:
    """Times in ns as text with a unit."""
    return [format_time(round(each)) for each in ns]

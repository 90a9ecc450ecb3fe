"""Figures of memory: what maps it, what that costs, how fast it came, and how each piece of it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from migemu.analysis.piece_map import NEVER, How, PieceMap
from migemu.analysis.reducer import DUPLICATE, PUSHED, URGENT, TraceFigures
from migemu.mm.pages import Geometry, Level
from migemu.report.document import packed, unpacked
from migemu.report.draw.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    Figure,
    Panel,
    ShownRun,
    figure,
    kinds,
    marks,
    seconds_axis,
    size_scale,
)  # fmt: skip
from migemu.units import MS, SECOND, US, format_size, format_time

_LEVEL_LOOKS: Final = {
    Level.PUD: (BLUE, ""), Level.CONT_PMD: (PURPLE, "\\"), Level.PMD: (GREEN, "/"), Level.CONT_PTE: (YELLOW, "x"),
    Level.PTE: (ORANGE, "."),
}  # fmt: skip
_HOW_COLOURS: Final = ("#EDEDED", SKY, VERMILLION, YELLOW, BLACK)
_SINCE: Final = "Milliseconds since the guest runs at the destination."
#: In a picture, of a page that never came.
_NO_TIME: Final = 0xFFFF


def level_name(geometry: Geometry, level: Level) -> str:
    """A level by the size that one of its entries maps: "4K", "2M", "1G"."""
    return format_size(geometry.size(level))


def levels(runs: Sequence[ShownRun]) -> list[Panel]:
    """The share of memory by the level that maps it, over time, and every collapse; one figure a run."""
    panels = []
    for kind, alike in kinds(_with_mapping(runs)):
        x, scale = seconds_axis(alike)
        for run in alike:
            figures = run.trace
            assert figures is not None
            rows = figures.mapping.rows()
            times = scale.of(t - figures.zero for t, _ in rows)
            total = figures.pages * figures.geometry.page_bytes
            data: list[dict[str, Any]] = []
            for level in reversed(figures.geometry.levels):
                if not any(row.mapped_bytes[level] for _, row in rows):
                    continue
                colour, pattern = _LEVEL_LOOKS[level]
                name = level_name(figures.geometry, level)
                data.append({
                    "type": "scatter", "mode": "lines", "stackgroup": "levels", "name": name,
                    "x": times, "y": [round(100 * row.mapped_bytes[level] / total, 3) for _, row in rows],
                    "line": {"width": 1, "color": colour, "shape": "hv"}, "fillcolor": colour,
                    "fillpattern": {"shape": pattern, "fgcolor": "#fff", "bgcolor": colour, "size": 6},
                    "hovertemplate": f"%{{y:.1f}} % at %{{x}} {scale.unit}<extra>{name}</extra>",
                })  # fmt: skip
            steps = []
            for height, (level, bins) in enumerate(figures.collapses.items()):
                if made := [(t, sums[0]) for t, sums in bins.rows() if sums[0]]:
                    name = level_name(figures.geometry, level)
                    size, symbol = (11, "triangle-down") if level is figures.geometry.largest else (9, "line-ns-open")
                    steps.append(f"to {name}: {sum(count for _, count in made):,}")
                    data.append({
                        "type": "scatter", "mode": "markers", "name": f"collapses to {name}",
                        "x": scale.of(t - figures.zero for t, _ in made), "y": [103 + 4 * height] * len(made),
                        "customdata": [count for _, count in made],
                        "marker": {"color": _LEVEL_LOOKS[level][0], "size": size, "symbol": symbol},
                        "hovertemplate": f"%{{customdata}} collapsed to {name} at %{{x}} {scale.unit}<extra></extra>",
                    })  # fmt: skip
            y = {"title": {"text": "share of memory mapped [%]"}, "range": [0, 114], "tickvals": [0, 25, 50, 75, 100]}
            drawn = figure(data, dict(x), y, showlegend=True, hovermode="x", **marks(figures, scale, x))
            note = f"Entries made by collapses, {', '.join(steps) or 'none'}. {_every(figures.mapping.step_ns)}"
            panels.append(Panel(run.label, kind, drawn, note))
    return panels


def access_cost(runs: Sequence[ShownRun]) -> list[Panel]:
    """The mean cost of an access in ns by the cost model, over time. Always modelled."""
    panels = []
    alike = _with_mapping(runs)
    x, scale = seconds_axis(alike)
    costs = [[(t, row.access_ns) for t, row in run.trace.mapping.rows() if row.access_ns] for run in alike if run.trace]
    most = max((cost for rows in costs for _, cost in rows), default=0.0)
    for run, rows in zip(alike, costs, strict=True):
        figures = run.trace
        assert figures is not None
        if not rows:
            continue
        data = [{
            "type": "scatter", "mode": "lines", "name": "expected access",
            "x": scale.of(t - figures.zero for t, _ in rows), "y": [round(cost, 2) for _, cost in rows],
            "line": {"color": PURPLE, "width": 2, "shape": "hv"},
            "hovertemplate": f"%{{y:.1f}} ns at %{{x}} {scale.unit}<extra></extra>",
        }]  # fmt: skip
        drawn = figure(
            data, dict(x), {"title": {"text": "expected access [ns]"}, "range": [0, most * 1.08]},
            height=300, hovermode="x", **marks(figures, scale, x),
        )  # fmt: skip
        note = f"By the cost model (TLB, page walk) from what maps the memory in this {run.kind} run; not timed."
        panels.append(Panel(run.label, "modelled", drawn, note))
    return panels


def tables(runs: Sequence[ShownRun]) -> list[Panel]:
    """Bytes of page tables below 1G over time; one figure a run."""
    panels = []
    for kind, alike in kinds(_with_mapping(runs)):
        x, scale = seconds_axis(alike)
        most = max(row.page_table_bytes for run in alike if run.trace for _, row in run.trace.mapping.rows())
        size = size_scale(most)
        for run in alike:
            figures = run.trace
            assert figures is not None
            rows = figures.mapping.rows()
            data = [{
                "type": "scatter", "mode": "lines", "fill": "tozeroy", "fillcolor": "rgba(0,114,178,0.18)",
                "name": "page tables", "x": scale.of(t - figures.zero for t, _ in rows),
                "y": size.of(row.page_table_bytes for _, row in rows),
                "line": {"color": BLUE, "width": 2, "shape": "hv"},
                "customdata": [format_size(row.page_table_bytes) for _, row in rows],
                "hovertemplate": f"%{{customdata}} at %{{x}} {scale.unit}<extra></extra>",
            }]  # fmt: skip
            y = {"title": {"text": f"page tables [{size.unit}]"}, "range": [0, most / size.factor * 1.08 or 1]}
            note = f"Of the model of the page table, as it stood at these times. {_every(figures.mapping.step_ns)}"
            panels.append(
                Panel(
                    run.label,
                    kind,
                    figure(data, dict(x), y, height=300, hovermode="x", **marks(figures, scale, x)),
                    note,
                )
            )
    return panels


def throughput(runs: Sequence[ShownRun]) -> list[Panel]:
    """Bytes of pages received per second: pushed, urgent, duplicate; one figure a run."""
    panels = []
    looks = ((PUSHED, "pushed", SKY, ""), (URGENT, "urgent", VERMILLION, "/"))
    for kind, alike in kinds([run for run in runs if run.trace and run.trace.received.rows()]):
        x, scale = seconds_axis(alike)
        step_ns = max(run.trace.received.step_ns for run in alike if run.trace)
        rates = {run.label: _per_s(run.trace, step_ns) for run in alike if run.trace}
        most = max(max(sums[PUSHED] + sums[URGENT], sums[DUPLICATE]) for rows in rates.values() for _, sums in rows)
        for run in alike:
            figures = run.trace
            assert figures is not None
            per_s = [sums for _, sums in rates[run.label]]
            times = scale.of(t - figures.zero for t, _ in rates[run.label])
            hover = f"%{{y:,.1f}} MB/s at %{{x}} {scale.unit}"
            data: list[dict[str, Any]] = [
                {
                    "type": "scatter", "mode": "lines", "stackgroup": "bytes", "name": name, "x": times,
                    "y": [each[quantity] for each in per_s], "line": {"width": 0, "color": colour, "shape": "hv"},
                    "fillcolor": colour, "hovertemplate": f"{hover}<extra>{name}</extra>",
                    "fillpattern": {"shape": pattern, "fgcolor": "#fff", "bgcolor": colour, "size": 6},
                }
                for quantity, name, colour, pattern in looks
            ]  # fmt: skip
            if any(each[DUPLICATE] for each in per_s):
                data.append({
                    "type": "scatter", "mode": "lines", "name": "came again (dropped)", "x": times,
                    "y": [each[DUPLICATE] for each in per_s], "line": {"width": 2, "color": BLACK, "dash": "dot"},
                    "hovertemplate": f"{hover}<extra>came again</extra>",
                })  # fmt: skip
            y = {"title": {"text": "page bytes [MB/s]"}, "range": [0, most * 1.05 or 1]}
            note = f"Sums over {format_time(step_ns)} each. Pages announced as zero have no bytes."
            panels.append(
                Panel(run.label, kind, figure(data, dict(x), y, hovermode="x", **marks(figures, scale, x)), note)
            )
    return panels


def _per_s(figures: TraceFigures, step_ns: int) -> list[tuple[int, tuple[float, ...]]]:
    """(start of the bin, MB/s of each quantity), and a last row of zeros, where the stream ends."""
    rows = figures.received.rows(step_ns)
    rates = [(t, tuple(round(each * SECOND / step_ns / 1e6, 3) for each in sums)) for t, sums in rows]
    return [*rates, (rows[-1][0] + step_ns, (0.0,) * len(rows[-1][1]))]


def pictures(runs: Sequence[ShownRun]) -> list[tuple[dict[str, Any], Panel, Panel]]:
    """Of each hugetlb page that was looked at: its data (see page.js), by time of arrival, by how it came.

    All maps of one kind of runs have one scale of time.
    """
    made = []
    for kind, alike in kinds([run for run in runs if run.trace is not None]):
        shown = [(run, each) for run in alike if run.trace for each in run.trace.maps if any(each.how)]
        most = max((_latest_ms(run.trace, each) for run, each in shown if run.trace), default=0.0)
        for run, each in shown:
            assert run.trace is not None
            title = f"{run.label}: hugetlb page {each.hugepage}"
            made.append((
                _picture(run.trace, each),
                Panel(f"{title} by time of arrival", kind, _by_time(run.trace, each, most), _SINCE),
                Panel(f"{title} by how it came", kind, _by_how(run.trace, each), _counts(each)),
            ))  # fmt: skip
    return made


def _latest_ms(trace: TraceFigures, piece_map: PieceMap) -> float:
    return max((t - trace.zero for t in piece_map.arrived if t != NEVER), default=0) / MS


def filled(drawn: Figure, picture: dict[str, Any]) -> Figure:
    """A map with its values, as page.js fills it."""
    how = np.frombuffer(unpacked(picture["how"]), dtype=np.uint8).reshape(picture["rows"], picture["columns"])
    arrived = np.frombuffer(unpacked(picture["arrived"]), dtype="<u2").astype(float).reshape(how.shape)
    times = np.where(arrived == picture["never"], np.nan, arrived * picture["unit"])
    (trace,) = drawn["data"]
    z = times if trace["name"] == "arrived" else how.astype(float)
    rows = [[None if np.isnan(value) else round(value, 6) for value in row] for row in z.tolist()]
    return {**drawn, "data": [{**trace, "z": rows}]}


def _picture(figures: TraceFigures, piece_map: PieceMap) -> dict[str, Any]:
    """The data of a map, rows of 2M each. Times are 16-bit counts of a unit since the guest's start, at least 0."""
    arrived = np.array(piece_map.arrived, dtype=np.int64)
    unit_ns = _unit(figures)
    times = np.clip((arrived - figures.zero) // unit_ns, 0, _NO_TIME - 1)
    times[arrived == NEVER] = _NO_TIME
    columns = figures.geometry.pages(Level.PMD)
    return {
        "columns": columns, "rows": len(arrived) // columns, "words": [how.words for how in How],
        "unit": unit_ns / MS, "never": _NO_TIME, "how": packed(bytes(piece_map.how)),
        "arrived": packed(times.astype("<u2").tobytes()),
    }  # fmt: skip


def _unit(figures: TraceFigures) -> int:
    """The unit in ns (1 us, 10 us, ...) in which the whole run is less than 65535 long."""
    unit = US
    while (figures.ended - figures.zero) // unit >= _NO_TIME:
        unit *= 10
    return unit


def _map_figure(figures: TraceFigures, trace: dict[str, Any]) -> Figure:
    first = f"{format_size(figures.geometry.size(Level.PMD))} %{{y}}, piece %{{x}}: %{{text}}"
    data = [{"type": "heatmap", "hovertemplate": f"{first}<br>{trace.pop('shown')}<extra></extra>", **trace}]
    geometry = figures.geometry
    base, pmd, largest = (level_name(geometry, level) for level in (Level.PTE, Level.PMD, geometry.largest))
    columns = geometry.pages(Level.PMD)
    rows = geometry.largest_pages // columns
    whole = {"constrain": "domain", **({"dtick": 1} if rows <= 8 else {})}
    x = {"title": {"text": f"{base} piece within its {pmd}"}, "range": [-0.5, columns - 0.5], **whole}
    y = {
        **whole, "title": {"text": f"{pmd} within the {largest} page"}, "autorange": False, "range": [rows - 0.5, -0.5],
        "scaleanchor": "x", "constraintoward": "top",
    }  # fmt: skip
    return figure(data, x, y, height=580, margin={"l": 56, "r": 120, "t": 32, "b": 48})


def _by_time(figures: TraceFigures, piece_map: PieceMap, most_ms: float) -> Figure:
    bar = {"title": {"text": "ms", "side": "top"}, "thickness": 14, "len": 0.9, "x": 1.02}
    looks = {"colorscale": "Cividis", "colorbar": bar, "shown": "%{z} ms", "hoverongaps": False}
    looks |= {"zmin": 0, "zmax": round(most_ms, 3) or 1}
    return _map_figure(figures, {"name": "arrived", **looks})


def _by_how(figures: TraceFigures, piece_map: PieceMap) -> Figure:
    kinds_ = len(How)
    edges = [(number / kinds_, (number + 1) / kinds_) for number in range(kinds_)]
    scale = [[edge, _HOW_COLOURS[number]] for number, pair in enumerate(edges) for edge in pair]
    bar = {
        "tickvals": list(range(kinds_)),
        "ticktext": [how.words for how in How],
        "thickness": 14,
        "len": 0.6,
        "x": 1.02,
    }
    looks = {"colorscale": scale, "zmin": -0.5, "zmax": kinds_ - 0.5, "colorbar": bar, "shown": "%{customdata} ms"}
    return _map_figure(figures, {"name": "how", **looks})


def _counts(piece_map: PieceMap) -> str:
    counts = [(how.words, piece_map.how.count(how)) for how in How]
    return "; ".join(f"{words}: {count:,}" for words, count in counts if count) + "."


def _with_mapping(runs: Sequence[ShownRun]) -> list[ShownRun]:
    return [run for run in runs if run.trace and run.trace.mapping.rows()]


def _every(step_ns: int) -> str:
    return f"One point in {format_time(step_ns)} at most."

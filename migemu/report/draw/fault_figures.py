"""Figures of faults: their latency, when and why they were, where their time went, and who slept."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Any, Final

from migemu.analysis.attribution import PHASES, Cause
from migemu.analysis.fault_table import CAUSES
from migemu.analysis.series import percentiles
from migemu.report.draw.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    Panel,
    Scale,
    ShownRun,
    figure,
    kinds,
    latency_axis,
    marks,
    seconds_axis,
    shown,
    time_scale,
)  # fmt: skip
from migemu.report.terminal.histogram import bucket_label
from migemu.units import format_time

SCATTER_MAX: Final = 2400
_CATEGORIES: Final = {
    "title": {"text": "latency [us]"}, "type": "category", "tickangle": -45, "tickfont": {"size": 11},
}  # fmt: skip
LOOKS: Final = {
    Cause.ANSWERED: (BLUE, "circle"), Cause.SHARED: (SKY, "diamond"), Cause.UNDER_WAY: (ORANGE, "triangle-up"),
    Cause.PUSHED: (GREEN, "square"), Cause.ZERO: (PURPLE, "x-thin-open"), Cause.NOT_MAPPED: (VERMILLION, "cross"),
    Cause.UNKNOWN: (GREY, "circle-open"),
}  # fmt: skip
_PART_LOOKS: Final = (
    (ORANGE, ""),
    (YELLOW, "/"),
    (SKY, ""),
    (VERMILLION, "x"),
    (BLUE, ""),
    (PURPLE, "\\"),
    (GREEN, ""),
    (BLACK, "."),
)
#: What parts are called where nobody saw the wire (attribution, rule 1).
_WITHOUT_WIRE: Final = {"uplink": "request (until the source has it)", "downlink": "reply (source, link, reading)"}


_RESULT_SHARES: Final = (("p50_ns", 0.5), ("p90_ns", 0.9), ("p99_ns", 0.99), ("p999_ns", 0.999))
_TICKS: Final = ((0.0, "min"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"))


def phase_name(phase: str, has_wire: bool) -> str:
    """The name of a phase of latency, which depends on whether the trace has the times of the wire."""
    return phase if has_wire else _WITHOUT_WIRE.get(phase, phase)


def histograms(runs: Sequence[ShownRun]) -> list[Panel]:
    """Fault latency by powers of two of microseconds, as `migemu run` prints it; one figure for the runs of a kind."""
    panels = []
    for kind, alike in kinds(runs):
        counts = {run.label: each for run in alike if (each := _log2(run))}
        bounds = [bound for each in counts.values() for bound in each]
        if not bounds:
            continue
        rows = _powers(min(bounds), max(bounds))
        data: list[dict[str, Any]] = [
            {
                "type": "bar", "name": run.label,
                "x": [bucket_label(bound) for bound in rows],
                "y": [counts[run.label].get(bound, 0) for bound in rows],
                "marker": {
                    "color": run.colour,
                    "pattern": {"shape": run.pattern, "fgcolor": "#fff", "bgcolor": run.colour, "size": 5},
                },
                "hovertemplate": "%{x} us: %{y:,} faults<extra>" + _plain(run.label) + "</extra>",
            }
            for run in alike
            if run.label in counts
        ]  # fmt: skip
        drawn = figure(data, _CATEGORIES, {"title": {"text": "faults"}})
        drawn["layout"]["barmode"] = "group"
        drawn["layout"]["bargap"] = 0.12
        panels.append(Panel("Histogram", kind, drawn, "Buckets are powers of two of microseconds."))
    return panels


def distributions(runs: Sequence[ShownRun]) -> list[Panel]:
    """Latency by percentile up to p99.99, each nine as wide as the one before; one figure for the runs of a kind."""
    panels = []
    for kind, alike in kinds(runs):
        data, values = [], []
        for run in alike:
            points = _percentiles(run)
            if not points:
                continue
            values += [value for _, value in points]
            data.append({
                "type": "scatter", "name": run.label, "mode": "lines" if run.trace else "markers",
                "x": [-log10(1 - share) for share, _ in points], "y": [value for _, value in points],
                "customdata": [[f"p{share * 100:.6g}", format_time(value)] for share, value in points],
                "line": {"color": run.colour, "dash": run.dash, "width": 2.5, "shape": "vh"},
                "marker": {"color": run.colour, "size": 9},
                "hovertemplate": "%{customdata[0]}: %{customdata[1]}<extra>" + _plain(run.label) + "</extra>",
            })  # fmt: skip
        if data:
            x = {
                "title": {"text": "percentile"}, "range": [0, 4.15], "tickvals": [-log10(1 - p) for p, _ in _TICKS],
                "ticktext": [name for _, name in _TICKS],
            }  # fmt: skip
            drawn = figure(data, x, latency_axis("latency", values), hovermode="x")
            note = "Nearest rank: a value that was seen, never one between two. A curve ends where its faults do."
            panels.append(Panel("Cumulated, to p99.99", kind, drawn, note))
    return panels


def over_time(runs: Sequence[ShownRun]) -> list[Panel]:
    """Each fault at the time when it began, by latency and cause; one figure a run."""
    panels = []
    for kind, alike in kinds([run for run in runs if run.trace and len(run.trace.faults)]):
        x, scale = seconds_axis(alike)
        points = {run.label: run.trace.faults.points(SCATTER_MAX) for run in alike if run.trace}
        y = latency_axis("latency", [row[1] for rows, _ in points.values() for row in rows])
        for run in alike:
            assert run.trace is not None
            rows, step = points[run.label]
            data = []
            by_cause = {cause: [row for row in rows if row[2] is cause] for cause in CAUSES}
            for cause, mine in sorted(by_cause.items(), key=lambda each: -len(each[1])):  # the few lie above the many
                if mine:
                    colour, symbol = LOOKS[cause]
                    data.append({
                        "type": "scatter", "mode": "markers", "name": cause.value,
                        "x": scale.of(row[0] - run.trace.zero for row in mine), "y": [row[1] for row in mine],
                        "customdata": [[format_time(row[1]), row[3], row[4]] for row in mine],
                        "marker": {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.75,
                                   "line": {"width": 1.2 if symbol.endswith("open") else 0}},
                        "hovertemplate": "%{customdata[0]}, page %{customdata[1]}, vCPU %{customdata[2]}"
                        f"<br>at %{{x}} {scale.unit}<extra>{cause.value}</extra>",
                    })  # fmt: skip
            drawn = figure(data, dict(x), dict(y), showlegend=True, **marks(run.trace, scale, x))
            total = len(run.trace.faults)
            note = f"All {total:,} faults." if step == 1 else (
                f"{len(rows):,} of {total:,} faults: the slowest {SCATTER_MAX // 4:,}, and of the others every "
                f"{step}{'nd' if step == 2 else 'rd' if step == 3 else 'th'}."
            )  # fmt: skip
            panels.append(Panel(run.label, kind, drawn, note))
    return panels


def attribution(runs: Sequence[ShownRun]) -> list[Panel]:
    """Mean latency by phase, of all faults and of the slowest 1 %; one figure a run."""
    panels = []
    for kind, alike in kinds([run for run in runs if run.trace and len(run.trace.faults)]):
        tables = {run.label: run.trace.faults.attribution() for run in alike if run.trace}
        most = max(row.latency_ns for rows in tables.values() for row in rows)
        scale = time_scale(most)
        for run in alike:
            assert run.trace is not None
            rows = tables[run.label]
            data: list[dict[str, Any]] = []
            for number, phase in enumerate(PHASES):
                if not any(row.phases_ns[number] for row in rows):
                    continue
                name = phase_name(phase, run.trace.attribution.has_wire)
                colour, pattern = _PART_LOOKS[number]
                means = [row.phases_ns[number] for row in rows]
                shares = [f"{mean / row.latency_ns:.0%}" for mean, row in zip(means, rows, strict=True)]
                data.append({
                    "type": "bar", "orientation": "h", "name": name, "y": [row.what for row in rows],
                    "x": scale.of(means), "customdata": list(zip(shown(means), shares, strict=True)),
                    "marker": {"color": colour,
                               "pattern": {"shape": pattern, "fgcolor": "#fff", "bgcolor": colour, "size": 6}},
                    "hovertemplate": "%{customdata[0]}, %{customdata[1]} of the mean<extra>" + name + "</extra>",
                })  # fmt: skip
            drawn = figure(
                data, {"title": {"text": f"mean latency [{scale.unit}]"}, "range": [0, most / scale.factor * 1.03]},
                {"autorange": "reversed"}, barmode="stack", height=300, showlegend=True,
            )  # fmt: skip
            panels.append(Panel(run.label, kind, drawn))
    return panels


def blocktime(runs: Sequence[ShownRun]) -> list[Panel]:
    """Time each vCPU slept on faults, time collapses stalled it, and time in which all slept; one figure a run.

    How long collapses take is modelled, so only modelled runs have stalls.
    """
    panels = []
    for kind, alike in kinds([run for run in runs if run.directory.result.get("blocktime_ns", {}).get("per_vcpu")]):
        blocktimes = {run.label: run.directory.result["blocktime_ns"] for run in alike}
        held = {run.label: _held(run) for run in alike}
        most = max(max(*each["per_vcpu"], each["overlapped"], *held[label], 0) for label, each in blocktimes.items())
        scale = time_scale(most)
        for run in alike:
            each, stalls = blocktimes[run.label], held[run.label]
            vcpus = list(range(len(each["per_vcpu"])))
            data = [_bars("asleep on faults", vcpus, each["per_vcpu"], scale, SKY, "")]
            if any(stalls):
                data.append(_bars("held by collapses", vcpus, stalls, scale, VERMILLION, "/"))
            data.append({
                "type": "scatter", "mode": "lines", "name": "all asleep at once (overlapped)",
                "x": [-0.5, len(vcpus) - 0.5], "y": scale.of([each["overlapped"]] * 2),
                "line": {"color": BLACK, "dash": "dash", "width": 2},
                "hovertemplate": f"all at once: {format_time(each['overlapped'])}<extra></extra>",
            })  # fmt: skip
            x = {"title": {"text": "vCPU"}, **({"dtick": 1} if len(vcpus) <= 24 else {})}
            y = {"title": {"text": f"time [{scale.unit}]"}, "range": [0, most / scale.factor * 1.05 or 1]}
            note = ""
            if any(stalls):
                longest = run.directory.result["stall_ns"].get("max", 0)
                note = f"Collapses held a vCPU for {format_time(longest)} at most, besides its faults."
            panels.append(Panel(run.label, kind, figure(data, x, y, barmode="group", bargap=0.15), note))
    return panels


def _held(run: ShownRun) -> list[int]:
    """`stall_ns.per_vcpu` of a modelled run; [] of other runs."""
    return list(run.directory.result.get("stall_ns", {}).get("per_vcpu", [])) if run.kind == "modelled" else []


def _bars(name: str, vcpus: list[int], times: list[int], scale: Scale, colour: str, pattern: str) -> dict[str, Any]:
    return {
        "type": "bar", "name": name, "x": vcpus, "y": scale.of(times), "customdata": shown(times),
        "marker": {"color": colour, "line": {"color": BLUE if colour == SKY else colour, "width": 1},
                   "pattern": {"shape": pattern, "fgcolor": "#fff", "bgcolor": colour, "size": 6}},
        "hovertemplate": f"vCPU %{{x}}: %{{customdata}}<extra>{name}</extra>",
    }  # fmt: skip


def _log2(run: ShownRun) -> dict[int, int]:
    """Lower bound in us -> faults: from the result, or counted from the trace if there is no result."""
    fault = run.directory.result.get("fault", {})
    if fault.get("count") or run.trace is None:
        return {int(bound): count for bound, count in fault.get("log2_us", {}).items()}
    counts: dict[int, int] = {}
    for latency in run.trace.faults.ascending().tolist():
        bound = 1 << (latency // 1000).bit_length() >> 1
        counts[bound] = counts.get(bound, 0) + 1
    return counts


def _percentiles(run: ShownRun) -> list[tuple[float, int]]:
    if run.trace is not None:
        return [
            (share, max(1, value)) for share, value in percentiles(run.trace.faults.ascending().tolist()) if share < 1
        ]
    fault = run.directory.result.get("fault", {})
    return [(share, fault[key]) for key, share in _RESULT_SHARES if fault.get("count") and fault[key]]


def _powers(first: int, last: int) -> list[int]:
    bounds = [first]
    while bounds[-1] < last:
        bounds.append(bounds[-1] * 2 or 1)
    return bounds


def _plain(text: str) -> str:
    """A label without what plotly's hover templates interpret: tags and %{...}."""
    return text.replace("<", "&lt;").replace("%{", "% {")

"""The tables of a report: what runs cost their guests, what they were and came to, where the time of faults went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, Final

from migemu.analysis.attribution import PHASES
from migemu.experiment.figures import figures
from migemu.report.document import DataCell, DataTable, table
from migemu.report.draw.fault_figures import phase_name
from migemu.report.draw.style import ShownRun, kinds
from migemu.units import format_size, format_time

_Figure = Callable[[dict[str, Any]], str]


def _ns(section: str, key: str) -> _Figure:
    return lambda result: format_time(result[section][key])


def _fault_ns(key: str) -> _Figure:
    return lambda result: format_time(result["fault"][key]) if result["fault"]["count"] else "-"


def _stalls(result: dict[str, Any]) -> bool:
    """Whether collapses can stall vCPUs in this result: only in modelled runs."""
    return result["kind"] == "modelled" and bool(result["stall_ns"]["per_vcpu"])


def _lost(result: dict[str, Any]) -> str:
    """The mean over vCPUs, and of which kinds."""
    mean = figures(result)["lost_ns.mean"]
    share = mean / result["time_ns"]["postcopy"]
    return f"{format_time(int(mean))} ({share:.1%} of post-copy)" if share < 1 else format_time(int(mean))


def _mean_of(section: str) -> _Figure:
    return lambda result: format_time(round(fmean(result[section]["per_vcpu"])))


def _at_1g(result: dict[str, Any]) -> str:
    found = result["mapping"]["to_1G_ns"]
    if result["kind"] != "modelled":
        return "-"
    return "never" if found is None else format_time(found)


#: What it cost the guest, and what that bought; of a measured run only what was measured.
_COSTS: Final[tuple[tuple[str, _Figure], ...]] = (
    ("a vCPU lost, in the mean", _lost),
    ("- asleep on faults", _mean_of("blocktime_ns")),
    ("- stalled by collapses", lambda result: _mean_of("stall_ns")(result) if _stalls(result) else "-"),
    ("the vCPU that lost most", lambda result: format_time(int(figures(result)["lost_ns.max"]))),
    ("longest silence (no progress, whatever the cause)", _ns("guest", "longest_silence_ns")),
    ("fault p50 / p99", lambda result: f"{_fault_ns('p50_ns')(result)} / {_fault_ns('p99_ns')(result)}"),
    ("90 % of memory at 1G again after", _at_1g),
    ("an access to memory meanwhile, in the mean", lambda result: f"{result['mapping']['access_mean_ns']:.1f} ns"),
    ("post-copy lasted", _ns("time_ns", "postcopy")),
)
#: Rows of the table of runs: what, and how a result tells it.
_ROWS: Final[tuple[tuple[str, _Figure], ...]] = (
    ("status", lambda result: result["status"]),
    ("verified", lambda result: "yes" if result["verified"] else "NO"),
    ("memory", lambda result: format_size(result["bytes"]["memory"])),
    ("on the wire", lambda result: format_size(result["bytes"]["wire"])),
    ("total", _ns("time_ns", "total")),
    ("downtime", _ns("time_ns", "downtime")),
    ("post-copy", _ns("time_ns", "postcopy")),
    ("throughput", lambda result: f"{result['throughput_bytes_per_s'] / 1e6:,.0f} MB/s"),
    ("faults", lambda result: f"{result['fault']['count']:,}"),
    ("still open", lambda result: f"{result['fault']['open']:,}"),
    ("fault p50", _fault_ns("p50_ns")),
    ("fault p99", _fault_ns("p99_ns")),
    ("fault p99.9", _fault_ns("p999_ns")),
    ("fault max", _fault_ns("max_ns")),
    ("blocktime, all vCPUs at once", _ns("blocktime_ns", "overlapped")),
    ("longest stall by a collapse", lambda result: format_time(result["stall_ns"]["max"]) if _stalls(result) else "-"),
    ("longest silence", _ns("guest", "longest_silence_ns")),
    ("came twice", lambda result: f"{result['pieces']['duplicate']:,} pages"),
    ("page tables at most", lambda result: format_size(result["page_table"]["table_bytes_max"])),
    ("collapses", lambda result: f"{result['collapse']['to_2M']:,} to 2M, {result['collapse']['to_1G']:,} to 1G"),
)  # fmt: skip
#: What the cost model says of a run of either kind: a table of its own.
_MODELLED: Final[tuple[tuple[str, _Figure], ...]] = (
    ("all collapses", _ns("modelled", "collapse_ns")),
    ("longest wait of a vCPU for one", _ns("modelled", "collapse_stall_ns_max")),
)
#: Settings that are always told; of the others those in which the runs differ.
_SETTINGS: Final = (
    "push.order", "push.piece", "pull.preempt", "pull.piece", "collapse.policy", "guest.vcpus", "guest.workload",
    "link.preset", "link.rate", "link.delay", "return_link.preset", "return_link.rate", "return_link.delay",
    "costs.mapcount", "costs.lock", "costs.notifier",
)  # fmt: skip


def answers(runs: Sequence[ShownRun]) -> list[tuple[str, list[DataTable]]]:
    """(kind, tables) for each kind of run: what it cost the guest, a column a run."""
    return [(kind, [table("answer", ["", *_names(alike)], _rows(_COSTS, alike))]) for kind, alike in kinds(runs)]


def results(runs: Sequence[ShownRun]) -> list[tuple[str, list[DataTable]]]:
    """(kind, tables) for each kind of run, a column a run, and of what the cost model says: kinds share no table."""
    made = [(kind, _of_kind(alike)) for kind, alike in kinds(runs)]
    rows = _rows(_MODELLED, runs)
    if any(cell != "-" for row in rows for cell in row[1:]):
        made.append(("modelled", [table("figures", ["on a kernel, by the cost model", *_names(runs)], rows)]))
    return made


def _names(runs: Sequence[ShownRun]) -> list[DataCell]:
    return [DataCell(run.label, key=run.colour) for run in runs]


def _rows(figures: Sequence[tuple[str, _Figure]], runs: Sequence[ShownRun]) -> list[list[str]]:
    return [[what, *(_shown_figure(run, figure_of) for run in runs)] for what, figure_of in figures]


def _of_kind(runs: Sequence[ShownRun]) -> list[DataTable]:
    settings = [[key, *(_setting(run, key) for run in runs)] for key in _differing(runs)]
    names = _names(runs)
    return [table("figures", ["", *names], _rows(_ROWS, runs)), table("settings", ["settings", *names], settings)]


def _shown_figure(run: ShownRun, figure_of: _Figure) -> str:
    """A figure of a run as text; "-" without a result, or if the result does not have it."""
    try:
        return str(figure_of(run.directory.result))
    except (KeyError, TypeError, ValueError, AttributeError):
        return "-"


def _differing(runs: Sequence[ShownRun]) -> list[str]:
    keys = {f"{section}.{key}" for run in runs for section, each in run.directory.scenario.items() for key in each}
    others = sorted(key for key in keys if key not in _SETTINGS and key != "scenario.name")
    always = [key for key in _SETTINGS if any(_setting(run, key) not in ("", "-") for run in runs)]
    return [*always, *(key for key in others if len({_setting(run, key) for run in runs}) > 1)]


def _setting(run: ShownRun, key: str) -> str:
    section, _, name = key.partition(".")
    value = run.directory.scenario.get(section, {}).get(name, "-")
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def attribution(run: ShownRun) -> DataTable:
    """Means by part, of all faults and of the slowest 1 %, with what stood in front of them at the source."""
    assert run.trace is not None
    rows = run.trace.faults.attribution()
    has_wire = run.trace.attribution.has_wire
    body: list[list[str | DataCell]] = [
        [
            phase_name(phase, has_wire),
            *(
                DataCell(format_time(round(row.phases_ns[n])), f"{row.phases_ns[n] / row.latency_ns:.1%}")
                for row in rows
            ),
        ]
        for n, phase in enumerate(PHASES)
        if has_wire or any(row.phases_ns[n] for row in rows)
    ]
    body.append([
        DataCell("sum: latency", strong=True),
        *(DataCell(format_time(round(row.latency_ns)), strong=True) for row in rows),
    ])  # fmt: skip
    if has_wire:
        for channel in ("main", "preempt"):
            cells = [format_size(round(getattr(row, f"{channel}_ahead"))) for row in rows]
            body.append([f"in front at the source: {channel} channel", *cells])
    return table("parts", ["mean of", *(f"{row.what} ({row.faults:,})" for row in rows)], body)


def causes(run: ShownRun) -> DataTable:
    """The table of faults by cause."""
    assert run.trace is not None
    rows = run.trace.faults.causes()
    total = len(run.trace.faults)
    body = [
        [row.cause.value, DataCell(f"{row.faults:,}", f"{row.faults / total:.1%}"),
         *(format_time(round(ns)) for ns in (row.mean_ns, row.p50_ns, row.p99_ns, row.max_ns))]
        for row in rows
    ]  # fmt: skip
    return table("causes", ["cause", "faults", "mean", "p50", "p99", "max"], body)

"""The tables of a report as HTML: what the runs were and came to, and where the time of their faults went.

Everything that comes from a file is escaped here or in `page`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, Final

from migemu.analysis.attribution import PHASES
from migemu.report.draw.fault_figures import phase_name
from migemu.report.draw.style import ShownRun
from migemu.units import format_size, format_time

_Figure = Callable[[dict[str, Any]], str]


def _ns(section: str, key: str) -> _Figure:
    return lambda result: format_time(result[section][key])


def _fault_ns(key: str) -> _Figure:
    return lambda result: format_time(result["fault"][key]) if result["fault"]["count"] else "-"


def _stalls(result: dict[str, Any]) -> bool:
    """Whether collapses can stall vCPUs in this result: only in modelled runs."""
    return result["kind"] == "modelled" and bool(result["stall_ns"]["per_vcpu"])


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


def of_runs(runs: Sequence[ShownRun]) -> list[tuple[str, str]]:
    """(kind, table) for each kind of run, with a column a run, and for figures of the cost model."""
    tables = [
        (kind, _of_kind([run for run in runs if run.kind == kind])) for kind in dict.fromkeys(run.kind for run in runs)
    ]
    rows = [[what, *(_shown_figure(run, figure_of) for run in runs)] for what, figure_of in _MODELLED]
    if any(cell != "-" for row in rows for cell in row[1:]):
        tables.append(("modelled", table(["on a kernel, by the cost model", *_names(runs)], rows, "figures")))
    return tables


def _names(runs: Sequence[ShownRun]) -> list[str]:
    return [f'<span class="key" style="background:{run.colour}"></span>{escape(run.label)}' for run in runs]


def _of_kind(runs: Sequence[ShownRun]) -> str:
    rows = [[what, *(_shown_figure(run, figure_of) for run in runs)] for what, figure_of in _ROWS]
    settings = [[escape(key), *(_setting(run, key) for run in runs)] for key in _differing(runs)]
    names = _names(runs)
    figures = table(["", *names], rows, "figures")
    return f'<div class="tables">{figures}{table(["settings", *names], settings, "settings")}</div>'


def _shown_figure(run: ShownRun, figure_of: _Figure) -> str:
    """A figure of a run as text; "-" without a result, or if the result does not have it."""
    try:
        return escape(str(figure_of(run.directory.result)))
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
    return escape(("on" if value else "off") if isinstance(value, bool) else str(value))


def attribution(run: ShownRun) -> str:
    """The table of mean latency by phase, for all faults and the slowest 1 %, with bytes queued ahead."""
    assert run.trace is not None
    rows = run.trace.faults.attribution()
    has_wire = run.trace.attribution.has_wire
    body = [
        [
            phase_name(phase, has_wire),
            *(f"{format_time(round(row.phases_ns[n]))}<i>{row.phases_ns[n] / row.latency_ns:.1%}</i>" for row in rows),
        ]
        for n, phase in enumerate(PHASES)
        if has_wire or any(row.phases_ns[n] for row in rows)
    ]
    body.append(["<b>sum: latency</b>", *(f"<b>{format_time(round(row.latency_ns))}</b>" for row in rows)])
    if has_wire:
        for channel in ("main", "preempt"):
            cells = [format_size(round(getattr(row, f"{channel}_ahead"))) for row in rows]
            body.append([f"in front at the source: {channel} channel", *cells])
    head = ["mean of", *(f"{escape(row.what)} ({row.faults:,})" for row in rows)]
    return table(head, body, "parts")


def causes(run: ShownRun) -> str:
    """The table of faults by cause."""
    assert run.trace is not None
    rows = run.trace.faults.causes()
    total = len(run.trace.faults)
    body = [
        [escape(row.cause.value), f"{row.faults:,}<i>{row.faults / total:.1%}</i>",
         *(format_time(round(ns)) for ns in (row.mean_ns, row.p50_ns, row.p99_ns, row.max_ns))]
        for row in rows
    ]  # fmt: skip
    return table(["cause", "faults", "mean", "p50", "p99", "max"], body, "causes")


def sortable_head(head: Iterable[str]) -> str:
    """The head of a table that page.js sorts."""
    cells = (f'<th scope="col"><button type="button">{_breakable(name)}</button></th>' for name in head)
    return f'<table class="cells sortable"><thead><tr>{"".join(cells)}</tr></thead><tbody>'


def sortable_cell(by: str, words: str, hint: str = "") -> str:
    """A cell of such a table: `by` is what it is sorted by ("" sorts last), `words` are HTML."""
    title = f' title="{escape(hint)}"' if hint else ""
    return f'<td data-by="{escape(by)}"{title}>{words}</td>'


def _breakable(name: str) -> str:
    """A key of a figure, in which lines may break between its words."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def table(head: Iterable[str], rows: Iterable[Sequence[str]], name: str) -> str:
    """A table of cells that are HTML already; the first cell of each row is its heading."""
    lines = [f'<table class="{name}"><thead><tr>{"".join(f"<th>{cell}</th>" for cell in head)}</tr></thead><tbody>']
    for row in rows:
        first, *others = row
        lines.append(f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in others)}</tr>")
    return "\n".join([*lines, "</tbody></table>"])

"""The table at the end of a run, and the histogram below it: from a result (see result.py) to something to print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from migemu.report.terminal.histogram import log2_histogram
from migemu.units import format_size, format_time

#: Of more vCPUs than this the first are shown; result.json has all.
_VCPUS_MAX: Final = 8


def summary(result: dict[str, Any]) -> RenderableType:
    """The table of one run's result (as in result.json), and its histogram of fault latency."""
    table = Table(title=f"{result['scenario']['scenario']['name']} ({result['kind']})", title_justify="left")
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("figure")
    for name, figure in _rows(result):
        table.add_row(name, figure)
    parts: list[RenderableType] = [table]
    if result["fault"]["count"]:
        buckets = {int(bound): count for bound, count in result["fault"]["log2_us"].items()}
        parts += [Text(), Text(log2_histogram("usecs (fault latency)", buckets), no_wrap=True)]
    return Group(*parts)


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    scenario, time = result["scenario"], result["time_ns"]
    pieces, sizes = result["pieces"], result["bytes"]
    digest = f"digest {result['digest']}" if result["digest"] else "not compared"
    return [
        ("verified", f"{'yes' if result['verified'] else 'NO'}, {digest}"),
        (
            "moved",
            f"{format_size(sizes['memory'])} of memory: {pieces['4K']:,} 4K and {pieces['2M']:,} 2M pieces, "
            f"{pieces['zero']:,} zero, {pieces['duplicate']:,} duplicate; {format_size(sizes['wire'])} on the wire",
        ),
        (
            "time",
            f"{format_time(time['total'])} in all: setup {format_time(time['setup'])}, "
            f"downtime {format_time(time['downtime'])}, post-copy {format_time(time['postcopy'])}",
        ),
        ("throughput", f"{result['throughput_bytes_per_s'] / 1e6:,.0f} MB/s"),
        (
            "link",
            f"{_link(scenario['link'])} out, {_link(scenario['return_link'])} back; urgent pieces "
            f"{'on their own connection' if scenario['pull']['preempt'] else 'in the one stream'}",
        ),
        (
            "policies",
            f"push {scenario['push']['order']} in {scenario['push']['piece']}, pull {scenario['pull']['piece']}, "
            f"collapse {scenario['collapse']['policy']}",
        ),
        *_guest_rows(result),
        *_memory_rows(result),
    ]


def _guest_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    scenario, fault, guest = result["scenario"], result["fault"], result["guest"]
    blocktime, rows = result["blocktime_ns"], []
    if scenario["guest"]["vcpus"]:
        rows += [
            (
                "guest",
                f"{scenario['guest']['vcpus']} vCPUs, {scenario['guest']['workload']}: {guest['accesses']:,} accesses, "
                f"{guest['writes']:,} writes; longest silence {format_time(guest['longest_silence_ns'])}",
            ),
            ("faults", _faults(fault)),
            (
                "blocktime",
                f"per vCPU {_each(blocktime['per_vcpu'])}; all vCPUs at once {format_time(blocktime['overlapped'])}",
            ),
        ]
    if result["stall_ns"]["max"]:
        rows.append(
            (
                "stalls by collapse",
                f"per vCPU {_each(result['stall_ns']['per_vcpu'])}; longest {format_time(result['stall_ns']['max'])}",
            )
        )
    return rows


def _memory_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    tables, collapse = result["page_table"], result["collapse"]
    rows = [
        (
            "page table",
            f"{tables['pte']:,} PTE, {tables['pmd']:,} PMD, {tables['pud']:,} PUD entries; "
            f"{format_size(tables['table_bytes'])} of tables, {format_size(tables['table_bytes_max'])} at most",
        ),
        (
            "collapse",
            f"{collapse['calls']:,} calls: {collapse['to_2M']:,} to 2M, {collapse['to_1G']:,} to 1G, "
            f"{collapse['refused']:,} refused",
        ),
    ]
    if result["modelled"]["collapse_ns"]:
        costs = result["scenario"]["costs"]
        rows.append(
            (
                "on a kernel (modelled)",
                f"collapses take {format_time(result['modelled']['collapse_ns'])} and hold a vCPU for up to "
                f"{format_time(result['modelled']['collapse_stall_ns_max'])} "
                f"({costs['mapcount']}, {costs['lock']}, {costs['notifier']})",
            )
        )
    return rows


def _faults(fault: dict[str, Any]) -> str:
    if not fault["count"]:
        return "none"
    shown = ", ".join(
        f"{name} {format_time(fault[key])}"
        for name, key in (
            ("mean", "mean_ns"), ("p50", "p50_ns"), ("p90", "p90_ns"), ("p99", "p99_ns"), ("p99.9", "p999_ns"),
            ("max", "max_ns"),
        )
    )  # fmt: skip
    waiting = f"; {fault['open']} still open" if fault["open"] else ""
    return f"{fault['count']:,} ({fault['requests']:,} requests): {shown}{waiting}"


def _link(link: dict[str, Any]) -> str:
    delay = "" if link["delay"] == "0s" else f" {link['delay']}"
    jitter = "" if link["jitter"] == "0s" else f" +-{link['jitter']}"
    return f"{link['rate']}{delay}{jitter}"


def _each(per_vcpu: Sequence[int]) -> str:
    """The times of the first vCPUs, and how many more there are."""
    shown = ", ".join(format_time(ns) for ns in per_vcpu[:_VCPUS_MAX])
    return f"{shown} ... ({len(per_vcpu)} vCPUs)" if len(per_vcpu) > _VCPUS_MAX else shown

"""The figures of a result: every number in it under its dotted key, and what unit it is in.

Rules of this file
    1. A key is the path into result.json: `fault.p99_ns`, `blocktime_ns.per_vcpu.3`. `scenario` is no figure.
    2. Numbers stay as they are, true and false are 1 and 0, text and null are left out.
    3. `lost_ns.mean` and `.max` are made of others: time that a vCPU was asleep on faults or stalled by collapses
       (`blocktime_ns.per_vcpu` + `stall_ns.per_vcpu`), the mean over all vCPUs, and of the one that lost most.
    4. The unit is in the key, as everywhere in the project: `_ns` in any part of it is a time, `bytes` a size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from migemu.units import US, format_size, format_time
from migemu.values import unknown

#: What a table shows unless it is told what to show: those of these that any result has.
HEADLINES: Final = (
    "lost_ns.mean", "fault.count", "fault.mean_ns", "fault.p50_ns", "fault.p99_ns", "fault.p999_ns", "fault.max_ns",
    "blocktime_ns.overlapped", "guest.longest_silence_ns", "guest.accesses", "time_ns.downtime", "time_ns.postcopy",
    "time_ns.total", "throughput_bytes_per_s", "bytes.wire", "bytes.duplicate", "mapping.to_1G_ns",
    "mapping.access_mean_ns", "page_table.table_bytes_max", "modelled.collapse_ns",
    "modelled.collapse_stall_ns_max",
)  # fmt: skip
#: What a history is made of unless it is told.
HISTORY_METRICS: Final = (
    "lost_ns.mean", "guest.longest_silence_ns", "fault.p50_ns", "fault.p99_ns", "mapping.to_1G_ns",
    "mapping.access_mean_ns", "time_ns.total", "throughput_bytes_per_s",
)  # fmt: skip
#: A share: smaller changes are not told.
CHANGE_MIN: Final = 0.01
#: What people call some of them.
_WORDS: Final = {
    "lost_ns.mean": "Time lost by a vCPU", "guest.longest_silence_ns": "Longest silence",
    "mapping.access_mean_ns": "Cost of an access", "mapping.to_1G_ns": "Time until 90 % is at 1G again",
    "fault.p50_ns": "Median of faults", "fault.p99_ns": "p99 of faults", "fault.p999_ns": "p99.9 of faults",
    "blocktime_ns.overlapped": "All vCPUs asleep at once", "stall_ns.max": "Longest stall by a collapse",
    "time_ns.postcopy": "Time of post-copy", "time_ns.total": "Time in all",
    "page_table.table_bytes_max": "Page tables at most", "throughput_bytes_per_s": "Throughput",
}  # fmt: skip
#: Of all others less is better.
MORE_IS_BETTER: Final = frozenset({"throughput_bytes_per_s", "guest.accesses"})
_EXCLUDED: Final = ("scenario", "schema_version")


def figures(result: Mapping[str, Any]) -> dict[str, int | float]:
    """Dotted key -> number, for all numbers of `result`, and those that are made of them (rule 3)."""
    plain = dict(_flat({key: value for key, value in result.items() if key not in _EXCLUDED}, ""))
    return plain | _lost(result)


def _lost(result: Mapping[str, Any]) -> dict[str, int | float]:
    """Mean and maximum of what a vCPU slept and was stalled, in ns; {} without vCPUs or without these figures."""
    try:
        asleep = list(result["blocktime_ns"]["per_vcpu"])
        stalled = list(result["stall_ns"]["per_vcpu"]) or [0] * len(asleep)
        lost = [one + other for one, other in zip(asleep, stalled, strict=True)]
    except (KeyError, TypeError, ValueError):
        return {}
    return {"lost_ns.mean": round(sum(lost) / len(lost)), "lost_ns.max": max(lost)} if lost else {}


def _flat(value: Any, path: str) -> Iterator[tuple[str, int | float]]:
    if isinstance(value, bool | int):
        yield path, int(value)
    elif isinstance(value, float):
        if math.isfinite(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{number}")


def title(key: str) -> str:
    """What a figure is called in a heading: words, where there are some, and its key."""
    return f"{_WORDS[key]} ({key})" if key in _WORDS else key


def unit(key: str) -> str:
    """The unit of the figure `key`: "time" (ns), "size" (bytes), "rate" (bytes per second) or ""."""
    parts = key.split(".")
    if parts[-1].endswith("bytes_per_s"):
        return "rate"
    if any(part.endswith(("_ns", "_ns_max")) or part == "ns" for part in parts):
        return "time"
    if any(part == "bytes" or part.endswith(("_bytes", "_bytes_max")) for part in parts):
        return "size"
    return ""


def show(key: str, value: float) -> str:
    """The figure as text, with its unit."""
    if not math.isfinite(value):
        return str(value)
    kind = unit(key)
    if kind == "time":
        return format_time(round(value)) if abs(value) >= US or value == round(value) else f"{value:.3g}ns"
    if kind == "size":
        return format_size(round(value))
    if kind == "rate":
        return f"{value / 1e6:,.1f} MB/s"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.3f}"


def unknown_figure(key: str, known: Iterable[str]) -> str:
    """The line that refuses a key that no result has."""
    return unknown("figure", key, known, "the figures are the keys of result.json, as in fault.p99_ns")

"""result.json: everything about one run, with keys that stay.

Units are in the names: `_ns` nanoseconds, `bytes` bytes. `kind` is "measured" for real time and real bytes, "modelled"
for virtual time; the two never share a table. What stands under `modelled` is the cost model's
(`migemu.costs.collapse_cost`, by the schemes under `[costs]`) in either kind: a model of the page table collapses in
no time. The keys are documented in the README; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import attrs

from migemu.errors import ScenarioError
from migemu.guest.blocktime import BlocktimeStatistics
from migemu.mm.pages import Level
from migemu.node.outcome import Certificate, Outcome, ReceiverStatistics, Snapshot
from migemu.scenario.scenario import Scenario, from_mapping
from migemu.store.output import Output, broken_if_refused
from migemu.units import KIB, SECOND
from migemu.wire.states import Stage

SCHEMA_VERSION: Final = 1
NAME: Final = "result.json"
#: Set aside when the run begins, so that a full disk does not cost the result (assumed: 200 vCPUs fit in).
RESERVED_BYTES: Final = 64 * KIB
#: Sections, and settings of others, that are the source's to say.
_OF_SOURCE: Final = {
    "scenario": None, "memory": ("geometry", "size", "image", "zero_share"), "push": None, "device": None, "link": None,
    "pull": ("preempt", "resend", "sender"), "integrity": None,
}  # fmt: skip

#: Keys, and what of the receiver's statistics they show.
_PIECES: Final = {
    "4K": "pieces_4k", "2M": "pieces_2m", "zero": "pages_zero", "duplicate": "pages_duplicate",
}  # fmt: skip
_COLLAPSES: Final = {
    "calls": "collapse_calls", "to_2M": "collapse_to_2m", "to_1G": "collapse_to_1g", "refused": "collapse_refused",
    "failed": "collapse_failed",
}  # fmt: skip


def build(outcome: Outcome, scenario: Scenario, kind: str, status: str, error: str = "") -> dict[str, Any]:
    """The result of a run. `status` is "completed", "failed" or "interrupted"; `error` is the line that was shown."""
    snapshot, times = outcome.snapshot, outcome.snapshot.times
    receiver = snapshot.receiver
    ended = times.finish or snapshot.now_ns
    arriving_ns = times.last_piece - times.run if times.last_piece else 0
    leaves = snapshot.leaves
    blocktime = outcome.blocktime
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "status": status,
        "error": error,
        "lost": [],
        "scenario": resolved(scenario, outcome.source_scenario),
        "whereabouts": outcome.whereabouts.value,
        "verified": outcome.verified,
        "digest": outcome.digest,
        "trace_digest": outcome.trace_digest,
        "pieces": _counts(receiver, _PIECES),
        "bytes": {
            "memory": snapshot.memory_bytes,
            "payload": snapshot.payload_bytes,
            "wire": snapshot.wire_bytes,
            "duplicate": receiver.pages_duplicate * snapshot.geometry.page_bytes,
        },
        "time_ns": {
            "total": ended - times.advise if times.advise else 0,
            "setup": times.ready - times.advise if times.ready else 0,
            "downtime": outcome.downtime_ns,
            "postcopy": ended - times.run if times.run else 0,
        },
        "throughput_bytes_per_s": snapshot.payload_bytes * SECOND // arriving_ns if arriving_ns > 0 else 0,
        "fault": _fault(blocktime, outcome.histogram, receiver.requests),
        "blocktime_ns": {
            "per_vcpu": [vcpu.blocktime_ns for vcpu in blocktime.vcpus],
            "overlapped": blocktime.overlapped_blocktime_ns,
        },
        "stall_ns": {
            "per_vcpu": [vcpu.stalled_ns for vcpu in outcome.stalls.vcpus],
            "max": outcome.stalls.stall_ns_max,
        },
        "guest": {
            "accesses": outcome.reads + outcome.writes,
            "writes": outcome.writes,
            "unchecked": outcome.unchecked,
            "longest_silence_ns": blocktime.silence_ns_max,
        },
        "page_table": {
            "pte": leaves.get(Level.PTE, 0), "pmd": leaves.get(Level.PMD, 0), "pud": leaves.get(Level.PUD, 0),
            "table_bytes": snapshot.table_bytes, "table_bytes_max": snapshot.table_bytes_max,
        },
        "mapping": {
            "to_2M_ns": outcome.mapping.to_2m_ns,
            "to_1G_ns": outcome.mapping.to_1g_ns,
            "access_mean_ns": outcome.mapping.access_mean_ns,
            "access_end_ns": outcome.mapping.access_end_ns,
        },
        "collapse": _counts(receiver, _COLLAPSES),
        "recovery": outcome.recovery._asdict(),
        "integrity": {"corrupt": outcome.corrupt},
        "certificate": _certificate(outcome.certificate),
        "modelled": {
            "collapse_ns": outcome.collapse_ns,
            "collapse_stall_ns_max": outcome.collapse_stall_ns_max,
        },
    }  # fmt: skip


def empty(scenario: Scenario, kind: str) -> dict[str, Any]:
    """The result of a run that nobody can tell anything of: its destination was killed."""
    snapshot = Snapshot(
        0, Stage.SETUP, scenario.geometry, scenario.memory.size, payload_bytes=0, wire_bytes=0
    )  # fmt: skip
    nothing = Outcome(snapshot, False, "", 0, json.dumps(scenario.resolved()), 0)
    return build(nothing, scenario, kind, "failed", "it left no result")


def _counts(receiver: ReceiverStatistics, names: dict[str, str]) -> dict[str, int]:
    return {key: getattr(receiver, name) for key, name in names.items()}


def _certificate(certificate: Certificate | None) -> dict[str, Any]:
    names = ("pages", "digest", "source_digest", "guest_writes", "countersigned")
    return {name: getattr(certificate, name) if certificate else None for name in names}


def _fault(blocktime: BlocktimeStatistics, histogram: dict[int, int], requests: int) -> dict[str, Any]:
    names = ("mean_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns")
    latency = blocktime.latency
    return {
        "count": latency.count if latency else 0,
        "open": len(blocktime.open_faults),
        "requests": requests,
        **{name: getattr(latency, name) if latency else 0 for name in names},
        "log2_us": {str(bound): count for bound, count in histogram.items()},
    }


def resolved(scenario: Scenario, source_scenario: str) -> dict[str, dict[str, Any]]:
    """This side's scenario with what the source said of its own settings; what it said is checked like any scenario."""
    merged = scenario.resolved()
    try:
        theirs = from_mapping(json.loads(source_scenario), "the source's scenario").resolved()
    except (ScenarioError, ValueError, RecursionError, AttributeError):
        return merged
    for section, names in _OF_SOURCE.items():
        for name in (
            names if names is not None else [field.name for field in attrs.fields(type(getattr(scenario, section)))]
        ):
            merged[section][name] = theirs[section][name]
    return merged


def begin(directory: Path, inputs: Iterable[Path] = ()) -> Output:
    """DIR/result.json of a run that begins, with room on the disk. What `Output` raises."""
    return Output(directory / NAME, inputs=inputs, reserve_bytes=RESERVED_BYTES)


def write(result: dict[str, Any], output: Output) -> Path:
    """Write what was begun. InputError and BrokenError when that cannot be done."""
    with output, broken_if_refused(output.path):
        output.write((json.dumps(result, indent=2) + "\n").encode())
    return output.path

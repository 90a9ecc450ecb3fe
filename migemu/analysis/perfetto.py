"""A trace as Chrome's JSON, which Perfetto opens: vCPUs that run and sleep, channels, collapses, faults as flows.

What this models
    One process a node, one thread a track. The guest: a track for each vCPU, with a slice for each stretch that it ran
    and each that it slept; within a sleep, the parts of its latency (`migemu.analysis.attribution`), which fill it. The
    destination: collapses, the pieces that somebody waited for, and counters. The link, where a trace tells of it: a
    track for each channel with a slice for each frame, from its first byte on the wire to its last.

Rules
    1. `ts` and `dur` are microseconds with three decimals, so that nanoseconds are kept; time begins with the trace.
    2. Slices of one track never overlap unless one holds the other: pieces take the lowest lane that is free.
    3. A flow leads from the sleep to the piece that it waited for, where one came during the sleep, and on to the
       stretch in which the vCPU runs again. It bears the number of its fault.
    4. A collapse begins with the first `cleared` and ends with its last `freed`. A modelled one is told all at once,
       when it is over: it began as much earlier as the cost model says; calls told at one time came one by one.
    5. One pass, what is kept does not grow with the trace.

Source
    "Trace Event Format" of the Chromium project: phases M, X, C, i, s, t, f; `bp` "e" binds a flow to the slice around.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from migemu.analysis.attribution import PHASES, Attribution, ResolvedFault
from migemu.costs.operations import Operations
from migemu.mm.pages import Geometry, Level, PageIndex
from migemu.trace.events import Event, Happening
from migemu.units import format_size
from migemu.wire.states import Stage

Entry = dict[str, Any]
#: How long one call takes, in ns (`migemu.costs.collapse_cost.CostModel.duration_ns`).
CollapseNs = Callable[[Operations], int]

_GUEST, _DESTINATION, _LINK = 1, 2, 3
_PROCESSES: Final = {_GUEST: "guest", _DESTINATION: "destination", _LINK: "link"}
_COLLAPSES, _STAGES, _LANES = 1, 2, 10
_CHANNELS: Final = {"main": 1, "preempt": 2, "return": 3}
_COUNT_EVERY_NS: Final = 1_000_000


class _Lanes:
    """Parallel tracks for slices that may overlap in time."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: list[int] = []

    def place(self, began: int, ended: int) -> int:
        """The number of the lowest track that is free from `began` to `ended` (in ns)."""
        for lane, end in enumerate(self._ends):
            if end <= began:
                self._ends[lane] = ended
                return lane
        self._ends.append(ended)
        return len(self._ends) - 1


class _Arrival(NamedTuple):
    """A piece that arrived for a waiting fault and is not mapped yet."""

    t: int
    pages: int
    waiting: list[PageIndex]


class Perfetto:
    """Turns the events of a trace into entries of Chrome's `traceEvents`."""

    def __init__(self, geometry: Geometry, pages: int, collapse_ns: CollapseNs | None = None) -> None:
        """`collapse_ns` computes how long a call takes that a trace reports at one time; None: it takes no time."""
        self._geometry = geometry
        self._collapse_ns = collapse_ns
        self._attribution = Attribution(geometry, pages)
        self._zero: int | None = None
        self._last = 0
        self._named: set[tuple[int, int]] = set()
        self._run_t: int | None = None
        self._runs_since: dict[int, int] = {}
        self._asleep: dict[int, Event] = {}
        self._faults = 0
        self._pieces = _Lanes()
        self._channels: dict[str, _Lanes] = {}
        self._arrived: dict[PageIndex, _Arrival] = {}
        self._piece: dict[PageIndex, tuple[int, int]] = {}  # page waited for -> (lane, received)
        self._collapse: list[Event] = []
        self._calls: list[list[Event]] = []  # those that ended at one time
        self._received_bytes = 0
        self._counted_t: int | None = None

    def entries(self, events: Iterable[Event]) -> Iterator[Entry]:
        """The entries of all events; a slice is yielded when it ends."""
        for event in events:
            if self._zero is None:
                self._zero = event.t
            self._last = event.t
            resolved = self._attribution.take(event)
            if resolved is not None:
                yield from self._woken(resolved)
            elif event.event in _HANDLERS:
                yield from _HANDLERS[event.event](self, event)
        yield from self._close()

    # --- the guest ---

    def _faulted(self, event: Event) -> Iterator[Entry]:
        assert event.vcpu is not None
        since = self._runs_since.pop(event.vcpu, self._run_t)
        if since is not None:
            yield from self._ran(event.vcpu, since, event.t)
        self._asleep[event.vcpu] = event
        yield self._counter(_GUEST, "vCPUs asleep", event.t, {"asleep": len(self._asleep)})

    def _woken(self, fault: ResolvedFault) -> Iterator[Entry]:
        self._faults += 1
        self._asleep.pop(fault.vcpu, None)
        self._runs_since[fault.vcpu] = fault.ended
        yield from self._vcpu(fault.vcpu)
        args = {"page": fault.page, "cause": fault.cause.value, "fault": self._faults}
        tid = fault.vcpu + 1
        yield self._slice(_GUEST, tid, "asleep", fault.began, fault.ended, args)
        at = fault.began
        for phase, length in zip(PHASES, fault.phases, strict=True):
            if length:
                yield self._slice(_GUEST, tid, phase, at, at + length, {})
            at += length
        flow = {"cat": "fault", "name": "fault", "id": self._faults}
        yield {"ph": "s", "pid": _GUEST, "tid": tid, "ts": self._us(fault.began), **flow}
        lane, received = self._piece.get(fault.page, (0, -1))
        if fault.began <= received <= fault.ended:
            yield {"ph": "t", "pid": _DESTINATION, "tid": lane + _LANES, "ts": self._us(received), "bp": "e", **flow}
        yield {"ph": "f", "pid": _GUEST, "tid": tid, "ts": self._us(fault.ended), "bp": "e", **flow}
        if all(each.first != fault.page for each in self._asleep.values()):
            self._piece.pop(fault.page, None)
        yield self._counter(_GUEST, "vCPUs asleep", fault.ended, {"asleep": len(self._asleep)})

    def _killed(self, event: Event) -> Iterator[Entry]:
        assert event.vcpu is not None
        fault = self._asleep.pop(event.vcpu, None)
        yield from self._vcpu(event.vcpu)
        began = event.t if fault is None else fault.t
        yield self._slice(_GUEST, event.vcpu + 1, f"killed by {event.detail}", began, event.t, {"page": event.first})

    def _ran(self, vcpu: int, since: int, until: int) -> Iterator[Entry]:
        yield from self._vcpu(vcpu)
        yield self._slice(_GUEST, vcpu + 1, "running", since, until, {})

    def _vcpu(self, vcpu: int) -> Iterator[Entry]:
        yield from self._name(_GUEST, vcpu + 1, f"vCPU {vcpu}")

    # --- the destination ---

    def _received(self, event: Event) -> Iterator[Entry]:
        """A slice for pieces that a fault waits for; all pieces add to the counters of bytes."""
        first, count = event.first or 0, event.count or 0
        if event.detail != "zero":
            self._received_bytes += count * self._geometry.page_bytes
        if self._counted_t is None or event.t - self._counted_t >= _COUNT_EVERY_NS:
            self._counted_t = event.t
            yield self._counter(_DESTINATION, "received bytes", event.t, {"bytes": self._received_bytes})
        waiting = [each.first for each in self._asleep.values() if first <= (each.first or 0) < first + count]
        if waiting:
            self._arrived[first] = _Arrival(event.t, count, [page for page in waiting if page is not None])

    def _continued(self, event: Event) -> Iterator[Entry]:
        first, count = event.first or 0, event.count or 0
        for page in [page for page in self._arrived if first <= page < first + count]:
            yield from self._installed(page, event.t)

    def _installed(self, first: PageIndex, t: int) -> Iterator[Entry]:
        arrival = self._arrived.pop(first)
        lane = self._pieces.place(arrival.t, t)
        for page in arrival.waiting:
            self._piece[page] = (lane, arrival.t)
        yield from self._name(_DESTINATION, lane + _LANES, f"pieces waited for, lane {lane}")
        args = {"page": first, "pages": arrival.pages}
        yield self._slice(_DESTINATION, lane + _LANES, "piece", arrival.t, t, args)

    def _step(self, event: Event) -> Iterator[Entry]:
        """Take a step of a collapse or a zap; a call to which it does not belong has ended."""
        if self._collapse and not self._goes_on(event):
            yield from self._collapsed()
        self._collapse.append(event)

    def _goes_on(self, event: Event) -> bool:
        """Whether the step belongs to the open call: first all clears, then all installs, then the rest (rule 4)."""
        before = {each.event for each in self._collapse}
        if event.event is Happening.CLEARED:
            return before == {Happening.CLEARED}
        if event.event is Happening.COLLAPSED:
            return Happening.CLEARED in before and not before & {Happening.FLUSHED, Happening.FREED}
        return True

    def _collapsed(self) -> Iterator[Entry]:
        collapse, self._collapse = self._collapse, []
        if not any(each.event is Happening.COLLAPSED for each in collapse):
            return  # entries that a zap cleared, or nothing
        if self._calls and self._calls[-1][-1].t != collapse[0].t:
            yield from self._called()
        self._calls.append(collapse)

    def _called(self) -> Iterator[Entry]:
        """When each of the calls reported at one time began and ended: one by one, the last ends now (rule 4)."""
        calls, self._calls = self._calls, []
        began: int | None = None
        for steps in reversed(calls):
            ended = steps[-1].t if began is None else min(began, steps[-1].t)
            took_ns = self._collapse_ns(_operations(steps)) if self._collapse_ns is not None else 0
            began = max(self._zero or 0, min(steps[0].t, ended - took_ns))
            made = [each for each in steps if each.event is Happening.COLLAPSED]
            name = f"collapse to {format_size(self._geometry.size(made[-1].level or self._geometry.largest))}"
            args = {"page": made[0].first, "entries": len(made), "began with": steps[0].event.value}
            yield from self._name(_DESTINATION, _COLLAPSES, "collapses")
            yield self._slice(_DESTINATION, _COLLAPSES, name, began, ended, args)

    def _state(self, event: Event) -> Iterator[Entry]:
        if event.node != "destination":
            return
        if event.detail == Stage.RUNNING.value:
            self._run_t = event.t
        yield from self._name(_DESTINATION, _STAGES, "stages")
        where = {"pid": _DESTINATION, "tid": _STAGES, "ts": self._us(event.t)}
        yield {"ph": "i", "s": "p", **where, "name": event.detail or ""}

    # --- the link ---

    def _carried(self, event: Event) -> Iterator[Entry]:
        assert event.wire is not None
        channel, wire = event.detail or "", event.wire
        lane = self._channels.setdefault(channel, _Lanes()).place(wire.started, wire.departed)
        tid = _CHANNELS.get(channel, len(_CHANNELS) + 1) * _LANES + lane
        yield from self._name(_LINK, tid, f"{channel}, lane {lane}" if lane else channel)
        args = {
            "page": event.first, "pages": event.count, "bytes": wire.frame_bytes,
            "waited_ns": wire.started - wire.enqueued, "propagated_ns": event.t - wire.departed,
        }  # fmt: skip
        yield self._slice(_LINK, tid, "request" if channel == "return" else "frame", wire.started, wire.departed, args)

    def _close(self) -> Iterator[Entry]:
        yield from self._collapsed()
        yield from self._called()
        for page in list(self._arrived):
            yield from self._installed(page, self._last)
        for vcpu, since in self._runs_since.items():
            yield from self._ran(vcpu, since, self._last)
        for vcpu, fault in self._asleep.items():
            yield from self._vcpu(vcpu)
            yield self._slice(_GUEST, vcpu + 1, "asleep for good", fault.t, self._last, {"page": fault.first})
        yield self._counter(_DESTINATION, "received bytes", self._last, {"bytes": self._received_bytes})

    # --- entries ---

    def _slice(self, pid: int, tid: int, name: str, began: int, ended: int, args: Entry) -> Entry:
        dur = max(0, ended - began) / 1000
        return {
            "ph": "X", "pid": pid, "tid": tid, "name": name, "ts": self._us(began), "dur": dur, "args": args,
        }  # fmt: skip

    def _counter(self, pid: int, name: str, t: int, args: Entry) -> Entry:
        return {"ph": "C", "pid": pid, "tid": 0, "name": name, "ts": self._us(t), "args": args}

    def _name(self, pid: int, tid: int, name: str) -> Iterator[Entry]:
        """The entry that names a track; yielded once, before the first entry of the track."""
        if (pid, 0) not in self._named:
            self._named.add((pid, 0))
            yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": _PROCESSES[pid]}}
        if (pid, tid) not in self._named:
            self._named.add((pid, tid))
            yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}
            yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}

    def _us(self, t: int) -> float:
        """Microseconds since the start of the trace. A float is exact to the nanosecond for 104 days."""
        return (t - (self._zero or 0)) / 1000


_HANDLERS: Final = {
    Happening.FAULTED: Perfetto._faulted,
    Happening.KILLED: Perfetto._killed,
    Happening.RECEIVED: Perfetto._received,
    Happening.CONTINUED: Perfetto._continued,
    Happening.CLEARED: Perfetto._step,
    Happening.COLLAPSED: Perfetto._step,
    Happening.FLUSHED: Perfetto._step,
    Happening.FREED: Perfetto._step,
    Happening.CARRIED: Perfetto._carried,
    Happening.STATE: Perfetto._state,
}


def _operations(steps: Iterable[Event]) -> Operations:
    """The steps of one call as counts, for the cost model."""
    cleared, installed = Counter[Level](), Counter[Level]()
    flushes = freed = 0
    for step in steps:
        if step.event is Happening.CLEARED and step.level is not None:
            cleared[step.level] += step.count or 0
        elif step.event is Happening.COLLAPSED and step.level is not None:
            installed[step.level] += 1
        elif step.event is Happening.FREED:
            freed += step.count or 0
        else:
            flushes += 1
    return Operations(dict(cleared), dict(installed), freed, flushes, 1)


def perfetto_lines(
    events: Iterable[Event], geometry: Geometry, pages: int, kind: str, collapse_ns: CollapseNs | None = None
) -> Iterator[str]:  # fmt: skip
    """The lines of the JSON file; `kind` is written to its `otherData`. `collapse_ns` as in `Perfetto`."""
    yield (
        '{"displayTimeUnit":"ns","otherData":'
        + json.dumps({"schema": "migemu-trace", "kind": kind})
        + ',"traceEvents":[\n'
    )
    before = ""
    for entry in Perfetto(geometry, pages, collapse_ns).entries(events):
        yield before + json.dumps(entry, separators=(",", ":"))
        before = ",\n"
    yield "\n]}\n"

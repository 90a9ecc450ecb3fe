"""Makes the index of a trace: one pass over its events, from a file that is whole or from one that still grows.

Rules
    1. A trace that is damaged, or does not fit its memory, is shown up to there; `problem` says where.
    2. What is kept in memory does not grow with events: a byte a base page, 16 bytes a fault, the chunk that is being
       filled.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from migemu.analysis.attribution import Attribution
from migemu.analysis.collapse_calls import CollapseCall, CollapseCalls
from migemu.analysis.series import Bins, Thinned
from migemu.costs.collapse_cost import CostModel
from migemu.errors import InputError
from migemu.mm.pages import Geometry
from migemu.trace.events import Event, Happening
from migemu.trace.reading import read_trace
from migemu.view.event_columns import EVENT_FIELDS, FAULT_FIELDS, Row, event_row, fault_row, part_row, to_columns
from migemu.view.page_states import NOTHING, PageStates
from migemu.view.trace_index import BlobFile, IndexChunk, TraceIndex, chunk_records
from migemu.wire.states import Stage

PUSHED, URGENT, DUPLICATE = range(3)
_PERCENTILES: Final = (50, 99)


class IndexBuilder:
    """Takes every event, in order, and fills `index`."""

    def __init__(
        self, geometry: Geometry, pages: int, kind: str, blobs: BlobFile, costs: CostModel | None = None,
        records_max: int = 0,
    ) -> None:  # fmt: skip
        """`costs` tell how long modelled collapses took; `records_max` of a chunk is chosen if it is 0."""
        self.index = TraceIndex(geometry, pages, kind, blobs)
        self._states = PageStates(geometry, pages)
        self._attribution = Attribution(geometry, pages)
        self._collapses = CollapseCalls(geometry, costs)
        self._records_max = records_max or chunk_records(pages)
        self._rows: list[Row] = []
        self._fault_rows: list[tuple[float, ...]] = []
        self._asleep: dict[int, tuple[int, int]] = {}
        self._received = Bins(3)
        self._shares: Thinned[list[int]] = Thinned()
        self._fault_ended, self._fault_latency = array("q"), array("q")
        self._lines = (0, -1)  # byte offset of a line of the trace, and the number of its event

    def take(self, events: Sequence[Event], end_offset: int) -> None:
        """The next events, whose lines end at byte `end_offset` of the trace. ValueError: one outside the memory."""
        with self.index.lock:
            try:
                for event in events:
                    self._take(event)
            finally:
                self._lines = (end_offset, self.index.events)

    def show_open(self) -> None:
        """Let the chunk that is being filled be read as far as it is: for a run that is watched."""
        with self.index.lock:
            self._update_chunk()
            self.index.open_events = to_columns(self._rows, EVENT_FIELDS)
            self.index.open_faults = to_columns(self._fault_rows, FAULT_FIELDS)
            self.index.overview = self._overview()

    def close(self) -> None:
        """The trace has ended."""
        with self.index.lock:
            for call in self._collapses.close():
                self._collapsed(call)
            self._shares.add(self.index.last, list(self._states.counts))
            self._cut()
            self.index.overview = self._overview()
            self.index.ended = True

    def _take(self, event: Event) -> None:
        index = self.index
        if not index.events:
            index.first = event.t
        if not index.chunks or len(self._rows) >= self._records_max:
            self._cut()
            self._begin_chunk(event.t)
        changes = self._states.take(event)
        about = (event.first is not None) if event.count is None else event.count
        if len(changes) == 1 and changes[0][1] == event.first and changes[0][2] >= about:
            self._rows.append(event_row(event, changes[0][0], changes[0][2]))
        else:
            self._rows.append(event_row(event, NOTHING, about))
            self._rows += [part_row(event.t, *change) for change in changes]
        index.events += 1
        index.last = event.t
        self._reduce(event)

    def _reduce(self, event: Event) -> None:
        """What is told over time."""
        index, happening = self.index, event.event
        if event.vcpu is not None:
            self._guest(event, event.vcpu)
        if (fault := self._attribution.take(event)) is not None:
            self._fault_rows.append(fault_row(index.faults, fault))
            self._fault_ended.append(fault.ended)
            self._fault_latency.append(fault.latency_ns)
            index.faults += 1
        for call in self._collapses.take(event):
            self._collapsed(call)
        if happening is Happening.RECEIVED or happening is Happening.DROPPED:
            quantity = DUPLICATE if happening is Happening.DROPPED else URGENT if event.urgent else PUSHED
            if event.detail != "zero":
                self._received.add(event.t, quantity, (event.count or 0) * index.geometry.page_bytes)
            self._shares.add(event.t, list(self._states.counts))
        elif happening is Happening.COLLAPSED:
            self._shares.add(event.t, list(self._states.counts))
        elif happening is Happening.STATE or happening is Happening.LOST:
            self._mark(event)

    def _guest(self, event: Event, vcpu: int) -> None:
        self.index.vcpus = max(self.index.vcpus, vcpu + 1)
        if event.event is Happening.FAULTED:
            self._asleep[vcpu] = (event.first or 0, event.t)
        elif event.event is Happening.WOKEN or event.event is Happening.KILLED:
            self._asleep.pop(vcpu, None)

    def _collapsed(self, call: CollapseCall) -> None:
        self.index.collapses.append((call.began, call.ended, call.first, call.pages, int(call.level)))
        self.index.stalls += [(each.began, each.ended, each.vcpu) for each in self._collapses.held()]

    def _mark(self, event: Event) -> None:
        index, detail = self.index, event.detail or ""
        if event.event is Happening.LOST:
            index.marks.append((event.t, f"{event.node} lost {detail}"))
        elif event.node == "destination":
            index.marks.append((event.t, detail))
            if detail == Stage.RUNNING.value and index.zero is None:
                index.zero = event.t

    def _begin_chunk(self, t: int) -> None:
        index = self.index
        asleep = tuple((vcpu, page, since) for vcpu, (page, since) in sorted(self._asleep.items()))
        state = index.blobs.append(bytes(self._states.states))
        counts = tuple(self._states.counts)
        index.chunks.append(IndexChunk(index.events, *self._lines, t, counts, asleep, state, index.faults, ended=t))

    def _update_chunk(self) -> None:
        """The last chunk says how far it has come."""
        index = self.index
        if index.chunks and self._rows:
            chunk = index.chunks[-1]
            index.chunks[-1] = replace(
                chunk, records=len(self._rows), events=index.events - chunk.event, ended=int(self._rows[-1][0]),
                faults=index.faults - chunk.fault,
            )  # fmt: skip

    def _cut(self) -> None:
        """The chunk is complete."""
        index = self.index
        if not self._rows:
            return
        self._update_chunk()
        index.chunks[-1] = replace(
            index.chunks[-1],
            stored_events=index.blobs.append(to_columns(self._rows, EVENT_FIELDS)),
            stored_faults=index.blobs.append(to_columns(self._fault_rows, FAULT_FIELDS)),
        )
        self._rows, self._fault_rows = [], []
        index.open_events = index.open_faults = b""

    def _overview(self) -> dict[str, object]:
        """Series for the bar of time: bytes that came, shares of states, latencies; bins of one width."""
        rows = self._received.rows(max(self._received.step_ns, self._shares.step_ns))
        step_ns = rows[1][0] - rows[0][0] if len(rows) > 1 else self._received.step_ns
        return {
            "step_ns": step_ns,
            "received": [[t, *sums] for t, sums in rows],
            "shares": [[t, *counts] for t, counts in self._shares.rows()],
            "latency": self._latency(step_ns),
        }

    def _latency(self, step_ns: int) -> list[list[float]]:
        """[t, faults, p50, p99 ...] of each bin in which faults ended."""
        ended, latency = np.array(self._fault_ended, dtype=np.int64), np.array(self._fault_latency, dtype=np.int64)
        places = ended // step_ns
        order = np.lexsort((latency, places))
        places, latency = places[order], latency[order]
        bins, begins, counts = np.unique(places, return_index=True, return_counts=True)
        rows: list[list[float]] = []
        for place, begin, count in zip(bins.tolist(), begins.tolist(), counts.tolist(), strict=True):
            ranks = [int(latency[begin + max(0, -(-count * share // 100) - 1)]) for share in _PERCENTILES]
            rows.append([place * step_ns, count, *ranks])
        return rows


def build_index(
    trace: Path, costs: CostModel | None = None, progress: Callable[[int], None] = lambda _: None,
    records_max: int = 0,
) -> TraceIndex:  # fmt: skip
    """The index of the trace at `trace`, not saved yet. InputError when it is none, or is damaged from the start.

    `progress` is told now and then how many bytes have been read.
    """
    read_bytes = 0

    def read(done: int) -> None:
        nonlocal read_bytes
        read_bytes = done
        progress(done)

    with read_trace(trace, read) as opened:
        modelled = costs if opened.kind == "modelled" else None
        blobs = BlobFile.temporary(trace.parent)
        builder = IndexBuilder(opened.geometry, opened.pages, opened.kind, blobs, modelled, records_max)
        try:
            fill(builder, opened.events(), lambda: read_bytes)
        except (InputError, ValueError) as error:
            builder.index.problem = str(error)
        except BaseException:
            blobs.close()
            raise
        builder.close()
        builder.index.digest = opened.digest
    return builder.index


def fill(builder: IndexBuilder, blocks: Iterable[Sequence[Event]], offset: Callable[[], int]) -> None:
    """Hand every block to the builder; `offset` says at which byte of the trace the last one ended."""
    for block in blocks:
        builder.take(block, offset())

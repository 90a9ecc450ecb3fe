"""What a trace tells, gathered in one pass: everything that is drawn over time, in series of bounded length.

Rules
    1. The file is streamed; what is kept grows with faults (some 90 bytes each) and with memory (2 bytes a base page),
       not with events.
    2. A trace that is damaged, or does not fit its memory, tells what it tells up to there; `problem` says where.
    3. Time 0 is the start of the guest at the destination: its `state` "run", or the first event where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from migemu.analysis.attribution import Attribution
from migemu.analysis.fault_table import FaultTable
from migemu.analysis.mapping import CHANGES, MappingAt, MappingOverTime
from migemu.analysis.piece_map import PieceMap, PieceMaps, spread
from migemu.analysis.series import Bins, Thinned
from migemu.costs.access import UNIFORM, Pattern
from migemu.errors import InputError
from migemu.mm.pages import Geometry
from migemu.trace.events import Event, Happening
from migemu.trace.reading import Trace, read_trace
from migemu.wire.states import Stage

MAPS_MAX: Final = 4
#: Quantities of `TraceFigures.received`, in bytes.
PUSHED, URGENT, DUPLICATE = range(3)


class Mark(NamedTuple):
    """A moment that figures show as a line: a stage begins, or a connection is lost."""

    t: int
    words: str


class TraceFigures:
    """Everything that a report draws of a trace. Call `take` for every event, then `close`, then read."""

    def __init__(
        self, geometry: Geometry, pages: int, pattern: Pattern = UNIFORM, hugepages: Sequence[int] | None = None,
        maps_max: int = MAPS_MAX,
    ) -> None:  # fmt: skip
        """`hugepages` are the hugetlb pages whose pieces are mapped; None chooses at most `maps_max`."""
        self.geometry = geometry
        self.pages = pages
        self.kind = ""
        self.problem = self.digest = ""
        self.events = 0
        self.began: int | None = None
        self.ended = 0
        self.faults = FaultTable()
        self.attribution = Attribution(geometry, pages)
        self.mapping: Thinned[MappingAt] = Thinned()
        #: Bytes received, by `PUSHED`, `URGENT`, `DUPLICATE`.
        self.received = Bins(3)
        #: Entries made by collapses, by level.
        self.collapses = {level: Bins(1) for level in geometry.levels[1:]}
        self.marks: list[Mark] = []
        total = pages // geometry.largest_pages
        chosen = spread(total, maps_max) if hugepages is None else [each for each in hugepages if 0 <= each < total]
        self._maps = PieceMaps(geometry, chosen)
        self._over_time = MappingOverTime(geometry, pages, pattern=pattern)
        self._changed_t: int | None = None
        self._first: int | None = None

    @property
    def maps(self) -> list[PieceMap]:
        """The maps of the chosen hugetlb pages."""
        return list(self._maps.maps.values())

    @property
    def zero(self) -> int:
        """Time 0 of all figures, in ns of the trace (rule 3)."""
        return self.began if self.began is not None else self._first or 0

    def take(self, event: Event) -> None:
        """Take the next event. ValueError when it is outside the memory."""
        self.events += 1
        self.ended = event.t
        if self._first is None:
            self._first = event.t
        if (resolved := self.attribution.take(event)) is not None:
            self.faults.add(resolved)
        happening = event.event
        if happening in CHANGES:
            self._change(event)
        elif happening is Happening.RECEIVED or happening is Happening.DROPPED:
            self._maps.take(event)
            self._count(event)
        elif happening is Happening.STATE or happening is Happening.LOST:
            self._mark(event)

    def close(self) -> None:
        """The trace has ended: add the last mapping to the series."""
        if self._changed_t is not None:
            self.mapping.add(self._changed_t, self._over_time.at(self._changed_t))
            self.mapping.add(self.ended, self._over_time.at(self.ended))

    def _change(self, event: Event) -> None:
        """Add the mapping once per step of time in which it changes, as it is at the end of that step."""
        changed, step_ns = self._changed_t, self.mapping.step_ns
        if changed is not None and changed // step_ns != event.t // step_ns:
            self.mapping.add(changed, self._over_time.at(changed))
        if self._over_time.take(event):
            self._changed_t = event.t
            if event.event is Happening.COLLAPSED and event.level in self.collapses:
                self.collapses[event.level].add(event.t, 0, 1)

    def _count(self, event: Event) -> None:
        if event.detail == "zero":
            return
        quantity = DUPLICATE if event.event is Happening.DROPPED else URGENT if event.urgent else PUSHED
        self.received.add(event.t, quantity, (event.count or 0) * self.geometry.page_bytes)

    def _mark(self, event: Event) -> None:
        detail = event.detail or ""
        if event.event is Happening.LOST:
            self.marks.append(Mark(event.t, f"{event.node} lost {detail}"))
        elif event.node == "destination":
            self.marks.append(Mark(event.t, detail))
            if detail == Stage.RUNNING.value and self.began is None:
                self.began = event.t


def read_trace_figures(
    path: Path, pattern: Pattern = UNIFORM, hugepages: Sequence[int] | None = None, maps_max: int = MAPS_MAX,
    progress: Callable[[int], None] = lambda _: None,
) -> TraceFigures:  # fmt: skip
    """Read the trace at `path`; `problem` says if it is damaged later on. InputError when it is no trace."""
    with read_trace(path, progress) as trace:
        figures = TraceFigures(trace.geometry, trace.pages, pattern, hugepages, maps_max)
        figures.kind = trace.kind
        try:
            for event in _events(trace):
                figures.take(event)
        except (InputError, ValueError) as error:
            figures.problem = str(error)
        figures.digest = trace.digest
    figures.close()
    return figures


def _events(trace: Trace) -> Iterable[Event]:
    for block in trace.events():
        yield from block

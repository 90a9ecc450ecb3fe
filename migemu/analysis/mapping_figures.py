"""What a migration lost and regained of large mappings: when most of the memory was back, and what accesses cost.

Rules
    1. Time 0 is the start of the guest at the destination: its `state` "run".
    2. Regained at a level is memory that one entry of that level, or a larger one, maps; the figure is the time until
       `SHARE` of the memory is. None: it never was.
    3. The cost of an access is that of `migemu.costs.access`, for the guest's workload, over what is mapped (faults are
       told elsewhere). Its mean is over time, from the guest's start to the last change.
    4. A look costs more than an event. So there is one every `STEP_NS` at most, and of a run that goes on for longer
       than `STEPS` of these, every 1/`STEPS` of its time so far: that is how exact all times here are.
"""

from __future__ import annotations

from typing import Final, get_args

from migemu.analysis.mapping import CHANGES, MappingOverTime
from migemu.costs.access import UNIFORM, AccessModel, Pattern, WorkloadName
from migemu.guest.workload import workloads
from migemu.mm.pages import Geometry, Level
from migemu.node.outcome import MappingFigures
from migemu.trace.events import Event, Happening
from migemu.units import MS
from migemu.wire.states import Stage

SHARE: Final = 0.9
STEP_NS: Final = 1 * MS
STEPS: Final = 1000
_LEVELS: Final = (Level.PMD, Level.PUD)
_RUN: Final = Stage.RUNNING.value
_COMPLETED: Final = Stage.COMPLETED.value


def pattern_of(workload: str) -> Pattern:
    """The access pattern of a `guest.workload` for the cost model; uniform for a workload that it does not know."""
    try:
        entry, settings = workloads.parse(workload)
    except (ValueError, TypeError):
        return UNIFORM
    if entry.name not in get_args(WorkloadName):
        return UNIFORM
    fields = {name: value for name, value in settings.items() if name in ("exponent", "scatter", "stride")}
    return Pattern(entry.name, **fields)  # type: ignore[arg-type]  # one of the names, as was just looked up


class MappingTracer:
    """ports.Tracer that computes `MappingFigures` from the events that pass through it to `behind`."""

    __slots__ = (
        "_at",
        "_began_ns",
        "_cost_ns",
        "_mapping",
        "_needed_bytes",
        "_next_ns",
        "_spent",
        "_started_ns",
        "_times",
    )

    def __init__(self, geometry: Geometry, pages: int, pattern: Pattern) -> None:
        self._mapping = MappingOverTime(geometry, pages, AccessModel(geometry=geometry), pattern)
        self._needed_bytes = SHARE * pages * geometry.page_bytes
        self._times: dict[Level, int] = {}
        self._started_ns: int | None = None
        self._began_ns = 0  # the first look that had a cost
        self._next_ns = STEP_NS  # before then there is no look
        self._at = 0  # the last look, and the cost found then
        self._cost_ns: float | None = None
        self._spent = 0.0  # cost x time up to there

    def emit(self, event: Event) -> None:
        """Take the next event and hand it on."""
        happening = event.event
        if happening in CHANGES:
            if self._mapping.take(event) and event.t >= self._next_ns:
                self._look(event.t)
        elif happening is Happening.STATE and event.detail in (_RUN, _COMPLETED) and event.node == "destination":
            if event.detail == _RUN:
                self._started_ns = event.t
            self._look(event.t)

    def _look(self, t: int) -> None:
        if self._cost_ns is not None:
            self._spent += self._cost_ns * (t - self._at)
        now = self._mapping.at(t)
        if self._cost_ns is None and now.access_ns is not None:
            self._began_ns = t
        self._at, self._cost_ns = t, now.access_ns
        lasted_ns = 0 if self._started_ns is None else t - self._started_ns
        self._next_ns = t + max(STEP_NS, lasted_ns // STEPS)
        for level in _LEVELS:
            large = sum(mapped for each, mapped in now.mapped_bytes.items() if each >= level)
            if large >= self._needed_bytes and self._started_ns is not None:
                self._times.setdefault(level, t - self._started_ns)

    def figures(self) -> MappingFigures:
        """The figures of the events so far; those that are not known, as when nothing was ever mapped, are None."""
        if self._cost_ns is None:
            return MappingFigures()
        lasted_ns = self._at - self._began_ns
        mean = self._spent / lasted_ns if lasted_ns else self._cost_ns
        return MappingFigures(self._times.get(Level.PMD), self._times.get(Level.PUD), mean, self._cost_ns)

    def __repr__(self) -> str:
        return f"<MappingTracer {self.figures()}>"

"""The collapses of a trace, call by call: from when to when each took, what it did, and whom it held up.

What this models
    MADV_COLLAPSE as the events of its steps tell it: `cleared`*, `collapsed`, `flushed`, `freed` (SEMANTICS 2.3).
    Pure: a reducer over the events of a trace, measured or modelled.

Rules
    1. A call begins with the first `cleared` and ends with its last `freed`: all that is cleared, then all that is
       installed, then the rest. What clears and installs nothing is a zap, no collapse.
    2. A modelled call is told all at once, when it is over: it began as much earlier as the cost model says. Calls that
       are told at one time came one by one: the last one ended then, each one before it when the next began.
    3. A vCPU that a call held up goes on at the very moment at which the model lets go of the lock, or ends the
       notifier window. One that faults or writes exactly then was held; at the earliest since the call began, and not
       before whatever it did last.

Simplified
    Rule 3 finds no stall after which the vCPU only read, as reads are not in traces; so it finds fewer than there were.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from migemu.costs.collapse_cost import CostModel
from migemu.costs.operations import Operations
from migemu.mm.pages import Geometry, Level, PageIndex
from migemu.trace.events import Event, Happening

_STEPS: Final = (Happening.CLEARED, Happening.COLLAPSED, Happening.FLUSHED, Happening.FREED)
_SIGNS: Final = (Happening.FAULTED, Happening.WOKEN, Happening.WRITTEN)
#: Signs of life of vCPUs that are kept for rule 3.
_SIGNS_MAX: Final = 4096


class CollapseCall(NamedTuple):
    """One call: `pages` base pages from `first` on, which it maps by leaves of `level`; times in ns of the trace."""

    began: int
    ended: int
    first: PageIndex
    pages: int
    level: Level
    entries: int


class HeldVcpu(NamedTuple):
    """A vCPU that a collapse held up until `ended`, at the longest since `began` (rule 3)."""

    vcpu: int
    began: int
    ended: int


class CollapseCalls:
    """Gathers calls; each is handed out once the next event shows that it is complete."""

    __slots__ = ("_costs", "_geometry", "_held", "_last_t", "_reported", "_signs", "_steps", "_zero")

    def __init__(self, geometry: Geometry, costs: CostModel | None = None) -> None:
        """`costs` says how long a call takes that is told at one time; without it such a call is a moment."""
        self._geometry = geometry
        self._costs = costs
        self._steps: list[Event] = []
        self._reported: list[list[Event]] = []  # calls that were told at one time
        self._zero: int | None = None
        self._signs: deque[tuple[int, int, int]] = deque(maxlen=_SIGNS_MAX)  # (t, vCPU, its sign before)
        self._last_t: dict[int, int] = {}
        self._held: list[HeldVcpu] = []

    def take(self, event: Event) -> list[CollapseCall]:
        """The next event of the trace; the calls that it shows to be complete."""
        if self._zero is None:
            self._zero = event.t
        done: list[CollapseCall] = []
        if self._reported and event.t != self._reported[-1][-1].t:
            done = list(self._timed())
        if event.event in _STEPS:
            if self._steps and not self._goes_on(event):
                self._complete()
            self._steps.append(event)
        elif self._steps and event.t != self._steps[-1].t:
            self._complete()
            done += self._timed()
        if event.vcpu is not None and event.event in _SIGNS and self._costs is not None:
            self._signs.append((event.t, event.vcpu, self._last_t.get(event.vcpu, self._zero)))
            self._last_t[event.vcpu] = event.t
        return done

    def held(self) -> list[HeldVcpu]:
        """The vCPUs that were held up by calls since this was last asked."""
        held, self._held = self._held, []
        return held

    def close(self) -> list[CollapseCall]:
        """The trace has ended."""
        self._complete()
        return list(self._timed())

    def _goes_on(self, event: Event) -> bool:
        before = {each.event for each in self._steps}
        if event.event is Happening.CLEARED:
            return before == {Happening.CLEARED}
        if event.event is Happening.COLLAPSED:
            return Happening.CLEARED in before and not before & {Happening.FLUSHED, Happening.FREED}
        return True

    def _complete(self) -> None:
        steps, self._steps = self._steps, []
        if any(each.event is Happening.COLLAPSED for each in steps):
            self._reported.append(steps)

    def _timed(self) -> Iterator[CollapseCall]:
        """Rule 2."""
        reported, self._reported = self._reported, []
        calls: list[CollapseCall] = []
        began: int | None = None
        for steps in reversed(reported):
            ended = steps[-1].t if began is None else min(began, steps[-1].t)
            operations = operations_of(steps)
            took_ns = self._costs.duration_ns(operations) if self._costs is not None else 0
            began = max(self._zero or 0, min(steps[0].t, ended - took_ns))
            made = [each for each in steps if each.event is Happening.COLLAPSED]
            level = made[-1].level or self._geometry.largest
            pages = (made[-1].first or 0) - (made[0].first or 0) + self._geometry.pages(level)
            calls.append(CollapseCall(began, ended, made[0].first or 0, pages, level, len(made)))
            self._hold(began, operations)
        yield from reversed(calls)

    def _hold(self, began: int, operations: Operations) -> None:
        """Rule 3."""
        if self._costs is None or not self._signs:
            return
        stall = self._costs.stall(operations)
        ends = (began + stall.fault_ns, began + stall.access_ns)
        for t, vcpu, before in reversed(self._signs):
            if t < min(ends):
                break
            if t in ends and max(began, before) < t:
                self._held.append(HeldVcpu(vcpu, max(began, before), t))


def operations_of(steps: Iterable[Event]) -> Operations:
    """What the steps of one call come to."""
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

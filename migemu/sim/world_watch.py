"""The trace of a modelled run: its events in the order of their times, handed to who judges, hashes or records them.

Processors run ahead of the loop, so events come a little out of order. They are held until the loop's clock has reached
them: nothing that comes later can be earlier. Then they go, in order, through the checkers of `migemu check`, into the
digest, which is that of the lines of the trace file, and to the tracer that was given.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from migemu.mm.pages import Geometry
from migemu.ports import Tracer
from migemu.sim.loop import VirtualLoop
from migemu.trace.checkers import Violation
from migemu.trace.events import Event
from migemu.trace.rule_watch import RuleWatch
from migemu.trace.tee import Tee
from migemu.trace.trace_digest import TraceDigest

_HELD_MAX: Final = 4096
_TIME: Final = itemgetter(0)


class WorldWatch:
    """ports.Tracer of everybody in a world. `finish` when the run is over."""

    def __init__(self, loop: VirtualLoop, geometry: Geometry, pages: int, tracer: Tracer | None) -> None:
        """`tracer` is handed the events in the order of their times; `pages` are the guest's base pages."""
        self._loop = loop
        self._rules = RuleWatch(geometry, pages)
        self._digest = TraceDigest()
        self._ordered = Tee(self._rules, self._digest, tracer)
        self._held: list[Event] = []

    def emit(self, event: Event) -> None:
        """Take an event, which may be ahead of the loop's clock."""
        self._held.append(event)
        if len(self._held) >= _HELD_MAX:
            self._hand_on(self._loop.now_ns)

    def finish(self, cut: bool) -> None:
        """The run is over; `cut` if it did not complete."""
        self._hand_on(None)
        self._rules.finish(cut)

    @property
    def events(self) -> int:
        """How many events the clock has reached."""
        return self._digest.events

    @property
    def violations(self) -> dict[str, Violation]:
        """The first violation of each rule that was broken, by the rule's name."""
        return self._rules.violations

    @property
    def digest(self) -> str:
        """The sha256 of the lines of the events that the clock has reached."""
        return self._digest.hexdigest

    def _hand_on(self, until_ns: int | None) -> None:
        held = sorted(self._held, key=_TIME)  # stable: events of one time stay as they came
        count = len(held)
        while until_ns is not None and count and held[count - 1].t > until_ns:
            count -= 1
        emit = self._ordered.emit
        for event in held[:count]:
            emit(event)
        self._held = held[count:]

    def __repr__(self) -> str:
        return f"<WorldWatch {self._digest.events} events, {len(self._held)} held>"

"""What watches a modelled run: its events in the order of their times, their digest, every rule, and who else listens.

Processors run ahead of the loop, so events come a little out of order. They are held until the loop's clock has reached
them: nothing that comes later can be earlier. Then they go, in order, through the checkers of `migemu check` and into
the digest, which is that of the lines of the trace file.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from operator import itemgetter

from migemu.mm.pages import Geometry
from migemu.ports import Tracer
from migemu.sim.loop import VirtualLoop
from migemu.trace.checkers import Checks, Violation
from migemu.trace.events import Event, event_line

_HELD_MAX = 4096
_TIME = itemgetter(0)


class WorldWatch:
    """ports.Tracer of a world."""

    def __init__(self, loop: VirtualLoop, geometry: Geometry, pages: int, behind: Tracer | None) -> None:
        """Events go on to `behind` in order."""
        self.events = 0
        #: The first one of each rule that was broken.
        self.violations: dict[str, Violation] = {}
        self._loop = loop
        self._behind = behind
        self._checks = Checks(geometry, pages)
        self._hash = sha256()
        self._held: list[Event] = []

    def emit(self, event: Event) -> None:
        """See ports.Tracer."""
        self._held.append(event)
        if len(self._held) >= _HELD_MAX:
            self._let_go(self._loop.now_ns)

    def finish(self, cut: bool) -> None:
        """The run is over; `cut` if it did not complete."""
        self._let_go(None)
        self._note(self._checks.ended(cut=cut))

    @property
    def digest(self) -> str:
        """The sha256 of the lines of the events so far."""
        return self._hash.hexdigest()

    def _let_go(self, until_ns: int | None) -> None:
        held = sorted(self._held, key=_TIME)  # stable: events of one time stay as they came
        count = len(held)
        while until_ns is not None and count and held[count - 1].t > until_ns:
            count -= 1
        lines = []
        for event in held[:count]:
            found = self._checks.see(event)
            if found:
                self._note(found)
            lines.append(event_line(event))
            if self._behind is not None:
                self._behind.emit(event)
        if lines:
            lines.append("")
            self._hash.update("\n".join(lines).encode())
        self.events += count
        self._held = held[count:]

    def _note(self, found: Sequence[Violation]) -> None:
        for violation in found:
            self.violations.setdefault(violation.rule, violation)

"""Judges the events of a run while it goes on, by every rule of `migemu check`."""

from __future__ import annotations

from collections.abc import Sequence

from migemu.mm.pages import Geometry
from migemu.trace.checkers import Checks, Violation
from migemu.trace.events import Event


class RuleWatch:
    """ports.Tracer that keeps the first violation of each rule. Events have to come in the order of their times."""

    def __init__(self, geometry: Geometry, pages: int) -> None:
        """`pages` are the guest's base pages."""
        #: By the name of the rule, in the order in which they were found.
        self.violations: dict[str, Violation] = {}
        self._checks = Checks(geometry, pages)

    def emit(self, event: Event) -> None:
        """Judge the next event by every rule."""
        if found := self._checks.see(event):
            self._note(found)

    def finish(self, cut: bool) -> None:
        """Judge the end of the trace; `cut` if the run did not complete."""
        self._note(self._checks.ended(cut=cut))

    def _note(self, found: Sequence[Violation]) -> None:
        for violation in found:
            self.violations.setdefault(violation.rule, violation)

    def __repr__(self) -> str:
        return f"<RuleWatch {list(self.violations)}>"

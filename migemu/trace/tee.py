"""One tracer that is several: whoever emits knows one, however many listen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migemu.trace.events import Event

if TYPE_CHECKING:
    from migemu.ports import Tracer


class Tee:
    """ports.Tracer that hands each event to several others, one after the other in the order given here."""

    __slots__ = ("_tracers",)

    def __init__(self, *tracers: Tracer | None) -> None:
        """None stands for a tracer that is not wanted."""
        self._tracers = tuple(tracer for tracer in tracers if tracer is not None)

    def emit(self, event: Event) -> None:
        """Hand it on. What one of them raises is raised here, and the ones after it do not get the event."""
        for tracer in self._tracers:
            tracer.emit(event)

    def __repr__(self) -> str:
        return f"<Tee {', '.join(map(repr, self._tracers))}>"

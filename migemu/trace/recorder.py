"""Events kept in memory; `migemu.store.trace_file` keeps them in a file."""

from __future__ import annotations

from migemu.trace.events import Event


class MemoryRecorder:
    """Keeps events in `events`."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Record one event."""
        self.events.append(event)

"""Events kept in memory; `migemu.store.trace_file` keeps them in a file."""

from __future__ import annotations

from migemu.trace.events import Event


class MemoryRecorder:
    """ports.Tracer that keeps every event in the list `events`, in the order of its calls."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Append an event to `events`."""
        self.events.append(event)

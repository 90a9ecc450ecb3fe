"""The digest of a trace that nobody writes down (`trace_digest` in result.json)."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from migemu.trace.events import Event, event_line

#: Lines that are hashed at once: a call costs more than a line.
_BATCH: Final = 4096


class TraceDigest:
    """ports.Tracer that counts the events and hashes their lines, as they would stand in a trace file."""

    def __init__(self) -> None:
        #: How many have been emitted.
        self.events = 0
        self._hash = sha256()
        self._lines: list[str] = []

    def emit(self, event: Event) -> None:
        """Add the line of the next event to the digest."""
        self.events += 1
        self._lines.append(event_line(event))
        if len(self._lines) >= _BATCH:
            self._flush()

    @property
    def hexdigest(self) -> str:
        """The sha256 of the lines of the events so far, their line ends included."""
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if self._lines:
            self._lines.append("")
            self._hash.update("\n".join(self._lines).encode())
            self._lines.clear()

    def __repr__(self) -> str:
        return f"<TraceDigest of {self.events} events>"

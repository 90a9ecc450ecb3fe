"""Where events are kept: in memory, or in a file as JSON lines.

A file recorder formats when it writes, in blocks, so that an event costs an append on the hot path. `merge` puts the
traces of two nodes of one machine into one, by time; the clock of a machine is the same for all its processes.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self, TextIO

from migemu.errors import BrokenError, InputError
from migemu.trace.events import Event, event_line, header_line

_BLOCK: Final = 4096


class MemoryRecorder:
    """Keeps events in `events`."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Record one event."""
        self.events.append(event)


class FileRecorder:
    """Writes events to a file as JSON lines; a context manager that leaves the file complete."""

    def __init__(self, path: Path, kind: str) -> None:
        """Begin the file at `path`. BrokenError when it cannot be written."""
        self._pending: list[Event] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise BrokenError(f"{path}: the trace cannot be written: {error.strerror}") from None
        self._file.write(header_line(kind) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._file.close()

    def emit(self, event: Event) -> None:
        """Record one event."""
        self._pending.append(event)
        if len(self._pending) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        self._file.writelines(event_line(event) + "\n" for event in self._pending)
        self._pending.clear()
        self._file.flush()


def merge(traces: Iterable[Path], into: Path) -> None:
    """Merge the trace files of several nodes of one machine by time. InputError when one is not a trace."""
    with into.open("w", encoding="utf-8") as out:
        files = [path.open(encoding="utf-8") for path in traces]
        try:
            headers = {file.readline().strip() for file in files}
            if len(headers) != 1:
                raise InputError(f"traces of different kinds cannot be merged into {into}")
            out.write(headers.pop() + "\n")
            out.writelines(line for _, _, line in heapq.merge(*(_timed(n, file) for n, file in enumerate(files))))
        finally:
            for file in files:
                file.close()


def _timed(number: int, file: TextIO) -> Iterator[tuple[int, int, str]]:
    for line in file:
        yield json.loads(line)["t"], number, line

"""Where events are kept: in memory, or in a file as JSON lines.

A file recorder formats when it writes, in blocks, so that an event costs an append on the hot path. `merge` puts the
traces of two nodes of one machine into one, by time; the clock of a machine is the same for all its processes.
"""

from __future__ import annotations

import heapq
import json
import operator
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self, TextIO

from migemu.errors import BrokenError, InputError
from migemu.trace.events import Event, event_line, header_line
from migemu.trace.reading import parse_header

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
        self._path = path
        self._pending: list[Event] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise _unwritable(path, error) from None
        self._file.write(header_line(kind) + "\n")
        try:
            self._file.flush()  # so that a node that is killed leaves a trace, if an empty one
        except OSError as error:
            self._close()
            raise _unwritable(path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # what could not be written has been told

    def emit(self, event: Event) -> None:
        """Record one event."""
        self._pending.append(event)
        if len(self._pending) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        try:
            self._file.writelines(event_line(event) + "\n" for event in self._pending)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from None
        finally:
            self._pending.clear()


def _unwritable(path: Path, error: OSError) -> BrokenError:
    return BrokenError(f"{path}: the trace cannot be written: {error.strerror}")


def merge(traces: Iterable[Path], into: Path) -> None:
    """Merge the trace files of several nodes of one machine by time.

    A last line that was cut, by the end of its node, is left out. InputError names the file that is not a trace or
    cannot be read; BrokenError when `into` cannot be written.
    """
    with ExitStack() as stack:
        files: list[tuple[Path, TextIO]] = []
        for path in traces:
            try:
                files.append((path, stack.enter_context(path.open(encoding="utf-8"))))
            except OSError as error:
                raise InputError(f"{path}: the trace cannot be read: {error.strerror}") from None
        headers = {_header(path, file) for path, file in files}
        if len(headers) != 1:
            raise InputError(f"traces of different kinds cannot be merged into {into}")
        timed = [_timed(number, path, file) for number, (path, file) in enumerate(files)]
        try:
            with into.open("w", encoding="utf-8") as out:
                out.write(headers.pop() + "\n")
                out.writelines(line for _, _, line in heapq.merge(*timed))
        except OSError as error:
            raise _unwritable(into, error) from None


def _header(path: Path, file: TextIO) -> str:
    """The first line of a trace of this version."""
    line = file.readline()
    said = parse_header(line)
    if isinstance(said, str):
        raise InputError(f"{path}: {said}")
    if not line.endswith("\n"):
        raise InputError(f"{path}: is cut off in its first line")
    return line.rstrip("\n")


def _timed(number: int, path: Path, file: TextIO) -> Iterator[tuple[int, int, str]]:
    try:
        for line in file:
            if line.endswith("\n"):
                yield operator.index(json.loads(line)["t"]), number, line
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: holds a line that is not an event") from None

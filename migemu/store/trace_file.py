"""Events kept in a file as JSON lines, and the files of two nodes made one.

While it is written the file is NAME.partial (`migemu.store.output`), with whole lines up to the last block: a node that
is killed leaves that, and it can be read. A file recorder formats when it writes, in blocks, so that an event costs an
append on the hot path. `merge` puts the traces of two nodes of one machine into one, by time; the clock of a machine is
the same for all its processes.

Rule: a disk that does not take the trace costs the trace and nothing else. `lost` says why, the room is given back.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Final, Self, TextIO

from migemu import named
from migemu.errors import InputError, MigemuError
from migemu.store.output import Output, broken_if_refused, writing
from migemu.trace.events import Event, event_line, header_line
from migemu.trace.reading import parse_header
from migemu.units import MS

_BLOCK: Final = 4096
#: What happened is in the file after this time at the latest, as long as anything happens: others may read along.
_WRITTEN_WITHIN_NS: Final = 100 * MS


class FileRecorder:
    """ports.Tracer that writes JSON lines to a file; as a context manager it leaves the file complete on any error."""

    def __init__(
        self, path: Path, kind: str, notice: Callable[[str], None] = lambda _: None, inputs: Iterable[Path] = ()
    ) -> None:  # fmt: skip
        """Begin the file at `path`; `notice` gets one line if the trace is lost on the way.

        Raises what `Output` raises.
        """
        #: Why there will be no trace; None as long as all is well.
        self.failure: str | None = None
        self._path = path
        self._notice = notice
        self._pending: list[Event] = []
        self._flush_t = 0
        self._hash = hashlib.sha256()
        self._output: Output | None = Output(path, inputs=inputs)
        try:
            with broken_if_refused(path):
                self._output.write((header_line(kind) + "\n").encode())
        except MigemuError:
            self._output.discard()
            raise

    @property
    def digest(self) -> str:
        """sha256 (hex) over the lines of all events so far; "" if the trace is lost."""
        return "" if self.failure else self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def emit(self, event: Event) -> None:
        """Record one event. It is formatted and written later, in a block."""
        if self._output is not None:
            self._pending.append(event)
            if len(self._pending) >= _BLOCK or event.t >= self._flush_t:
                self.flush()
                self._flush_t = event.t + _WRITTEN_WITHIN_NS

    def flush(self) -> None:
        """Write the events that are still in memory."""
        text = "".join(event_line(event) + "\n" for event in self._pending)
        self._pending.clear()
        self._hash.update(text.encode())
        self._write(text)

    def close(self) -> None:
        """Write the rest and rename the file into its place. Safe to call again."""
        self.flush()
        if self._output is not None:
            try:
                self._output.commit()
            except MigemuError as error:
                self._lose(error)
            self._output = None

    def _write(self, text: str) -> None:
        if self._output is not None:
            try:
                with broken_if_refused(self._path):
                    self._output.write(text.encode())
            except MigemuError as error:
                self._lose(error)

    def _lose(self, error: MigemuError) -> None:
        self.failure = str(error)
        if self._output is not None:
            self._output.discard()
            self._output = None
        self._notice(f"{error}; the migration goes on without the trace")

    def __repr__(self) -> str:
        return f"<FileRecorder {self._path}{f', failed: {self.failure}' if self.failure else ''}>"


def merge(traces: Iterable[Path], into: Path) -> str:
    """Merge the trace files of several nodes of one machine by time; the sha256 of the lines of its events.

    A last line that was cut, by the end of its node, is left out. InputError names the file that is not a trace or
    cannot be read; BrokenError when `into` cannot be written.
    """
    with ExitStack() as stack:
        files: list[tuple[Path, TextIO]] = []
        for path in traces:
            try:
                files.append((path, stack.enter_context(TextIOWrapper(named.opened(path), encoding="utf-8"))))
            except OSError as error:
                raise InputError(f"{path}: the trace cannot be read: {error.strerror}") from None
        headers = {_header(path, file) for path, file in files}
        if len(headers) != 1:
            raise InputError(f"traces of different kinds cannot be merged into {into}")
        lines = (line for _, _, line in heapq.merge(*(_timed(number, *file) for number, file in enumerate(files))))
        hashed = hashlib.sha256()
        with writing(into) as output:
            output.write((headers.pop() + "\n").encode())
            while block := "".join(islice(lines, _BLOCK)).encode():
                hashed.update(block)
                output.write(block)
        return hashed.hexdigest()


def _header(path: Path, file: TextIO) -> str:
    """The first line of a trace, without its end. InputError when it is none, or of another version."""
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

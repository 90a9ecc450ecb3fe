"""A run that goes on, followed by what its recorders write: the traces of one or of two nodes, merged by time.

    sim       DIR/trace.jsonl.partial                                        one file, both nodes
    run       DIR/trace.source.jsonl.partial, DIR/trace.dest.jsonl.partial   a file for each node, clocks alike

What this models
    The recorders write to files, and never wait for whoever reads them: so watching a run cannot change it, and cannot
    hold it up. They write at least every tenth of a second of the run (`migemu.store.trace_file`).

Rules
    1. A file is followed as long as somebody writes it (`is_held`), and read to its end after that.
    2. Of two files the events up to the time that both have reached are in order. One in which nothing comes for
       `IDLE_S` is not waited for; what it says later counts as happening now. When the run is over the picture is made
       anew from the merged trace, and exact.
    3. Whatever cannot be read ends the following with a reason; what came before stays.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

from migemu import named
from migemu.errors import InputError
from migemu.mm.pages import Geometry
from migemu.store.output import PARTIAL, is_held
from migemu.trace.events import Event
from migemu.trace.reading import Trace

#: Traces of one run, while they are written: of both nodes in one, or one for each node.
WHOLE: Final = ("trace.jsonl",)
BY_NODE: Final = ("trace.source.jsonl", "trace.dest.jsonl")
_POLL_S: Final = 0.02
IDLE_S: Final = 0.5
_READ_BYTES: Final = 1 << 20


class GrowingFile:
    """The lines of a file that is being written, as they come; looks like a binary file to `Trace`."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        """Open it; `stop` ends the waiting. OSError."""
        self._path = path
        self._stop = stop
        self._file = named.opened(path)
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._taken_bytes = 0

    def readline(self, _most: int = -1) -> bytes:
        """The next whole line; waits for it. Empty at the end."""
        return next(iter(self), b"")

    def tell(self) -> int:
        """How many bytes of the file have been taken."""
        return self._taken_bytes

    def __iter__(self) -> Iterator[bytes]:
        """The whole lines that are here, once there are any; none when the writer has ended."""
        while not self._lines and self._read():
            pass
        while self._lines:
            line = self._lines.popleft()
            self._taken_bytes += len(line)
            yield line

    def _read(self) -> bool:
        """Read what is new, or wait a moment; False at the end."""
        is_over = self._stop.is_set() or not is_held(self._path)
        data = self._file.read(_READ_BYTES)
        if data:
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(line + b"\n" for line in lines)
        elif not is_over:
            self._stop.wait(_POLL_S)
        return bool(data) or not is_over

    def close(self) -> None:
        """Close the file that is followed; what has been read of it stays."""
        self._file.close()


class _Followed:
    """One trace that is read by a thread of its own: what has come, and up to when."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self.blocks: deque[tuple[list[Event], int]] = deque()
        self.memory: tuple[Geometry, int, str] | None = None
        self.digest = self.problem = ""
        self.ended = False
        self.news_s = time.monotonic()
        self._file = GrowingFile(path, stop)
        self._thread = threading.Thread(target=self._read, args=(path,), daemon=True)
        self._thread.start()

    def _read(self, path: Path) -> None:
        try:
            trace = Trace(path, cast(BinaryIO, self._file), lambda _: None)
            self.memory = trace.geometry, trace.pages, trace.kind
            for block in trace.events():
                self.blocks.append((block, self._file.tell()))
                self.news_s = time.monotonic()
            self.digest = trace.digest
        except (InputError, OSError) as error:
            self.problem = str(error)
        finally:
            self._file.close()
            self.ended = True


class Follower:
    """Follows the run in a directory: waits for its traces, then yields their events."""

    def __init__(self, directory: Path, stop: threading.Event) -> None:
        """`stop` ends everything; what has been written by then is still read."""
        self._directory = directory
        self._stop = stop
        self._files: list[_Followed] = []

    def wait(self, over: threading.Event) -> tuple[Geometry, int, str] | None:
        """Wait until a run writes there: its geometry, base pages and kind; None if `over` is set before it does."""
        while not (self._stop.is_set() or over.is_set()):
            paths = self._being_written()
            if paths:
                self._files = [_Followed(path, self._stop) for path in paths]
                break
            self._stop.wait(_POLL_S)
        while self._files and not self._stop.is_set():
            memory = self._files[-1].memory
            if memory is not None or all(each.ended for each in self._files):
                return memory
            self._stop.wait(_POLL_S)
        return None

    def _being_written(self) -> list[Path]:
        for names in (WHOLE, BY_NODE):
            paths = [self._directory / (name + PARTIAL) for name in names]
            if all(is_held(path) for path in paths):
                return paths
        return []

    def blocks(self) -> Iterator[tuple[Sequence[Event], int]]:
        """The events of the run, in order, and at which byte of the trace each block ends (0 of two traces).

        While nothing comes blocks are empty: a moment to do something else.
        """
        if len(self._files) == 1:
            yield from self._of_one(self._files[0])
        else:
            yield from self._of_several()

    @property
    def digest(self) -> str:
        """The sha256 of the events, where there is one trace; once it has ended."""
        return self._files[0].digest if len(self._files) == 1 else ""

    @property
    def problem(self) -> str:
        """Why the following has ended before the run; "" if it has not."""
        return next((each.problem for each in self._files if each.problem), "")

    def _of_one(self, file: _Followed) -> Iterator[tuple[Sequence[Event], int]]:
        while True:
            ended = file.ended
            while file.blocks:
                yield file.blocks.popleft()
            if ended:
                return
            yield (), 0
            self._stop.wait(_POLL_S)

    def _of_several(self) -> Iterator[tuple[Sequence[Event], int]]:
        """Rule 2."""
        waiting: list[deque[Event]] = [deque() for _ in self._files]
        reached = [0] * len(self._files)
        last = 0
        while True:
            ended = all(file.ended for file in self._files)
            for number, file in enumerate(self._files):
                while file.blocks:
                    block, _ = file.blocks.popleft()
                    waiting[number].extend(block)
                    reached[number] = block[-1].t
            behind = [t for t, file in zip(reached, self._files, strict=True) if not _is_idle(file)]
            until = max(reached) if ended or not behind else min(behind)
            ready = [_taken(events, until) for events in waiting]
            merged = list(heapq.merge(*ready, key=lambda event: event.t))
            if merged:
                merged = [event if event.t >= last else event._replace(t=last) for event in merged]
                last = merged[-1].t
                yield merged, 0
            if ended and not any(waiting):
                return
            yield (), 0
            self._stop.wait(_POLL_S)


def _is_idle(file: _Followed) -> bool:
    return file.ended or time.monotonic() - file.news_s > IDLE_S


def _taken(events: deque[Event], until: int) -> list[Event]:
    taken = []
    while events and events[0].t <= until:
        taken.append(events.popleft())
    return taken


def written_trace(directory: Path) -> Path:
    """Where the trace of a run will be, or is."""
    return directory / WHOLE[0]


def give_way() -> None:
    """This process takes the processor only where nobody else wants it: a run is not held up by who watches it."""
    os.nice(10)

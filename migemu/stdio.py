"""Standard input, output and error of a process, so that telling never blocks it and never ends it.

    print, click, rich, logging, tracebacks --> sys.stderr, sys.stdout --> Outlet --> a thread --> the descriptor

Whoever reads may have gone (EPIPE), the terminal may be (EIO), the disk may be full (ENOSPC), a pipe may have a reader
that does not read: all of that is the thread's business. A migration is worth more than what is told of it.

Rules
    1. `write` returns at once and raises nothing. What waits is bounded: of more than `waiting_max` bytes the oldest
       are lost. What is lost is counted by lines; the count is told in its place as soon as somebody reads again.
    2. At the end a process waits for what was **told** for a moment, and for a **result** (standard output, unless it
       speaks to a supervisor) until it is taken, as any filter does: that can be interrupted. A result that could not
       be written is an error of its own; what it is the result of stays as it is.
    3. A descriptor of the three that is closed is opened on /dev/null before anything else could take its number: libuv
       aborts where one is missing.
    4. The flags of a descriptor are left alone: it may be shared with other processes, as a terminal is.
    5. Where output and error are one file, as on a terminal, what was told first stands first.
"""

from __future__ import annotations

import io
import itertools
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TextIO

from migemu.units import KIB, MIB

#: What may wait to be told: many screens (assumed).
WAITING_BYTES_MAX: Final = MIB
#: What may wait of results: far more than any of them has (assumed).
RESULTS_MAX: Final = 64 * MIB
#: How long a process that is done waits for whoever does not read what it told (assumed: nobody notices).
MOMENT_S: Final = 1.0
#: How long one of two streams lets the other, which is earlier, go first.
_ORDER_S: Final = 0.2
#: Bytes handed to the kernel at once. A pipe takes so many as one piece, between those of others (PIPE_BUF).
_WRITE_BYTES: Final = 4096
#: Of a thread that does nothing but write.
_STACK_BYTES: Final = 256 * KIB
_STANDARD: Final = (0, 1, 2)
_numbers = itertools.count()


class Outlet(io.RawIOBase):
    """A descriptor to which bytes are written by a thread. Begins one with the first bytes."""

    def __init__(
        self, descriptor: int, waiting_max: int = WAITING_BYTES_MAX, gap: Callable[[int], str] | None = None
    ) -> None:
        """`gap` words what stands where so many lines were lost; without it nothing does."""
        super().__init__()
        #: Lines that were not written, and why the last of them was not.
        self.lost_lines = 0
        self.lost_why = ""
        #: The other stream of the same file, if there is one.
        self.beside: Outlet | None = None
        self._descriptor = descriptor
        self._waiting_max = waiting_max
        self._gap = gap
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0
        self._untold_lines = 0
        self._writing: int | None = None  # the number of the piece that is on its way
        self._is_orderly = True
        self._thread: threading.Thread | None = None
        # A signal may come while it is held, and what handles it may want to tell something.
        self._news = threading.Condition(threading.RLock())

    def writable(self) -> bool:
        """Always True, as `io.RawIOBase` asks."""
        return True

    def fileno(self) -> int:
        """Whoever asks what it is (a terminal, and how wide) asks the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def write(self, data: Any) -> int:
        """Take all of `data`, now."""
        piece = bytes(data)
        with self._news:
            self._waiting.append((next(_numbers), piece))
            self._waiting_bytes += len(piece)
            while self._waiting_bytes > self._waiting_max and len(self._waiting) > 1:
                _, oldest = self._waiting.popleft()
                self._waiting_bytes -= len(oldest)
                self._lose(oldest, "nobody read it")
            if self._thread is None:
                self._begin(piece)
            self._news.notify_all()
        return len(piece)

    def _begin(self, piece: bytes) -> None:
        """Start the thread; where none can be had (no memory, the interpreter ends), write what fits at once."""
        self._thread = threading.Thread(target=self._run, name=f"outlet {self._descriptor}", daemon=True)
        before = threading.stack_size(_STACK_BYTES)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._waiting.clear()
            self._waiting_bytes = 0
            self._write_now(piece)
        finally:
            threading.stack_size(before)

    def settle(self, timeout_s: float | None) -> bool:
        """Wait until all is written or lost; False when that takes longer."""
        with self._news:
            return self._news.wait_for(lambda: self._first is None, timeout_s)

    @property
    def _first(self) -> int | None:
        """The number of the first piece that is not written yet."""
        return self._writing if self._writing is not None or not self._waiting else self._waiting[0][0]

    def _is_past(self, number: int, timeout_s: float) -> bool:
        """Wait until all that came before `number` is written or lost; False when that takes longer."""
        with self._news:
            return self._news.wait_for(lambda: self._first is None or self._first > number, timeout_s)

    def _run(self) -> None:
        while True:
            with self._news:
                self._writing = None
                self._news.notify_all()
                self._news.wait_for(lambda: bool(self._waiting))
                self._writing, piece = self._waiting.popleft()
                self._waiting_bytes -= len(piece)
                untold, self._untold_lines = self._untold_lines, 0
            if self.beside is not None:
                self._is_orderly = self.beside._is_past(self._writing, _ORDER_S if self._is_orderly else 0)
            if untold and self._gap is not None and self._write_out(self._gap(untold).encode()):
                with self._news:
                    self._untold_lines += untold
            if why := self._write_out(piece):
                with self._news:
                    self._lose(piece, why)

    def _lose(self, piece: bytes, why: str) -> None:
        lines = max(1, piece.count(b"\n"))
        self.lost_lines += lines
        self._untold_lines += lines
        self.lost_why = why

    def _write_out(self, data: bytes) -> str:
        """Write all of it, however long that takes; why not, if it cannot be written."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view[:_WRITE_BYTES]) :]
            except BlockingIOError:  # somebody who shares it has made it so
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError as error:
                return os.strerror(error.errno or 0)
        return ""

    def _write_now(self, data: bytes) -> None:
        """Without a thread: only if there is room."""
        try:
            if select.select((), (self._descriptor,), (), 0)[1]:
                os.write(self._descriptor, data[:_WRITE_BYTES])
        except (OSError, ValueError):
            pass

    def __repr__(self) -> str:
        return f"<Outlet {self._descriptor}, {self._waiting_bytes} bytes wait, {self.lost_lines} lines lost>"


def _gap(lines: int) -> str:
    return f"migemu: {lines:,} lines are missing here, which nobody read or which could not be written\n"


class Standard:
    """The three of this process, once they are safe."""

    def __init__(self) -> None:
        for descriptor in _STANDARD:
            _open_if_closed(descriptor)
        self.out = Outlet(1, RESULTS_MAX)
        self.error = Outlet(2, WAITING_BYTES_MAX, _gap)
        if _is_one_file(1, 2):
            self.out.beside, self.error.beside = self.error, self.out
        #: Whether standard output speaks to a supervisor: then nothing on it is a result.
        self.is_supervised = False
        if sys.stdin is None:
            sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
        sys.stdout = _text(self.out, sys.__stdout__, "strict")
        sys.stderr = _text(self.error, sys.__stderr__, "backslashreplace")

    def settle(self) -> str:
        """Wait for what is on its way; what is wrong with the result that was to be printed, or ""."""
        self.out.settle(MOMENT_S if self.is_supervised else None)
        return "" if self.is_supervised or not self.out.lost_lines else self.out.lost_why

    def end(self) -> None:
        """Wait a moment for the last words."""
        self.error.settle(MOMENT_S)


_standard: Standard | None = None


def secure() -> Standard:
    """Make the three of this process safe, once; to be called before anything is told, and before a loop is made."""
    global _standard
    if _standard is None:
        _standard = Standard()
    return _standard


def speak_to_supervisor() -> None:
    """What goes to standard output from now on is told, and no result."""
    if _standard is not None:
        _standard.is_supervised = True


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)


def _is_one_file(*descriptors: int) -> bool:
    found = [os.fstat(each) for each in descriptors]
    return len({(each.st_dev, each.st_ino, each.st_rdev) for each in found}) == 1


def _text(outlet: Outlet, before: TextIO | None, errors: str) -> TextIO:
    """A text stream as Python's own, in its encoding, before `outlet`."""
    encoding = before.encoding if before is not None else "utf-8"
    raw: Any = outlet  # as `python -u` has it: no buffer between text and descriptor
    return io.TextIOWrapper(raw, encoding, before.errors if before is not None else errors, write_through=True)

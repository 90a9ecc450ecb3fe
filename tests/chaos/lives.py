"""Processes as a user starts them, by the documented commands, and what is left of each: its end, and what it said.

They write to files, so that nobody has to read; they die with whoever started them (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_LISTENING: Final = "0A"  # TCP_LISTEN, as proc(5) shows it
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
#: They ask a node to end, in order.
_IN_ORDER: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_RUNNING: dict[int, None] = {}
#: How many of the last lines of a process are shown where it has to be explained.
_LINES_MAX: Final = 6


@atexit.register
def _kill_all() -> None:
    for pid in _RUNNING:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _as_from_a_terminal() -> None:
    """In the child: it dies with us, and ignores no signal that we may have been told to."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class Life:
    """One process. `code` is None as long as it runs; -N: signal N has ended it."""

    def __init__(self, role: str, words: Sequence[str], folder: Path, number: int) -> None:
        self.role = role
        self.words = tuple(words)
        self.name = f"{role} {number}"
        #: Signals that it was sent, by the names of harms; "early" if it had no handler for them yet.
        self.signals: list[str] = []
        self.code: int | None = None
        #: By the loop's clock.
        self.began_s = self.ended_s = 0.0
        self._folder = folder
        self._stderr = folder / f"{role}-{number}.stderr"
        # Signals go by it: they never hit another process, and nobody but the loop asks for the exit code.
        self._descriptor = -1
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    async def begin(self) -> None:
        """Start it."""
        environment = os.environ | {"COLUMNS": "120"}
        program = str(Path(sys.executable).with_name(f"migemu-{self.words[0]}"))
        with self._stderr.open("wb") as stderr, self._stderr.with_suffix(".stdout").open("wb") as stdout:
            self._process = await asyncio.create_subprocess_exec(
                program, *self.words[1:], stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                cwd=self._folder, env=environment, start_new_session=True, preexec_fn=_as_from_a_terminal,
            )  # fmt: skip
        _RUNNING[self.pid] = None
        self._descriptor = os.pidfd_open(self.pid)
        self.began_s = asyncio.get_running_loop().time()

    async def end(self) -> None:
        """Until it has ended."""
        assert self._process is not None
        self.code = await self._process.wait()
        self.ended_s = asyncio.get_running_loop().time()
        _RUNNING.pop(self.pid, None)
        os.close(self._descriptor)
        self._descriptor = -1

    async def kill(self) -> None:
        """It, and whoever it has started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.end()

    def send(self, name: str, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.code is None and self._descriptor >= 0:
            early = number in _IN_ORDER and not self._catches(signal.SIGTERM)
            self.signals.append(f"{name} early" if early else name)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _catches(self, number: signal.Signals) -> bool:
        """Whether it has a handler of its own for a signal; one that has only just begun has none yet."""
        try:
            caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{self.pid}/status").read_text())
        except OSError:
            return True  # it has ended
        return caught is None or bool(int(caught[1], 16) >> (number - 1) & 1)

    @property
    def said(self) -> str:
        """What it has written to standard error."""
        return self._stderr.read_text(errors="replace") if self._stderr.exists() else ""

    @property
    def printed(self) -> str:
        """What it has written to standard output."""
        path = self._stderr.with_suffix(".stdout")
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def last_lines(self) -> str:
        """Of what it has said, for people."""
        return "\n".join(f"    {line}" for line in self.said.splitlines()[-_LINES_MAX:])

    def __repr__(self) -> str:
        return f"<{self.name}: {'runs' if self.code is None else f'exit {self.code}'}>"


def listens_on(port: int) -> bool:
    """Whether somebody listens on a port of this machine; asked of the kernel, so that nobody notices."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == _LISTENING for row in rows)

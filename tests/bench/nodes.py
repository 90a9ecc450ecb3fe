"""The two processes of the benchmark: pinned, holding warm memory, running one measurement per command.

Each is started once. It takes (name, settings) from a pipe, runs that measurement in an event loop of its own, and
answers with ("result", ...) or ("failed", traceback). The destination's measurements listen first and send
("ports", ...) in between, which the parent hands to the source.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Literal

import numpy as np
import uvloop

from migemu.mm import X86_64
from migemu.store.allocate import allocate
from migemu.store.image import ImageMemory
from migemu.store.image_file import Held
from migemu.units import GIB
from tests.bench import quiet

MEMORY_BYTES: Final = 1 * GIB
PAGE_BYTES: Final = 4096
_PAGES: Final = MEMORY_BYTES // PAGE_BYTES
_WORDS_PER_PAGE: Final = PAGE_BYTES // 8
_TIMEOUT_S: Final = 60.0
_SCRIBBLE: Final = np.uint64(0xDEAD_DEAD_DEAD_DEAD)

RoleName = Literal["source", "destination"]
Ports = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """One measurement for one process. `assignments` are `section.key=value`; `ports` are for the source."""

    name: str
    assignments: tuple[str, ...] = ()
    count: int = 0
    ports: Ports = ()


class SourcePool:
    """1 GiB without a zero page; the second word of each page is its number."""

    def __init__(self) -> None:
        self.memory = allocate(MEMORY_BYTES, "anonymous")
        words = _words(self.memory)
        block = np.random.default_rng(1).integers(1, 2**64, size=(512, _WORDS_PER_PAGE), dtype=np.uint64)
        for first in range(0, _PAGES, 512):
            words[first : first + 512] = block
        words[:, 1] = np.arange(_PAGES, dtype=np.uint64)
        self.view = memoryview(self.memory)
        self.image = ImageMemory(X86_64, Held(self.memory), MEMORY_BYTES)


class DestinationPool:
    """1 GiB to receive into."""

    def __init__(self) -> None:
        self.memory = allocate(MEMORY_BYTES, "anonymous")
        self.view = memoryview(self.memory)
        self._words = _words(self.memory)

    def scribble(self) -> None:
        """Make a word of each page wrong."""
        self._words[:, 1] = _SCRIBBLE

    def check(self) -> None:
        """RuntimeError unless every page has arrived in its place."""
        wrong = np.flatnonzero(self._words[:, 1] != np.arange(_PAGES, dtype=np.uint64))
        if len(wrong):
            raise RuntimeError(f"{len(wrong)} pages did not arrive, the first is page {wrong[0]}")


def _words(memory: mmap.mmap) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.frombuffer(memory, dtype=np.uint64).reshape(_PAGES, _WORDS_PER_PAGE)


@dataclass(frozen=True, slots=True)
class Seat:
    """What a measurement is given: the process's pool, the command, and a way to tell the parent its ports."""

    pool: Any
    command: Command
    tell_ports: Callable[[Ports], None]


Measurement = Callable[[Seat], Coroutine[Any, Any, dict[str, Any]]]


def _serve(role: RoleName, core: int | None, pipe: Connection) -> None:
    """The body of a process."""
    from tests.bench import bare, page_table, served, trace

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipe
    if core is not None:
        os.sched_setaffinity(0, {core})
    measurements: dict[str, Measurement] = {**bare.MEASUREMENTS[role], **served.MEASUREMENTS[role]}
    if role == "destination":
        measurements["page_table"] = page_table.measure
        measurements["trace"] = trace.measure
    pool = SourcePool() if role == "source" else DestinationPool()
    pipe.send(("ready", None))
    while True:
        try:
            command: Command = pipe.recv()
        except EOFError:
            return
        if isinstance(pool, DestinationPool):
            pool.scribble()
        gc.collect()
        seat = Seat(pool, command, lambda ports: pipe.send(("ports", ports)))
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(asyncio.wait_for(measurements[command.name](seat), _TIMEOUT_S))
        except Exception:
            pipe.send(("failed", traceback.format_exc()))
        else:
            pipe.send(("result", result))


class Node:
    """A process, seen from the parent."""

    def __init__(self, role: RoleName, core: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.role = role
        self.core = core
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(role, core, theirs), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, command: Command) -> None:
        """Start a measurement."""
        self._pipe.send(command)

    def expect(self, kind: str) -> Any:
        """What it answers. RuntimeError when it failed, died, or took too long."""
        try:
            if not self._pipe.poll(2 * _TIMEOUT_S):
                raise RuntimeError(f"the {self.role} did not answer")
            answer, value = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(1.0)
            raise RuntimeError(f"the {self.role} died (exit code {self._process.exitcode})") from None
        if answer != kind:
            raise RuntimeError(f"the {self.role}: {value}")
        return value

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.terminate()


class Pair:
    """Source and destination, a core each where there are two."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.pinned = len(cores) > 1
        self.source = Node("source", cores[0] if self.pinned else None)
        self.destination = Node("destination", cores[1] if self.pinned else None)

    def __enter__(self) -> Pair:
        self.source.expect("ready")
        self.destination.expect("ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.destination.close()

    @property
    def pids(self) -> tuple[int, int]:
        """Both processes."""
        return self.source.pid, self.destination.pid

    def measure(self, name: str, assignments: tuple[str, ...] = (), count: int = 0) -> dict[str, Any]:
        """Run one measurement on both; their results in one dict, the source's keys begin with `source_`.

        `foreign` is how many cores others kept busy meanwhile.
        """
        watch = quiet.Watch(self.pids)
        self.destination.send(Command(name, assignments, count))
        ports = self.destination.expect("ports")
        self.source.send(Command(name, assignments, count, ports))
        try:
            result = self.destination.expect("result")
        finally:
            theirs = self.source.expect("result")
        return {**result, **{f"source_{key}": value for key, value in theirs.items()}, "foreign": watch.foreign()}

    def alone(self, name: str) -> dict[str, Any]:
        """Run a measurement of the destination only."""
        self.destination.send(Command(name))
        result: dict[str, Any] = self.destination.expect("result")
        return result

"""Our own fuzzing: honest inputs, changed without end, judged, counted; the same for the same seed."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import xxhash

from tests.fuzz import seeds
from tests.fuzz.mutation import INPUT_BYTES_MAX, Mutation
from tests.fuzz.tally import Tally
from tests.fuzz.targets import judge

#: Processor time of one input after which it is taken for a hang; the slowest takes some milliseconds.
HANG_S: Final = 5.0
#: What the process may grow by after the first tenth: what allocators keep, never what inputs leave behind.
GROWTH_KIB_MAX: Final = 32 * 1024
_BATCH: Final = 2000


class HangError(Exception):
    """An input took too much processor time."""


class FoundError(Exception):
    """An input showed a bug; where it was written, and how to see it again."""


def _hangs(*_: Any) -> None:
    raise HangError(f"more than {HANG_S:g} s of processor time for one input")


def kept(data: bytes, error: BaseException) -> str:
    """`data` as a file among the crashes; the line that replays it."""
    seeds.CRASHES.mkdir(exist_ok=True)
    path = seeds.CRASHES / f"{type(error).__name__}-{xxhash.xxh3_64_hexdigest(data)}"
    path.write_bytes(data)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    said = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {said}; replay: {Path(sys.executable).name} -m tests.fuzz {shown}"


def replay(data: bytes, tally: Tally) -> None:
    """One input, guarded against hanging."""
    signal.signal(signal.SIGVTALRM, _hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        judge(data, tally)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def inputs(seed: str) -> Iterator[bytes]:
    """Inputs without end: half of them streams, almost half headers alone."""
    random = Random(seed)
    mutation = Mutation(random, seeds.HEADERS)
    draw, below, one_of = random.random, mutation.below, mutation.one_of
    others = list({**seeds.honest_inputs(), **seeds.lies()}.values()) + list(seeds.corpus().values())
    nodes = [data for data in others if data[:1] == b"N"]
    others = [data for data in others if data[:1] not in (b"S", b"N")]
    frames = seeds.FRAMES
    while True:
        kind = draw()
        if kind < 0.5:
            first = below(len(frames))
            start = one_of(seeds.ALLOWED[first]) if draw() < 0.9 else below(256)
            made = mutation.frames([frames[first], *(one_of(frames) for _ in range(below(5)))])
            cut = 0 if draw() < 0.6 else below(256)
            flags = (draw() < 0.02) | (draw() < 0.1) << 1
            said = b"".join(part.bytes() for part in made)
            yield seeds.stream(start, cut, flags, said)[:INPUT_BYTES_MAX]
        elif kind < 0.97:
            yield b"H" + mutation.header(one_of(seeds.HEADERS))
        else:
            yield mutation.input(one_of(others if kind < 0.9995 else nodes))  # a whole node takes some milliseconds


def run(seed: str, frames: int, seconds: float, tally: Tally, tell: Any = print) -> float:
    """Until `frames` were judged or `seconds` are over (0: no limit); how many seconds it took.

    FoundError when an input shows a bug, or the process grows.
    """
    began = time.monotonic()
    signal.signal(signal.SIGVTALRM, _hangs)
    grown_from, told = 0, began
    made = inputs(seed)
    while True:
        for _ in range(_BATCH):
            data = next(made)
            signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
            try:
                judge(data, tally)
            except Exception as error:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                raise FoundError(kept(data, error)) from error
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        now = time.monotonic()
        share = max(tally.frames / frames if frames else 0.0, (now - began) / seconds if seconds else 0.0)
        memory = memory_kib()
        if not grown_from and share > 0.1:
            grown_from = memory
        if grown_from and memory > grown_from + GROWTH_KIB_MAX:
            raise FoundError(f"the process has grown from {grown_from} to {memory} KiB")
        if now > told + 10:
            told = now
            tell(f"{tally.frames:>12} frames, {tally.frames / (now - began):.0f} a second, {memory // 1024} MiB")
        if share >= 1:
            return now - began


def memory_kib() -> int:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

"""The soak itself: its processes, its migrations, and what became of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from migemu.address import parse_address
from migemu.errors import EXIT_INTERRUPTED
from migemu.units import GIB, MIB
from tests.soak.curve import Sample, sample
from tests.soak.cutter import Cutter

#: Between two cuts, in seconds.
CUT_S: Final = (1.0, 4.0)
#: How long what is still under way at the end may take, undisturbed.
GRACE_S: Final = 120.0
_SAMPLES: Final = 1200
_LINE_BYTES_MAX: Final = 1 << 22
_ZERO_SHARE: Final = 0.25
#: The slow migration's push would take this share of the time; its pauses take the rest.
_SLOW_SHARE: Final = 0.85
#: Short migrations: 16 MiB at 40 Mbit/s are 2.5 s.
_SHORT: Final = ("memory.geometry=tiny", "memory.size=16M", "push.rate=40Mbit")


@dataclass(slots=True)
class Soaked:
    """What became of it."""

    seconds: float
    samples: list[Sample] = field(default_factory=list)
    verified: int = 0
    before_switch: int = 0  # attempts that a cut ended before the guest had left
    problems: list[str] = field(default_factory=list)
    recoveries: int = 0
    preempt_lost: int = 0
    cuts: int = 0


class Soak:
    """`run` it once. Results are written below `directory`."""

    def __init__(self, seconds: float, directory: Path, seed: int, told: Callable[[str], None]) -> None:
        self.soaked = Soaked(seconds)
        self._seconds = seconds
        self._directory = directory
        self._seed = seed
        self._told = told
        self._pids: dict[str, int] = {}
        self._over = False
        self._slow_runs = asyncio.Event()
        self._geometry, self._size = ("x86_64", GIB) if seconds >= 60 else ("tiny", 4 * MIB)

    async def run(self) -> Soaked:
        """All of it; the destination is asked to end by a signal."""
        shutil.rmtree(self._results, ignore_errors=True)  # of an earlier soak
        destination = await self._start(
            "dest_node", "--listen", "127.0.0.1:0", "--migrations", "0", "--supervised", "--out", str(self._results),
            *_set("guest.vcpus=2", "guest.rate=5", "guest.workload=uniform"),
        )  # fmt: skip
        self._pids["destination"] = destination.pid
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        reader = asyncio.ensure_future(self._listen_to(destination, listening))
        cutter = Cutter(await listening, self._seed)
        await cutter.open()
        try:
            lanes = [asyncio.ensure_future(work) for work in (self._slow(cutter.port), self._short(cutter.port))]
            beside = [asyncio.ensure_future(work) for work in (self._cut(cutter), self._sample())]
            await asyncio.wait_for(self._slow_runs.wait(), GRACE_S)
            await asyncio.wait(lanes, timeout=self._seconds)
            self._over = True
            _, late = await asyncio.wait(lanes, timeout=GRACE_S)
            self.soaked.problems += [f"not done {GRACE_S:.0f} s after the end" for _ in late]
            for each in (*beside, *late):
                each.cancel()
            await asyncio.gather(*beside, *lanes, return_exceptions=True)
            self.soaked.problems += [repr(each.exception()) for each in lanes
                                     if not each.cancelled() and each.exception()]  # fmt: skip
        finally:
            await cutter.close()
            destination.send_signal(signal.SIGINT)
            await destination.wait()
            await reader
        self.soaked.cuts = cutter.cuts
        self._read_results()
        return self.soaked

    @property
    def _results(self) -> Path:
        return self._directory / "destination"

    async def _start(self, module: str, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, limit=_LINE_BYTES_MAX,
        )  # fmt: skip

    async def _listen_to(self, destination: asyncio.subprocess.Process, listening: asyncio.Future[int]) -> None:
        assert destination.stdout is not None
        async for line in destination.stdout:
            said: dict[str, Any] = json.loads(line) if line.startswith(b"{") else {"notice": line.decode()}
            if any(each["memory_bytes"] == self._size and each["stage"] == "run"
                   for each in said.get("migrations", {}).values()):  # fmt: skip
                self._slow_runs.set()
            elif "listening" in said:
                listening.set_result(parse_address(said["listening"]).port)
            elif said.get("exit", EXIT_INTERRUPTED) != EXIT_INTERRUPTED or "Traceback" in said.get("notice", ""):
                self.soaked.problems.append(f"destination: {said}")
        if not listening.done():
            listening.set_exception(RuntimeError("the destination did not listen"))

    async def _migrate(self, port: int, name: str, *settings: str) -> bool:
        """One migration, by a source of its own; False if it was cut before the switch, and the guest runs on there."""
        source = await self._start(
            "source_node", "--connect", f"127.0.0.1:{port}", "--quiet", *_set(*settings, "integrity.digests=on")
        )
        self._pids[name] = source.pid
        try:
            said, _ = await source.communicate()
        finally:
            del self._pids[name]
            if source.returncode is None:
                source.kill()
        if source.returncode == 0:
            self.soaked.verified += 1
        elif b"The guest runs on at the source" in said:
            self.soaked.before_switch += 1
        else:
            self.soaked.problems.append(f"{name}: {said.decode().strip()}")
        return b"The guest runs on at the source" not in said

    async def _slow(self, port: int) -> None:
        """A migration that takes as long as there is time."""
        bits = int(self._size * (1 - _ZERO_SHARE) * 8 / self._seconds / _SLOW_SHARE)
        while not await self._migrate(
            port, "source", f"memory.geometry={self._geometry}", f"memory.size={self._size}", f"push.rate={bits}bit",
            f"memory.zero_share={_ZERO_SHARE}", f"scenario.seed={self._seed}",
        ):  # fmt: skip
            pass

    async def _short(self, port: int) -> None:
        seed = self._seed
        while not self._over:
            seed += 1
            await self._migrate(port, "short source", *_SHORT, f"scenario.seed={seed}")

    async def _cut(self, cutter: Cutter) -> None:
        rng = Random(self._seed)
        await self._slow_runs.wait()  # it takes long to begin, and cut before the switch it would have to begin anew
        while not self._over:
            await asyncio.sleep(min(rng.uniform(*CUT_S), self._seconds / 4))
            cutter.cut()

    async def _sample(self) -> None:
        loop, told = asyncio.get_running_loop(), 0
        began = loop.time()
        while not self._over:
            await asyncio.sleep(max(0.05, self._seconds / _SAMPLES))
            seconds = loop.time() - began
            for name in ("destination", "source"):
                taken = sample(seconds, name, self._pids[name]) if name in self._pids else None
                self.soaked.samples += [taken] if taken is not None else []
            if seconds // 60 > told:
                told = int(seconds // 60)
                now = ", ".join(f"{each.process} {each.rss_bytes / MIB:.0f} MiB, {each.descriptors} descriptors"
                                for each in self.soaked.samples[-2:])  # fmt: skip
                self._told(f"minute {told}: {self.soaked.verified} migrations verified; {now}")

    def _read_results(self) -> None:
        for path in sorted(self._results.glob("*/result.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            self.soaked.recoveries += result["recovery"]["count"]
            self.soaked.preempt_lost += result["recovery"]["preempt_lost"]
            if not result["verified"] and result["guest"]["accesses"]:
                self.soaked.problems.append(f"{path.parent.name}: {result['status']}: {result['error']}")


def _set(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]

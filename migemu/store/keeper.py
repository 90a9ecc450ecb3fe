"""When a checkpoint is made: every interval, and when enough has arrived; in a thread, so that the loop never waits.

The bitmap is copied in the loop, before the first sync begins. What arrives or is written meanwhile is in the files
too, and counts from the next generation on. A generation that nothing has changed since is not followed by another.

An error ends the protection (see checkpoint.py): it is told once, and the migration goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from migemu.ports import Clock
from migemu.store.kept import KeptMemory


class Protection(NamedTuple):
    """How well the guest is protected. Times in ns; `bytes` are those of logs and generations.

    `lost` says why there is no protection any more, or is empty.
    """

    generation: int
    age_ns: int
    longest_ns: int
    writes: int
    bytes: int
    lost: str


class Keeper:
    """Makes the checkpoints of one memory."""

    def __init__(
        self, memory: KeptMemory, clock: Clock, interval_ns: int, due_bytes: int, notice: Callable[[str], None]
    ) -> None:  # fmt: skip
        """A generation every `interval_ns` at most, or `due_bytes` of pages; `notice` is told of an error, once."""
        self._memory = memory
        self._clock = clock
        self._interval_ns = interval_ns
        self._due_bytes = due_bytes
        self._notice = notice
        self._made_ns = clock.now_ns()  # begin and resume have just made one
        self._made = (memory.fresh_bytes, memory.checkpoint.statistics.writes)
        self._longest_ns = 0
        self._making: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Make checkpoints until the protection is lost. After cancelling it, `stop` waits for the last thread."""
        step_ns = max(1, self._interval_ns // 10)
        while not self._memory.checkpoint.lost:
            await self._clock.sleep_until(self._clock.now_ns() + step_ns)
            is_old = self._clock.now_ns() - self._made_ns >= self._interval_ns
            if is_old or self._memory.fresh_bytes - self._made[0] >= self._due_bytes:
                await self.make()
        self._tell()

    async def make(self) -> None:
        """One checkpoint, if anything has changed since the last and the protection is not lost."""
        checkpoint, began_ns = self._memory.checkpoint, self._clock.now_ns()
        state = (self._memory.fresh_bytes, checkpoint.statistics.writes)
        if checkpoint.lost:
            return
        if state != self._made:
            try:
                plan = checkpoint.plan(self._memory.received)
                self._making = asyncio.get_running_loop().run_in_executor(None, checkpoint.complete, plan)
                await asyncio.shield(self._making)
            except OSError as error:
                checkpoint.lose(error)
                return
            self._made = state
            self._longest_ns = max(self._longest_ns, self._clock.now_ns() - began_ns)
        self._made_ns = began_ns

    async def stop(self) -> None:
        """Return once no thread works on the files any more."""
        if self._making is not None:
            await asyncio.gather(self._making, return_exceptions=True)

    def protection(self) -> Protection:
        """How things stand."""
        checkpoint = self._memory.checkpoint
        statistics = checkpoint.statistics
        return Protection(
            statistics.generation, self._clock.now_ns() - self._made_ns, self._longest_ns, statistics.writes,
            statistics.bytes, checkpoint.lost,
        )  # fmt: skip

    def _tell(self) -> None:
        checkpoint = self._memory.checkpoint
        self._notice(
            f"--checkpoint {checkpoint.directory}: {checkpoint.lost}; the migration goes on unprotected: should this "
            "destination die, what the guest writes from now on is lost (generation "
            f"{checkpoint.statistics.generation} stays)"
        )

    def __repr__(self) -> str:
        return f"<Keeper of {self._memory.checkpoint!r}>"

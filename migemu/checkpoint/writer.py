"""When a checkpoint is made: every interval, and when enough has arrived; in a thread, so that the loop never waits.

The bitmap is copied in the loop, before the first sync begins. What arrives or is written meanwhile is in the files
too, and counts from the next generation on. A generation that nothing has changed since is not followed by another.

An error ends the protection (see checkpoint.py): it is told once, and the migration goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from migemu.checkpoint.disk import Disk
from migemu.checkpoint.format import Checkpoint as Directory
from migemu.checkpoint.format import Identity
from migemu.checkpoint.memory import CheckpointedMemory
from migemu.checkpoint.restore import RestoredCheckpoint, begin, claim, resume
from migemu.ports import Clock
from migemu.scenario.scenario import CheckpointSettings


class Protection(NamedTuple):
    """How well the guest is protected. Times in ns; `bytes` of logs and generations.

    `lost` says why it is not protected any more; "" while it is.
    """

    generation: int
    age_ns: int
    longest_ns: int
    writes: int
    bytes: int
    lost: str


class Keeper:
    """Keeps one migration in one directory: `claim`, then `resume` or `begin`, then `run`, and `stop` at the end."""

    def __init__(
        self, directory: Path, settings: CheckpointSettings, clock: Clock, notice: Callable[[str], None],
        disk: Disk | None = None,
    ) -> None:  # fmt: skip
        """`notice` gets one line if the protection is lost."""
        self.memory: CheckpointedMemory | None = None
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._notice = notice
        self._disk = disk or Disk()
        self._made_ns = self._longest_ns = 0
        self._made = (0, 0)
        self._making: asyncio.Future[None] | None = None
        self._lock: int | None = None
        self._is_verified = False

    def claim(self) -> None:
        """Lock the directory as long as this process lives. InputError when that is not possible."""
        self._lock = claim(self._disk, self._directory)

    def resume(self, hgm: bool) -> RestoredCheckpoint | None:
        """Open the checkpoint in the directory; None if there is none. Its memory is `memory` from now on.

        Blocks on the disk.

        Raises what `restore.resume` raises.
        """
        restored = resume(self._disk, self._directory, self._settings.log)
        if restored is not None:
            self._keep(CheckpointedMemory(restored, hgm))
        return restored

    def begin(self, identity: Identity, hgm: bool) -> CheckpointedMemory:
        """Begin an empty checkpoint; its memory. Blocks on the disk, so call it in a thread.

        Raises what `restore.begin` raises.
        """
        memory = CheckpointedMemory(begin(self._disk, self._directory, identity, self._settings.log), hgm)
        self._keep(memory)
        return memory

    def _keep(self, memory: CheckpointedMemory) -> None:
        self._made_ns = self._clock.now_ns()  # a generation has just been made
        self._made = (memory.fresh_bytes, memory.checkpoint.statistics.writes)
        self.memory = memory

    def runs(self) -> None:
        """Record that the guest is about to run; durable on return. OSError."""
        if self.memory is not None:
            self.memory.checkpoint.runs()

    async def verified(self, digest: str) -> None:
        """Record that all pages are here and are the source's; the guest has stopped. Durable on return."""
        self._is_verified = True
        if self._making is not None:
            await asyncio.gather(self._making, return_exceptions=True)
        if self.memory is not None:
            await self._make(self.memory)
            await asyncio.get_running_loop().run_in_executor(None, self.memory.checkpoint.verified, digest)

    @property
    def lost(self) -> str | None:
        """Why another process could not recover the guest from here; None if it could."""
        return self.memory.checkpoint.failure if self.memory is not None else "nothing is kept yet"

    async def run(self) -> None:
        """Write generations until the protection is lost.

        After cancelling it, call `stop`: it waits for the last thread.
        """
        step_ns = max(1, self._settings.interval // 10)
        while self.memory is None or not self.memory.checkpoint.failure:
            await self._clock.sleep_until(self._clock.now_ns() + step_ns)
            if self.memory is not None and self._is_due(self.memory):
                await self._make(self.memory)
        self._notify(self.memory.checkpoint)

    def _is_due(self, memory: CheckpointedMemory) -> bool:
        if self._is_verified:
            return False
        is_old = self._clock.now_ns() - self._made_ns >= self._settings.interval
        return is_old or memory.fresh_bytes - self._made[0] >= self._settings.arrived

    async def _make(self, memory: CheckpointedMemory) -> None:
        """Write one generation, if anything has changed since the last."""
        checkpoint, began_ns = memory.checkpoint, self._clock.now_ns()
        state = (memory.fresh_bytes, checkpoint.statistics.writes)
        if checkpoint.failure:
            return
        if state != self._made:
            try:
                plan = checkpoint.plan(memory.received)
                self._making = asyncio.get_running_loop().run_in_executor(None, checkpoint.complete, plan)
                await asyncio.shield(self._making)
            except OSError as error:
                checkpoint.lose(error)
                return
            self._made = state
            self._longest_ns = max(self._longest_ns, self._clock.now_ns() - began_ns)
        self._made_ns = began_ns

    async def stop(self, discard: bool) -> None:
        """Close the files once no thread uses them; with `discard` also remove the checkpoint."""
        if self._making is not None:
            await asyncio.gather(self._making, return_exceptions=True)
        if self.memory is not None:
            if discard:
                try:
                    self.memory.checkpoint.discard()
                except OSError as error:
                    self._notice(f"--checkpoint {self._directory}: cannot be removed: {error.strerror}")
            with contextlib.suppress(OSError):  # nothing is written any more: what counts has been synced
                self.memory.checkpoint.close()
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None

    def protection(self) -> Protection | None:
        """The present state, once there is a checkpoint; None before."""
        if self.memory is None:
            return None
        checkpoint = self.memory.checkpoint
        statistics = checkpoint.statistics
        return Protection(
            statistics.generation, self._clock.now_ns() - self._made_ns, self._longest_ns, statistics.writes,
            statistics.bytes, checkpoint.failure or "",
        )  # fmt: skip

    def _notify(self, checkpoint: Directory) -> None:
        self._notice(
            f"--checkpoint {self._directory}: {checkpoint.failure}; the migration goes on unprotected: should this "
            "destination die, what the guest writes from now on is lost (generation "
            f"{checkpoint.statistics.generation} stays)"
        )

    def __repr__(self) -> str:
        return f"<Keeper of {self.memory!r} in {self._directory}>"

"""When checkpoints are made, and what is told when they cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

import pytest

from migemu.mm.pages import Level, PieceRun
from migemu.store.keeper import Keeper
from migemu.store.kept import KeptMemory
from migemu.store.restore import begin, resume
from migemu.units import SECOND
from tests.unit.store.crashes import PAGE, UnsyncedDisk
from tests.unit.store.played import IDENTITY, LOG_BYTES_MAX


class Ended(Exception):
    """The time that a test gives is over."""


class SteppedClock:
    """Time passes when somebody sleeps, up to `end`."""

    def __init__(self) -> None:
        self.now = self.end = 5 * SECOND

    def now_ns(self) -> int:
        return self.now

    async def sleep_until(self, when_ns: int) -> None:
        if when_ns > self.end:
            raise Ended
        self.now = max(self.now, when_ns)
        await asyncio.sleep(0)


class BreakableDisk(UnsyncedDisk):
    """Takes nothing once it is broken; counts the generations until then."""

    def __init__(self) -> None:
        self.is_broken = False
        self.generations: list[int] = []
        self.clock = SteppedClock()

    def sync(self, descriptor: int) -> None:
        if self.is_broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def replace(self, old: Path, new: Path) -> None:
        super().replace(old, new)
        self.generations.append(self.clock.now)


@pytest.fixture
def disk() -> BreakableDisk:
    return BreakableDisk()


@pytest.fixture
def memory(disk: BreakableDisk, tmp_path: Path) -> KeptMemory:
    memory = KeptMemory(begin(disk, tmp_path, IDENTITY, LOG_BYTES_MAX))
    disk.generations.clear()
    return memory


def keeper_of(memory: KeptMemory, disk: BreakableDisk, told: list[str], due_bytes: int = 1 << 30) -> Keeper:
    return Keeper(memory, disk.clock, SECOND, due_bytes, told.append)


async def until(keeper: Keeper, disk: BreakableDisk, seconds: float) -> None:
    """Let the keeper run for so long."""
    disk.clock.end = disk.clock.now + int(seconds * SECOND)
    with contextlib.suppress(Ended):
        await keeper.run()
    await keeper.stop()


def land(memory: KeptMemory, page: int) -> None:
    memory.uffdio_continue(PieceRun(page, 1, Level.PTE))


async def test_a_generation_follows_within_the_interval_if_anything_has_changed(
    memory: KeptMemory, disk: BreakableDisk
) -> None:
    keeper, began = keeper_of(memory, disk, []), disk.clock.now
    await until(keeper, disk, 3.05)
    assert disk.generations == []
    land(memory, 0)
    await until(keeper, disk, 1.05)
    assert len(disk.generations) == 1
    assert disk.generations[0] - began <= 4.1 * SECOND
    memory.touch(0, 0, 0, 1)
    await until(keeper, disk, 3.05)
    assert len(disk.generations) == 2
    assert keeper.protection().generation == 3
    assert keeper.protection().age_ns <= 1.1 * SECOND
    assert keeper.protection().writes == 1
    memory.checkpoint.close()


async def test_enough_bytes_do_not_wait_for_the_interval(memory: KeptMemory, disk: BreakableDisk) -> None:
    keeper = keeper_of(memory, disk, [], due_bytes=2 * PAGE)
    land(memory, 0)
    await until(keeper, disk, 0.25)
    assert disk.generations == []
    land(memory, 1)
    await until(keeper, disk, 0.25)
    assert len(disk.generations) == 1
    memory.checkpoint.close()


async def test_an_error_is_told_once_and_ends_the_protection_not_the_guest(
    memory: KeptMemory, disk: BreakableDisk, tmp_path: Path
) -> None:
    told: list[str] = []
    keeper = keeper_of(memory, disk, told)
    land(memory, 0)
    await until(keeper, disk, 1.05)
    disk.is_broken = True
    land(memory, 1)
    await until(keeper, disk, 3.05)
    assert len(told) == 1
    assert f"--checkpoint {tmp_path}: Input/output error; the migration goes on unprotected" in told[0]
    assert "generation 2 stays" in told[0]
    assert keeper.protection().lost == "Input/output error"
    assert memory.touch(0, 1, 0, 5) == 0
    memory.checkpoint.close()
    again = resume(UnsyncedDisk(), tmp_path, LOG_BYTES_MAX)
    assert again is not None
    assert KeptMemory(again).restored_rows() == [(0, 1)]
    again.checkpoint.close()


async def test_a_log_that_the_disk_does_not_take_is_told_too(memory: KeptMemory, disk: BreakableDisk) -> None:
    told: list[str] = []
    keeper = keeper_of(memory, disk, told)
    land(memory, 0)

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.write = full  # type: ignore[method-assign]
    assert memory.touch(0, 0, 0, 5) == 0
    assert memory.touch(0, 0, 0, 6) == 5
    await until(keeper, disk, 0.15)
    assert [line for line in told if "No space left on device" in line] == told != []
    memory.checkpoint.close()

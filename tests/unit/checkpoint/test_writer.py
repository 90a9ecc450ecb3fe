"""When checkpoints are made, and what is told when they cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

import pytest

from migemu.checkpoint.memory import CheckpointedMemory
from migemu.checkpoint.restore import resume
from migemu.checkpoint.writer import Keeper
from migemu.mm.pages import Level, PieceRun
from migemu.scenario.scenario import from_mapping
from migemu.units import SECOND
from tests.unit.checkpoint.crashes import UnsyncedDisk
from tests.unit.checkpoint.played import IDENTITY, LOG_BYTES_MAX, PAGES


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


def keeper_of(
    disk: BreakableDisk, directory: Path, told: list[str], arrived: str = "1G"
) -> tuple[Keeper, CheckpointedMemory]:
    settings = from_mapping({"checkpoint": {"interval": "1s", "arrived": arrived}}, "test").checkpoint
    keeper = Keeper(directory, settings, disk.clock, told.append, disk)
    keeper.claim()
    memory = keeper.begin(IDENTITY, hgm=True)
    disk.generations.clear()
    return keeper, memory


async def until(keeper: Keeper, disk: BreakableDisk, seconds: float) -> None:
    """Let the keeper run for so long."""
    disk.clock.end = disk.clock.now + int(seconds * SECOND)
    with contextlib.suppress(Ended):
        await keeper.run()


def land(memory: CheckpointedMemory, page: int) -> None:
    memory.install(PieceRun(page, 1, Level.PTE))


async def test_a_generation_follows_within_the_interval_if_anything_has_changed(
    disk: BreakableDisk, tmp_path: Path
) -> None:
    (keeper, memory), began = keeper_of(disk, tmp_path, []), disk.clock.now
    await until(keeper, disk, 3.05)
    assert disk.generations == []
    land(memory, 0)
    await until(keeper, disk, 1.05)
    assert len(disk.generations) == 1
    assert disk.generations[0] - began <= 4.1 * SECOND
    memory.touch(0, 0, 0, 1)
    await until(keeper, disk, 3.05)
    assert len(disk.generations) == 2
    protection = keeper.protection()
    assert protection is not None
    assert protection.generation == 3
    assert protection.age_ns <= 1.1 * SECOND
    assert protection.writes == 1
    await keeper.stop(discard=False)
    assert (tmp_path / "checkpoint").exists()


async def test_enough_bytes_do_not_wait_for_the_interval(disk: BreakableDisk, tmp_path: Path) -> None:
    keeper, memory = keeper_of(disk, tmp_path, [], arrived="8K")
    land(memory, 0)
    await until(keeper, disk, 0.25)
    assert disk.generations == []
    land(memory, 1)
    await until(keeper, disk, 0.25)
    assert len(disk.generations) == 1
    await keeper.stop(discard=True)
    assert list(tmp_path.iterdir()) == []


async def test_an_error_is_told_once_and_ends_the_protection_not_the_guest(disk: BreakableDisk, tmp_path: Path) -> None:
    told: list[str] = []
    keeper, memory = keeper_of(disk, tmp_path, told)
    land(memory, 0)
    await until(keeper, disk, 1.05)
    disk.is_broken = True
    land(memory, 1)
    await until(keeper, disk, 3.05)
    assert len(told) == 1
    assert f"--checkpoint {tmp_path}: Input/output error; the migration goes on unprotected" in told[0]
    assert "generation 2 stays" in told[0]
    assert keeper.lost == "Input/output error"
    assert memory.touch(0, 1, 0, 5) == 0
    await keeper.stop(discard=False)
    again = resume(UnsyncedDisk(), tmp_path, LOG_BYTES_MAX)
    assert again is not None
    assert CheckpointedMemory(again).restored_rows() == [(0, 1)]
    again.checkpoint.close()


async def test_a_log_that_the_disk_does_not_take_is_told_too(disk: BreakableDisk, tmp_path: Path) -> None:
    told: list[str] = []
    keeper, memory = keeper_of(disk, tmp_path, told)
    land(memory, 0)

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.write = full  # type: ignore[method-assign]
    assert memory.touch(0, 0, 0, 5) == 0
    assert memory.touch(0, 0, 0, 6) == 5
    await until(keeper, disk, 0.15)
    assert [line for line in told if "No space left on device" in line] == told != []
    await keeper.stop(discard=False)


async def test_before_there_is_a_memory_nothing_is_kept(disk: BreakableDisk, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, from_mapping({}, "test").checkpoint, disk.clock, pytest.fail, disk)
    assert keeper.resume(hgm=True) is None
    assert (keeper.lost, keeper.protection()) == ("nothing is kept yet", None)
    await until(keeper, disk, 3)
    keeper.runs()
    await keeper.stop(discard=True)
    assert list(tmp_path.iterdir()) == []


async def test_a_guest_that_has_begun_to_run_is_known_to_have(disk: BreakableDisk, tmp_path: Path) -> None:
    for runs in (False, True):
        keeper, _ = keeper_of(disk, tmp_path / str(runs), [])
        if runs:
            keeper.runs()
        await keeper.stop(discard=False)
        kept = resume(UnsyncedDisk(), tmp_path / str(runs), LOG_BYTES_MAX)
        assert kept is not None
        assert kept.ran == runs
        kept.checkpoint.close()


@pytest.mark.parametrize("missing", [0, 1])
async def test_a_verdict_is_kept_with_all_that_it_is_about(missing: int, disk: BreakableDisk, tmp_path: Path) -> None:
    keeper, memory = keeper_of(disk, tmp_path, [])
    for page in range(PAGES - missing):
        land(memory, page)
    await keeper.verified("5e" * 16)
    assert len(disk.generations) == 1
    await until(keeper, disk, 3.05)
    assert len(disk.generations) == 1, "nothing changes any more"
    await keeper.stop(discard=False)
    kept = resume(UnsyncedDisk(), tmp_path, LOG_BYTES_MAX)
    assert kept is not None
    assert kept.digest == ("" if missing else "5e" * 16)
    kept.checkpoint.discard()
    kept.checkpoint.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_verdict_that_the_disk_does_not_take_costs_the_protection(disk: BreakableDisk, tmp_path: Path) -> None:
    told: list[str] = []
    keeper, memory = keeper_of(disk, tmp_path, told)
    land(memory, 0)
    disk.is_broken = True
    await keeper.verified("5e" * 16)
    await until(keeper, disk, 0.25)
    assert len(told) == 1
    assert keeper.lost == "Input/output error"
    assert not (tmp_path / "verified").exists()
    await keeper.stop(discard=False)

"""Bugs on purpose: each step of a checkpoint that is left out, or done at another time, is found by the crashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from migemu.checkpoint import format as checkpoints
from migemu.checkpoint.format import Checkpoint, RestorePlan
from migemu.checkpoint.memory import CheckpointedMemory
from migemu.checkpoint.restore import Logs
from migemu.errors import InputError
from migemu.mm.pages import PageIndex
from migemu.store.mapped import MappedMemory
from tests.unit.checkpoint.crashes import CrashingDisk
from tests.unit.checkpoint.played import Judge, Played
from tests.unit.checkpoint.test_checkpoint_crashes import STORY


class ForgetfulDisk(CrashingDisk):
    """Says that it has synced what is named so, and has not."""

    forgets = "nothing"

    def sync(self, descriptor: int) -> None:
        inode = self._by_descriptor[descriptor]
        if any(name.startswith(self.forgets) for name, number in self._names.items() if number == inode):
            self.note("sync forgotten")
        else:
            super().sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        if self.forgets == "directory":
            self.note("sync forgotten")
        else:
            super().sync_directory(path)


def judged(directory: Path, *, forgets: str = "nothing", meanwhile: bool = False) -> None:
    """The story of test_checkpoint_crashes; every moment of it may be the last.

    `forgets` is not synced from its second generation on; `meanwhile`: a page comes while its last one is made, once
    the memory is synced.
    """
    played = Played(directory / "live", ForgetfulDisk)
    assert isinstance(played.disk, ForgetfulDisk)
    played.disk.forgets = forgets
    try:
        played.play(STORY)
        if meanwhile:
            played.disk.between = lambda step: played.land(9) if step == played.steps_when_planned + 1 else None
            played.checkpoint()
        judge = Judge(played, directory)
        for moment, mark in played.moments():
            judge.judge(moment.killed(), mark, is_killed=True)
            for _, world in moment.powerless():
                judge.judge(world, mark, is_killed=False)
    finally:
        played.end()


FOUND = (AssertionError, InputError)


@pytest.mark.parametrize("what", ["memory", "digests", "log.", "words.", "checkpoint.new", "directory"])
def test_a_sync_that_is_left_out_is_found(what: str, quick_path: Path) -> None:
    with pytest.raises(FOUND):
        judged(quick_path, forgets=what)


# --- the same steps at another time ---


def names_before_data(checkpoint: Checkpoint, plan: RestorePlan) -> None:
    """The generation is written first, and what it names is synced after it."""
    data, disk = (*checkpoint._data, plan.log.descriptor), checkpoint._disk
    sync = disk.sync
    disk.sync = lambda descriptor: None if descriptor in data else sync(descriptor)  # type: ignore[method-assign]
    try:
        COMPLETE(checkpoint, plan)
    finally:
        disk.sync = sync  # type: ignore[method-assign]
    for descriptor in data:
        disk.sync(descriptor)


def folded_logs_first(checkpoint: Checkpoint, logs: Logs) -> Logs:
    """What is folded goes before the generation that does without it is there."""
    kept = FOLD(checkpoint, logs)
    for name, _ in logs:
        if name not in dict(kept):
            checkpoint._disk.unlink(checkpoint.directory / name)
    return kept


def store_before_log(memory: CheckpointedMemory, page: PageIndex, offset: int, stamp: int | None) -> int:
    """The guest's write is stored, and then logged: with what is there by then."""
    before = MappedMemory._access(memory, page, offset, stamp)
    if stamp is not None:
        memory.checkpoint.wrote((page * 4096 + offset) // 8, stamp, stamp)
    return before


COMPLETE, FOLD, PLAN = Checkpoint.complete, Checkpoint._fold, Checkpoint.plan


@pytest.mark.parametrize(("of", "step", "bug"), [
    (Checkpoint, "complete", names_before_data),
    (Checkpoint, "_fold", folded_logs_first),
    (CheckpointedMemory, "_access", store_before_log),
])  # fmt: skip
def test_a_step_at_another_time_is_found(
    of: type, step: str, bug: Callable[..., object], quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of, step, bug)
    with pytest.raises(FOUND):
        judged(quick_path)


def test_a_bitmap_that_is_not_copied_first_is_found(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names a page that has come after the memory was synced."""
    monkeypatch.setattr(Checkpoint, "plan", lambda self, received: PLAN(self, received)._replace(received=received))
    with pytest.raises(FOUND):
        judged(quick_path, meanwhile=True)


def test_a_generation_written_in_its_place_is_found(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the last one, without a rename: for a moment there is a half of one."""
    monkeypatch.setattr(checkpoints, "NEW", checkpoints.CHECKPOINT)
    with pytest.raises(FOUND):
        judged(quick_path)

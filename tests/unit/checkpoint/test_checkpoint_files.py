"""The directory of a checkpoint: who may use it, what it refuses, and what an error of the disk does to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from migemu.checkpoint.disk import Disk
from migemu.checkpoint.format import CHECKPOINT, SCHEMA_VERSION, DirectoryState, decode, encode
from migemu.checkpoint.memory import CheckpointedMemory
from migemu.checkpoint.restore import begin, claim, resume
from migemu.errors import BrokenError, InputError
from migemu.mm.pages import Level, PieceRun
from tests.unit.checkpoint.crashes import PAGE, UnsyncedDisk
from tests.unit.checkpoint.played import IDENTITY, LOG_BYTES_MAX, Played

STORY = (("land", 0), ("write", 0), ("write", 0), ("checkpoint", 0), ("write", 0), ("land", 2), ("checkpoint", 0))


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a killed destination has left."""
    played = Played(tmp_path / "left")
    played.play(STORY)
    played.end()
    return tmp_path / "left"


def test_on_the_real_disk_what_was_kept_comes_back(tmp_path: Path) -> None:
    disk = Disk()
    os.close(claim(disk, tmp_path))
    assert resume(disk, tmp_path, LOG_BYTES_MAX) is None
    restored = begin(disk, tmp_path, IDENTITY, LOG_BYTES_MAX)
    memory = CheckpointedMemory(restored)
    memory.landing(3, 1)[:] = b"x" * PAGE
    memory.install(PieceRun(3, 1, Level.PTE))
    assert memory.touch(0, 3, 8, 77) == int.from_bytes(b"x" * 8, "little")
    restored.checkpoint.complete(restored.checkpoint.plan(restored.received))
    restored.checkpoint.close()
    again = resume(disk, tmp_path, LOG_BYTES_MAX)
    assert again is not None
    assert CheckpointedMemory(again).restored_rows() == [(3, 1)]
    assert [(word.page, word.offset, word.current) for word in CheckpointedMemory(again).restored_words()] == [
        (3, 8, 77)
    ]
    assert again.checkpoint.identity == IDENTITY
    again.checkpoint.close()


def test_a_directory_has_one_user_at_a_time(tmp_path: Path) -> None:
    lock = claim(Disk(), tmp_path / "new" / "directory")
    with pytest.raises(InputError, match="another destination uses it"):
        claim(Disk(), tmp_path / "new" / "directory")
    os.close(lock)
    os.close(claim(Disk(), tmp_path / "new" / "directory"))


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_what_is_no_directory_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        claim(Disk(), tmp_path / "file" / ("" if what == "a file" else "directory"))


def test_files_of_others_are_left_alone(tmp_path: Path, left: Path) -> None:
    (tmp_path / "memory").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        begin(UnsyncedDisk(), tmp_path, IDENTITY, LOG_BYTES_MAX)
    assert (tmp_path / "memory").read_text() == "precious"
    before = {path.name: path.read_bytes() for path in left.iterdir()}
    with pytest.raises(InputError, match="holds other files"):
        begin(UnsyncedDisk(), left, IDENTITY, LOG_BYTES_MAX)
    assert {path.name: path.read_bytes() for path in left.iterdir()} == before


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        path = next(path for path in directory.iterdir() if path.name.startswith(name))
        path.write_bytes(change(path.read_bytes()))

    return apply


DAMAGES = {
    "no memory": (lambda directory: (directory / "memory").unlink(), "memory is missing"),
    "memory too long": (changed("memory", lambda data: data + b"\0"), "memory is 65537 bytes long, not 65536"),
    "no digests": (lambda directory: (directory / "digests").unlink(), "digests is missing"),
    "digests too long": (changed("digests", lambda data: data + b"\0"), "digests is 129 bytes long, not 128"),
    "no log": (lambda directory: next(directory.glob("log.*")).unlink(), "log.* is missing"),
    "log cut": (changed("log.", lambda data: data[:63]), "holds less than the .* bytes that were promised"),
    "words cut": (changed("words.", lambda data: data[:-1]), "holds less than the .* bytes that were promised"),
    "checkpoint empty": (changed(CHECKPOINT, lambda data: b""), "it is no checkpoint"),
    "checkpoint cut": (changed(CHECKPOINT, lambda data: data[:-1]), "its checksum is wrong"),
    "another file": (changed(CHECKPOINT, lambda data: b"#!/bin/sh" * 9), "it is no checkpoint"),
    "another version": (changed(CHECKPOINT, lambda data: data[:8] + b"\x09" + data[9:]), "version 9; .* version 1"),
    "one bit": (changed(CHECKPOINT, lambda data: data[:60] + bytes([data[60] ^ 4]) + data[61:]), "checksum is wrong"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_one_line(damage: str, left: Path) -> None:
    apply, reason = DAMAGES[damage]
    apply(left)
    with pytest.raises(InputError, match=f"--checkpoint .*: is damaged: .*{reason}") as error:
        resume(UnsyncedDisk(), left, LOG_BYTES_MAX)
    assert "\n" not in str(error.value)


def test_a_page_that_has_changed_on_the_disk_comes_again(left: Path) -> None:
    changed("memory", lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:])(left)
    restored = resume(UnsyncedDisk(), left, LOG_BYTES_MAX)
    assert restored is not None
    assert restored.pages_dropped == 1
    memory = CheckpointedMemory(restored)
    assert memory.restored_rows() == [(2, 1)]
    assert bytes(memory.landing(0, 1)) == bytes(PAGE)
    restored.checkpoint.close()


@pytest.mark.parametrize("name", ["memory", "digests"])
def test_what_a_shortened_file_does_not_hold_comes_again(name: str, left: Path) -> None:
    """Whoever shortened it has ended the last life by SIGBUS."""
    size = (left / name).stat().st_size
    changed(name, lambda _: b"")(left)
    restored = resume(UnsyncedDisk(), left, LOG_BYTES_MAX)
    assert restored is not None
    assert restored.pages_dropped > 0
    assert not any(restored.received)
    assert (left / name).stat().st_size == size
    restored.checkpoint.close()


def test_what_is_in_a_checkpoint_is_what_was_put_in() -> None:
    state = DirectoryState(7, IDENTITY, (("words.2", 64), ("log.3", 96)), bytes([1, 0, 0, 1] * 4))
    data = encode(state)
    assert decode(data) == state
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"it is|checksum"):
            decode(data[:length])
    assert SCHEMA_VERSION == 1


# --- a disk that does not take it ---


class FullDisk(UnsyncedDisk):
    """Works until told to fail; then each of `steps` does."""

    def __init__(self, number: int, *steps: str) -> None:
        self.fails = False
        for step in steps:
            setattr(self, step, self._failing(getattr(self, step), number))

    def _failing(self, works: Callable[..., object], number: int) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            if self.fails:
                raise OSError(number, os.strerror(number))
            return works(*arguments)

        return step


@pytest.mark.parametrize("step", ["create", "allocate", "write", "sync", "replace", "sync_directory"])
def test_a_disk_that_takes_no_checkpoint_is_told_in_one_line_and_its_room_given_back(step: str, tmp_path: Path) -> None:
    disk = FullDisk(errno.ENOSPC, step)
    disk.fails = True
    with pytest.raises(BrokenError, match="a memory of 64K cannot be kept there: No space left on device") as error:
        begin(disk, tmp_path, IDENTITY, LOG_BYTES_MAX)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["write", "sync", "create", "replace", "sync_directory"])
def test_after_an_error_the_guest_runs_on_and_the_last_whole_generation_stays(
    step: str, number: int, tmp_path: Path
) -> None:
    disk = FullDisk(number, step)
    restored = begin(disk, tmp_path, IDENTITY, 1 << 20)
    memory, checkpoint = CheckpointedMemory(restored), restored.checkpoint
    memory.landing(0, 2)[:] = b"x" * (2 * PAGE)
    memory.install(PieceRun(0, 2, Level.PTE))
    memory.touch(0, 0, 0, 1)
    checkpoint.complete(checkpoint.plan(restored.received))
    disk.fails = True
    memory.touch(0, 0, 0, 2)
    with pytest.raises(OSError, match=os.strerror(number)):
        checkpoint.complete(checkpoint.plan(restored.received))
    checkpoint.lose(OSError(number, os.strerror(number)))
    disk.fails = False
    assert memory.touch(0, 0, 0, 3) == 2, "the guest runs on"
    memory.touch(0, 1, 0, 4)
    assert checkpoint.failure == os.strerror(number)
    checkpoint.close()
    again = resume(UnsyncedDisk(), tmp_path, LOG_BYTES_MAX)
    assert again is not None
    words = [(word.page, word.current) for word in CheckpointedMemory(again).restored_words()]
    assert words == [(0, 1 if step == "write" else 2)], "every write that was acknowledged, and no other"
    assert again.pages_dropped == 1, "a page with a write that was not logged comes again"
    assert CheckpointedMemory(again).restored_rows() == [(0, 1)]
    again.checkpoint.close()


def test_a_completed_migration_leaves_no_files(left: Path) -> None:
    (left / "notes.txt").write_text("of somebody else")
    restored = resume(UnsyncedDisk(), left, LOG_BYTES_MAX)
    assert restored is not None
    restored.checkpoint.discard()
    restored.checkpoint.close()
    assert [path.name for path in left.iterdir()] == ["notes.txt"]
    assert resume(UnsyncedDisk(), left, LOG_BYTES_MAX) is None


def test_leftovers_that_nothing_names_are_removed(left: Path) -> None:
    names = {path.name for path in left.iterdir()}
    (left / "log.99").write_bytes(b"")
    (left / "words.98").write_bytes(b"")
    restored = resume(UnsyncedDisk(), left, LOG_BYTES_MAX)
    assert restored is not None
    restored.checkpoint.close()
    assert not {path.name for path in left.iterdir()} & {"log.99", "words.98"}
    assert len(list(left.iterdir())) <= len(names) + 1


def test_neither_logs_nor_descriptors_grow_with_writes(tmp_path: Path) -> None:
    restored = begin(UnsyncedDisk(), tmp_path, IDENTITY, LOG_BYTES_MAX)
    memory, checkpoint = CheckpointedMemory(restored), restored.checkpoint
    memory.install(PieceRun(0, 1, Level.PTE))
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for stamp in range(1, 301):
        memory.touch(0, 0, stamp % 3 * 64, stamp)
        if stamp % 3 == 0:
            checkpoint.complete(checkpoint.plan(restored.received))
    logs = [path for path in tmp_path.iterdir() if path.name.startswith(("log", "words"))]
    assert sum(path.stat().st_size for path in logs) < 2 * 64 + 32 * 6
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= before
    checkpoint.close()
    again = resume(UnsyncedDisk(), tmp_path, LOG_BYTES_MAX)
    assert again is not None
    assert [word.current for word in CheckpointedMemory(again).restored_words()] == [300, 298, 299]
    again.checkpoint.close()

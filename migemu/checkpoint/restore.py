"""Checkpoints begun and read back: a directory that is empty, or that a killed destination has left.

What is read back
    the generation   `checkpoint`, whole (its checksum) or refused
    guest writes     the logs that it names, as far as it promises them; then what was appended since, up to the first
                     record that is torn, and the logs that followed
    pages            those of its bitmap whose bytes still give their digest when logged words are put back; the rest
                     comes again, onto zeros

Rules
    1. What a generation promises and what is not there is damage, and refused: the guest would come back wrong.
       What lies beyond it is taken as far as it is whole.
    2. Reading back can be interrupted at any step and begun again: nothing that counts is changed before the next
       generation is complete.
    3. A directory without a generation is used only if it is empty, or holds what an interrupted beginning has left
       (`checkpoint.new` is the first file to be made, and the last to go).
    4. A directory has one user at a time: it is locked (flock) for as long as the process lives.
    5. The files are mapped, as guests' memory is: whoever shortens one, or takes the disk away, ends the process by
       SIGBUS, as SIGKILL would. Nothing is lost by it that is not there any more: pages that a shortened file does not
       hold give no digest, so they come again, and what the guest had written to them is in the logs. There was room
       for all of it from the beginning (`Disk.allocate`): a full disk is no reason for a SIGBUS.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import zlib
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from migemu import named
from migemu.checkpoint.disk import Disk
from migemu.checkpoint.format import (
    CHECKPOINT,
    DIGESTS,
    FILE_NAMES,
    LOGS,
    MEMORY,
    NEW,
    RUNNING,
    VERIFIED,
    Checkpoint,
    DirectoryState,
    Identity,
    decode,
)  # fmt: skip
from migemu.checkpoint.write_log import HEADER_BYTES, RECORD_BYTES, WORD_BYTES, Words, folded, read_log
from migemu.errors import BrokenError, InputError
from migemu.mm.pages import GEOMETRIES
from migemu.store.output import others_can_write
from migemu.units import MIB, format_size
from migemu.wire.digest import DIGEST_BYTES, page_digests

_PAGES_AT_ONCE: Final = 4096
_ZEROS: Final = bytes(MIB)
#: A bit for each base page of 8T, had zlib nothing to gain.
_GENERATION_BYTES_MAX: Final = 256 * MIB

Logs = tuple[tuple[str, int], ...]


class RestoredCheckpoint(NamedTuple):
    """A directory in use: mapped files, `received` (a byte a base page, 1 if it is kept), words that the guest wrote.

    `pages_dropped` were in the bitmap, but their digests do not match any more. `ran`: the guest had begun to run.
    `digest` is that of the whole memory, if all of it was verified.
    """

    checkpoint: Checkpoint
    memory: mmap.mmap
    digests: mmap.mmap
    received: bytearray
    words: Words
    pages_dropped: int = 0
    ran: bool = False
    digest: str = ""


def claim(disk: Disk, directory: Path) -> int:
    """Make `directory` if there is none, and take it: the lock's descriptor. InputError when it cannot be had.

    It holds the memory of a guest: it is the user's own, and others cannot put anything into it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        if found.st_uid != os.geteuid():
            raise InputError(f"--checkpoint {directory}: belongs to another user; give a directory of your own")
        if others_can_write(found):
            raise InputError(
                f"--checkpoint {directory}: can be written by others (mode {stat.S_IMODE(found.st_mode):04o}), and is "
                f"to hold a guest's memory; chmod go-w {directory}, or give another"
            )
        lock = disk.lock(directory)
    except OSError as error:
        raise InputError(f"--checkpoint {directory}: cannot be used: {error.strerror}") from None
    if lock is None:
        raise InputError(f"--checkpoint {directory}: another destination uses it; give each its own directory")
    return lock


def begin(disk: Disk, directory: Path, identity: Identity, log_bytes_max: int) -> RestoredCheckpoint:
    """A claimed directory for a new migration; its first generation is complete.

    InputError when it is used for something else, BrokenError when the disk does not take it.
    """
    try:
        _sweep(disk, directory)
        disk.close(disk.create(directory / NEW))
        disk.sync_directory(directory)  # what lies here from now on is known to be ours
        pages = identity.memory_bytes // GEOMETRIES[identity.geometry].page_bytes
        memory = disk.create(directory / MEMORY)
        disk.allocate(memory, identity.memory_bytes)
        digests = disk.create(directory / DIGESTS)
        disk.allocate(digests, pages * DIGEST_BYTES)
        checkpoint = Checkpoint(disk, directory, identity, (memory, digests), (), 0, log_bytes_max)
        opened = RestoredCheckpoint(checkpoint, _mapped(memory), _mapped(digests), bytearray(pages), folded([]))
        checkpoint.complete(checkpoint.plan(opened.received))
    except OSError as error:
        try:
            _sweep(disk, directory)  # the room is given back
        except OSError:
            pass  # what went wrong first is told
        size = format_size(identity.memory_bytes)
        raise BrokenError(
            f"--checkpoint {directory}: a memory of {size} cannot be kept there: {error.strerror}; give a directory "
            "with more room, or go without"
        ) from None
    return opened


def _sweep(disk: Disk, directory: Path) -> None:
    """Remove the files of an interrupted beginning. InputError when there are other files."""
    names = sorted(path.name for path in directory.iterdir())
    if CHECKPOINT in names or (names and NEW not in names):
        raise InputError(f"--checkpoint {directory}: holds other files; give an empty directory, or a new one")
    for name in names:
        if (name in FILE_NAMES and name != NEW) or name.startswith(LOGS):
            disk.unlink(directory / name)
    disk.unlink(directory / NEW)


def resume(disk: Disk, directory: Path, log_bytes_max: int) -> RestoredCheckpoint | None:
    """What a claimed directory has kept, its next generation complete; None when it has no generation.

    InputError when it is damaged, BrokenError when it cannot be read or written.
    """
    try:
        state = decode(named.read(directory / CHECKPOINT, _GENERATION_BYTES_MAX))
        logs, words = _writes(directory, state)
        return _resumed(disk, directory, state, logs, words, log_bytes_max)
    except FileNotFoundError as error:
        if not (directory / CHECKPOINT).exists():
            return None
        raise InputError(_damaged(directory, f"{Path(error.filename).name} is missing")) from None
    except OSError as error:
        raise BrokenError(f"--checkpoint {directory}: cannot be used: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, OverflowError, zlib.error) as error:
        raise InputError(_damaged(directory, str(error))) from None


def _damaged(directory: Path, reason: str) -> str:
    return (
        f"--checkpoint {directory}: is damaged: {reason}; put the file back, or remove the directory, and with it all "
        "that the guest has written"
    )


def _writes(directory: Path, state: DirectoryState) -> tuple[Logs, Words]:
    """The logs that count, and the words in them. ValueError when they hold less than `state` promises."""
    logs: list[tuple[str, int]] = []
    read: list[Words] = []
    migration = state.identity.migration
    for name, promised in state.logs:
        is_last = name == state.logs[-1][0]
        log = read_log(directory / name, migration, None if is_last else promised)
        if log is None or log.size < promised:
            raise ValueError(f"{name} holds less than the {promised} bytes that were promised")
        logs.append((name, log.size))
        read.append(log.words)
    while (path := directory / f"log.{int(logs[-1][0].rpartition('.')[2]) + 1}").exists():
        follower = read_log(path, migration)
        if follower is None or follower.previous_bytes > logs[-1][1]:
            break  # what it follows is not all there: it was never acknowledged against the death of the machine
        records = (follower.previous_bytes - HEADER_BYTES) // RECORD_BYTES
        logs[-1] = (logs[-1][0], follower.previous_bytes)
        read[-1] = Words(*(column[:records] for column in read[-1]))
        logs.append((path.name, follower.size))
        read.append(follower.words)
    return tuple(logs), folded(read)


def _resumed(
    disk: Disk, directory: Path, state: DirectoryState, logs: Logs, words: Words, log_bytes_max: int
) -> RestoredCheckpoint:
    identity, received = state.identity, bytearray(state.received)
    page_bytes = GEOMETRIES[identity.geometry].page_bytes
    sizes = {MEMORY: identity.memory_bytes, DIGESTS: len(received) * DIGEST_BYTES}
    found = {name: (directory / name).stat().st_size for name in sizes}
    for name, size in sizes.items():
        if found[name] > size:
            raise ValueError(f"{name} is {found[name]} bytes long, not {size}")
    if len(received) * page_bytes != identity.memory_bytes or (words.word >= identity.memory_bytes // WORD_BYTES).any():
        raise ValueError("its files do not belong together")
    data = disk.open(directory / MEMORY), disk.open(directory / DIGESTS)
    for descriptor, (name, size) in zip(data, sizes.items(), strict=True):
        if found[name] < size:  # rule 5
            disk.allocate(descriptor, size, found[name])
    memory, digests = _mapped(data[0]), _mapped(data[1])
    dropped = _settle(memory, digests, page_bytes, received, words)
    for path in sorted(directory.iterdir()):
        if path.name.startswith(LOGS) and path.name not in dict(logs):
            disk.unlink(path)
    checkpoint = Checkpoint(disk, directory, identity, data, logs, state.generation, log_bytes_max)
    checkpoint.complete(checkpoint.plan(received))
    digest = _verified(directory) if all(received) else ""
    return RestoredCheckpoint(
        checkpoint, memory, digests, received, words, dropped, (directory / RUNNING).exists(), digest
    )


def _verified(directory: Path) -> str:
    """The stored digest of the whole memory, if the comparison had been completed; "" if not."""
    path = directory / VERIFIED
    text = named.read(path, named.SETTINGS_BYTES_MAX) if path.exists() else b""
    return text.decode() if re.fullmatch(rb"[0-9a-f]{32}", text) else ""


def _settle(memory: mmap.mmap, digests: mmap.mmap, page_bytes: int, received: bytearray, words: Words) -> int:
    """Remove pages from `received` whose digest does not match, and store the guest's words; how many were removed.

    Pages that are not kept become zeros, as zero pieces bring no bytes.
    """
    view, cells = memoryview(memory), np.frombuffer(memory, dtype="<u8")
    at = words.word.astype(np.int64)
    cells[at] = words.before
    dropped = 0
    for first, last in rows(received, 1):
        for start in range(first, last, _PAGES_AT_ONCE):
            end = min(start + _PAGES_AT_ONCE, last)
            ours = np.frombuffer(page_digests(view[start * page_bytes : end * page_bytes], page_bytes), dtype="<u8")
            wrong = np.flatnonzero(ours != np.frombuffer(digests, "<u8", end - start, start * DIGEST_BYTES))
            for page in wrong.tolist():
                received[start + page] = 0
            dropped += len(wrong)
    for first, last in rows(received, 0):
        for start in range(first * page_bytes, last * page_bytes, MIB):
            size = min(MIB, last * page_bytes - start)
            if cells[start // WORD_BYTES : (start + size) // WORD_BYTES].any():  # what is not stored to stays clean
                view[start : start + size] = _ZEROS[:size]
    is_received = np.frombuffer(received, dtype=np.uint8)[at * WORD_BYTES // page_bytes] == 1
    cells[at[is_received]] = words.stamp[is_received]
    return dropped


def rows(flags: bytearray, value: int) -> list[tuple[int, int]]:
    """The rows of neighbouring positions where `flags` equals `value`: (first, end) of each."""
    inside = np.frombuffer(flags, dtype=np.uint8) == value
    edges = np.flatnonzero(np.diff(np.concatenate(([False], inside, [False])))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _mapped(descriptor: int) -> mmap.mmap:
    return mmap.mmap(descriptor, 0, mmap.MAP_SHARED)

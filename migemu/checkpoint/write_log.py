"""The log of guest writes: which word, what it held before, what was stored to it. Only ever appended to.

A log is a file of records of 32 bytes behind a header of 64:

    header   magic, salt of the log, bytes of the log before it that count, checksum; zeros
    record   word (bytes from the beginning of the memory / 8), before, stamp, check; little endian

Rules
    1. A record counts if its check is right and all before it count. The first that does not ends the log: a torn or
       missing one was never acknowledged. A record never lies across two sectors of a disk (512 / 32).
    2. The check is a sum of the words times odd constants, the salt and the record's number among them: any single
       word that differs shows, and a record of another log or of another place is no record of this one.
    3. Logs follow each other by number. The next one says how much of its predecessor counts, so that a torn end that
       a restart has cut off stays cut off.
    4. Folded, logs give per word what it held originally (the first `before`) and what it must hold now (the last
       stamp). A folded log is a log: its records are (word, original, current). Folding is associative.

Simplified: the check finds mistakes, not forgery.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import xxhash

from migemu import named
from migemu.checkpoint.disk import Disk

WORD_BYTES: Final = 8
HEADER_BYTES: Final = 64
RECORD_BYTES: Final = 32
_HEADER: Final = struct.Struct("<8sQQ")
_RECORD: Final = struct.Struct("<4Q")
_MAGIC: Final = b"migemuL1"
_MASK: Final = (1 << 64) - 1
#: Odd constants without structure: three primes of xxh64 (Collet 2012), the increment of splitmix64 (Steele 2014).
_WORD, _BEFORE, _STAMP, _NUMBER = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x9E3779B97F4A7C15

Column = np.ndarray[Any, np.dtype[np.uint64]]


class Words(NamedTuple):
    """Guest writes by word, in three columns of equal length: word number, value before, value stored."""

    word: Column
    before: Column
    stamp: Column


class ReadLog(NamedTuple):
    """What counts of a log: its records, its length in bytes, and how many bytes of the log before it count."""

    words: Words
    size: int
    previous_bytes: int


NOTHING: Final = Words(*(np.empty(0, dtype=np.uint64) for _ in range(3)))


def _salt(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())


def _header(name: str, previous_bytes: int) -> bytes:
    fields = _HEADER.pack(_MAGIC, _salt(name), previous_bytes)
    return (fields + xxhash.xxh3_64_digest(fields)).ljust(HEADER_BYTES, b"\0")


class WriteLog:
    """A log of guest writes that is only appended to."""

    def __init__(self, disk: Disk, path: Path, migration: str, previous_bytes: int = 0) -> None:
        """Create the log at `path` for the migration of that name. OSError when the disk does not take it."""
        self.path = path
        self.size = HEADER_BYTES
        self._disk = disk
        name = f"{migration}/{path.name}"
        self._check = _salt(name)
        self.descriptor = disk.create(path)
        disk.write(self.descriptor, _header(name, previous_bytes))

    def append(self, word: int, before: int, stamp: int) -> None:
        """Write one record; the guest's write is acknowledged on return. OSError when the disk does not take it."""
        check = (self._check + word * _WORD + before * _BEFORE + stamp * _STAMP) & _MASK
        self._disk.write(self.descriptor, _RECORD.pack(word, before, stamp, check))
        self._check = (self._check + _NUMBER) & _MASK
        self.size += RECORD_BYTES

    def __repr__(self) -> str:
        return f"<WriteLog {self.path.name}, {(self.size - HEADER_BYTES) // RECORD_BYTES} records>"


def read_log(path: Path, migration: str, most_bytes: int | None = None) -> ReadLog | None:
    """What counts of the log at `path`, in its first `most_bytes`; None when its header is damaged. OSError."""
    with named.opened(path) as file:
        data = file.read(-1 if most_bytes is None else most_bytes)
    return parsed(data, path.name, migration)


def parsed(data: bytes, name: str, migration: str) -> ReadLog | None:
    """What counts of the bytes of the log `name`; None when its header is damaged."""
    name = f"{migration}/{name}"
    if len(data) < HEADER_BYTES:
        return None
    magic, salt, previous_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC or salt != _salt(name) or data[:HEADER_BYTES] != _header(name, previous_bytes):
        return None
    records = (len(data) - HEADER_BYTES) // RECORD_BYTES
    table = np.frombuffer(data, dtype="<u8", count=records * 4, offset=HEADER_BYTES).reshape(records, 4)
    words = Words(*(table[:, column].astype(np.uint64) for column in range(3)))
    wrong = np.flatnonzero(_checks(words, salt) != table[:, 3])
    count = int(wrong[0]) if len(wrong) else records
    words = Words(*(column[:count] for column in words))
    return ReadLog(words, HEADER_BYTES + count * RECORD_BYTES, previous_bytes)


def folded(logs: Sequence[Words]) -> Words:
    """Each word once, in order of address: what it held before the first write, and what the last one stored."""
    word, before, stamp = (np.concatenate([log[column] for log in logs] or [NOTHING[0]]) for column in range(3))
    each, first = np.unique(word, return_index=True)
    _, last = np.unique(word[::-1], return_index=True)
    return Words(each, before[first], stamp[::-1][last])


def encoded(words: Words, name: str, migration: str) -> bytes:
    """The bytes of a whole log, header included, that holds `words`."""
    name = f"{migration}/{name}"
    table = np.column_stack([*words, _checks(words, _salt(name))]).astype("<u8")
    return _header(name, 0) + table.tobytes()


def _checks(words: Words, salt: int) -> Column:
    number = np.arange(len(words.word), dtype=np.uint64)
    factors = zip((*words, number), (_WORD, _BEFORE, _STAMP, _NUMBER), strict=True)
    total = np.full(len(number), salt, dtype=np.uint64)
    for column, factor in factors:
        total += column * np.uint64(factor)
    return total

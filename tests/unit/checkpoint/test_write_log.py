"""The log of guest writes: what counts of it, and what it comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from migemu.checkpoint.write_log import (
    HEADER_BYTES,
    NOTHING,
    RECORD_BYTES,
    ReadLog,
    Words,
    WriteLog,
    encoded,
    folded,
    read_log,
)  # fmt: skip
from tests.unit.checkpoint.crashes import UnsyncedDisk

MIGRATION = "0123456789abcdef" * 2
WRITES = ((7, 70, 71), (9, 0, 2**64 - 1), (7, 71, 72), (2**61, 5, 0))


def log_of(path: Path, *writes: tuple[int, int, int], previous_bytes: int = 0) -> Path:
    disk = UnsyncedDisk()
    log = WriteLog(disk, path, MIGRATION, previous_bytes)
    for write in writes:
        log.append(*write)
    disk.close(log.descriptor)
    assert path.stat().st_size == log.size
    return path


def rows(log: ReadLog | Words | None) -> list[tuple[int, ...]]:
    assert log is not None
    words = log.words if isinstance(log, ReadLog) else log
    return list(zip(*(column.tolist() for column in words), strict=True))


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    log = read_log(log_of(tmp_path / "log.3", *WRITES, previous_bytes=96), MIGRATION)
    assert rows(log) == list(WRITES)
    assert log is not None
    assert (log.size, log.previous_bytes) == (HEADER_BYTES + 4 * RECORD_BYTES, 96)


def test_a_log_without_records_is_one(tmp_path: Path) -> None:
    assert rows(read_log(log_of(tmp_path / "log.1"), MIGRATION)) == []


@pytest.mark.parametrize("cut", range(1, RECORD_BYTES + 1))
def test_a_torn_last_record_is_cut_off(cut: int, tmp_path: Path) -> None:
    path = log_of(tmp_path / "log.1", *WRITES)
    path.write_bytes(path.read_bytes()[:-cut])
    assert rows(read_log(path, MIGRATION)) == list(WRITES[:3])


def test_any_bit_that_differs_ends_the_log_at_its_record(tmp_path: Path) -> None:
    path = log_of(tmp_path / "log.1", *WRITES)
    whole = path.read_bytes()
    for bit in range(RECORD_BYTES * 8):
        data = bytearray(whole)
        data[HEADER_BYTES + RECORD_BYTES + bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert rows(read_log(path, MIGRATION)) == list(WRITES[:1])


def test_a_record_of_another_place_or_of_zeros_is_none(tmp_path: Path) -> None:
    path = log_of(tmp_path / "log.1", *WRITES)
    whole = path.read_bytes()
    second = whole[HEADER_BYTES + RECORD_BYTES : HEADER_BYTES + 2 * RECORD_BYTES]
    for put in (second, bytes(RECORD_BYTES)):
        path.write_bytes(whole[:HEADER_BYTES] + put + whole[HEADER_BYTES + RECORD_BYTES :])
        assert rows(read_log(path, MIGRATION)) == []


@pytest.mark.parametrize("byte", [0, 8, 16, 24, HEADER_BYTES - 1])
def test_a_header_that_differs_is_none(byte: int, tmp_path: Path) -> None:
    path = log_of(tmp_path / "log.1", *WRITES)
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)
    assert read_log(path, MIGRATION) is None
    path.write_bytes(data[: HEADER_BYTES - 1])
    assert read_log(path, MIGRATION) is None


def test_a_log_of_another_migration_or_name_is_none(tmp_path: Path) -> None:
    path = log_of(tmp_path / "log.1", *WRITES)
    assert read_log(path, "f" * 32) is None
    assert read_log(path.rename(tmp_path / "log.2"), MIGRATION) is None


def test_folded_each_word_has_its_first_before_and_its_last_stamp(tmp_path: Path) -> None:
    log = read_log(log_of(tmp_path / "log.1", *WRITES), MIGRATION)
    assert log is not None
    assert rows(folded([log.words])) == [(7, 70, 72), (9, 0, 2**64 - 1), (2**61, 5, 0)]
    later = folded(
        [log.words, *(read.words for read in [read_log(log_of(tmp_path / "log.2", (9, 1, 3)), MIGRATION)] if read)]
    )
    assert rows(later) == [(7, 70, 72), (9, 0, 3), (2**61, 5, 0)]
    assert rows(folded([])) == rows(NOTHING) == []


def test_a_folded_log_is_a_log(tmp_path: Path) -> None:
    log = read_log(log_of(tmp_path / "log.1", *WRITES), MIGRATION)
    assert log is not None
    words = folded([log.words])
    (tmp_path / "words.2").write_bytes(encoded(words, "words.2", MIGRATION))
    again = read_log(tmp_path / "words.2", MIGRATION)
    assert rows(again) == rows(words)
    assert again is not None
    assert rows(folded([again.words])) == rows(words)

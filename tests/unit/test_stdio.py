"""Outlets over real pipes: who writes never waits, what is lost is counted, and told in its place."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migemu.stdio import Outlet

PIPE_BYTES = 4096
HANG_S = 20


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds a page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        yield reader, writer
    finally:
        for end in (reader, writer):
            try:
                os.close(end)
            except OSError:
                pass


def told(reader: int, until: bytes) -> bytes:
    """All that comes, as far as `until`."""
    said = b""
    while not said.endswith(until):
        said += os.read(reader, 1 << 16)
    return said


def gap(lines: int) -> str:
    return f"({lines} lost)\n"


def test_what_is_written_comes_out() -> None:
    with pipe() as (reader, writer):
        outlet = Outlet(writer)
        for number in range(100):
            outlet.write(b"line %d\n" % number)
        assert outlet.settle(HANG_S)
        assert os.read(reader, 1 << 16) == b"".join(b"line %d\n" % number for number in range(100))
        assert not outlet.lost_lines


def test_a_pipe_that_nobody_reads_keeps_nobody_and_holds_a_bounded_number_of_bytes() -> None:
    with pipe() as (reader, writer):
        outlet = Outlet(writer, waiting_max=10_000, gap=gap)
        for number in range(5000):
            outlet.write(b"%08d\n" % number)
        assert not outlet.settle(0.01)
        assert 3000 < outlet.lost_lines < 5000
        said = told(reader, b"00004999\n")
        assert outlet.settle(HANG_S)
    next_one = 0
    for line in said.splitlines():
        if line.endswith(b"lost)"):
            next_one += int(line[1:].split()[0])
        else:
            assert int(line) == next_one, "what is missing is told where it is missing"
            next_one += 1
    assert next_one == 5000


def test_a_line_that_is_longer_than_all_that_may_wait_is_written_whole() -> None:
    with pipe() as (reader, writer):
        outlet = Outlet(writer, waiting_max=100)
        outlet.write(b"x" * 50_000 + b"\n")
        assert told(reader, b"\n") == b"x" * 50_000 + b"\n"


def test_a_reader_that_has_gone_is_a_reason_and_no_error() -> None:
    with pipe() as (reader, writer):
        os.close(reader)
        outlet = Outlet(writer)
        outlet.write(b"one\ntwo\n")
        assert outlet.settle(HANG_S)
        assert (outlet.lost_lines, outlet.lost_why) == (2, "Broken pipe")


def test_a_full_disk_that_has_room_again_is_told_how_much_it_misses(tmp_path: pytest.TempPathFactory) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    outlet = Outlet(full, gap=gap)
    for _ in range(3):
        outlet.write(b"line\n")
    assert outlet.settle(HANG_S)
    assert (outlet.lost_lines, outlet.lost_why) == (3, "No space left on device")
    with pipe() as (reader, writer):
        os.dup2(writer, full)
        outlet.write(b"again\n")
        assert told(reader, b"again\n") == b"(3 lost)\nagain\n"
    os.close(full)


def test_a_descriptor_that_somebody_else_made_non_blocking_loses_nothing() -> None:
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        outlet = Outlet(writer)
        outlet.write(b"x" * 100_000 + b"\n")
        assert told(reader, b"\n") == b"x" * 100_000 + b"\n"
        assert not outlet.lost_lines


def test_of_two_streams_of_one_file_the_first_goes_first() -> None:
    with pipe() as (reader, writer):
        out, error = Outlet(writer), Outlet(writer)
        out.beside, error.beside = error, out
        for number in range(200):
            (out, error)[number % 3 == 0].write(b"%d\n" % number)
        said = told(reader, b"199\n")
        assert [int(line) for line in said.split()] == list(range(200))

"""An image that is written to, shortened or replaced while it is sent; a checkpoint's file that is shortened.

Nobody dies of a signal, or takes a mixture of two images for verified, and the side that is wrong is named.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.cores import Part, core
from tests.real.processes import NodeProcess, destination, source
from tests.real.test_checkpoint import Story, come, ends_verified

PAGE = 4096
PAGES = 256
#: Nothing is sent for as long as a test needs; then, one after the other.
HELD = ("--set", "push.order=sequential", "--set", "guest.vcpus=0", "--set", "push.run=16K")
CORE = ("--set", "memory.image_format=core")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(Random(1).randbytes(PAGES * PAGE))
    return path


@contextmanager
def on_the_way(image: Path, pages: int, *settings: str) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """Destination and source of a migration of which about so many pages have been sent, and the rest takes seconds."""
    dump, out = image.parent / "dump.img", image.parent / "out"
    with destination("--dump", str(dump), *HELD) as dest:
        slow = ("--set", f"push.{'rate=2Mbit' if pages else 'hold=2s'}")
        with source(dest.port, "--image", str(image), "--out", str(out), *HELD, *slow, *settings) as sender:
            dest.wait_for_stage("run")
            come(dest, pages)
            yield dest, sender


def write(path: Path, page: int) -> None:
    """Another content of a page."""
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(b"another" * 100)


@pytest.mark.parametrize("settings", [(), ("--set", "integrity.digests=on")], ids=str)
def test_an_image_that_is_shortened_is_told_and_nobody_dies_of_it(settings: tuple[str, ...], image: Path) -> None:
    with on_the_way(image, 30, *settings, "--set", "recovery.timeout=1s") as (dest, sender):
        os.truncate(image, 31 * PAGE)
        assert sender.wait() == 3
        assert f"{image} was shortened while it was read" in sender.error
        assert "the source's image is wrong" in sender.error
        assert "--recover" in sender.error
        dest.signal(signal.SIGTERM)  # it waits for a source that can read
        assert dest.wait() == 130


@pytest.mark.parametrize(("page", "sent"), [(PAGES - 1, 0), (PAGES - 1, 40), (0, 40)], ids=str)
def test_an_image_that_is_written_to_is_the_source_s_fault(page: int, sent: int, image: Path) -> None:
    """In what had been sent, so that the memory differs; in what had not, so that it does not, and is a mixture."""
    with on_the_way(image, sent) as (dest, sender):
        write(image, page)
        assert sender.wait() == 5
        assert f"{image} changed while it was read: its time of writing (mtime) is another one" in sender.error
        assert "The source's image is wrong, not the destination" in sender.error
        assert dest.wait() in (3, 5)
        assert dest.wait() == (5 if page < sent else 3)


def test_one_that_grows_has_changed(image: Path) -> None:
    with on_the_way(image, 0) as (_, sender):
        os.truncate(image, (PAGES + 1) * PAGE)
        assert sender.wait() == 5
        assert f"it had {PAGES * PAGE} bytes, and has {(PAGES + 1) * PAGE}" in sender.error


def test_whoever_sets_the_time_back_is_found_out(image: Path) -> None:
    """As rsync -t and cp -p do."""
    with on_the_way(image, 0) as (_, sender):
        about = image.stat()
        write(image, 200)
        os.utime(image, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert sender.wait() == 5
        assert "as if its time of writing had been set back" in sender.error


def test_one_that_is_renamed_replaced_or_linked_is_sent_as_it_was(image: Path) -> None:
    before = image.read_bytes()
    with on_the_way(image, 0) as (dest, sender):
        os.link(image, image.with_name("link"))
        new = image.with_name("new")
        new.write_bytes(bytes(PAGE))
        new.rename(image)
        image.with_name("link").unlink()
        assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error
    assert image.with_name("dump.img").read_bytes() == before


def test_of_a_private_copy_nothing_changes(image: Path) -> None:
    before = image.read_bytes()
    with on_the_way(image, 0, "--set", "memory.image_copy=on") as (dest, sender):
        os.truncate(image, 5 * PAGE)
        write(image, 0)
        assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error
    assert image.with_name("dump.img").read_bytes() == before


def test_a_core_comes_as_the_memory_in_it(tmp_path: Path) -> None:
    ram = [Random(number).randbytes(20 * PAGE + number) for number in range(2)]
    path, dump = tmp_path / "vmcore", tmp_path / "dump"
    path.write_bytes(core([Part(PAGE, ram[0]), Part(64 * PAGE, ram[1])]))
    with destination("--dump", str(dump)) as dest, source(dest.port, "--image", str(path), *CORE) as sender:
        assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error
    memory = bytes(PAGE) + ram[0]
    assert dump.read_bytes() == memory.ljust(64 * PAGE, b"\0") + ram[1]


def test_raw_bytes_of_a_core_are_sent_with_a_word_of_advice(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(core([Part(0, b"x" * PAGE)]))
    with destination() as dest, source(dest.port, "--image", str(path)) as sender:
        assert "memory.image_format=core" in sender.wait_for_notice()
        assert sender.wait() == 0, sender.error


def test_a_checkpoint_whose_memory_is_shortened_loses_a_process_and_nothing_else(tmp_path: Path) -> None:
    """What is mapped cannot say that it is not there: SIGBUS. What was in it comes again, writes are in the logs."""
    with Story(tmp_path) as story:
        dest = story.destination()
        sender = story.source(dest)
        come(dest, 300)
        os.truncate(story.kept / "memory", 64 * PAGE)
        assert dest.wait() == -signal.SIGBUS
        dest = story.destination()
        assert "goes on with migration" in dest.wait_for_notice()
        ends_verified(story, dest, sender)

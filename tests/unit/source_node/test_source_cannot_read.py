"""A source that cannot read its memory, or whose memory changes: who is told what, and what can still be done.

Before the switch the guest stays where it is; after it, whoever mends the disk can go on. In virtual time, real bytes.
"""

from __future__ import annotations

import asyncio

import pytest

from migemu.errors import GaveUpError, MigemuError, UnreadableError, VerificationError
from migemu.scenario.scenario import Scenario
from migemu.store.image import ImageMemory
from migemu.store.image_file import Bytes
from source_node.service import Source
from tests.addresses import PLACE
from tests.unit.dest_node.town import Town, named, settings

SIZE = 512 * 1024
FAILED = "Input/output error"


#: The last read there is: of the digests at the end.
LAST = -1


class Failing:
    """image_file.Bytes of a disk that is bad from the read number `bad_from` on, up to `bad_until`; or that changes."""

    def __init__(self, image: Bytes, bad_from: int = 1 << 30, bad_until: int = 1 << 30, changes: str = "") -> None:
        self.reads = 0
        self._image, self._bad, self._changes = image, range(bad_from, bad_until), changes

    def read(self, at: int, count: int) -> memoryview | bytes:
        self.reads += 1
        if self.reads in self._bad:
            raise UnreadableError(f"disk.img cannot be read at byte {at}: {FAILED}; the source's disk is wrong")
        return self._image.read(at, count)

    def changed(self) -> str | None:
        return self._changes or None


def memory_of(town: Town, disk: Failing) -> ImageMemory:
    return ImageMemory(town.scenario.geometry, disk, SIZE, "disk.img")


def town_and_disk(scenario: Scenario, *bad: int, changes: str = "") -> tuple[Town, Failing]:
    town = Town(scenario, 1)
    return town, Failing(town.memory(1)._image, *bad, changes=changes)


async def again(town: Town, failing: Source) -> tuple[BaseException, str, object]:
    """A source that fails, and one that is started in its place once it has, with a disk that was mended."""
    try:
        await failing.run(PLACE)
    except MigemuError as error:
        first = error
    else:
        pytest.fail("it did not fail")
    await asyncio.sleep(0.01)
    (there,) = town.destination.serving.values()
    return first, there.snapshot().last_error, await town.source(1).recover(PLACE, 1)


@pytest.mark.parametrize(
    "extra", [(), ("pull.preempt=off",), ("integrity.digests=on",), ("pull.sender=push",)], ids=str
)
@pytest.mark.parametrize("read", [1, 2, 5, 12, 30, LAST])
def test_a_disk_that_cannot_be_read_pauses_the_migration_until_it_can(read: int, extra: tuple[str, ...]) -> None:
    """Whoever was reading: for the background, for a fault, for the digests at the end; then all of it is verified."""
    if read == LAST:
        town, disk = town_and_disk(settings(*extra))
        town.play(town.source(1, memory=memory_of(town, disk)).run(PLACE))
        read = disk.reads
    town, disk = town_and_disk(settings(*extra), read)
    (first, told_there, outcome), served = town.play(again(town, town.source(1, memory=memory_of(town, disk))))
    assert disk.reads >= read
    assert isinstance(first, UnreadableError)
    for told in ("disk.img cannot be read", "the source's disk is wrong", "guest is at the destination", "--recover"):
        assert told in str(first)
    assert FAILED in told_there, "the destination knows which side is wrong"
    assert served is None or not isinstance(served, BaseException)
    assert getattr(outcome, "verified", False)
    assert town.ends == {named(1): None}


def test_without_recovery_the_destination_is_told_why() -> None:
    town, disk = town_and_disk(settings("recovery.timeout=0", "pull.preempt=off"), 5)
    source, _ = town.play(town.source(1, memory=memory_of(town, disk)).run(PLACE))
    assert isinstance(source, UnreadableError)
    (end,) = town.ends.values()
    assert isinstance(end, GaveUpError)
    assert "disk.img cannot be read" in str(end)


def test_an_image_that_changed_is_the_source_s_fault_though_all_compares_equal() -> None:
    """A mixture of two images: what had not been sent yet was another one's."""
    town, disk = town_and_disk(settings(), changes="its time of writing (mtime) is another one")
    source, _ = town.play(town.source(1, memory=memory_of(town, disk)).run(PLACE))
    assert isinstance(source, VerificationError)
    assert str(source).startswith(
        "disk.img changed while it was read: its time of writing (mtime) is another one. The s"
    )
    assert "The source's image is wrong, not the destination" in str(source)
    (end,) = town.ends.values()
    assert isinstance(end, GaveUpError), "nobody may take it for verified"
    assert "disk.img changed while it was read" in str(end)

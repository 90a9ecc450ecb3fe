"""Events, and what an unread one forbids: REMOVE, UNMAP, FORK."""

from __future__ import annotations

import errno

import pytest

from migemu.mm import MADV_DONTNEED, FaultOutcome, Level, UffdEvent, UffdFeature
from tests.unit.mm.guest import KIB4, Guest, refused

ALL = UffdFeature.EVENT_FORK | UffdFeature.EVENT_REMOVE | UffdFeature.EVENT_UNMAP


@pytest.fixture
def guest() -> Guest:
    return Guest(hugepages=3, missing=True, wp=True, features=ALL)


def test_remove_names_what_was_dropped(guest: Guest) -> None:
    guest.advise(0, 40, MADV_DONTNEED)
    msg = guest.uffd.read()
    assert (msg.event, msg.address, msg.end) == (UffdEvent.REMOVE, guest.base, guest.at(32))
    assert guest.uffd.read() is None


def test_one_remove_for_each_vma_and_none_for_nothing(guest: Guest) -> None:
    guest.uffd.register(guest.base, 16 * KIB4, minor=True)
    guest.uffd.unregister(guest.at(16), 16 * KIB4)
    guest.advise(0, 48, MADV_DONTNEED)
    guest.advise(0, 15, MADV_DONTNEED)
    seen = [guest.uffd.read() for _ in range(3)]
    assert [(msg.address, msg.end) for msg in seen[:2]] == [
        (guest.base, guest.at(16)),
        (guest.at(32), guest.at(48)),
    ]
    assert seen[2] is None


def test_unmap_names_the_whole_call_once(guest: Guest) -> None:
    guest.uffd.unregister(guest.at(16), 16 * KIB4)
    guest.space.munmap(guest.base, guest.length)
    msg = guest.uffd.read()
    assert (msg.event, msg.address, msg.end) == (UffdEvent.UNMAP, guest.base, guest.at(48))
    assert guest.uffd.read() is None


def test_fork_brings_the_childs_userfaultfd(guest: Guest) -> None:
    child = guest.space.fork()
    msg = guest.uffd.read()
    assert (msg.event, msg.address) == (UffdEvent.FORK, 0)
    assert msg.uffd is child.vmas.vmas[0].uffd
    assert msg.uffd.features == guest.uffd.features


@pytest.mark.parametrize("cause", ["remove", "unmap", "fork"])
def test_nothing_can_be_filled_until_the_event_is_read(guest: Guest, cause: str) -> None:
    """mmap_changing: EAGAIN comes before every other check, and nothing is done."""
    guest.continue_(0, 1)
    if cause == "remove":
        guest.advise(32, 16, MADV_DONTNEED)
    elif cause == "unmap":
        guest.space.munmap(guest.at(32), 65536)
    else:
        guest.space.fork()
    was = guest.map()
    for call in (
        lambda: guest.continue_(0, 1),
        lambda: guest.continue_(1, 1),
        lambda: guest.uffd.continue_(guest.base + 1, 0),
        lambda: guest.uffd.continue_run(guest.at(1), Level.PTE, 2),
        lambda: guest.uffd.copy(guest.at(16), 65536),
        lambda: guest.protect(0, 16),
        lambda: guest.uffd.poison(guest.at(16), 65536),
    ):
        with pytest.raises(BlockingIOError) as caught:
            call()
        assert not hasattr(caught.value, "mapped")
    assert guest.map() == was
    guest.uffd.wake(guest.base, 4096)
    guest.uffd.read()
    assert guest.continue_(1, 1) == 1


def test_page_faults_are_read_before_the_event_they_follow(guest: Guest) -> None:
    """The hazard: the page was dropped before this fault, and who serves the fault first gets EAGAIN."""
    guest.continue_(0, 1)
    guest.advise(0, 16, MADV_DONTNEED)
    assert guest.space.fault(0, guest.at(0), write=False) is FaultOutcome.WAITING
    assert guest.uffd.read().event is UffdEvent.PAGEFAULT
    with refused(errno.EAGAIN):
        guest.continue_(0, 1)
    assert guest.uffd.read().event is UffdEvent.REMOVE
    assert guest.continue_(0, 1) == 1
    assert guest.woken == [(0, 0)]

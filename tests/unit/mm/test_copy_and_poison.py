"""UFFDIO_COPY and UFFDIO_POISON: whole hugepages (SEMANTICS 1.2, 1.5)."""

from __future__ import annotations

import errno
from contextlib import nullcontext

import pytest

from migemu.mm import MADV_COLLAPSE, FaultOutcome, Level, PartialError
from migemu.mm.userfaultfd import TASK_SIZE
from tests.unit.mm.guest import Guest, MakeGuest, refused

HUGE = 65536


@pytest.fixture
def guest() -> Guest:
    return Guest(hugepages=3, populated=False, minor=True, missing=True, wp=True)


def test_copy_fills_the_page_cache_and_maps(guest: Guest) -> None:
    guest.space.fault(0, guest.at(5), write=False)
    assert guest.uffd.copy(guest.base, 2 * HUGE) == 2 * HUGE
    assert (guest.map(), guest.file.refs, bytes(guest.file.folios)) == ("U" * 16, [1, 1, 0], b"\1\1\0")
    assert guest.woken == [(0, 5)]
    guest.space.validate()


def test_copy_without_a_wake_and_with_protection(guest: Guest) -> None:
    guest.protect(0, 48)
    guest.space.fault(0, guest.at(5), write=False)
    guest.uffd.copy(guest.base, HUGE, dontwake=True, wp=True)
    guest.uffd.copy(guest.at(16), HUGE)
    assert guest.woken == []
    assert guest.protected() == "w" * 16
    assert guest.space.is_writable(guest.at(16))  # the marker is consumed
    guest.space.validate()


def in_cache(guest: Guest) -> None:
    guest.space.populate(guest.base, 1)


def mapped(guest: Guest) -> None:
    guest.uffd.copy(guest.base, HUGE)


def table(guest: Guest) -> None:
    with refused(errno.EFAULT):
        guest.continue_(0, 1)


def poisoned(guest: Guest) -> None:
    guest.uffd.poison(guest.base, HUGE)


@pytest.mark.parametrize("before", [in_cache, mapped, table, poisoned])
def test_copy_is_eexist_where_something_is(guest: Guest, before: object) -> None:
    before(guest)  # type: ignore[operator]
    was = guest.map(), bytes(guest.file.folios)
    with pytest.raises(FileExistsError):
        guest.uffd.copy(guest.base, HUGE)
    assert (guest.map(), bytes(guest.file.folios)) == was


@pytest.mark.parametrize(
    ("first", "count", "number"),
    [
        (0, 1, errno.EINVAL),
        (4, 16, errno.EINVAL),
        (0, 17, errno.EINVAL),
        (0, 0, errno.EINVAL),
        (0, 64, errno.ENOENT),
        (64, 16, errno.ENOENT),
    ],
)
def test_both_want_whole_hugepages_of_one_registered_vma(guest: Guest, first: int, count: int, number: int) -> None:
    for call in (guest.uffd.copy, guest.uffd.poison):
        with refused(number):
            call(guest.at(first), count * 4096)
    guest.uffd.unregister(guest.base, guest.length)
    with refused(errno.ENOENT):
        guest.uffd.copy(guest.base, HUGE)


def test_copy_with_protection_wants_registration_for_it(make_guest: MakeGuest) -> None:
    guest = make_guest(populated=False, missing=True)
    with refused(errno.EINVAL):
        guest.uffd.copy(guest.base, HUGE, wp=True)


def test_progress_then_failure(guest: Guest) -> None:
    guest.space.fault(0, guest.at(1), write=False)
    guest.space.populate(guest.at(16), 1)
    with pytest.raises(PartialError) as caught:
        guest.uffd.copy(guest.base, 3 * HUGE)
    assert (caught.value.mapped, caught.value.cause.errno) == (HUGE, errno.EEXIST)
    assert guest.woken == [(0, 1)]
    with pytest.raises(PartialError) as caught:
        guest.uffd.poison(guest.at(16), 0x20000 if guest.uffd.copy(guest.at(32), HUGE) else 0)
    assert caught.value.mapped == HUGE


@pytest.mark.parametrize("populated", [False, True])
def test_poison_kills_whoever_touches_it(make_guest: MakeGuest, populated: bool) -> None:
    guest = make_guest(populated=populated, missing=True)
    guest.space.fault(0, guest.at(5), write=False)
    guest.uffd.poison(guest.base, HUGE)
    assert [vcpu for vcpu, _ in guest.woken] == [0]
    assert guest.space.walk(guest.at(5)) == (Level.PUD, 4)
    for write in (False, True):
        assert guest.space.fault(0, guest.at(15), write=write) is FaultOutcome.SIGBUS_MCEERR
    assert guest.file.hardware_corrupted == 0
    with refused(errno.EEXIST if populated else errno.EFAULT):
        guest.continue_(0, 16)  # the page is looked up before the entry is looked at
    with pytest.raises(FileExistsError):
        guest.continue_(3, 1)
    guest.advise(0, 16, MADV_COLLAPSE)  # not present: skipped
    with pytest.raises(FileExistsError):
        guest.advise(0, 4, MADV_COLLAPSE)  # a poison entry above the wanted level
    guest.space.validate()


def test_poison_wants_an_empty_entry_not_even_a_marker(guest: Guest) -> None:
    guest.uffd.poison(guest.at(32), HUGE, dontwake=True)
    guest.protect(0, 16)
    guest.uffd.copy(guest.at(16), HUGE)
    for first in (0, 16, 32):
        with pytest.raises(FileExistsError):
            guest.uffd.poison(guest.at(first), HUGE)


def test_small_hugepages(make_guest: MakeGuest) -> None:
    guest = make_guest(hstate=Level.PMD, hugepages=4, populated=False, missing=True)
    assert guest.uffd.copy(guest.at(4), 2 * 16384) == 32768
    guest.uffd.poison(guest.base, 16384)
    assert guest.map() == "PPPPMMMMMMMM...."
    guest.space.validate()


@pytest.mark.parametrize(
    ("start", "length", "is_valid"),
    [
        (0, 4096, True), (4096, 4096, True), (TASK_SIZE - 4096, 4096, True), (0, TASK_SIZE, True),
        (-4096, 4096, False), (0, 0, False), (0, -4096, False), (TASK_SIZE, 4096, False), (4096, TASK_SIZE, False),
        (1, 4096, False), (0, 4095, False),
    ],
)  # fmt: skip
def test_a_range_is_of_whole_pages_within_the_address_space(
    guest: Guest, start: int, length: int, is_valid: bool
) -> None:
    """validate_range of fs/userfaultfd.c; page 0 is a page like others. What is valid is not mapped: another errno."""
    with nullcontext() if is_valid else refused(errno.EINVAL):
        guest.uffd.wake(start, length)
    with refused(errno.ENOENT if is_valid else errno.EINVAL):
        guest.uffd.continue_(start, length)

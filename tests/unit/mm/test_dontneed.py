"""MADV_DONTNEED and munmap: hugepage rules, what stays, what goes (SEMANTICS 1.7)."""

from __future__ import annotations

import errno

import pytest

from migemu.mm import MADV_DONTNEED, MADV_HWPOISON, TINY, X86_64, FaultOutcome, Level, UffdFeature
from tests.unit.mm.guest import TINY_CONT, Guest, MakeGuest, refused


def test_the_entries_go_and_the_bytes_stay(guest: Guest) -> None:
    """A later fault is minor again. The tables stay."""
    guest.continue_(0, 5)
    guest.continue_(16, 16)
    guest.advise(0, 16, MADV_DONTNEED)
    assert (guest.map(), guest.tables, guest.file.refs) == ("." * 16, 2, [0, 1])
    assert guest.space.walk(guest.at(9)).level == Level.PMD
    assert guest.space.fault(0, guest.at(1), write=False) is FaultOutcome.WAITING
    assert guest.uffd.read().flags == 4
    assert guest.continue_(4, 2) == 2
    guest.space.validate()


@pytest.mark.parametrize(
    ("first", "count", "left"),
    [(0, 16, [0, 1, 1]), (0, 31, [0, 1, 1]), (0, 15, [1, 1, 1]), (16, 32, [1, 0, 0]), (0, 48, [0, 0, 0]),
     (16, 0, [1, 1, 1])],
)  # fmt: skip
def test_the_end_is_rounded_down(make_guest: MakeGuest, first: int, count: int, left: list[int]) -> None:
    guest = make_guest(hugepages=3)
    guest.continue_(0, 48)
    guest.advise(first, count, MADV_DONTNEED)
    assert guest.file.refs == left


@pytest.mark.parametrize(
    ("first", "count", "number"), [(1, 16, errno.EINVAL), (4, 4, errno.EINVAL), (-16, 32, errno.ENOMEM)]
)
def test_refusals(guest: Guest, first: int, count: int, number: int) -> None:
    """A start inside a hugepage is EINVAL; a hole is passed over and told at the end."""
    guest.continue_(0, 16)
    with refused(number):
        guest.advise(first, count, MADV_DONTNEED)
    assert guest.file.refs[0] == (number == errno.EINVAL)


@pytest.mark.parametrize(("hstate", "expected"), [(Level.PUD, "wwwwwwwww......."), (Level.PMD, "wwwwwwww........")])
def test_protection_stays_as_markers(make_guest: MakeGuest, hstate: Level, expected: str) -> None:
    """A shared mapping keeps what userfaultfd-wp has been told of its pages."""
    guest = make_guest(TINY, hstate, 4, wp=True)
    guest.continue_(0, 1)
    guest.continue_(1, 2)
    guest.protect(0, 16 if hstate == Level.PUD else 8)
    guest.continue_(9, 3) if hstate == Level.PUD else guest.continue_(9, 1)
    guest.continue_(12, 4)
    guest.advise(0, 16, MADV_DONTNEED)
    assert guest.map() == expected.ljust(16, ".")
    guest.space.validate()


def test_poison_entries_go_and_the_folio_stays_bad(guest: Guest) -> None:
    guest.continue_(0, 4)
    guest.advise(0, 1, MADV_HWPOISON)
    guest.advise(0, 16, MADV_DONTNEED)
    assert guest.map() == "." * 16
    assert guest.space.fault(0, guest.at(0), write=False) is FaultOutcome.SIGBUS_MCEERR
    guest.uffd.poison(guest.at(16), 65536)
    guest.advise(16, 16, MADV_DONTNEED)
    assert guest.space.fault(0, guest.at(16), write=False) is FaultOutcome.WAITING
    guest.space.validate()


def test_contiguous_leaves_go_too(make_guest: MakeGuest) -> None:
    guest = make_guest(TINY_CONT, wp=True)
    guest.continue_(0, 8)
    guest.continue_(8, 2)
    guest.protect(0, 16)
    guest.continue_(12, 4)
    guest.advise(0, 16, MADV_DONTNEED)
    assert guest.map() == "w" * 12 + "...."
    assert guest.continue_(0, 8) == 8
    assert guest.map()[:8] == "C" * 8
    guest.space.validate()


def test_it_wakes_nobody(guest: Guest) -> None:
    guest.space.fault(0, guest.at(1), write=False)
    guest.advise(0, 16, MADV_DONTNEED)
    assert guest.woken == []


def test_munmap_takes_entries_and_tables(make_guest: MakeGuest) -> None:
    guest = make_guest(hugepages=3)
    guest.continue_(0, 1)
    guest.continue_(16, 1)
    guest.continue_(33, 1)
    guest.space.fault(0, guest.at(18), write=False)
    guest.space.munmap(guest.at(16), 16 * 4096)
    assert guest.file.refs == [1, 0, 1]
    assert guest.tables == 4
    assert guest.space.fault(1, guest.at(16), write=False) is FaultOutcome.SIGSEGV
    assert not guest.space.is_mapped(guest.at(16))
    assert guest.space.is_mapped(guest.at(33))
    assert guest.woken == []
    guest.space.validate()
    guest.uffd.wake(guest.at(16), 65536)
    assert guest.woken == [(0, 18)]


def test_munmap_of_everything_frees_everything(make_guest: MakeGuest) -> None:
    for hstate in (Level.PMD, Level.PUD):
        guest = make_guest(X86_64, hstate, 2, wp=True)
        guest.continue_(1, 600)
        guest.protect(0, guest.pages)
        table = guest.space.vmas.vmas[0].mapping.table
        guest.space.munmap(guest.base, guest.length)
        assert (table.tables, table.leaves, guest.file.refs) == (0, [0] * 5, [0, 0])
        assert guest.file.i_mmap == []
        assert not guest.space.is_mapped(guest.base)
        with refused(errno.EFAULT):
            guest.space.walk(guest.base)
        guest.space.validate()


@pytest.mark.parametrize(("first", "count"), [(0, 1), (1, 15), (0, 17), (8, 16)])
def test_munmap_inside_a_hugepage_is_einval_and_unmaps_nothing(guest: Guest, first: int, count: int) -> None:
    guest.continue_(0, 32)
    with refused(errno.EINVAL):
        guest.space.munmap(guest.at(first), count * 4096)
    assert guest.file.refs == [1, 1]
    assert len(guest.space.vmas.vmas) == 1


def test_munmap_of_nothing(guest: Guest) -> None:
    guest.space.munmap(guest.base - (1 << 30), 4096)
    for addr, length in ((guest.base, 0), (guest.base + 1, 65536), (guest.base, -1)):
        with refused(errno.EINVAL):
            guest.space.munmap(addr, length)


def test_the_other_mapping_of_the_file_keeps_its_entries(guest: Guest) -> None:
    alias = guest.space.mmap_hugetlb(guest.length, Level.PUD, file=guest.file)
    guest.space.fault(0, alias, write=True)
    guest.continue_(0, 1)
    guest.space.munmap(guest.base, guest.length)
    assert guest.file.refs == [1, 0]
    assert guest.space.is_mapped(alias)
    guest.space.validate()


def test_events_are_only_told_to_who_asked(make_guest: MakeGuest) -> None:
    guest = make_guest(features=UffdFeature.EVENT_FORK)
    guest.advise(0, 16, MADV_DONTNEED)
    guest.space.munmap(guest.base, guest.length)
    assert guest.uffd.read() is None

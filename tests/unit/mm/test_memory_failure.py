"""Poisoning a single 4K of a hugepage: SEMANTICS 3.4."""

from __future__ import annotations

import errno

import pytest

from migemu.mm import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_HWPOISON,
    MADV_POPULATE_WRITE,
    X86_64,
    FaultOutcome,
    Level,
    PartialError,
    UffdFeature,
)
from migemu.mm.memory_failure import memory_failure
from tests.unit.mm.guest import TINY_CONT, Guest, MakeGuest, refused

SIGBUS, MAPPED, WAITING = FaultOutcome.SIGBUS_MCEERR, FaultOutcome.MAPPED, FaultOutcome.WAITING


@pytest.fixture
def guest() -> Guest:
    return Guest(hwpoison="page")


@pytest.mark.parametrize(
    ("continued", "page", "expected", "tables"),
    [
        ([(0, 16)], 5, "MMMMtPttMMMMMMMM", 2),  # a 1G leaf is split into the largest that fit
        ([(0, 16)], 0, "PtttMMMMMMMMMMMM", 2),
        ([(0, 4)], 3, "tttP............", 2),
        ([(0, 4), (4, 4)], 3, "tttPMMMM........", 2),
        ([(6, 2)], 6, "......Pt........", 2),
    ],
)
def test_the_leaf_is_split_around_the_bad_page(
    guest: Guest, continued: list[tuple[int, int]], page: int, expected: str, tables: int
) -> None:
    for piece in continued:
        guest.continue_(*piece)
    guest.advise(page, 1, MADV_HWPOISON)
    assert (guest.map(), guest.tables) == (expected, tables)
    assert sum(guest.file.refs) == sum(guest.space.leaves(guest.base).values())
    assert guest.space.fault(0, guest.at(page), write=False) is SIGBUS
    assert guest.file.hardware_corrupted == 1
    guest.space.validate()


def test_contiguous_leaves_are_split_and_made(make_guest: MakeGuest) -> None:
    """As large as possible means contiguous sizes as well."""
    guest = make_guest(TINY_CONT, hwpoison="page")
    guest.continue_(0, 16)
    guest.advise(5, 1, MADV_HWPOISON)
    assert guest.map() == "MMMMtPccCCCCCCCC"
    guest.advise(6, 1, MADV_HWPOISON)
    assert guest.map() == "MMMMtPPtCCCCCCCC"
    guest.advise(14, 1, MADV_HWPOISON)
    assert guest.map() == "MMMMtPPtMMMMccPt"
    guest.space.validate()


def test_protection_survives_the_split(make_guest: MakeGuest) -> None:
    guest = make_guest(hwpoison="page", wp=True)
    guest.continue_(0, 16)
    guest.protect(0, 16)
    guest.advise(5, 1, MADV_HWPOISON)
    assert (guest.map(), guest.protected()) == ("MMMMtPttMMMMMMMM", "wwwww.wwwwwwwwww")
    assert guest.space.fault(0, guest.at(0), write=True) is WAITING


@pytest.mark.parametrize(
    ("bad", "page", "expected"),
    [
        ([5], 0, "MMMM............"),  # the largest entry without a bad page
        ([5], 4, "....t..........."),
        ([5], 5, "................"),
        ([5, 0, 9, 15], 2, "..t............."),
        ([], 2, "UUUUUUUUUUUUUUUU"),
    ],
)
def test_a_fault_installs_the_largest_entry_that_avoids_every_bad_page(
    make_guest: MakeGuest, bad: list[int], page: int, expected: str
) -> None:
    """Between mmap and the first fault: nothing is mapped when the error comes."""
    guest = make_guest(minor=False, hwpoison="page")
    for each in bad:
        memory_failure(guest.file, each)
    assert guest.map() == "." * 16
    assert guest.space.fault(0, guest.at(page), write=False) is (SIGBUS if page in bad else MAPPED)
    assert guest.map() == expected
    guest.space.validate()


def test_such_a_fault_keeps_to_plain_sizes_and_to_markers(make_guest: MakeGuest) -> None:
    guest = make_guest(TINY_CONT, minor=False, wp=True, hwpoison="page")
    guest.protect(0, 16)
    memory_failure(guest.file, 0)
    for page, expected in ((8, "wwwwwwwwMMMMwwww"), (2, "wwtwwwwwMMMMwwww")):
        assert guest.space.fault(0, guest.at(page), write=False) is MAPPED
        assert guest.map() == expected
    assert guest.protected() == "w" * 16
    assert guest.space.fault(0, guest.at(0), write=False) is SIGBUS
    guest.space.validate()


def test_neighbours_are_served_by_continue_and_the_bad_page_is_eio(guest: Guest) -> None:
    guest.continue_(0, 1)
    guest.advise(0, 1, MADV_HWPOISON)
    memory_failure(guest.file, 6)
    with refused(errno.EIO):
        guest.continue_(4, 4)
    with refused(errno.EIO):
        guest.continue_(0, 1)
    assert guest.space.fault(0, guest.at(5), write=False) is WAITING
    assert guest.continue_(5, 1) == 1
    assert guest.woken == [(0, 5)]
    with pytest.raises(PartialError) as caught:
        guest.continue_(1, 11)
    assert (caught.value.mapped, caught.value.cause.errno) == (3 * 4096, errno.EIO)
    assert guest.uffd.continue_run(guest.at(8), Level.PTE, 4) == (4, 0)
    with refused(errno.EIO):
        guest.uffd.continue_run(guest.at(4), Level.PTE, 4)
    assert guest.map() == "Pttttt..tttt...."
    guest.space.validate()


def test_collapse_leaves_the_hugepage_as_it_is(guest: Guest) -> None:
    """Still poisoned, still mapped around it; the next hugepage is collapsed."""
    guest.uffd.continue_run(guest.base, Level.PTE, 17)
    guest.advise(5, 1, MADV_HWPOISON)
    was = guest.map()
    guest.advise(0, 32, MADV_COLLAPSE)
    assert guest.map() == was
    assert guest.space.walk(guest.at(31)).level == Level.PUD
    assert guest.space.fault(0, guest.at(5), write=False) is SIGBUS


def test_dontneed_and_back(guest: Guest) -> None:
    guest.continue_(0, 16)
    guest.advise(5, 1, MADV_HWPOISON)
    guest.advise(0, 16, MADV_DONTNEED)
    assert guest.map() == "." * 16
    assert guest.space.fault(0, guest.at(5), write=False) is SIGBUS
    assert guest.space.fault(0, guest.at(6), write=False) is WAITING
    guest.space.validate()


def test_a_range_poisons_each_of_its_pages(guest: Guest) -> None:
    guest.continue_(0, 16)
    guest.advise(4, 4, MADV_HWPOISON)
    assert (guest.map(), guest.file.hardware_corrupted) == ("MMMMPPPPMMMMMMMM", 4)
    with refused(errno.EFAULT):
        guest.advise(4, 1, MADV_HWPOISON)
    with refused(133):
        guest.advise(4, 1, MADV_POPULATE_WRITE)


def test_every_mapping_of_the_file_is_treated(guest: Guest) -> None:
    """Shared VMAs are eligible, split permission or not; from a private one the whole hugepage goes."""
    alias = guest.space.mmap_hugetlb(guest.length, Level.PUD, file=guest.file)
    private = guest.space.mmap_hugetlb(guest.length, Level.PUD, file=guest.file, shared=False)
    for addr in (alias, private):
        guest.space.fault(0, addr, write=False)
    guest.continue_(0, 1)
    guest.advise(0, 1, MADV_HWPOISON)
    assert guest.map()[:2] == "P."
    assert guest.space.leaves(alias) == {Level.PTE: 3, Level.PMD: 3, Level.PUD: 0}
    assert guest.space.walk(private) == (Level.PUD, 4)
    assert guest.space.fault(0, private + 4096, write=False) is SIGBUS
    guest.space.madvise(private, guest.length, MADV_DONTNEED)
    assert guest.space.fault(0, private + 4096, write=False) is SIGBUS
    assert guest.file.refs == [6, 0]
    guest.space.validate()


@pytest.mark.parametrize("limit", ["tables", "references"])
def test_a_split_that_fails_leaves_the_old_leaf(make_guest: MakeGuest, limit: str) -> None:
    guest = make_guest(hwpoison="page", tables_max=1 if limit == "tables" else None)
    guest.continue_(0, 16)
    if limit == "references":
        guest.file.refs_max = 5
    guest.advise(5, 1, MADV_HWPOISON)
    assert (guest.map(), guest.tables) == ("U" * 16, 0)
    assert guest.space.is_mapped(guest.at(5))
    assert guest.file.hardware_corrupted == 1
    guest.space.validate()


@pytest.mark.parametrize(("room", "expected"), [(1, "U" * 16), (2, "MMMMtPttMMMMMMMM")])
def test_the_last_tables_are_used(make_guest: MakeGuest, room: int, expected: str) -> None:
    """The split of a 1G leaf takes two tables; the other hugepage has none."""
    guest = make_guest(hwpoison="page", tables_max=room)
    guest.continue_(0, 16)
    guest.advise(5, 1, MADV_HWPOISON)
    assert guest.map() == expected
    guest.space.validate()


def test_a_fault_without_memory_for_the_tables_is_enomem(make_guest: MakeGuest) -> None:
    guest = make_guest(minor=False, hwpoison="page", tables_max=1)
    memory_failure(guest.file, 0)
    assert guest.space.fault(0, guest.at(4), write=False) is MAPPED
    with refused(errno.ENOMEM):
        guest.space.fault(0, guest.at(1), write=False)


def test_a_page_of_a_bad_hugepage_is_bad_already(guest: Guest) -> None:
    guest.continue_(0, 16)
    guest.file.poison(0)
    memory_failure(guest.file, 3)
    assert (guest.map(), guest.file.hardware_corrupted) == ("P" * 16, 16)
    memory_failure(guest.file, 17)
    assert guest.file.hardware_corrupted == 17
    guest.file.poison(1)
    assert guest.file.hardware_corrupted == 32
    guest.space.validate()


def test_the_hugepage_unit_counts_all_of_it(make_guest: MakeGuest) -> None:
    guest = make_guest(X86_64, Level.PMD, 2)
    guest.continue_(0, 512)
    guest.advise(3, 1, MADV_HWPOISON)
    assert guest.file.hardware_corrupted == 512


def test_the_sigbus_feature_does_not_hide_poison(make_guest: MakeGuest) -> None:
    guest = make_guest(hwpoison="page", features=UffdFeature.SIGBUS)
    guest.continue_(0, 1)
    guest.advise(0, 1, MADV_HWPOISON)
    assert guest.space.fault(0, guest.at(0), write=True) is SIGBUS
    assert guest.space.fault(0, guest.at(1), write=True) is FaultOutcome.SIGBUS

"""MADV_COLLAPSE, SEMANTICS 2.1 and 2.2."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from migemu.mm import MADV_COLLAPSE, MADV_HWPOISON, X86_64, AddressSpace, Level
from migemu.mm.hugetlb_file import ISOLATED
from tests.unit.mm.guest import Guest, refused

EHWPOISON = 133


def continued(guest: Guest, *pages: int) -> None:
    for page in pages:
        guest.continue_(page, 1)


@pytest.mark.parametrize(
    ("pages", "first", "count", "expected", "tables"),
    [
        ((0, 1, 2, 3), 0, 4, "MMMM............", 1),
        ((0,), 0, 4, "MMMM............", 1),  # holes under a table are filled
        ((0,), 0, 16, "UUUUUUUUUUUUUUUU", 0),  # one 4K, and the whole hugepage is mapped
        ((0,), 0, 8, "MMMM............", 1),  # a 2M slot with no table under it is not
        ((0, 5), 0, 12, "MMMMMMMM........", 1),
        ((1, 2), 1, 3, ".tt.............", 2),  # [4K, 2M) changes nothing useful
        ((1,), 0, 3, ".t..............", 2),
        ((), 0, 16, "................", 0),
        ((), 0, 4, "................", 1),  # its own walk leaves an empty PMD table
        ((), 1, 1, "................", 2),
        ((0, 9), 4, 12, "t.......MMMM....", 2),
    ],
)
def test_the_range_decides(
    guest: Guest, pages: tuple[int, ...], first: int, count: int, expected: str, tables: int
) -> None:
    continued(guest, *pages)
    guest.advise(first, count, MADV_COLLAPSE)
    assert (guest.map(), guest.tables) == (expected, tables)


def test_two_rounds_4k_to_2m_to_1g(make_guest: Guest) -> None:
    """Operation counts of SEMANTICS 2.4: 512 tables freed in the first round, the last one in the second."""
    guest = make_guest(X86_64, hugepages=1)
    for pmd in range(512):
        guest.uffd.continue_run(guest.at(pmd * 512), Level.PTE, 512)
    for pmd in range(512):
        guest.advise(pmd * 512, 512, MADV_COLLAPSE)
    assert (guest.space.leaves(guest.base)[Level.PMD], guest.tables, guest.file.refs) == (512, 1, [512])
    guest.advise(0, 512 * 512, MADV_COLLAPSE)
    assert (guest.space.leaves(guest.base)[Level.PUD], guest.tables, guest.file.refs) == (1, 0, [1])
    guest.space.validate()


def test_one_round_4k_to_1g_frees_513_tables(make_guest: Guest) -> None:
    guest = make_guest(X86_64, hugepages=1)
    for pmd in range(512):
        guest.uffd.continue_run(guest.at(pmd * 512), Level.PTE, 512)
    assert guest.tables == 513
    guest.advise(0, 512 * 512, MADV_COLLAPSE)
    assert (guest.space.leaves(guest.base)[Level.PUD], guest.tables) == (1, 0)
    guest.space.validate()


def test_the_same_or_a_larger_step_is_idempotent_a_smaller_is_eexist(guest: Guest) -> None:
    continued(guest, 0)
    guest.advise(0, 4, MADV_COLLAPSE)
    guest.advise(0, 4, MADV_COLLAPSE)
    guest.advise(0, 16, MADV_COLLAPSE)
    guest.advise(0, 16, MADV_COLLAPSE)
    with pytest.raises(FileExistsError):
        guest.advise(0, 4, MADV_COLLAPSE)
    assert guest.map() == "U" * 16


def test_no_rollback_on_error(guest: Guest) -> None:
    """The 4K step meets a 2M leaf: what came before stays collapsed."""
    continued(guest, 0)
    guest.continue_(4, 4)
    with pytest.raises(FileExistsError):
        guest.advise(0, 7, MADV_COLLAPSE)
    assert guest.map() == "MMMMMMMM........"


def test_a_late_continue_after_collapse_is_eexist(guest: Guest) -> None:
    continued(guest, 0)
    guest.advise(0, 16, MADV_COLLAPSE)
    with pytest.raises(FileExistsError):
        guest.continue_(7, 1)


def test_collapse_wakes_nobody(guest: Guest) -> None:
    """A sleeper on a hole that collapse filled needs UFFDIO_WAKE."""
    continued(guest, 0)
    guest.space.fault(1, guest.at(2), write=True)
    guest.advise(0, 16, MADV_COLLAPSE)
    assert guest.space.is_mapped(guest.at(2))
    assert guest.woken == []
    guest.uffd.wake(guest.at(2), 4096)
    assert guest.woken == [(1, 2)]


def test_a_folio_isolated_for_migration_is_ebusy(guest: Guest) -> None:
    """Only where there is something to collapse; leaves and empty slots are skipped before the folio is looked at."""
    guest.file.isolate(0)
    guest.advise(0, 16, MADV_COLLAPSE)
    continued(guest, 0, 16)
    with refused(errno.EBUSY):
        guest.advise(0, 32, MADV_COLLAPSE)
    guest.file.putback(0)
    guest.advise(0, 32, MADV_COLLAPSE)
    assert guest.space.leaves(guest.base)[Level.PUD] == 2


@pytest.mark.parametrize(
    ("hgm", "poisoned", "number"),
    [("v2", 0, 0), ("v2", 1, 0), ("v1", 0, 0), ("v1", 1, EHWPOISON)],
)
def test_poisoned_hugepages_are_skipped(make_guest: Guest, hgm: str, poisoned: int, number: int) -> None:
    """v2 says nothing; in v1 the error survives only if the poisoned hugepage came last."""
    guest = make_guest(hgm=hgm)
    continued(guest, 0, 16)
    guest.file.poison(poisoned)
    guest.file.folios[poisoned] |= ISOLATED  # poison is checked before isolation
    seen = 0
    try:
        guest.advise(0, 32, MADV_COLLAPSE)
    except OSError as error:
        seen = error.errno or 0
    assert seen == number
    assert guest.space.leaves(guest.base) == {Level.PTE: 0, Level.PMD: 0, Level.PUD: 1}
    assert guest.space.walk(guest.at(16 * poisoned)).kind.name == "POISON"


def test_with_no_page_in_the_cache_the_entry_is_left_empty(make_guest: Guest) -> None:
    guest = make_guest(populated=False)
    with refused(errno.EFAULT):
        guest.continue_(0, 1)
    assert guest.tables == 2
    guest.advise(0, 16, MADV_COLLAPSE)
    assert (guest.tables, guest.map()) == (0, "." * 16)


def test_enomem_of_its_own_walk(make_guest: Guest) -> None:
    guest = make_guest(tables_max=0)
    with refused(errno.ENOMEM):
        guest.advise(0, 4, MADV_COLLAPSE)


@pytest.mark.parametrize("hgm", ["v1", "v2"])
def test_a_private_mapping_is_einval(hgm: Any) -> None:
    space = AddressSpace(X86_64, hgm=hgm)
    addr = space.mmap_hugetlb(1 << 30, Level.PUD, shared=False)
    with refused(errno.EINVAL):
        space.madvise(addr, 1 << 30, MADV_COLLAPSE)


def test_without_split_there_is_nothing_to_do(make_guest: Guest) -> None:
    guest = make_guest(split=False)
    guest.continue_(0, 16)
    guest.advise(0, 3, MADV_COLLAPSE)
    assert guest.map() == "U" * 16


@pytest.mark.parametrize(("hgm", "number"), [("v1", errno.ENOMEM), ("v2", errno.EINVAL)])
def test_a_hole_in_the_range(make_guest: Guest, hgm: str, number: int) -> None:
    """What is mapped before the hole is collapsed all the same."""
    guest = make_guest(hgm=hgm)
    continued(guest, 16)
    with refused(number):
        guest.advise(16, 32, MADV_COLLAPSE)
    assert guest.space.leaves(guest.base)[Level.PUD] == 1


def test_the_length_is_rounded_up_to_pages(guest: Guest) -> None:
    continued(guest, 0)
    guest.space.madvise(guest.base, 4 * 4096 - 4095, MADV_COLLAPSE)
    assert guest.map() == "MMMM............"


def test_process_madvise_says_how_far_it_came(guest: Guest) -> None:
    """Whole ranges only; the errno shows when none was done (SEMANTICS 6.1)."""
    continued(guest, 0, 8)
    guest.continue_(16, 16)
    bad = (guest.at(17), 4096)
    assert guest.space.process_madvise([(guest.at(0), 16384), (guest.at(0), 16384)], MADV_COLLAPSE) == 32768
    assert guest.space.process_madvise([(guest.at(0), 16384), (guest.at(8), 16384), bad], MADV_COLLAPSE) == 32768
    with pytest.raises(FileExistsError):
        guest.space.process_madvise([bad, (guest.at(0), 16384)], MADV_COLLAPSE)
    with refused(errno.EINVAL):
        guest.space.process_madvise([(guest.at(0), 16384)], MADV_HWPOISON)

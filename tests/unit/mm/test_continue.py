"""UFFDIO_CONTINUE, row by row of SEMANTICS 1.3."""

from __future__ import annotations

import errno

import pytest

from migemu.mm import MADV_COLLAPSE, MADV_HWPOISON, X86_64, Level, PartialError
from tests.unit.mm.guest import Guest, refused

GIB, MIB2, KIB4 = 1 << 30, 1 << 21, 1 << 12


@pytest.mark.parametrize(
    ("first", "count", "expected", "tables"),
    [
        (0, 16, "UUUUUUUUUUUUUUUU", 0),
        (0, 4, "MMMM............", 1),
        (0, 15, "MMMMMMMMMMMMttt.", 2),
        (1, 3, ".ttt............", 2),
        (1, 15, ".tttMMMMMMMMMMMM", 2),
        (2, 4, "..tttt..........", 3),
        (3, 1, "...t............", 2),
    ],
)
def test_each_position_gets_the_largest_leaf(guest: Guest, first: int, count: int, expected: str, tables: int) -> None:
    assert guest.continue_(first, count) == count
    assert (guest.map(), guest.tables) == (expected, tables)


@pytest.mark.parametrize(
    ("start", "length", "leaves"),
    [
        (0, GIB, (0, 0, 1)),
        (0, GIB - KIB4, (511, 511, 0)),
        (KIB4, MIB2 - KIB4, (511, 0, 0)),
        (1 << 20, 1 << 20, (256, 0, 0)),
    ],
)
def test_the_examples_of_the_authority_on_x86_64(
    make_guest: Guest, start: int, length: int, leaves: tuple[int, int, int]
) -> None:
    guest = make_guest(X86_64, hugepages=1)
    assert guest.uffd.continue_(guest.base + start, length) == length
    assert tuple(guest.space.leaves(guest.base).values()) == leaves
    guest.space.validate()


@pytest.mark.parametrize(
    ("offset", "length", "split", "number"),
    [
        (1, 4096, True, errno.EINVAL),
        (0, 4095, True, errno.EINVAL),
        (0, 0, True, errno.EINVAL),
        (0, -4096, True, errno.EINVAL),
        (0, 4096, False, errno.EINVAL),
        (4096, 65536, False, errno.EINVAL),
        (0, 1 << 48, True, errno.EINVAL),
        (32 * 4096, 4096, True, errno.ENOENT),
        (31 * 4096, 8192, True, errno.ENOENT),
        (-(1 << 30), 4096, True, errno.ENOENT),
    ],
)
def test_ranges_that_are_refused(make_guest: Guest, offset: int, length: int, split: bool, number: int) -> None:
    guest = make_guest(split=split)
    with refused(number):
        guest.uffd.continue_(guest.base + offset, length)
    assert guest.tables == 0


def test_without_split_a_whole_hugepage_is_continued(make_guest: Guest) -> None:
    guest = make_guest(split=False)
    assert guest.continue_(0, 16) == 16
    assert guest.map() == "U" * 16


def test_an_unregistered_vma_is_enoent(make_guest: Guest) -> None:
    guest = make_guest(minor=False)
    with refused(errno.ENOENT):
        guest.continue_(0, 1)


def test_a_range_over_two_vmas_is_enoent(make_guest: Guest) -> None:
    """Hugetlb VMAs once split stay apart, and CONTINUE wants one VMA."""
    guest = make_guest(minor=False)
    guest.uffd.register(guest.base, 16 * KIB4, minor=True)
    guest.uffd.register(guest.at(16), 16 * KIB4, minor=True)
    with refused(errno.ENOENT):
        guest.continue_(15, 2)


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        ((0, 1), (0, 1)),  # the entry itself
        ((0, 4), (1, 1)),  # a larger leaf covers it
        ((0, 16), (0, 4)),
        ((1, 1), (0, 4)),  # the slot of the wanted size is a table
        ((1, 1), (0, 16)),
    ],
)
def test_eexist_leaves_everything_as_it_was(guest: Guest, before: tuple[int, int], piece: tuple[int, int]) -> None:
    guest.continue_(*before)
    was = guest.map(), guest.tables
    with pytest.raises(FileExistsError):
        guest.continue_(*piece)
    assert (guest.map(), guest.tables) == was


def test_eexist_after_a_2m_collapse_of_a_late_1g_continue(guest: Guest) -> None:
    """A 2M-step collapse over an empty 1G slot leaves a table there; a 1G CONTINUE gets EEXIST (SEMANTICS 2.1)."""
    guest.advise(0, 4, MADV_COLLAPSE)
    assert (guest.map(), guest.tables) == ("." * 16, 1)
    with pytest.raises(FileExistsError):
        guest.continue_(0, 16)


def test_progress_then_failure_is_eagain_with_the_bytes_done(guest: Guest) -> None:
    """Not transactional: the pieces before the failure stay mapped."""
    guest.continue_(6, 1)
    with pytest.raises(PartialError) as caught:
        guest.continue_(1, 8)
    error = caught.value
    assert (error.errno, error.mapped, error.cause.errno) == (errno.EAGAIN, 3 * KIB4, errno.EEXIST)
    assert guest.map() == ".ttt..t........."
    guest.continue_(12, 1)
    with pytest.raises(PartialError) as caught:
        guest.continue_(9, 4)
    assert caught.value.mapped == 3 * KIB4


def test_efault_when_the_page_is_not_in_the_page_cache(make_guest: Guest) -> None:
    """The walk comes first: the tables it allocated stay."""
    guest = make_guest(populated=False)
    with refused(errno.EFAULT):
        guest.continue_(0, 1)
    assert guest.tables == 2
    guest.space.populate(guest.at(5), 1)  # the page cache holds whole hugepages (SEMANTICS 3.2)
    assert guest.continue_(0, 1) == 1
    with pytest.raises(PartialError) as partial:
        guest.continue_(15, 2)
    assert (partial.value.mapped, partial.value.cause.errno) == (KIB4, errno.EFAULT)


@pytest.mark.parametrize(("first", "count", "number"), [(0, 1, errno.EIO), (3, 1, errno.EIO), (5, 1, errno.EEXIST)])
def test_a_poisoned_hugepage_is_eio_unless_a_larger_poison_entry_ends_the_walk(
    guest: Guest, first: int, count: int, number: int
) -> None:
    """The folio is looked at before the entry, but the walk comes before both."""
    guest.continue_(0, 1)
    guest.continue_(4, 4)
    guest.advise(0, 1, MADV_HWPOISON)
    assert guest.map() == "P...PPPP........"
    with refused(number):
        guest.continue_(first, count)


@pytest.mark.parametrize(("tables_max", "left"), [(0, 0), (1, 1)])
def test_enomem_keeps_the_tables_allocated_before(make_guest: Guest, tables_max: int, left: int) -> None:
    guest = make_guest(tables_max=tables_max)
    for _ in range(2):
        with refused(errno.ENOMEM):
            guest.continue_(0, 1)
        assert guest.tables == left


def test_each_leaf_holds_a_reference_on_its_hugepage(guest: Guest) -> None:
    guest.continue_(1, 8)
    guest.continue_(16, 16)
    assert guest.file.refs == [3 + 1 + 1, 1]


def test_1g_at_4k_has_262144_references_and_513_tables(make_guest: Guest) -> None:
    guest = make_guest(X86_64, hugepages=1)
    guest.continue_(1, 511)
    guest.continue_(0, 1)
    for pmd in range(1, 512):
        assert guest.uffd.continue_run(guest.at(pmd * 512), Level.PTE, 512) == (512, 0)
    assert guest.file.refs == [262_144]
    assert guest.space.page_table_bytes(guest.base) == MIB2 + KIB4
    assert guest.space.leaves(guest.base) == {Level.PTE: 262_144, Level.PMD: 0, Level.PUD: 0}
    guest.space.validate()


def test_a_run_counts_what_was_mapped_and_what_was_there(guest: Guest) -> None:
    guest.continue_(5, 2)
    guest.continue_(8, 4)
    assert guest.uffd.continue_run(guest.at(4), Level.PTE, 9) == (3, 6)
    assert guest.uffd.continue_run(guest.at(0), Level.PMD, 4) == (1, 3)
    assert guest.uffd.continue_run(guest.at(16), Level.PUD, 1) == (1, 0)
    assert guest.map() == "MMMMttttMMMMt..."


def test_a_run_over_what_is_mapped_changes_nothing(guest: Guest) -> None:
    guest.continue_(0, 4)
    guest.continue_(5, 2)
    assert guest.uffd.continue_run(guest.at(0), Level.PTE, 4) == (0, 4)
    assert guest.uffd.continue_run(guest.at(5), Level.PTE, 2) == (0, 2)
    assert guest.file.refs == [3, 0]


def test_a_run_wakes_only_where_it_mapped(guest: Guest) -> None:
    """A waiter whose piece existed already stays asleep: single calls get EEXIST there, and that wakes nobody."""
    guest.continue_(1, 1)
    for vcpu, page in enumerate((2, 3, 6)):
        guest.space.fault(vcpu, guest.at(page), write=False)
    guest.continue_(3, 1, dontwake=True)
    assert guest.uffd.continue_run(guest.at(0), Level.PTE, 4) == (2, 2)
    assert guest.woken == [(0, 2)]


def test_a_run_wakes_what_it_mapped_before_it_failed(make_guest: Guest) -> None:
    guest = make_guest(hugepages=2, populated=False)
    guest.space.populate(guest.base, 1)
    guest.space.fault(7, guest.at(15), write=False)
    with refused(errno.EFAULT):
        guest.uffd.continue_run(guest.at(14), Level.PTE, 4)
    assert (guest.woken, guest.map()[12:]) == ([(7, 15)], "..tt")


def test_2m_hugepages_are_continued_at_4k_too(make_guest: Guest) -> None:
    """Tables above the hugepage level belong to the mm and are not counted."""
    guest = make_guest(X86_64, Level.PMD, 3)
    assert guest.continue_(512, 512) == 512
    assert guest.continue_(1, 511) == 511
    assert guest.space.leaves(guest.base) == {Level.PTE: 511, Level.PMD: 1, Level.PUD: 0}
    assert (guest.tables, guest.file.refs) == (1, [511, 1, 0])
    guest.space.validate()

"""Contiguous sizes of arm64: 64K of PTEs, 32M of PMDs (SEMANTICS 3.7). Small ones of TINY_CONT: 2 PTEs, 2 PMDs."""

from __future__ import annotations

import pytest

from migemu.mm import (
    ARM64_4K,
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_HWPOISON,
    MADV_SPLIT,
    TINY,
    EntryKind,
    FaultOutcome,
    Geometry,
    Level,
)
from tests.unit.mm.guest import TINY_CONT, Guest, MakeGuest

K64, M2, M32, GIB = 1 << 16, 1 << 21, 1 << 25, 1 << 30


@pytest.fixture
def guest() -> Guest:
    return Guest(TINY_CONT, wp=True)


@pytest.mark.parametrize(
    ("start", "length", "leaves"),
    [
        (0, K64, (0, 1, 0, 0, 0)),
        (4096, K64, (16, 0, 0, 0, 0)),
        (0, M32, (0, 0, 0, 1, 0)),
        (M32, 2 * M32, (0, 0, 0, 2, 0)),
        (M2, M32, (0, 0, 16, 0, 0)),
        (0, GIB - 4096, (15, 31, 15, 31, 0)),
        (0, GIB, (0, 0, 0, 0, 1)),
    ],
)
def test_each_position_gets_the_largest_leaf(
    make_guest: MakeGuest, start: int, length: int, leaves: tuple[int, ...]
) -> None:
    guest = make_guest(ARM64_4K, hugepages=1)
    assert guest.uffd.continue_(guest.base + start, length) == length
    assert tuple(guest.space.leaves(guest.base).values()) == leaves
    assert guest.file.refs == [sum(leaves)]
    guest.space.validate()


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        ([(0, 2)], (0, 1)),  # a plain entry inside a contiguous leaf
        ([(0, 2)], (1, 1)),
        ([(0, 8)], (4, 4)),
        ([(0, 8)], (1, 1)),
        ([(0, 1)], (0, 2)),  # a plain entry in the group
        ([(1, 1)], (0, 2)),
        ([(4, 1)], (0, 8)),  # a table in the group
        ([(4, 4)], (0, 8)),
    ],
)
def test_the_whole_group_must_be_blank(guest: Guest, before: list[tuple[int, int]], piece: tuple[int, int]) -> None:
    for each in before:
        guest.continue_(*each)
    was = guest.map()
    with pytest.raises(FileExistsError):
        guest.continue_(*piece)
    assert guest.map() == was


def test_neighbouring_groups_do_not_mind(guest: Guest) -> None:
    guest.continue_(0, 1)
    guest.continue_(2, 2)
    assert guest.map()[:5] == "t.cc."
    assert guest.uffd.continue_run(guest.at(0), Level.PTE, 4) == (1, 3)
    assert guest.uffd.continue_run(guest.at(4), Level.CONT_PTE, 2) == (2, 0)
    assert guest.map()[:8] == "ttcccccc"
    guest.space.validate()


@pytest.mark.parametrize(
    ("pieces", "first", "count", "expected", "tables"),
    [
        ([(0, 1)], 0, 2, "cc..............", 2),  # the hole is filled
        ([(0, 1)], 0, 4, "MMMM............", 1),
        ([(0, 1)], 0, 8, "CCCCCCCC........", 1),
        ([(0, 4)], 0, 8, "CCCCCCCC........", 1),
        ([(4, 1)], 0, 8, "CCCCCCCC........", 1),
        ([(4, 1)], 0, 2, "....t...........", 3),  # a blank group is skipped, its table stays
        ([(0, 1)], 2, 2, "t...............", 2),
        ([(0, 2)], 0, 2, "cc..............", 2),  # a leaf already
        ([(0, 1), (2, 2)], 0, 4, "MMMM............", 1),
        ([(0, 1), (9, 1)], 0, 16, "UUUUUUUUUUUUUUUU", 0),
        ([(0, 1), (9, 1)], 0, 15, "CCCCCCCCMMMM....", 2),  # its own walk leaves an empty table behind (SEMANTICS 2.1)
        ([(0, 2), (2, 1)], 0, 3, "cct.............", 2),
    ],
)
def test_collapse(
    guest: Guest, pieces: list[tuple[int, int]], first: int, count: int, expected: str, tables: int
) -> None:
    for piece in pieces:
        guest.continue_(*piece)
    guest.advise(first, count, MADV_COLLAPSE)
    assert (guest.map(), guest.tables) == (expected, tables)
    assert guest.file.refs[0] == sum(guest.space.leaves(guest.base).values())
    guest.space.validate()


@pytest.mark.parametrize(("first", "count"), [(1, 1), (0, 1)])
def test_a_smaller_step_over_a_contiguous_leaf_is_eexist(guest: Guest, first: int, count: int) -> None:
    guest.continue_(0, 2)
    guest.continue_(8, 8)
    for page, pages in ((first, count), (8, 4), (9, 1)):
        with pytest.raises(FileExistsError):
            guest.advise(page, pages, MADV_COLLAPSE)


def test_a_group_of_markers_is_blank_and_a_mixed_one_is_a_table(guest: Guest) -> None:
    guest.protect(0, 16)
    guest.continue_(5, 1)
    assert guest.continue_(6, 2) == 2
    assert guest.map() == "wwwwwtccwwwwwwww"
    guest.advise(0, 16, 4)  # MADV_DONTNEED
    assert guest.map() == "wwwww...wwwwwwww"
    with pytest.raises(FileExistsError):
        guest.continue_(4, 2)
    guest.advise(4, 2, MADV_COLLAPSE)
    assert guest.map() == "wwwwcc..wwwwwwww"
    guest.space.validate()


@pytest.mark.parametrize(
    ("page", "level", "kind"),
    [
        (0, None, (Level.CONT_PTE, EntryKind.LEAF)),
        (0, Level.PTE, (Level.CONT_PTE, EntryKind.LEAF)),
        (0, Level.CONT_PTE, (Level.CONT_PTE, EntryKind.LEAF)),
        (0, Level.PMD, (Level.PMD, EntryKind.TABLE)),
        (0, Level.CONT_PMD, (Level.CONT_PMD, EntryKind.TABLE)),
        (0, Level.PUD, (Level.PUD, EntryKind.TABLE)),
        (2, None, (Level.PTE, EntryKind.LEAF)),
        (3, Level.CONT_PTE, (Level.CONT_PTE, EntryKind.TABLE)),
        (4, None, (Level.PMD, EntryKind.NONE)),  # an empty entry has no contiguous bit
        (4, Level.CONT_PMD, (Level.CONT_PMD, EntryKind.TABLE)),
        (9, None, (Level.CONT_PMD, EntryKind.LEAF)),
        (9, Level.PMD, (Level.CONT_PMD, EntryKind.LEAF)),
        (16, Level.PTE, (Level.PUD, EntryKind.NONE)),
    ],
)
def test_a_walk_stops_where_it_is_told(guest: Guest, page: int, level: Level | None, kind: tuple[int, int]) -> None:
    guest.continue_(0, 3)
    guest.continue_(8, 8)
    assert guest.space.walk(guest.at(page), level) == kind


def test_a_walk_to_a_blank_group(guest: Guest) -> None:
    guest.continue_(0, 1)
    assert guest.space.walk(guest.at(2), Level.CONT_PTE) == (Level.CONT_PTE, EntryKind.NONE)
    assert guest.space.walk(guest.at(12), Level.CONT_PMD) == (Level.CONT_PMD, EntryKind.NONE)


def test_where_a_level_does_not_exist_a_walk_sees_the_table(make_guest: MakeGuest) -> None:
    guest = make_guest(TINY)
    guest.continue_(0, 1)
    assert guest.space.walk(guest.at(0), Level.PMD) == (Level.PMD, EntryKind.TABLE)
    assert guest.space.walk(guest.at(1), Level.PTE) == (Level.PTE, EntryKind.NONE)
    with pytest.raises(ValueError, match="has no"):
        guest.space.walk(guest.at(1), Level.CONT_PTE)


def test_a_fault_installs_a_plain_entry(make_guest: MakeGuest) -> None:
    guest = make_guest(TINY_CONT, minor=False)
    guest.space.madvise(guest.base, guest.length, MADV_SPLIT)
    guest.uffd.register(guest.base, guest.length, minor=True)
    guest.continue_(0, 2)
    guest.uffd.unregister(guest.base, guest.length)
    for page in (2, 4):
        assert guest.space.fault(0, guest.at(page), write=True) is FaultOutcome.MAPPED
    assert guest.map() == "cct.MMMM........"
    guest.space.validate()


def test_protection_is_of_the_whole_leaf(guest: Guest) -> None:
    guest.continue_(0, 2, wp=True)
    guest.continue_(8, 8, wp=True)
    assert guest.protected() == "ww......wwwwwwww"
    assert guest.space.fault(0, guest.at(1), write=True) is FaultOutcome.WAITING
    guest.uffd.wp_async = True
    assert guest.space.fault(1, guest.at(1), write=True) is FaultOutcome.MAPPED
    assert guest.space.fault(1, guest.at(13), write=True) is FaultOutcome.MAPPED
    assert guest.protected() == "." * 16
    guest.space.validate()


def test_poison_keeps_the_size(guest: Guest) -> None:
    guest.continue_(0, 3)
    guest.continue_(8, 8)
    guest.advise(0, 16, MADV_HWPOISON)
    assert guest.map() == "PPP.....PPPPPPPP"
    assert guest.space.walk(guest.at(0)) == (Level.CONT_PTE, EntryKind.POISON)
    assert guest.space.walk(guest.at(15)) == (Level.CONT_PMD, EntryKind.POISON)
    with pytest.raises(FileExistsError):
        guest.continue_(0, 1)
    assert guest.file.refs[0] == 0
    guest.space.validate()


def test_small_hugepages_have_no_32m(make_guest: MakeGuest) -> None:
    guest = make_guest(ARM64_4K, Level.PMD, 32)
    guest.uffd.continue_(guest.base, M32 + K64)
    assert tuple(guest.space.leaves(guest.base).values()) == (0, 1, 16, 0, 0)
    guest.advise(0, 1024 * 8, MADV_COLLAPSE)
    guest.space.validate()


def test_full_tables_of_contiguous_leaves_are_shared(make_guest: MakeGuest) -> None:
    guest = make_guest(ARM64_4K, hugepages=1)
    assert guest.uffd.continue_run(guest.base, Level.CONT_PTE, GIB // K64) == (GIB // K64, 0)
    assert len({id(row) for row in guest.space.vmas.vmas[0].mapping.table.ptes}) == 1
    guest.space.validate()


def test_leaves_are_counted_where_the_two_contiguous_sizes_differ_in_width() -> None:
    """2 pages are contiguous, and 4 PMDs; on arm64 both are 16, and on TINY both are 2. All short fills, and back."""
    uneven = Geometry("uneven", dict(zip(Level, (12, 13, 14, 16, 17), strict=True)))
    for pages in range(1, 33):
        guest = Guest(uneven, Level.PUD, 1)
        guest.continue_(0, pages)
        guest.space.validate()
        leaves = guest.space.leaves(guest.base)
        assert sum(count * uneven.pages(level) for level, count in leaves.items()) == pages
        assert sum(leaves.values()) == guest.file.refs[0]
        guest.advise(0, 32, MADV_DONTNEED)
        guest.space.validate()
        assert guest.file.refs == [0]

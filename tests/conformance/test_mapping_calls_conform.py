"""MappingCalls: what an install and MADV_COLLAPSE map, whom they wake, and what they refuse.

Positions are given in base pages and as the geometry's own sizes, so that one test speaks of a hugetlb page of 16 base
pages and of a real one.
"""

from __future__ import annotations

import errno

from migemu.mm.pages import Level, Span
from migemu.ports import Installed
from tests.conformance.guest import Guest, every_store, every_store_in_place, refused, turns
from tests.conformance.stores import Store

# --- installing pieces ---


@every_store
async def test_pieces_that_are_mapped_already_are_counted_and_not_mapped_again(store: Store) -> None:
    guest = Guest(store)
    assert guest.map(1, 2) == Installed(mapped=2, existing=0)
    assert guest.map(0, 4) == Installed(mapped=2, existing=2)
    assert guest.map(0, 4) == Installed(mapped=0, existing=4)
    assert guest.leaves == (4, 0, 0)


@every_store
async def test_a_piece_is_mapped_by_one_entry_of_its_size(store: Store) -> None:
    guest = Guest(store)
    guest.map(0, 3, Level.PMD)
    assert guest.leaves == (0, 3, 0)
    guest.map(3 * guest.pmd)
    assert guest.leaves == (1, 3, 0)
    assert guest.map(2 * guest.pmd, 1) == Installed(mapped=0, existing=1), "a page of a 2M piece is there already"
    assert guest.read(0, 2 * guest.pmd) == 0


@every_store
async def test_a_large_piece_over_small_mappings_exists_and_fills_no_holes(store: Store) -> None:
    guest = Guest(store)
    guest.map(1)
    waiting = guest.fault(0, 0)
    assert guest.map(0, 1, Level.PMD) == Installed(mapped=0, existing=1)
    await turns()
    assert not waiting.done()
    assert guest.leaves == (1, 0, 0)
    guest.map(0)
    await waiting


# --- MADV_COLLAPSE ---


@every_store
async def test_a_collapse_puts_one_entry_in_the_place_of_the_small_ones(store: Store) -> None:
    guest = Guest(store)
    guest.map(0, 2 * guest.pmd)
    guest.memory.madvise_collapse([Span(0, Level.PMD)])
    assert guest.leaves == (guest.pmd, 1, 0)
    guest.map(2 * guest.pmd, guest.pud - 2 * guest.pmd)
    guest.memory.madvise_collapse([Span(guest.pmd, Level.PMD), Span(0, Level.PUD)])
    assert guest.leaves == (0, 0, 1)
    guest.memory.madvise_collapse([Span(0, Level.PUD)])
    assert guest.leaves == (0, 0, 1)


@every_store
async def test_bytes_stay_what_they_are_when_their_mapping_collapses(store: Store) -> None:
    guest = Guest(store)
    for page in (0, guest.pmd - 1):
        guest.map(page)
        guest.write(0, page, 1000 + page)
    guest.memory.madvise_collapse([Span(0, Level.PMD)])
    for page in (0, guest.pmd - 1):
        assert guest.read(1, page) == 1000 + page
    assert guest.faults == []


@every_store_in_place
async def test_a_collapse_maps_the_holes_under_a_table_and_wakes_nobody(store: Store) -> None:
    """Whoever sleeps there needs a wake; then the word is there without another fault."""
    guest = Guest(store)
    guest.land(2)
    waiting = guest.fault(0, 2)
    await turns()
    guest.map(1)
    guest.memory.madvise_collapse([Span(0, Level.PMD)])
    assert guest.leaves == (0, 1, 0)
    assert guest.read(1, 2) == guest.image.word(2, 0), "another vCPU gets at it"
    await turns()
    assert not waiting.done()
    guest.memory.uffdio_wake(2, 1)
    await waiting
    assert guest.read(0, 2) == guest.image.word(2, 0)
    assert guest.faults == [(0, 2, False)]


@every_store
async def test_a_collapse_where_no_table_is_maps_nothing(store: Store) -> None:
    guest = Guest(store)
    guest.memory.madvise_collapse([Span(guest.pmd, Level.PMD)])
    assert guest.leaves == (0, 0, 0)
    waiting = guest.fault(0, guest.pmd)
    waiting.cancel()


@every_store
async def test_tables_grow_with_small_mappings_and_go_when_they_collapse(store: Store) -> None:
    """One of PMD entries, and one of PTEs per 2M that has small mappings."""
    guest = Guest(store)
    assert guest.memory.table_bytes() == 0
    guest.map(0, 2)
    assert guest.memory.table_bytes() == 2 * guest.page
    guest.map(guest.pmd, 1, Level.PMD)
    assert guest.memory.table_bytes() == 2 * guest.page
    guest.map(3 * guest.pmd - 1, 2)
    assert guest.memory.table_bytes() == 4 * guest.page
    guest.memory.madvise_collapse([Span(0, Level.PMD)])
    assert guest.memory.table_bytes() == 3 * guest.page
    guest.memory.madvise_collapse([Span(0, Level.PUD)])
    assert guest.memory.table_bytes() == 0


@every_store
async def test_all_of_a_hugetlb_page_can_be_mapped_piece_by_piece_and_collapsed_to_one(store: Store) -> None:
    guest = Guest(store)
    half = guest.pud // 2
    assert guest.map(0, half) == Installed(half, 0)
    assert guest.map(half, half // guest.pmd, Level.PMD) == Installed(half // guest.pmd, 0)
    assert guest.leaves == (half, half // guest.pmd, 0)
    guest.memory.madvise_collapse([Span(page, Level.PMD) for page in range(0, half, guest.pmd)])
    assert guest.leaves == (0, guest.pud // guest.pmd, 0)
    guest.memory.madvise_collapse([Span(0, Level.PUD)])
    assert guest.leaves == (0, 0, 1)
    assert guest.read(0, guest.pud - 1) == 0


# --- what the kernel refuses ---


@every_store
async def test_what_lies_outside_the_memory_is_refused_and_changes_nothing(store: Store) -> None:
    guest = Guest(store)
    for level in (Level.PTE, Level.PMD):
        for first in (guest.pages, -store.geometry.pages(level)):
            with refused(errno.ENOENT):
                guest.map(first, 1, level)
    with refused(errno.EINVAL):
        guest.memory.madvise_collapse([Span(guest.pages, Level.PUD)])
    with refused(errno.EINVAL):
        guest.memory.uffdio_wake(0, 0)
    assert guest.leaves == (0, 0, 0)
    assert guest.memory.table_bytes() == 0


@every_store
async def test_a_run_that_leaves_the_memory_maps_what_lies_inside(store: Store) -> None:
    """One UFFDIO_CONTINUE per piece: those before the failure stay."""
    guest = Guest(store)
    waiting = guest.fault(0, guest.pages - 1)
    with refused(errno.ENOENT):
        guest.map(guest.pages - 2, 3)
    assert guest.leaves == (2, 0, 0)
    await waiting


@every_store
async def test_a_collapse_of_a_part_of_what_one_entry_maps_is_refused(store: Store) -> None:
    """EEXIST; spans before it in the list are done, those behind it are not. The first of a call tells its errno."""
    guest = Guest(store)
    guest.map(0)
    whole, part = Span(0, Level.PUD), Span(guest.pmd, Level.PMD)
    assert guest.memory.madvise_collapse([whole])[:2] == (1, 0)
    assert guest.memory.madvise_collapse([whole, part, whole])[:2] == (1, 0)
    assert guest.memory.madvise_collapse([part, whole])[:2] == (0, errno.EEXIST)
    assert guest.leaves == (0, 0, 1)

"""Every state of small hugepages under CONTINUE, COLLAPSE, faults, write-protection, zaps, migration and poison."""

from __future__ import annotations

import pytest

from migemu.mm import TINY, Level
from tests.exhaustive.explorer import Explorer, folio_allows, on, ranges
from tests.exhaustive.twin_mm import Call
from tests.exhaustive.worlds import SMALL, SMALLEST, post_copy

MAPPING = ("continue_", "collapse")


def touches(*pages: int) -> list[Call]:
    return [("touch", page, write) for page in pages for write in (False, True)]


def reads(pages: int) -> list[Call]:
    return [("touch", page, False) for page in range(pages)]


def whole(pages: int) -> list[Call]:
    """What takes whole hugepages only, on all of `pages`."""
    return [
        ("dontneed", 0, pages),
        ("writeprotect", 0, pages, True),
        ("writeprotect", 0, pages, False),
    ]


MIGRATION: list[Call] = [("isolate", 0), ("putback", 0), ("try_to_migrate", 0), ("remove_migration_ptes", 0)]


def test_a_hugepage_of_two_pmds_of_four() -> None:
    """SEMANTICS 1.3, 2.1 and 3.1: continues and collapses of every range, and every fault."""
    explorer = Explorer(post_copy(SMALL), [])
    found = explorer.all_of([*on(MAPPING, ranges(8)), *reads(8)])
    slot_states = 2 + 2**4  # a PMD slot: empty, leaf, or a table with any set of its 4 pages
    assert found == (2 + slot_states**2, 26080)


def test_write_protection_and_dontneed() -> None:
    """Every entry empty, marker, leaf or protected leaf; no minor mode, so that faults install (SEMANTICS 3.1)."""
    explorer = Explorer(post_copy(SMALLEST, modes=("missing", "wp")), [])
    assert explorer.all_of([*on(MAPPING, ranges(4)), *touches(*range(4)), *whole(4)]) == (404, 12524)


@pytest.mark.parametrize("scheme", ["hstate", "head_only", "thp_like"])
def test_mapcount_schemes(scheme: str) -> None:
    """3.5, with an alias of the same file that is hugely mapped or not at all."""
    twins = post_copy(SMALLEST, mapcount=scheme)
    twins.mmap(Level.PUD, 1, twins.files[0][0])
    alias = twins.naive.vmas[1].first
    explorer = Explorer(twins, [])
    calls = [*on(MAPPING, ranges(4, aligned=True)), ("fault", 0, alias, False), ("dontneed", alias, 4)]
    assert explorer.all_of(calls) == (76, 1216)


@pytest.mark.parametrize(("hgm", "found"), [("v1", (261, 7237)), ("v2", (294, 8270))])
def test_page_cache_migration_and_poison(hgm: str, found: tuple[int, int]) -> None:
    """Bytes missing at first, the folio isolated, in migration or poisoned at any time."""
    explorer = Explorer(post_copy(SMALLEST, cached=0, hgm=hgm), [], folio_allows)
    poison: list[Call] = [("hwpoison_at", page, 1) for page in (0, 3)]
    calls = [*on(MAPPING, ranges(4)), *reads(4), ("populate", 0, 1), ("dontneed", 0, 4), *MIGRATION, *poison]
    assert explorer.all_of(calls) == found


@pytest.mark.parametrize("hgm", ["v1", "v2"])
def test_poison_of_one_hugepage_of_two(hgm: str) -> None:
    """SEMANTICS 2.1 step 3: v1 forgets EHWPOISON at the next step, v2 never says it; the next hugepage is collapsed."""
    explorer = Explorer(post_copy(SMALLEST, Level.PMD, 2, hgm=hgm), [], folio_allows)
    poison: list[Call] = [("hwpoison_at", page, 1) for page in (0, 2)] + [("hwpoison_at", 0, 4)]
    calls = [*on(("continue_",), [(0, 1), (2, 1), (1, 3)]), *on(("collapse",), ranges(4)), *poison]
    assert explorer.all_of([*calls, ("process_collapse", (0, 2), (2, 2))]) == (51, 867)


def test_migration_entries_keep_their_protection() -> None:
    explorer = Explorer(post_copy(SMALLEST, modes=("minor", "wp")), [], folio_allows)
    calls = [*on(MAPPING, ranges(4, aligned=True)), *touches(0, 3), *whole(4), *MIGRATION[2:]]
    assert explorer.all_of(calls) == (1174, 25828)


def test_poison_of_single_pages() -> None:
    """SEMANTICS 3.4: any of the 4K go bad, one after the other; neighbours are mapped by continues and by faults."""
    explorer = Explorer(post_copy(SMALLEST, hwpoison="page"), [])
    poison: list[Call] = [("hwpoison_at", page, 1) for page in range(4)]
    calls = [*on(MAPPING, ranges(4, aligned=True)), *reads(4), *poison, ("hwpoison_at", 0, 4), ("dontneed", 0, 4)]
    assert explorer.all_of(calls) == (326, 7824)


def test_bad_pages_that_no_entry_tells_of() -> None:
    """EIO for the piece that holds one (SEMANTICS 1.3), also in the middle of a range of small pieces."""
    explorer = Explorer(post_copy(SMALL, Level.PMD, modes=("missing",), hwpoison="page"), [])
    poison: list[Call] = [("hwpoison_at", page, 1) for page in range(4)]
    calls = [*on(("continue_",), ranges(4)), ("collapse", 0, 4), *reads(4), *poison, ("dontneed", 0, 4)]
    assert explorer.all_of(calls) == (258, 5160)


def test_poison_of_single_pages_without_madv_split() -> None:
    """SEMANTICS 3.4: what may be split is any shared mapping; from then on small pieces are continued and collapsed."""
    explorer = Explorer(post_copy(SMALLEST, Level.PMD, 2, split=0, hwpoison="page"), [])
    poison: list[Call] = [("hwpoison_at", page, 1) for page in (0, 3)]
    calls = [*on(MAPPING, ranges(4)), *poison, ("dontneed", 0, 4)]
    assert explorer.all_of(calls) == (55, 1265)


def test_poison_of_single_protected_pages() -> None:
    """Faults install around a bad 4K what the protection says."""
    explorer = Explorer(post_copy(SMALLEST, modes=("missing", "wp"), hwpoison="page"), [])
    poison: list[Call] = [("hwpoison_at", page, 1) for page in (0, 3)]
    calls = [*on(("continue_",), ranges(4, aligned=True)), ("collapse", 0, 2), *touches(1, 2), *whole(4), *poison]
    assert explorer.all_of(calls) == (887, 15079)


def test_copy_and_poison_of_missing_hugepages() -> None:
    """Two hugepages that are not in the page cache: COPY fills them, UFFDIO_POISON gives them up, ranges cross."""
    explorer = Explorer(post_copy(SMALLEST, Level.PMD, 2, ("missing", "wp"), cached=0), [])
    calls = [
        *on(("copy", "poison"), [*ranges(4, step=2), (1, 2), (0, 3)]),
        *on(("copy",), ranges(4, step=2), True, True),
        *on(("writeprotect",), [(0, 2), (0, 4)], True),
        *on(("dontneed", "collapse"), [(0, 4), (2, 2), (1, 1)]),
        ("continue_", 1, 2),
        *touches(0, 3),
    ]
    assert explorer.all_of(calls) == (278, 7228)


def test_populate_write_stops_where_a_fault_would() -> None:
    """MADV_POPULATE_WRITE touches page after page: protection and missing bytes make it sleep, poison is EHWPOISON."""
    explorer = Explorer(post_copy(SMALLEST, Level.PMD, 3, ("missing", "wp"), cached=2, hwpoison="page"), [])
    populating: list[Call] = [("populate_write", 0, 4), ("populate_write", 1, 1), ("populate_write", 3, 3)]
    others: list[Call] = [("writeprotect", 2, 2, True), ("copy", 4, 2), ("hwpoison_at", 1, 1), ("munmap", 4, 2)]
    assert explorer.all_of([*populating, *others, ("continue_", 0, 1), ("collapse", 0, 4)]) == (80, 720)


def test_two_hugepages_one_of_them_split() -> None:
    """Ranges across their border; outside the part with MADV_SPLIT everything takes whole hugepages (SEMANTICS 1.2)."""
    for split, found in ((1, (12, 408)), (2, (36, 1224))):
        explorer = Explorer(post_copy(SMALLEST, Level.PMD, 2, split=split), [])
        assert explorer.all_of([*on((*MAPPING, "dontneed"), ranges(4)), *reads(4)]) == found


@pytest.mark.parametrize(("tables_max", "found"), [(0, (4, 108)), (1, (18, 486)), (2, (110, 2970))])
def test_too_few_page_tables(tables_max: int, found: tuple[int, int]) -> None:
    """ENOMEM at any table of a walk: what was allocated before it stays."""
    explorer = Explorer(post_copy(SMALLEST, modes=("minor", "wp"), tables_max=tables_max), [])
    assert explorer.all_of([*on(MAPPING, ranges(4)), *reads(4), *whole(4)]) == found


def test_single_pages_go_bad_with_too_few_page_tables() -> None:
    """SEMANTICS 3.4: a split that fails leaves the leaf as it was."""
    explorer = Explorer(post_copy(SMALLEST, tables_max=1, hwpoison="page"), [], folio_allows)
    poison: list[Call] = [("hwpoison_at", page, 1) for page in range(4)]
    assert explorer.all_of([*on(MAPPING, ranges(4, aligned=True)), *reads(4), *poison]) == (42, 924)


def test_too_many_references() -> None:
    """SEMANTICS 1.3: one leaf more than the count can hold: SIGBUS for a fault, EFAULT for a CONTINUE."""
    for modes in (("minor",), ("missing",)):
        twins = post_copy(SMALLEST, modes=modes)
        twins.refs_max(2)
        assert Explorer(twins, []).all_of([*on(MAPPING, ranges(4)), *reads(4)]) == (33, 792)


def test_two_calls_deep_on_tiny() -> None:
    """TINY, 16 pages: every call, then every naturally aligned call."""
    explorer = Explorer(post_copy(TINY), [])
    explorer.step([*on(MAPPING, ranges(16)), *reads(16)])
    explorer.step([*on(MAPPING, ranges(16, aligned=True)), *reads(16)])
    assert explorer.found == (2110, 11754)

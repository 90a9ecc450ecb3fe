"""Every state of hugepages with contiguous entries (SEMANTICS 3.7): 64K and 32M made of two entries each."""

from __future__ import annotations

import pytest

from migemu.mm import Level
from tests.exhaustive.explorer import Explorer, folio_allows, on, ranges
from tests.exhaustive.twin_mm import Call
from tests.exhaustive.worlds import CONT, CONT_PMDS, CONT_PTES, post_copy

MAPPING = ("continue_", "collapse")
MIGRATION: list[Call] = [("try_to_migrate", 0), ("remove_migration_ptes", 0)]


#: The single pages of 8.
ONES = [(page, 1) for page in range(8)]


def reads(pages: int) -> list[Call]:
    return [("touch", page, False) for page in range(pages)]


def protecting(pages: int) -> list[Call]:
    return [("writeprotect", 0, pages, on) for on in (False, True)] + [("dontneed", 0, pages)]


def test_contiguous_ptes() -> None:
    """A 2M hugepage of two 64K groups, and of more of them."""
    explorer = Explorer(post_copy(CONT_PTES), [])
    larger = [each for each in ranges(8, aligned=True) if each[1] > 1]
    calls = [*on(MAPPING, larger), *on(MAPPING[:1], ONES), ("collapse", 0, 1), *reads(8)[::3]]
    assert explorer.all_of(calls) == (731, 19006)


def test_contiguous_pmds() -> None:
    explorer = Explorer(post_copy(CONT_PMDS), [])
    some: list[Call] = [("continue_", 1, 5), ("collapse", 0, 6), ("collapse", 3, 5), *reads(8)[::3]]
    assert explorer.all_of([*on(MAPPING, ranges(8, aligned=True, step=2)), *on(MAPPING[:1], ONES), *some]) == (
        808,
        22624,
    )


def test_protection_and_migration_of_contiguous_ptes() -> None:
    """One 2M hugepage: groups protected, in migration, dropped; faults install beside them."""
    explorer = Explorer(post_copy(CONT_PTES, Level.PMD, modes=("missing", "wp")), [], folio_allows)
    larger = [(0, 4), (0, 2), (2, 2)]
    calls = [*on(MAPPING, larger), *on(MAPPING[:1], ONES[:4]), *touches(0), *protecting(4), *MIGRATION]
    assert explorer.all_of(calls) == (1151, 18416)


@pytest.mark.parametrize(("hwpoison", "found"), [("hugepage", (68, 1428)), ("page", (114, 2394))])
def test_poison_in_contiguous_ptes(hwpoison: str, found: tuple[int, int]) -> None:
    """SEMANTICS 3.4: a group with a bad 4K is taken apart, or the whole hugepage goes."""
    explorer = Explorer(post_copy(CONT_PTES, modes=("missing",), hwpoison=hwpoison), [])
    poison: list[Call] = [("hwpoison_at", page, 1) for page in (0, 3)]
    calls = [
        *on(MAPPING, [(0, 8), (0, 4), (4, 4), (0, 2), (2, 2), (0, 1), (3, 1)]),
        *poison,
        ("dontneed", 0, 8),
        *reads(8)[1::2],
    ]
    assert explorer.all_of(calls) == found


def touches(*pages: int) -> list[Call]:
    return [("touch", page, write) for page in pages for write in (False, True)]


def test_all_five_levels_two_calls_deep() -> None:
    explorer = Explorer(post_copy(CONT, modes=("minor", "wp")), [])
    every = [*on(MAPPING, ranges(16)), *reads(16), *protecting(16)]
    aligned = [*on(MAPPING, ranges(16, aligned=True)), ("touch", 5, True), *protecting(16)]
    explorer.step(every)
    explorer.step(aligned)
    assert explorer.found == (2426, 10059)

"""Every state of a parent, and the child it forks; then every state of the two together."""

from __future__ import annotations

import pytest

from migemu.mm import Level
from tests.exhaustive.explorer import Explorer, folio_allows, on, ranges
from tests.exhaustive.naive_uffd import EVENT_FORK, EVENT_REMOVE
from tests.exhaustive.twin_mm import Call, Twins
from tests.exhaustive.worlds import CONT_PTES, SMALLEST, post_copy

MAPPING = ("continue_", "collapse")


def protecting(pages: int) -> list[Call]:
    return [("writeprotect", 0, pages, on) for on in (False, True)]


def has_its_userfaultfd(twins: Twins, call: Call) -> bool:
    """The child's comes with the event."""
    return call[:2] != ("child", "continue_") or bool(twins.children[0].uffds)


def of_the_child(calls: list[Call]) -> list[Call]:
    return [("child", *call) for call in calls]


@pytest.mark.parametrize(
    ("features", "modes", "found"),
    [
        (0, ("minor",), (266, 1634)),
        (0, ("minor", "wp"), (1260, 8100)),
        (EVENT_FORK, ("minor",), (342, 1634)),
        (EVENT_FORK, ("minor", "wp"), (1930, 8100)),
    ],
)
def test_fork_copies_what_only_a_page_table_knows(
    features: int, modes: tuple[str, ...], found: tuple[int, int]
) -> None:
    """Section 4: entries are copied where the child is write-protected; from every state of the parent."""
    explorer = Explorer(post_copy(SMALLEST, modes=modes, features=features), [])
    aligned = on(MAPPING, ranges(4, aligned=True))
    explorer.all_of([*aligned, *(protecting(4) if "wp" in modes else [])])
    explorer.again()
    explorer.step([("fork",)])
    touches: list[Call] = [("fault", 1, page, True) for page in (0, 3)]
    explorer.step([*aligned, ("read",), *of_the_child([*on(("collapse",), ranges(4)), *touches, ("dontneed", 0, 4)])])
    assert explorer.found == found


def test_a_child_and_its_parent_share_folios_only() -> None:
    """Counts of both add up; poison and migration reach both; nothing else does."""
    world = post_copy(SMALLEST, Level.PMD, modes=("minor", "wp"), features=EVENT_FORK)
    explorer = Explorer(world, [("continue_", 0, 1), ("fork",), ("read",)], folio_allows)
    both = [("continue_", 0, 1), ("collapse", 0, 2), *protecting(2), ("dontneed", 0, 2)]
    shared: list[Call] = [("try_to_migrate", 0), ("remove_migration_ptes", 0), ("hwpoison_at", 0, 1)]
    assert explorer.all_of([*both, *of_the_child(both), *shared]) == (333, 3763)


def test_contiguous_entries_are_copied() -> None:
    explorer = Explorer(post_copy(CONT_PTES, Level.PMD, modes=("minor", "wp"), features=EVENT_FORK), [])
    explorer.all_of([*on(MAPPING, ranges(4, aligned=True)), *protecting(4)])
    explorer.again()
    explorer.step([("fork",)])
    explorer.step(of_the_child([*on(("collapse",), ranges(4, aligned=True)), ("dontneed", 0, 4)]))
    assert explorer.found == (780, 3650)


def test_a_child_unmaps_what_its_parent_keeps() -> None:
    """Two hugepages; each of the two unmaps, zaps and continues, and reads its own events."""
    world = post_copy(SMALLEST, Level.PMD, 2, ("minor", "wp"), features=EVENT_FORK | EVENT_REMOVE)
    explorer = Explorer(world, [("continue_", 0, 1), ("continue_", 2, 2), ("fork",)], has_its_userfaultfd)
    both: list[Call] = [("munmap", 0, 2), ("munmap", 2, 2), ("dontneed", 2, 2), ("continue_", 1, 1), ("collapse", 0, 4)]
    explorer.step([*both, ("read",), *of_the_child(both)])
    explorer.step([*both, ("read",), *of_the_child(both)])
    explorer.step([*both, ("read",), *of_the_child(both)])
    assert explorer.found == (150, 491)

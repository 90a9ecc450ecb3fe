"""The mapping over time, read off events: by hand on TINY, and against the model of the page table."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.analysis.mapping import MappedShares, MappingAt, mapping_over_time
from migemu.costs.access import AccessModel
from migemu.mm import MADV_COLLAPSE, MADV_SPLIT, TINY, X86_64, AddressSpace, EntryKind, Level
from migemu.trace.events import Event, Happening

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
KIB4 = 4096


def continued(t: int, first: int, count: int, level: Level = PTE) -> Event:
    return Event(t, "destination", Happening.CONTINUED, first, count, level)


def collapsed(t: int, first: int, level: Level) -> Event:
    return Event(t, "destination", Happening.COLLAPSED, first, level=level)


def zapped(t: int, first: int, count: int) -> Event:
    return Event(t, "destination", Happening.ZAPPED, first, count)


def rows(events: list[Event], pages: int = 32, **options: Any) -> list[tuple[int, tuple[int, ...], int]]:
    """(t, 4K pages by level, table pages) on TINY: a hugepage of 16 pages in 4 slots of 4."""
    return [
        (row.t, tuple(row.mapped_bytes[level] // KIB4 for level in TINY.levels), row.page_table_bytes // KIB4)
        for row in mapping_over_time(events, TINY, pages, **options)
    ]


def test_pieces_then_slots_then_the_hugepage() -> None:
    events = [
        continued(1, 0, 1), continued(2, 1, 3), continued(3, 4, 4, PMD), continued(4, 8, 8), collapsed(5, 0, PMD),
        collapsed(6, 0, PUD), continued(7, 16, 16, PUD),
    ]  # fmt: skip
    assert rows(events) == [
        (1, (1, 0, 0), 2), (2, (4, 0, 0), 2), (3, (4, 4, 0), 2), (4, (12, 4, 0), 4), (5, (8, 8, 0), 3),
        (6, (0, 0, 16), 0), (7, (0, 0, 32), 0),
    ]  # fmt: skip


def test_a_collapse_fills_holes_and_what_is_mapped_is_not_continued() -> None:
    events = [continued(1, 1, 1), collapsed(2, 0, PMD), continued(3, 0, 8), continued(4, 4, 4, PMD)]
    assert rows(events)[1:] == [(2, (0, 4, 0), 1), (3, (4, 4, 0), 2), (4, (4, 4, 0), 2)]


def test_zapped_is_gone() -> None:
    assert rows([continued(1, 0, 32), zapped(2, 16, 16), zapped(3, 0, 16)]) == [
        (1, (32, 0, 0), 10), (2, (16, 0, 0), 5), (3, (0, 0, 0), 0),
    ]  # fmt: skip


def test_other_events_and_pages_without_a_number_change_nothing() -> None:
    events = [Event(1, "source", Happening.SENT, 0, 4, PTE), Event(2, "destination", Happening.STATE, detail="paused")]
    assert rows(events) == []


def test_every_so_often_and_the_end() -> None:
    events = [continued(t, t, 1) for t in range(32)]
    assert [row[0] for row in rows(events, every_ns=10)] == [0, 10, 20, 30, 31]


def test_page_tables_of_1g_at_4k_are_2_mib_and_4_kib() -> None:
    """Section 3.6, and what an access costs on the way back to 1G."""
    model = AccessModel(guest=PUD)
    events = [continued(1, 0, 1 << 18), *(collapsed(2, slot * 512, PMD) for slot in range(512)), collapsed(3, 0, PUD)]
    found = list(mapping_over_time(events, X86_64, 1 << 18, access=model))
    assert [found[at].page_table_bytes for at in (0, 512, 513)] == [(2 << 20) + KIB4, KIB4, 0]
    costs = [row.access_ns for row in found]
    assert costs[0] == model.access_ns({PTE: 1 << 18})
    assert costs[512] == model.access_ns({PMD: 512})
    assert costs[513] == model.access_ns({PUD: 1})
    assert all(cost is not None for cost in costs)


def test_nothing_mapped_has_no_cost() -> None:
    found = list(mapping_over_time([continued(1, 0, 4), zapped(2, 0, 4)], TINY, 16))
    assert found[-1] == MappingAt(2, dict.fromkeys(TINY.levels, 0), 0, None)


@pytest.mark.parametrize(
    "event",
    [continued(1, 31, 2), continued(1, -1, 1), collapsed(1, 32, PMD), zapped(1, 16, 17),
     Event(1, "destination", Happening.CONTINUED, 0, 4), Event(1, "destination", Happening.CONTINUED, 0, level=PTE)],
)  # fmt: skip
def test_an_event_that_does_not_fit_is_refused(event: Event) -> None:
    with pytest.raises(ValueError, match="does not fit a memory of 32 pages"):
        rows([event])


class Act(Enum):
    CONTINUE = 0
    COLLAPSE = 1


@given(st.lists(st.tuples(st.sampled_from(Act), st.integers(0, 31), st.sampled_from(TINY.levels)), max_size=40))
def test_it_agrees_with_the_page_table(acts: list[tuple[Act, int, Level]]) -> None:
    """Whatever is continued and collapsed: the same leaves, and the same tables but for those without a leaf."""
    space = AddressSpace(TINY)
    base = space.mmap_hugetlb(32 * KIB4)
    space.populate(base, 32 * KIB4)
    space.madvise(base, 32 * KIB4, MADV_SPLIT)
    uffd = space.userfaultfd()
    uffd.register(base, 32 * KIB4, minor=True)
    mapping = MappedShares(TINY, 32)
    for act, page, level in acts:
        pages = TINY.pages(level)
        first = page // pages * pages
        at, length = base + first * KIB4, pages * KIB4
        with suppress(FileExistsError):  # no event tells of what was refused
            if act is Act.CONTINUE:
                uffd.continue_(at, length)
                mapping.map(first, pages, level)
            else:
                space.madvise(at, length, MADV_COLLAPSE)
                if space.walk(at) == (level, EntryKind.LEAF):
                    mapping.collapse(first, level)
    assert mapping.leaves == space.leaves(base)
    assert mapping.page_table_bytes <= space.page_table_bytes(base)

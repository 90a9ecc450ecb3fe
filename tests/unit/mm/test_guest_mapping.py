"""The mapping of a guest in post-copy, by page index."""

from __future__ import annotations

import errno

import pytest

from migemu.mm import TINY, EntryKind, FaultOutcome, GatherKind, Level, PageIndex, PieceRun, Span
from migemu.mm.collapse import EHWPOISON
from migemu.mm.guest_mapping import MAY_FAIL, GuestMapping

PAGES = 2 * TINY.pages(Level.PUD)


class Woken(list[tuple[int, PageIndex]]):
    """Who was woken, and where."""

    def __call__(self, vcpu: int, page: PageIndex) -> None:
        self.append((vcpu, page))


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
def mapping(woken: Woken) -> GuestMapping:
    return GuestMapping(TINY, PAGES * TINY.page_bytes, woken)


def test_it_is_ready_and_nothing_is_mapped(mapping: GuestMapping) -> None:
    """Every fault is a minor one, so what is continued is there."""
    assert not any(mapping.is_mapped(page) for page in range(PAGES))
    assert mapping.continue_run(PieceRun(3, 2, Level.PTE)) == (2, 0)
    assert mapping.continue_run(PieceRun(4, 2, Level.PTE)) == (1, 1)
    assert [page for page in range(PAGES) if mapping.is_mapped(page)] == [3, 4, 5]
    assert mapping.walk(3) == (Level.PTE, EntryKind.LEAF)
    assert mapping.table_bytes() > 0
    mapping.validate()


def test_without_hgm_only_whole_hugepages_are_continued(woken: Woken) -> None:
    mapping = GuestMapping(TINY, PAGES * TINY.page_bytes, woken, hgm=False)
    with pytest.raises(OSError, match="whole hugepages"):
        mapping.continue_one(0, Level.PTE)
    assert mapping.continue_one(16, Level.PUD) == TINY.size(Level.PUD)
    assert mapping.leaves()[Level.PUD] == 1


def test_a_fault_is_read_and_woken_by_its_page(mapping: GuestMapping, woken: Woken) -> None:
    assert mapping.fault(7, 17, write=True) is FaultOutcome.WAITING
    assert mapping.fault(3, 2, write=False) is FaultOutcome.WAITING
    assert mapping.asleep() == (3, 7)
    assert [mapping.read(), mapping.read(), mapping.read()] == [(7, 17, True), (3, 2, False), None]
    mapping.continue_one(17, Level.PTE)
    mapping.wake(0, 16)
    assert woken == [(7, 17), (3, 2)]
    assert mapping.fault(7, 17, write=True) is FaultOutcome.MAPPED


def test_a_collapse_tells_its_steps_from_the_beginning_of_the_memory(mapping: GuestMapping) -> None:
    mapping.continue_run(PieceRun(16, 4, Level.PTE))
    done, failure, steps = mapping.collapse([Span(16, Level.PMD)])
    assert (done, failure) == (1, 0)
    assert steps[0].kind is GatherKind.NOTIFIER_START
    assert (steps[0].start, steps[0].end) == (16 * TINY.page_bytes, 20 * TINY.page_bytes)
    assert mapping.collapse([Span(0, Level.PMD)])[2] != steps


def test_the_first_span_that_fails_ends_the_collapse(mapping: GuestMapping) -> None:
    """Its errno shows only when it comes first (SEMANTICS 6.1)."""
    mapping.continue_run(PieceRun(0, 4, Level.PTE))
    mapping.continue_one(16, Level.PUD)
    good, inside_a_leaf = Span(0, Level.PMD), Span(20, Level.PMD)
    assert mapping.collapse([good, inside_a_leaf, good])[:2] == (1, 0)
    assert mapping.collapse([inside_a_leaf, good])[:2] == (0, errno.EEXIST)


def test_what_may_fail_is_what_the_rule_says() -> None:
    """SEMANTICS 2.2. Two lists of it had drifted apart by EHWPOISON."""
    assert set(MAY_FAIL) == {errno.EAGAIN, errno.EBUSY, errno.EEXIST, errno.ENOMEM, EHWPOISON}


def test_a_call_that_is_wrong_is_raised(mapping: GuestMapping) -> None:
    with pytest.raises(OSError, match="no hugetlb VMA") as raised:
        mapping.collapse([Span(PAGES, Level.PMD)])
    assert raised.value.errno == errno.EINVAL
    assert "nothing mapped" in repr(mapping)

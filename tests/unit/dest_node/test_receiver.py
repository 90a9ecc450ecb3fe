"""What the destination does with what arrives: situations by hand, on TINY (a "2M" of 4 pages, a "1G" of 16)."""

from __future__ import annotations

import pytest

from dest_node.core.effects import Ask, Collapse, Continue, Effect, Finish, Wake
from migemu.mm.pages import TINY, Level, PageIndex, PieceRun, Span
from tests.unit.dest_node.receiving import NOW, TOTAL, Dictated, arrive, carry_out, cont, make, well_done

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD


# --- what arrives ---


@pytest.mark.parametrize(
    ("before", "run", "continued"),
    [
        ([], PieceRun(5, 1, PTE), [cont(5)]),
        ([], PieceRun(5, 3, PTE), [cont(5, 3)]),
        ([6], PieceRun(5, 3, PTE), [cont(5), cont(7)]),
        ([5], PieceRun(5, 3, PTE), [cont(6, 2)]),
        ([5, 6, 7], PieceRun(5, 3, PTE), []),
        ([5], PieceRun(5, 2, PTE), [cont(6)]),
        ([6], PieceRun(5, 2, PTE), [cont(5)]),
        ([], PieceRun(4, 1, PMD), [cont(4, 1, PMD)]),
        ([], PieceRun(4, 3, PMD), [cont(4, 3, PMD)]),
        ([3, 8], PieceRun(4, 1, PMD), [cont(4, 1, PMD)]),
        ([5], PieceRun(4, 1, PMD), [cont(4), cont(6, 2)]),
        ([4], PieceRun(4, 1, PMD), [cont(5, 3)]),
        ([4, 5, 6, 7], PieceRun(4, 1, PMD), []),
        ([5], PieceRun(4, 2, PMD), [cont(4), cont(6, 2), cont(8, 1, PMD)]),
        ([9], PieceRun(4, 2, PMD), [cont(4, 1, PMD), cont(8), cont(10, 2)]),
        ([4, 5, 6, 7], PieceRun(4, 2, PMD), [cont(8, 1, PMD)]),
        ([4, 5, 6, 7], PieceRun(0, 3, PMD), [cont(0, 1, PMD), cont(8, 1, PMD)]),
        ([6], PieceRun(0, 4, PMD), [cont(0, 1, PMD), cont(4, 2), cont(7), cont(8, 1, PMD), cont(12, 1, PMD)]),
    ],
)
@pytest.mark.parametrize("zero", [False, True])
def test_what_is_new_is_continued_in_the_size_it_came_in(
    before: list[PageIndex], run: PieceRun, continued: list[Effect], zero: bool
) -> None:
    """A piece of 2M of which something was here already is continued in base pages."""
    receiver = make()
    for page in before:
        arrive(receiver, page)
    effects = receiver.arrived(run, NOW, zero=zero)
    assert list(effects) == continued
    carry_out(receiver, effects)

    statistics = receiver.statistics()
    pages = run.count * TINY.pages(run.level)
    fresh = len(set(range(run.first, run.first + pages)) - set(before))
    assert statistics.pages_received == statistics.pages_mapped == len(before) + fresh
    assert statistics.pages_duplicate == receiver.pages_duplicate == pages - fresh
    assert statistics.pages_zero == (fresh if zero else 0)
    whole = sum(effect.run.count for effect in continued if isinstance(effect, Continue) and effect.run.level is PMD)
    assert statistics.pieces_2m == (0 if zero else whole)
    assert statistics.pieces_4k == len(before) + (0 if zero else fresh - 4 * whole)
    assert statistics.pieces_4k + 4 * statistics.pieces_2m + statistics.pages_zero == statistics.pages_received


def test_received_is_not_mapped() -> None:
    """Bytes are here at once; access comes when the Continue has been carried out."""
    receiver = make()
    effects = receiver.arrived(PieceRun(4, 2, PTE), NOW)
    assert (receiver.received.set_pages, receiver.mapped.set_pages) == (2, 0)
    receiver.done(effects[0], NOW, well_done(effects[0]))
    assert (receiver.received.set_pages, receiver.mapped.set_pages) == (2, 2)


@pytest.mark.parametrize(
    ("page", "end", "until"), [(0, 4, 2), (2, 4, 2), (3, 8, 3), (4, 8, 8), (4, 5, 5), (1, 32, 2), (5, 32, 32)]
)
def test_bytes_may_land_up_to_what_has_been_received(page: PageIndex, end: PageIndex, until: PageIndex) -> None:
    receiver = make()
    receiver.arrived(PieceRun(2, 2, PTE), NOW)
    assert receiver.fresh_until(page, end) == until


def test_what_comes_again_is_counted_and_touches_nothing() -> None:
    """As 4K or 2M, with bytes or as zeros."""
    receiver = make()
    arrive(receiver, 0, 2, PMD)
    before = receiver.statistics()
    assert not receiver.arrived(PieceRun(0, 2, PMD), NOW)
    assert not receiver.arrived(PieceRun(3, 4, PTE), NOW)
    assert not receiver.arrived(PieceRun(3, 1, PTE), NOW, zero=True)
    assert receiver.fresh_until(3, 8) == 3
    assert receiver.statistics() == before._replace(pages_duplicate=13)


# --- faults ---


def test_a_fault_asks_for_its_page_once() -> None:
    receiver = make()
    assert receiver.faulted(9, NOW) == (Ask(PieceRun(9, 1, PTE)),)
    assert receiver.faulted(9, NOW) == ()
    assert receiver.faulted(10, NOW) == (Ask(PieceRun(10, 1, PTE)),)
    statistics = receiver.statistics()
    assert (statistics.faults, statistics.faults_open, statistics.requests) == (3, 3, 2)


def test_a_fault_asks_for_the_whole_2m_once_if_told_to() -> None:
    receiver = make(urgent_piece=PMD)
    assert receiver.faulted(9, NOW) == (Ask(PieceRun(8, 1, PMD)),)
    assert receiver.faulted(11, NOW) == ()
    assert receiver.faulted(12, NOW) == (Ask(PieceRun(12, 1, PMD)),)


def test_a_fault_on_a_page_that_is_mapped_by_now_is_woken() -> None:
    """The event was read after the page came: its sleeper missed the Continue, if it sleeps at all."""
    receiver = make()
    arrive(receiver, 9)
    assert receiver.faulted(9, NOW) == (Wake(9, 1),)
    assert receiver.statistics().faults_open == 0


def test_who_wakes_up_too_late_is_woken_alone_though_faults_ask_for_2m() -> None:
    receiver = make(urgent_piece=PMD)
    arrive(receiver, 4, 4)
    assert receiver.faulted(5, NOW) == (Wake(5, 1),)


def test_a_fault_right_behind_a_run_is_not_over() -> None:
    receiver = make()
    receiver.faulted(4, NOW)
    arrive(receiver, 0, 4)
    assert receiver.statistics().faults_open == 1
    arrive(receiver, 4)
    assert receiver.statistics().faults_open == 0


def test_a_fault_on_a_page_that_is_received_waits_for_its_continue() -> None:
    receiver = make()
    (effect,) = receiver.arrived(PieceRun(9, 1, PTE), NOW)
    assert receiver.faulted(9, NOW) == ()
    assert receiver.statistics().faults_open == 1
    assert receiver.done(effect, NOW, well_done(effect)) == []
    assert receiver.statistics().faults_open == 0


def test_a_continue_wakes_by_itself() -> None:
    """UFFDIO_CONTINUE wakes whoever waits in the range it maps; nothing else is needed."""
    receiver = make()
    for page in (4, 5, 5, 7):
        receiver.faulted(page, NOW)
    assert arrive(receiver, 4, 1, PMD) == [cont(4, 1, PMD)]
    assert receiver.statistics().faults_open == 0


def test_only_the_faults_within_a_run_are_over() -> None:
    receiver = make()
    for page in (3, 4, 7, 8):
        receiver.faulted(page, NOW)
    arrive(receiver, 4, 4)
    assert receiver.statistics().faults_open == 2
    arrive(receiver, 0, 8, PMD)
    assert receiver.statistics().faults_open == 0


def test_a_late_continue_that_found_entries_wakes_who_sleeps_there() -> None:
    """EEXIST maps nothing and wakes nobody; that is a success (SEMANTICS I9), but not for a sleeper."""
    receiver = make()
    (effect,) = receiver.arrived(PieceRun(8, 2, PTE), NOW)
    receiver.faulted(9, NOW)
    assert receiver.done(effect, NOW, 1) == [Wake(8, 2)]
    assert receiver.statistics().pages_mapped == 2


def test_a_late_continue_without_sleepers_wakes_nobody() -> None:
    receiver = make()
    (effect,) = receiver.arrived(PieceRun(8, 2, PTE), NOW)
    receiver.faulted(12, NOW)
    assert receiver.done(effect, NOW, 2) == []


# --- the end ---


@pytest.mark.parametrize("policy", ["never", "eager", "at_end"])
def test_finish_needs_everything_mapped_and_the_end_announced(policy: str) -> None:
    receiver = make(policy)
    assert receiver.ended(NOW) == ()
    for first in range(0, TOTAL - 4, 4):
        assert Finish() not in arrive(receiver, first, 4)
    assert arrive(receiver, TOTAL - 4, 1, PMD)[-1] == Finish()
    assert not receiver.arrived(PieceRun(0, 1, PTE), NOW)


def test_the_end_may_come_last() -> None:
    receiver = make()
    assert arrive(receiver, 0, TOTAL) == [cont(0, TOTAL)]
    assert carry_out(receiver, receiver.ended(NOW)) == [Finish()]
    assert receiver.ended(NOW) == (), "it is finished once"


def test_received_whole_is_not_the_end_before_it_is_mapped() -> None:
    receiver = make()
    effects = receiver.arrived(PieceRun(0, TOTAL, PTE), NOW)
    assert receiver.ended(NOW) == ()
    assert list(receiver.done(effects[0], NOW, well_done(effects[0]))) == [Finish()]


def test_what_the_policy_wants_at_last_comes_before_finish() -> None:
    policy = Dictated()
    policy.on_ended = [Span(0, PUD), Span(16, PUD)]
    receiver = make(policy)
    arrive(receiver, 0, TOTAL)
    assert carry_out(receiver, receiver.ended(NOW)) == [Collapse((Span(0, PUD), Span(16, PUD))), Finish()]
    assert policy.told[-3:] == [("ended",), ("collapsed", 0, PUD), ("collapsed", 16, PUD)]
    assert receiver.is_leaf(Span(16, PUD))


def test_a_collapse_that_leads_to_a_larger_one_is_done_before_finish() -> None:
    receiver = make("eager")
    receiver.ended(NOW)
    arrive(receiver, 0, TOTAL - 1)
    assert arrive(receiver, TOTAL - 1) == [
        cont(TOTAL - 1), Collapse((Span(28, PMD),)), Collapse((Span(16, PUD),)), Finish()
    ]  # fmt: skip


def test_the_overview_shows_what_maps_each_part() -> None:
    receiver = make(policy := Dictated())
    assert receiver.overview(8) == "00000000"
    arrive(receiver, 0, 3)
    arrive(receiver, 4, 1, PMD)
    arrive(receiver, 8, 4)
    assert receiver.overview(8) == "6m800000"
    assert receiver.overview(4) == "7400"
    assert receiver.overview(3) == "700"
    assert receiver.overview(1) == "2"
    policy.on_mapped = [Span(16, PUD)]
    arrive(receiver, 16, 16)
    assert receiver.overview(8) == "6m80gggg"
    assert receiver.overview(100) == "6m80gggg"
    assert receiver.overview(2) == "5g"
    policy.on_mapped = [Span(0, PUD)]
    receiver = make(policy)
    arrive(receiver, 0, 16)
    assert receiver.overview(8) == "gggg0000"


def test_every_event_tells_it_the_time() -> None:
    receiver = make()
    (effect,) = receiver.arrived(PieceRun(0, 1, PTE), 1)
    assert receiver.now_ns == 1
    receiver.done(effect, 2, 0)
    assert receiver.now_ns == 2
    receiver.faulted(5, 3)
    assert receiver.now_ns == 3
    receiver.paused(4)
    assert receiver.now_ns == 4
    receiver.recovered(5)
    assert receiver.now_ns == 5
    receiver.ended(6)
    assert receiver.now_ns == 6
    receiver.timeout(7)
    assert receiver.now_ns == 7


def test_it_says_how_far_it_is() -> None:
    receiver = make()
    receiver.arrived(PieceRun(0, 2, PTE), NOW)
    receiver.faulted(9, NOW)
    assert repr(receiver) == "<Receiver 2/32 received, 0 mapped, 1 pages waited for>"

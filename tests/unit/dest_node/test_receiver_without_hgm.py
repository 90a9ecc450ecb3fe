"""What the destination does where the kernel maps hugetlb pages whole: on TINY (a "2M" of 4 pages, a "1G" of 16)."""

from __future__ import annotations

import pytest

from dest_node.core.effects import Ask, Continue, Effect, Finish, Keep, Wake
from dest_node.core.receiver import Receiver
from migemu.mm.pages import TINY, Level, PageIndex, PieceRun, Span
from migemu.policy.collapse_policy import collapse_policies
from tests.unit.dest_node.receiving import NOW, TOTAL, arrive, carry_out, cont

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD


def make(*, urgent_piece: Level = PTE) -> Receiver:
    eager = collapse_policies.create("eager", TINY)
    return Receiver(TINY, TOTAL, eager, urgent_piece=urgent_piece, hgm=False)


def keep(first: PageIndex, count: int = 1, level: Level = PTE) -> Keep:
    return Keep(PieceRun(first, count, level))


@pytest.mark.parametrize(
    ("before", "run", "effects"),
    [
        ((), PieceRun(0, 15, PTE), [keep(0, 15)]),
        ((), PieceRun(4, 1, PMD), [keep(4, 1, PMD)]),
        ((0, 15), PieceRun(15, 1, PTE), [keep(15), cont(0, 1, PUD)]),
        ((0, 15), PieceRun(12, 1, PMD), [keep(15), cont(0, 1, PUD)]),
        ((0, 15), PieceRun(15, 17, PTE), [keep(15, 17), cont(0, 1, PUD), cont(16, 1, PUD)]),
        ((0, 16), PieceRun(15, 1, PTE), []),
        ((16, 15), PieceRun(0, 4, PMD), [keep(0, 4, PMD), cont(0, 1, PUD)]),
    ],
)
def test_a_hugetlb_page_is_mapped_by_one_continue_when_all_of_it_is_here(
    before: tuple[PageIndex, ...], run: PieceRun, effects: list[Effect]
) -> None:
    receiver = make()
    if before:
        arrive(receiver, *before)
    assert arrive(receiver, *run) == effects


def test_zeros_complete_it_too() -> None:
    receiver = make()
    arrive(receiver, 0, 12)
    assert carry_out(receiver, receiver.arrived(PieceRun(12, 1, PMD), NOW, zero=True)) == [
        keep(12, 1, PMD), cont(0, 1, PUD)
    ]  # fmt: skip


@pytest.mark.parametrize(("piece", "asked"), [(PTE, PieceRun(16, 16, PTE)), (PMD, PieceRun(16, 4, PMD))])
def test_a_fault_asks_for_all_of_its_hugetlb_page_once(piece: Level, asked: PieceRun) -> None:
    """Also where the page that was touched is here already, and nothing else of it."""
    receiver = make(urgent_piece=piece)
    arrive(receiver, 20)
    assert receiver.faulted(20, NOW) == (Ask(asked),)
    assert receiver.faulted(31, NOW) == ()
    arrive(receiver, 16, 16)
    assert receiver.statistics().faults_open == 0


def test_a_fault_while_the_continue_is_under_way_asks_for_nothing() -> None:
    receiver = make()
    effects = receiver.arrived(PieceRun(0, 16, PTE), NOW)
    assert receiver.faulted(3, NOW) == ()
    assert receiver.done(effects[0], NOW) == ()
    assert receiver.done(effects[1], NOW, 1) == [Wake(0, 16)], "it found an entry, and woke nobody"


def test_a_fault_that_is_read_too_late_wakes_whoever_sleeps_on_the_hugetlb_page() -> None:
    receiver = make()
    arrive(receiver, 16, 16)
    assert receiver.faulted(16, NOW) == (Wake(16, 16),)


def test_there_is_nothing_to_collapse_and_the_end_needs_every_hugetlb_page() -> None:
    receiver = make()
    done: list[Effect] = []
    for first in range(0, TOTAL, 8):
        assert Finish() not in done
        done += arrive(receiver, first, 2, PMD)
        if first == 16:
            done += carry_out(receiver, receiver.ended(NOW))
    assert done[-1] == Finish()
    assert [effect for effect in done if isinstance(effect, Continue)] == [cont(0, 1, PUD), cont(16, 1, PUD)]
    statistics = receiver.statistics()
    assert (statistics.collapse_calls, statistics.collapse_refused) == (0, 0)
    assert receiver.is_leaf(Span(16, PUD))
    assert receiver.overview(2) == "gg"

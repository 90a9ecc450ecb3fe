"""What the receiver makes of a policy's proposals, on TINY (a "2M" of 4 pages, a "1G" of 16)."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from dest_node.core.effects import Collapse, Continue, Finish, Refuse, Wake
from dest_node.core.receiver import Receiver
from migemu.mm.pages import TINY, Level, PieceRun, Span
from migemu.policy.collapse_policy import MappingView
from migemu.ports import Collapsed
from tests.unit.dest_node.receiving import NOW, TOTAL, Dictated, arrive, carry_out, cont, make, well_done

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD


def test_a_policy_is_told_of_every_continue_and_every_collapse() -> None:
    receiver = make(policy := Dictated())
    policy.on_mapped = [Span(4, PMD)]
    arrive(receiver, 4, 4)
    arrive(receiver, 8, 1, PMD)
    assert policy.told == [("mapped", 4, 4), ("collapsed", 4, PMD), ("mapped", 8, 4)]


def test_a_collapse_makes_a_leaf() -> None:
    receiver = make(policy := Dictated())
    arrive(receiver, 0, 16)
    assert not receiver.is_leaf(Span(0, PMD))
    assert receiver.is_leaf(Span(0, PTE))
    assert not receiver.is_leaf(Span(16, PTE))
    policy.on_mapped = [Span(0, PMD)]
    arrive(receiver, 16)
    assert receiver.is_leaf(Span(0, PMD))
    assert receiver.is_leaf(Span(3, PTE))
    assert not receiver.is_leaf(Span(4, PMD))
    assert not receiver.is_leaf(Span(0, PUD))
    policy.on_mapped = [Span(0, PUD)]
    arrive(receiver, 17)
    assert receiver.is_leaf(Span(0, PUD))
    assert receiver.is_leaf(Span(12, PMD))
    assert not receiver.is_leaf(Span(16, PUD))


def test_a_piece_of_2m_is_a_leaf_as_it_comes() -> None:
    receiver = make()
    arrive(receiver, 4, 2, PMD)
    assert [receiver.is_leaf(Span(first, PMD)) for first in (0, 4, 8, 12)] == [False, True, True, False]


def test_what_has_not_been_received_is_never_collapsed() -> None:
    """MADV_COLLAPSE fills holes without looking (SEMANTICS 0.2): the guest would see what is not there yet."""
    receiver = make(policy := Dictated())
    arrive(receiver, 0, 4)
    policy.on_mapped = [Span(0, PMD), Span(4, PMD), Span(0, PUD)]
    refused = [Refuse(Span(4, PMD), "not received"), Refuse(Span(0, PUD), "not received")]
    assert arrive(receiver, 5) == [cont(5), *refused, Collapse((Span(0, PMD),))]
    statistics = receiver.statistics()
    assert (statistics.collapse_refused, statistics.collapse_calls, statistics.collapse_to_2m) == (2, 1, 1)
    policy.on_mapped = [Span(8, PMD)]
    assert arrive(receiver, 6) == [cont(6), Refuse(Span(8, PMD), "not received")]
    assert receiver.statistics().collapse_refused == 3


def test_what_is_received_but_not_mapped_is_not_collapsed_either() -> None:
    """An empty slot stays empty under MADV_COLLAPSE (SEMANTICS 0.3): nothing would give access."""
    receiver = make(policy := Dictated())
    arrive(receiver, 1)
    first, second, third = receiver.arrived(PieceRun(0, 2, PMD), NOW)
    policy.on_mapped = [Span(4, PMD)]
    assert receiver.done(first, NOW, well_done(first)) == [Refuse(Span(4, PMD), "nothing mapped")]
    assert receiver.statistics().collapse_refused == 1
    assert [first, second, third] == [cont(0), cont(2, 2), cont(4, 1, PMD)]


def test_what_is_received_and_mapped_in_part_is_collapsed() -> None:
    """The hole has its bytes; its own Continue comes too late then, and is a success."""
    receiver = make(policy := Dictated())
    arrive(receiver, 1)
    first, second = receiver.arrived(PieceRun(0, 4, PTE), NOW)
    policy.on_mapped = [Span(0, PMD)]
    assert receiver.done(first, NOW, well_done(first)) == [Collapse((Span(0, PMD),))]
    assert receiver.done(Collapse((Span(0, PMD),)), NOW, Collapsed(1)) == []
    assert receiver.statistics().pages_mapped == 4
    assert receiver.done(second, NOW, 2) == []
    assert receiver.statistics().collapse_refused == 0


def test_a_leaf_is_not_collapsed_again() -> None:
    """Under a larger leaf the call would fail with EEXIST (SEMANTICS 2.2), on one of its own size do nothing."""
    receiver = make(policy := Dictated())
    policy.on_mapped = [Span(0, PUD)]
    arrive(receiver, 0, 16)
    policy.on_mapped = [Span(0, PUD), Span(4, PMD)]
    refused = [Refuse(span, "a leaf already") for span in (Span(0, PUD), Span(4, PMD))]
    assert arrive(receiver, 16, 1, PMD) == [cont(16, 1, PMD), *refused]
    policy.on_mapped = [Span(16, PMD)]
    assert arrive(receiver, 20) == [cont(20), Refuse(Span(16, PMD), "a leaf already")]
    assert receiver.statistics().collapse_refused == 3


def test_collapses_are_one_call_and_are_counted_by_level() -> None:
    receiver = make(policy := Dictated())
    arrive(receiver, 0, 31)
    policy.on_mapped = [Span(0, PMD), Span(4, PMD), Span(16, PUD)]
    policy.on_collapsed = [Span(8, PMD)]
    assert arrive(receiver, 31) == [
        cont(31), Collapse((Span(0, PMD), Span(4, PMD), Span(16, PUD))), Collapse((Span(8, PMD),))
    ]  # fmt: skip
    statistics = receiver.statistics()
    assert (statistics.collapse_calls, statistics.collapse_to_2m, statistics.collapse_to_1g) == (2, 3, 1)


def test_a_sleeper_on_what_is_collapsed_is_woken() -> None:
    """MADV_COLLAPSE wakes nobody (SEMANTICS 2.1)."""
    receiver = make(policy := Dictated())
    arrive(receiver, 0, 2)
    first, second = receiver.arrived(PieceRun(2, 1, PTE), NOW), receiver.arrived(PieceRun(3, 1, PTE), NOW)
    policy.on_mapped = [Span(0, PMD)]
    (collapse,) = receiver.done(first[0], NOW, 0)
    (effect,) = second
    receiver.faulted(3, NOW)
    assert receiver.done(collapse, NOW, Collapsed(1)) == [Wake(0, 4)]
    assert receiver.statistics().faults_open == 0
    assert receiver.done(effect, NOW, 1) == []


def test_what_a_call_did_not_do_is_done_by_the_next() -> None:
    """process_madvise stops at the first range that fails and tells how far it came (SEMANTICS 6.1)."""
    receiver = make(policy := Dictated())
    arrive(receiver, 0, 15)
    spans = tuple(Span(first, PMD) for first in (0, 4, 8))
    policy.on_mapped = list(spans)
    (effect,) = receiver.arrived(PieceRun(15, 1, PTE), NOW)
    assert receiver.done(effect, NOW, 0) == [Collapse(spans)]
    assert receiver.done(Collapse(spans), NOW, Collapsed(1)) == [Collapse(spans[1:])]
    assert receiver.done(Collapse(spans[1:]), NOW, Collapsed(0, errno.EBUSY)) == [Collapse(spans[2:])]
    assert receiver.done(Collapse(spans[2:]), NOW, Collapsed(1)) == []
    assert [receiver.is_leaf(span) for span in spans] == [True, False, True]
    statistics = receiver.statistics()
    assert (statistics.collapse_to_2m, statistics.collapse_failed, statistics.collapse_refused) == (2, 1, 0)


@pytest.mark.parametrize("again", [Collapsed(1), Collapsed(0, errno.EBUSY)])
def test_a_collapse_that_failed_is_tried_once_more_at_the_end(again: Collapsed) -> None:
    """The migration ends either way: a page table that stays small is slow, not wrong."""
    receiver = make(policy := Dictated())
    policy.on_mapped = [Span(0, PMD)]
    (effect,) = receiver.arrived(PieceRun(0, TOTAL, PTE), NOW)
    (collapse,) = receiver.done(effect, NOW, 0)
    assert receiver.done(collapse, NOW, Collapsed(0, errno.EBUSY)) == []
    assert receiver.ended(NOW) == [collapse]
    assert receiver.done(collapse, NOW, again) == [Finish()]
    assert receiver.is_leaf(Span(0, PMD)) == bool(again.done)
    assert receiver.statistics().collapse_failed == 2 - again.done


def test_a_call_that_would_take_too_long_is_made_in_parts_and_the_shell_gets_its_turn_in_between() -> None:
    """A thread that is in process_madvise says nothing, and its peer may think it dead."""
    policy = Dictated()
    receiver = Receiver(TINY, TOTAL, policy, urgent_piece=PTE, collapse_ns=lambda _leaves, _level: 40, call_ns_max=100)
    spans = [Span(first, PMD) for first in range(0, 20, 4)]
    arrive(receiver, 0, TOTAL)
    policy.on_ended = spans
    assert carry_out(receiver, receiver.ended(NOW)) == [Collapse(tuple(spans[:2]))]
    assert receiver.deadline() == NOW, "at once, but not before the loop has had its turn"
    assert carry_out(receiver, receiver.timeout(NOW)) == [Collapse(tuple(spans[2:4]))]
    assert receiver.deadline() == NOW
    assert carry_out(receiver, receiver.timeout(NOW)) == [Collapse((spans[4],)), Finish()]
    assert receiver.deadline() is None
    assert receiver.statistics().collapse_calls == 3


@pytest.mark.parametrize(
    ("spans", "calls"),
    [
        ([Span(0, PMD), Span(4, PMD)], [2]),
        ([Span(0, PMD), Span(4, PMD), Span(16, PUD)], [3]),
        ([Span(0, PMD), Span(16, PUD), Span(4, PMD)], [3]),
        ([Span(0, PMD), Span(4, PMD), Span(8, PMD), Span(16, PUD)], [3, 1]),
        ([Span(0, PUD), Span(16, PUD)], [1, 1]),
    ],
)
def test_a_call_takes_as_many_spans_as_its_time_allows(spans: list[Span], calls: list[int]) -> None:
    """Of 100 ns; a 2M takes 20, a 1G 60."""
    policy, costs = Dictated(), {PMD: 20, PUD: 60}
    receiver = Receiver(
        TINY, TOTAL, policy, urgent_piece=PTE, collapse_ns=lambda _leaves, level: costs[level], call_ns_max=100
    )
    arrive(receiver, 0, TOTAL)
    policy.on_ended = spans
    made = carry_out(receiver, receiver.ended(NOW))
    while receiver.deadline() is not None:
        made += carry_out(receiver, receiver.timeout(NOW))
    assert [len(effect.spans) for effect in made if isinstance(effect, Collapse)] == calls
    assert made[-1] == Finish()


class PutOff(Dictated):
    """Has something to do at `when`, and then never again."""

    def __init__(self, when: int, span: Span) -> None:
        super().__init__()
        self.when: int | None = when
        self.span = span

    def deadline(self, view: MappingView) -> int | None:
        return self.when

    def due(self, view: MappingView) -> Sequence[Span]:
        self.when, self.told = None, [*self.told, ("due", view.now_ns)]
        return [self.span]


def test_a_policy_with_a_sense_of_time_is_asked_when_its_deadline_has_come() -> None:
    receiver = make(PutOff(5000, Span(0, PMD)))
    arrive(receiver, 0, TOTAL)
    assert receiver.deadline() == 5000
    assert receiver.ended(NOW) == [], "not finished while something is put off"
    assert carry_out(receiver, receiver.timeout(5000)) == [Collapse((Span(0, PMD),)), Finish()]
    assert receiver.deadline() is None


def test_other_policies_have_no_deadline() -> None:
    receiver = make("eager")
    assert receiver.deadline() is None
    assert receiver.timeout(NOW) == ()


def test_a_policy_may_look_at_faults_and_costs() -> None:
    """Faults are counted by 2M; what a collapse takes depends on what is mapped there."""
    asked: list[tuple[dict[Level, int], Level]] = []

    def collapse_ns(leaves: dict[Level, int], level: Level) -> int:
        asked.append((leaves, level))
        return 7

    receiver = Receiver(TINY, TOTAL, Dictated(), urgent_piece=PTE, collapse_ns=collapse_ns)
    for page in (0, 3, 3, 9, 12, 31):
        receiver.faulted(page, NOW)
    counts = [receiver.faults_in(span) for span in (Span(0, PMD), Span(8, PMD), Span(0, PUD), Span(16, PUD))]
    assert counts == [3, 1, 5, 1]
    arrive(receiver, 0, 4)
    arrive(receiver, 4, 3, PMD)
    assert (receiver.collapse_ns(Span(0, PMD)), receiver.collapse_ns(Span(0, PUD))) == (7, 7)
    assert asked == [({PMD: 0, PTE: 4}, PMD), ({PMD: 3, PTE: 4}, PUD)]
    assert make().collapse_ns(Span(0, PMD)) == 0, "without a cost model nothing costs anything"


def test_eager_collapses_2m_by_2m_and_then_1g() -> None:
    receiver = make("eager")
    effects = [effect for page in range(16) for effect in arrive(receiver, page) if not isinstance(effect, Continue)]
    assert effects == [Collapse((Span(first, PMD),)) for first in (0, 4, 8, 12)] + [Collapse((Span(0, PUD),))]
